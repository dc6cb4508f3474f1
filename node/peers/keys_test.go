package peers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/ring/gossip"
)

// rotate turns the key once and returns the phases that it went through.
func (n *node) rotate() (phases []string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	err := n.RotateGossipKey(ctx, func(r Rotation) {
		if r.Done == r.Of {
			phases = append(phases, r.Phase)
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return phases
}

// TestGossipKeyRotation: all members use the new key and forget the old one; who
// was away fetches it over mutual TLS when it returns, where it was or elsewhere.
func TestGossipKeyRotation(t *testing.T) {
	for _, moves := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			nodes := w.clusterOf(4)
			w.awaitVoters(3, nodes...)
			old := nodes[0].ring.Keys()[0]
			away := nodes[3]
			away.stop()
			w.awaitAll(nodes[:3]...)
			if phases := nodes[1].rotate(); !slices.Equal(phases, []string{"adding", "using", "removing"}) {
				t.Errorf("phases %v", phases)
			}
			nodes[2].rotate() // one more, so that it has missed two keys
			for _, n := range nodes[:3] {
				keys := n.ring.Keys()
				if len(keys) != 1 || keys[0] == old || keys[0] != nodes[0].ring.Keys()[0] {
					t.Errorf("%s: %d keys", n.id, len(keys))
				}
			}
			if moves {
				away.ip = w.host(90)
			}
			away.start()
			w.awaitAllWithin(time.Minute, nodes...)
			if got := away.ring.Keys(); len(got) != 1 || got[0] != nodes[0].ring.Keys()[0] {
				t.Error("who was away has other keys")
			}
		})
	}
}

// TestRotationIsCut: the next one goes on where it was, whoever calls it.
func TestRotationIsCut(t *testing.T) {
	for _, in := range []string{"adding", "using", "removing"} {
		t.Run(in, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				nodes := w.clusterOf(3)
				w.awaitVoters(3, nodes...)
				ctx, cut := context.WithCancel(t.Context())
				err := nodes[0].RotateGossipKey(ctx, func(r Rotation) {
					if r.Phase == in {
						cut()
					}
				})
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				version := nodes[0].keys.Load().Version
				nodes[0].stop() // the leader, as like as not
				w.awaitAll(nodes[1:]...)
				nodes[1].rotate()
				keys := nodes[2].keys.Load()
				if keys.Phase != phaseSteady || len(nodes[2].ring.Keys()) != 1 {
					t.Errorf("after it: %s, %d keys", keys.Phase, len(nodes[2].ring.Keys()))
				}
				// Three versions a rotation: the one under way was gone on with.
				if want := uint64(4); version < want && keys.Version != want {
					t.Errorf("version %d, it was cut at %d", keys.Version, version)
				}
				nodes[0].start()
				w.awaitAll(nodes...)
			})
		})
	}
}

// raced is a state machine that somebody else is faster at, once.
type raced struct {
	Meta
	faster func()
}

func (r *raced) Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error {
	if f := r.faster; f != nil && key == keysSetting {
		r.faster = nil
		f()
	}
	return r.Meta.Set(ctx, key, value, ifModIndex)
}

// TestTwoRotationsAtOnce: the one that comes second is told of the first; called
// again it goes on with it, and both end in one key.
func TestTwoRotationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		first, second := nodes[1], nodes[2]
		second.stop()
		race := &raced{}
		second.between = func(m Meta) Meta { race.Meta = m; return race }
		second.start()
		w.awaitAll(nodes...)
		ctx, cut := context.WithCancel(t.Context())
		race.faster = func() {
			err := first.RotateGossipKey(ctx, func(Rotation) { cut() })
			wantErr(t, err, context.Canceled)
		}
		wantErr(t, second.RotateGossipKey(t.Context(), func(Rotation) {}), errRotation)
		second.rotate()
		if keys := first.keys.Load(); keys.Version != 4 || keys.Phase != phaseSteady {
			t.Errorf("version %d, %s: a second rotation was begun", keys.Version, keys.Phase)
		}
		w.awaitAll(nodes...)
	})
}

// TestKeysWithoutAQuorum: who was away and finds no leader gets the keys from
// whoever is there.
func TestKeysWithoutAQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(4)
		w.awaitVoters(3, nodes...)
		var away, stays *node
		voters := map[string]bool{}
		for _, s := range nodes[0].meta.Servers() {
			voters[string(s.ID)] = s.Voter
		}
		for _, n := range nodes {
			if voters[n.id] {
				stays = n
			} else {
				away = n
			}
		}
		away.stop()
		stays.rotate()
		for _, n := range nodes {
			if n != stays && n != away {
				n.stop()
			}
		}
		away.start()
		w.awaitWithin("the two see each other", time.Minute, func() bool {
			return len(away.View().Members()) == 2 && len(stays.View().Members()) == 2
		})
		if away.meta.Leader() != "" || away.ring.Keys()[0] != stays.ring.Keys()[0] {
			t.Errorf("leader %q, keys differ: %t", away.meta.Leader(), away.ring.Keys()[0] != stays.ring.Keys()[0])
		}
	})
}

// TestKeysOnADiskThatRefuses: a node whose disk does not take the new keys uses
// them all the same, and after a restart gets them from the others.
func TestKeysOnADiskThatRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		sick := nodes[2]
		path := filepath.Join(sick.peersDir(), keysFile)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// A folder that is not empty can't be replaced by a file.
		if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "in the way"), 0o700)); err != nil {
			t.Fatal(err)
		}
		nodes[0].rotate()
		w.awaitAll(nodes...)
		if sick.ring.Keys()[0] != nodes[0].ring.Keys()[0] || !sick.logs.has("gossip keys are not kept") {
			t.Error("it has other keys, or does not tell")
		}
		sick.stop()
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, before, 0o600)); err != nil {
			t.Fatal(err)
		}
		sick.start()
		w.awaitAllWithin(time.Minute, nodes...)
	})
}

// TestTurn: from any keys to any, a ring never forgets the key it is to use.
func TestTurn(t *testing.T) {
	keys := []gossip.Key{{1}, {2}, {3}, {4}}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) []gossip.Key {
			perm := rapid.Permutation(keys).Draw(t, name)
			return perm[:rapid.IntRange(1, 2).Draw(t, name+" count")]
		}
		from, to := draw("from"), draw("to")
		r, err := gossip.NewKeyRing(from[0], from[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if err := turn(r, to); err != nil {
			t.Fatal(err)
		}
		if got := r.Keys(); !slices.Equal(got, to) {
			t.Fatalf("%v to %v: %v", from, to, got)
		}
	})
}
