package retriever

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// wantDamage fails the test unless reading name says that p has that damage.
func wantDamage(tb testing.TB, r *Retriever, name string, p *raftmeta.Pack, want Damage) {
	tb.Helper()
	got, err := read(tb.Context(), r, name)
	checkCorrupt(tb, err, p, fmt.Sprintf("%s reads as %.40q", name, got))
	var corrupt *CorruptError
	if errors.As(err, &corrupt); corrupt.Damage != want {
		tb.Fatalf("%s is %s, want %s: %v", name, corrupt.Damage, want, err)
	}
}

// saying is a hook that answers every request of a kind with an error.
func saying(kind store.Kind, err error) func(context.Context, storetest.Call) storetest.Fault {
	return func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Kind == kind {
			return storetest.Fault{Err: err}
		}
		return storetest.Fault{}
	}
}

// Each kind of damage is named, counted under its name and told of, and costs
// one request more at most.
func TestDamageIsNamedCountedAndTold(t *testing.T) {
	replaced := fmt.Errorf("%w: %w", store.ErrReplaced, store.ErrNotFound)
	for _, c := range []struct {
		name   string
		damage func(w *world, p *raftmeta.Pack)
		want   Damage
		first  int64 // requests of the first read, the index being in memory
		later  int64 // of each one after it
	}{
		{"a flipped byte", func(w *world, p *raftmeta.Pack) {
			at := places(w.tb, w, p)["b"]
			w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { b[at.Offset+at.Length-1] ^= 1; return b })
		}, Flipped, 1, 1},
		{"an object cut short", func(w *world, p *raftmeta.Pack) {
			at := places(w.tb, w, p)["b"]
			w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { return b[:at.Offset+at.Length-1] })
		}, Truncated, 2, 0},
		{"an empty object", func(w *world, p *raftmeta.Pack) {
			w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return nil })
		}, Truncated, 2, 0},
		{"another version", func(w *world, _ *raftmeta.Pack) { w.store.SetHook(saying(store.KindGet, replaced)) }, Replaced, 1, 0},
		{"another pack's bytes", func(w *world, p *raftmeta.Pack) {
			other, _ := buildPack(w.tb, desformat.WriterConfig{Pack: desformat.PackID{99}, Created: epoch, Token: token(1)},
				[]version{{name: "a", seq: 8, content: "A"}, {name: "b", seq: 8, content: "B"}})
			w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return other })
		}, Replaced, 1, 1},
		{"no object", func(w *world, p *raftmeta.Pack) { w.store.Lose(p.Copies[0].Key) }, Missing, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "b", seq: 1, content: "B"})
			w.manifest.set(p)
			var told []desformat.PackID
			r := w.retriever(func(c *Config) { c.Damaged = func(id desformat.PackID) { told = append(told, id) } })
			prewarm(t, r)
			c.damage(w, p)
			for i, want := range []int64{c.first, c.later, c.later} {
				before := w.store.Counts()
				wantDamage(t, r, "b", p, c.want)
				if n := w.store.Counts().Sub(before).Requests(); n != want {
					t.Errorf("read %d: %d requests, want %d", i, n, want)
				}
			}
			if got, all := corrupted(r, c.want), corrupted(r); got != 3 || all != 3 {
				t.Errorf("%d counted as %s, %d in all; want 3 reads", got, c.want, all)
			}
			if len(told) != 3 || told[0] != p.ID {
				t.Errorf("told of %v, want %s each time", told, p.ID)
			}
		})
	}
}

// What is left of a truncated object is served, also while it is known to be
// truncated.
func TestNeighboursOfDamageAreServed(t *testing.T) {
	w, p, files := damaged(t)
	at := places(t, w, p)
	last := "plain"
	for name := range files {
		if at[name].Offset > at[last].Offset {
			last = name
		}
	}
	r := w.retriever(func(c *Config) { c.DataBytes = 1 }) // so that each read needs the store
	prewarm(t, r)
	w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { return b[:at[last].Offset+at[last].Length-1] })
	for range 2 {
		wantDamage(t, r, last, p, Truncated)
		for name, content := range files {
			if name != last {
				wantRead(t, r, name, content)
			}
		}
	}
}

// Without proof, a read that fails says nothing about the pack.
func TestWithoutProofDamageIsUnavailable(t *testing.T) {
	for _, c := range []struct {
		name string
		hook func(context.Context, storetest.Call) storetest.Fault
		cut  bool // the object really is too short
	}{
		{"missing, without a quorum", saying(store.KindGet, store.ErrNotFound), false},
		{"beyond the end, the HEAD fails", saying(store.KindHead, errInjected), true},
		{"beyond the end, the HEAD runs into its time limit", saying(store.KindHead, context.DeadlineExceeded), true},
		{"beyond the end, the HEAD finds nothing, without a quorum", saying(store.KindHead, store.ErrNotFound), true},
		{"beyond the end, the HEAD says that all is there", saying(store.KindGet, store.ErrBeyond), false},
		{"an error", saying(store.KindGet, errInjected), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.pack(version{name: "a", seq: 1, content: "A"})
			w.manifest.set(p)
			w.manifest.confirming(withoutQuorum)
			r := w.retriever(func(c *Config) {
				c.Damaged = func(id desformat.PackID) { t.Errorf("pack %s is said to be damaged", id) }
			})
			prewarm(t, r)
			whole := w.store.Bytes(p.Copies[0].Key)
			if c.cut {
				w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { return b[:90] })
			}
			w.store.SetHook(c.hook)
			for range 2 {
				wantError(t, r, "a", ErrUnavailable)
			}
			w.store.SetHook(nil)
			w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return whole })
			wantRead(t, r, "a", "A") // nothing of it is remembered
			if n := corrupted(r); n != 0 {
				t.Errorf("%d counted as corrupt", n)
			}
		})
	}
}

// Proof is forgotten after a minute, and when the manifest's entry changes.
func TestProofIsForgotten(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(w *world, p *raftmeta.Pack)
	}{
		{"missing", func(w *world, p *raftmeta.Pack) { w.store.SetHook(saying(store.KindGet, store.ErrNotFound)) }},
		{"truncated", func(w *world, p *raftmeta.Pack) {
			w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return nil })
		}},
	} {
		for _, how := range []string{"in time", "by another entry"} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				w := newWorld(t)
				p := w.pack(version{name: "a", seq: 1, content: "A"})
				w.manifest.set(p)
				now := epoch
				r := w.retriever(func(c *Config) { c.Now = func() time.Time { return now } })
				prewarm(t, r)
				whole := w.store.Bytes(p.Copies[0].Key)
				c.damage(w, p)
				wantError(t, r, "a", desformat.ErrCorrupt)
				w.store.SetHook(nil)
				w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return whole })
				now = now.Add(provenFor - 1)
				if n := w.gets(func() { wantError(t, r, "a", desformat.ErrCorrupt) }); n != 0 {
					t.Errorf("%d requests while it is known", n)
				}
				if how == "in time" {
					now = now.Add(1)
				} else {
					verified := *p
					verified.ModIndex++
					w.manifest.set(&verified)
				}
				wantRead(t, r, "a", "A")
			})
		}
	}
}

// What is remembered is bounded.
func TestProofsAreBounded(t *testing.T) {
	var k proofs
	for i := range 3*maxProven + 1 {
		k.note(&raftmeta.Pack{ID: desformat.PackID{byte(i), byte(i >> 8), byte(i >> 16)}}, Missing, 0, epoch)
		if len(k.packs) > maxProven {
			t.Fatalf("%d packs remembered", len(k.packs))
		}
	}
}

// Readers at once of a truncated object make one HEAD.
func TestReadersOfATruncatedObjectAskOnceForItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "b", seq: 1, content: "B"})
		w.manifest.set(p)
		r := w.retriever()
		prewarm(t, r)
		w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return nil })
		release := make(chan struct{})
		w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
			if c.Kind == store.KindHead {
				<-release
			}
			return storetest.Fault{}
		})
		before := w.store.Counts()
		var readers sync.WaitGroup
		for i := range 20 {
			readers.Go(func() {
				if _, err := r.Open(t.Context(), []string{"a", "b"}[i%2], Query{}); !errors.Is(err, desformat.ErrCorrupt) {
					t.Errorf("%v, want corrupt", err)
				}
			})
		}
		synctest.Wait()
		close(release)
		readers.Wait()
		if spent := w.store.Counts().Sub(before); spent.Head != 1 || spent.Get != 2 {
			t.Errorf("%d HEADs and %d GETs for 20 reads of two records", spent.Head, spent.Get)
		}
	})
}

// A pack that was merged away is not damaged, even when the store says that its
// object is gone.
func TestAPackThatLeftTheManifestIsNotDamaged(t *testing.T) {
	w := newWorld(t)
	v := version{name: "a", seq: 1, content: "A"}
	input, merged := w.pack(v), w.pack(v)
	w.manifest.set(input)
	r := w.retriever(func(c *Config) {
		c.Damaged = func(id desformat.PackID) { t.Errorf("pack %s is said to be damaged", id) }
	})
	w.store.Lose(input.Copies[0].Key)
	w.manifest.confirming(func(context.Context) (fakeView, error) { return fakeView{merged}, nil })
	wantRead(t, r, "a", "A")

	// Nor is one whose object was found under another version since.
	moved := *merged
	moved.Copies = []raftmeta.Copy{{Key: merged.Copies[0].Key, Version: "old"}}
	w.manifest.set(&moved)
	r = w.retriever()
	wantRead(t, r, "a", "A")
}
