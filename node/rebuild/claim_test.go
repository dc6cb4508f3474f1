package rebuild

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// cluster returns a store with a cluster whose generations these nodes claimed.
func cluster(t *testing.T, nodes ...string) *storetest.Fake {
	t.Helper()
	w := &world{t: t, store: storetest.NewFake(t)}
	w.put(clusterKey, fmt.Sprintf("{\"cluster\":%q}\n", ofCluster()))
	for i, n := range nodes {
		w.put(generationKey(uint64(i+1)), fmt.Sprintf("{\"cluster\":%q,\"node\":%q}\n", ofCluster(), n))
	}
	return w.store
}

func TestClaim(t *testing.T) {
	other := func(t *testing.T) *storetest.Fake {
		s := cluster(t, "a")
		s.Damage(generationKey(1), func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "07", "0f")) })
		return s
	}
	damaged := func(t *testing.T) *storetest.Fake {
		s := cluster(t, "a")
		s.Damage(clusterKey, func([]byte) []byte { return []byte("{}") })
		return s
	}
	for _, tc := range []struct {
		name  string
		store func(*testing.T) *storetest.Fake
		node  raftmeta.NodeID
		want  uint64
		err   error // of this package, or any when errAny
	}{
		{"the second life", func(t *testing.T) *storetest.Fake { return cluster(t, "a") }, "b", 2, nil},
		{"the third", func(t *testing.T) *storetest.Fake { return cluster(t, "a", "b") }, "c", 3, nil},
		{"cut after the claim", func(t *testing.T) *storetest.Fake { return cluster(t, "a", "b") }, "b", 2, nil},
		{"a store without a claim", func(t *testing.T) *storetest.Fake { return cluster(t) }, "b", 2, nil},
		{"overtaken", func(t *testing.T) *storetest.Fake { return cluster(t, "a", "b", "c") }, "b", 0, ErrSuperseded},
		{"the first life's node", func(t *testing.T) *storetest.Fake { return cluster(t, "a") }, "a", 0, errAny},
		{"the first life's node, overtaken", func(t *testing.T) *storetest.Fake { return cluster(t, "a", "b") }, "a", 0, ErrSuperseded},
		{"an empty store", func(t *testing.T) *storetest.Fake { return storetest.NewFake(t) }, "b", 0, ErrNoCluster},
		{"two clusters", other, "b", 0, errAny},
		{"a damaged claim", damaged, "b", 0, errAny},
		{"nobody", func(t *testing.T) *storetest.Fake { return cluster(t, "a") }, "", 0, errAny},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.store(t)
			before := len(s.Keys())
			got, err := Claim(t.Context(), s, tc.node)
			switch {
			case tc.err == nil:
				if err != nil || got != (Claimed{ofCluster(), tc.want}) {
					t.Fatalf("claimed %+v, %v; want generation %d", got, err, tc.want)
				}
				again, err := Claim(t.Context(), s, tc.node)
				if err != nil || again != got {
					t.Errorf("again: %+v, %v; want the same", again, err)
				}
			case err == nil, !errors.Is(tc.err, errAny) && !errors.Is(err, tc.err):
				t.Errorf("claimed %+v, %v; want %v", got, err, tc.err)
			case len(s.Keys()) != before:
				t.Errorf("a refused claim left %q", s.Keys())
			}
		})
	}
}

var errAny = errors.New("any error") //nolint:gochecknoglobals // a constant

// Keys below generations/ that are no numbers are nobody's claim.
func TestClaimIgnoresForeignKeys(t *testing.T) {
	s := cluster(t, "a")
	w := &world{t: t, store: s}
	for _, key := range []string{"generations/7x", "generations/007", "generations/-1", "generations/2/x", "generations/99999999999999999999", "generations/18446744073709551615"} {
		w.put(key, "nothing")
	}
	if got, err := Claim(t.Context(), s, "b"); err != nil || got.Generation != 2 {
		t.Errorf("claimed %+v, %v; want generation 2", got, err)
	}
}

// A number that somebody has put far ahead is a generation like any other, and
// costs no more requests.
func TestClaimAfterAGap(t *testing.T) {
	s := cluster(t, "a", "b")
	w := &world{t: t, store: s}
	w.put(generationKey(1<<40), fmt.Sprintf("{\"cluster\":%q,\"node\":\"x\"}", ofCluster()))
	before := s.Counts()
	if got, err := Claim(t.Context(), s, "c"); err != nil || got.Generation != 1<<40+1 || s.Counts().Sub(before).Requests() > 10 {
		t.Errorf("claimed %+v, %v; %+v", got, err, s.Counts().Sub(before))
	}
	if _, err := Claim(t.Context(), s, "b"); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the node of a life before: %v", err)
	}
}

// Of two that claim at once, one lives. The other is told, and takes the next
// generation only when it is asked to again.
func TestClaimRace(t *testing.T) {
	s := cluster(t, "a")
	both := make(chan struct{}, 2)
	var gate sync.WaitGroup
	gate.Add(2)
	s.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Kind == store.KindPut {
			select {
			case both <- struct{}{}:
				gate.Done()
				gate.Wait() // both have listed before one creates
			default:
			}
		}
		return storetest.Fault{}
	})
	nodes := []raftmeta.NodeID{"b", "c"}
	got, errs := make([]Claimed, 2), make([]error, 2)
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { got[i], errs[i] = Claim(t.Context(), s, n) })
	}
	wg.Wait()
	won := 0
	for i := range nodes {
		switch {
		case errs[i] == nil && got[i].Generation == 2:
			won++
		case !errors.Is(errs[i], ErrSuperseded):
			t.Errorf("node %s: %+v, %v", nodes[i], got[i], errs[i])
		default:
			if c, err := Claim(t.Context(), s, nodes[i]); err != nil || c.Generation != 3 {
				t.Errorf("node %s asks again: %+v, %v; want generation 3", nodes[i], c, err)
			}
		}
	}
	if won != 1 {
		t.Errorf("%d have claimed generation 2", won)
	}
}

// Each request × {not applied, applied and the answer lost}: repeated, the claim
// is of one generation and leaves one object.
func TestClaimIsCut(t *testing.T) {
	calls := 0
	s := cluster(t, "a")
	s.SetHook(func(context.Context, storetest.Call) storetest.Fault { calls++; return storetest.Fault{} })
	if _, err := Claim(t.Context(), s, "b"); err != nil {
		t.Fatal(err)
	}
	if calls < 5 {
		t.Fatalf("only %d requests", calls)
	}
	for at := 1; at <= calls; at++ {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("request %d, applied %t", at, applied), func(t *testing.T) {
				s, n := cluster(t, "a"), 0
				s.SetHook(func(context.Context, storetest.Call) storetest.Fault {
					if n++; n == at {
						return storetest.Fault{Err: storetest.ErrInjected, Applied: applied}
					}
					return storetest.Fault{}
				})
				if got, err := Claim(t.Context(), s, "b"); err == nil {
					t.Errorf("claimed %+v although a request failed", got)
				}
				got, err := Claim(t.Context(), s, "b")
				if err != nil || got.Generation != 2 || len(s.Keys()) != 3 {
					t.Errorf("again: %+v, %v, objects %q", got, err, s.Keys())
				}
			})
		}
	}
}

// A store that has lost the claim of a generation gives its number a second time.
// What was packed under it is not passed over as this life's own: the life ends,
// and the next one finds it.
func TestAGenerationWhoseClaimIsLostIsNotLivedAgain(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt")
	w.archive()
	w.claim("node-2", nil)
	w.rebuild(nil)
	w.write(1, "b.txt")
	w.archive()
	w.check(w.store.Delete(t.Context(), generationKey(2)))

	w.claim("node-3", nil)
	if w.life.generation != 2 {
		t.Fatalf("generation %d", w.life.generation)
	}
	r, err := New(w.config(nil))
	w.check(err)
	if err := r.Run(t.Context()); !errors.Is(err, ErrSuperseded) || w.life.View().RebuildDone(2) {
		t.Errorf("Run = %v, done %t", err, w.life.View().RebuildDone(2))
	}
	w.claim("node-4", nil)
	w.rebuild(nil)
	w.wantServed("a.txt", 1)
	w.wantServed("b.txt", 1)
}

// A source that knows a newer life ends this one as the store does.
func TestASourceOfANewerLifeEndsTheRebuild(t *testing.T) {
	w := newWorld(t)
	w.claim("node-2", nil)
	r, err := New(w.config(func(c *Config) {
		c.Fence = func(context.Context) error { return fmt.Errorf("files: %w", source.ErrSuperseded) }
	}))
	w.check(err)
	if err := r.Run(t.Context()); !errors.Is(err, ErrSuperseded) || w.life.View().RebuildDone(2) {
		t.Errorf("Run = %v, want ErrSuperseded", err)
	}
}
