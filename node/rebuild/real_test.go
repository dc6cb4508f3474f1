package rebuild

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// The whole of it on a folder and on Raft as it is, with a lease that is renewed
// and two workers at everything; and begun once more by a second process on the
// same state.
func TestRebuildOnRaftAndAFolder(t *testing.T) {
	w := newWorld(t)
	folder, err := store.OpenFolder(filepath.Join(t.TempDir(), "store"))
	w.check(err)
	t.Cleanup(func() { w.check(folder.Close()) })
	fake := w.store
	w.store = storetest.NewFakeOver(t, folder)
	for _, key := range fake.Keys() {
		w.put(key, string(fake.Bytes(key)))
	}
	w.write(1, names(60, "a")...)
	w.archive()
	w.deleteOriginals()
	w.write(1, names(20, "b")...)
	w.archive()
	want, states := w.snapshot(), w.states()
	base := w.base()
	w.write(1, names(20, "c")...)
	w.archive()
	all, after := w.snapshot(), w.states()
	if len(all) <= len(want) || states["a/file-000.txt"][:7] != "DELETED" {
		t.Fatalf("%d packs, then %d; %s", len(want), len(all), states["a/file-000.txt"])
	}

	c, err := Claim(t.Context(), w.store, "node-2")
	w.check(err)
	dir := t.TempDir()
	for range 2 {
		meta, stop := w.raft(dir, "node-2", c.Generation)
		w.life = &life{node: "node-2", generation: c.Generation}
		k, err := keeper.New(keeper.Config{
			Node: "node-2", Manifest: meta, Commands: meta, Store: w.store, Sources: []source.Source{w.src()}, Dir: t.TempDir(), Now: w.clock.Now,
		})
		w.check(err)
		registry := prometheus.NewRegistry()
		r, err := New(Config{
			Manifest: meta, Commands: meta, Store: w.store, Sources: []source.Source{w.src()}, Source: true,
			Fence:       func(ctx context.Context) error { return w.rows.ClaimCluster(ctx, ofCluster(), c.Generation) },
			Acknowledge: k.AcknowledgeAgain, Quarantined: k.NoteQuarantined, Registerer: registry,
			Base: "dir", OpenBase: func(context.Context, string) (*raftmeta.View, error) { return base, nil },
		})
		w.check(err)
		w.check(r.Run(t.Context()))
		got := snapshotOf(meta.View())
		wantPacks(t, got, all)
		w.wantStates(after)
		wantMetrics(t, registry, "des_rebuild_running 0")
		w.check(k.Close())
		stop()
	}
}

// raft starts a node on dir.
func (w *world) raft(dir string, node raftmeta.NodeID, generation uint64) (m *raftmeta.Meta, stop func()) {
	w.t.Helper()
	m, err := raftmeta.Open(w.t.Context(), raftmeta.Config{
		Dir: dir, Node: node, Cluster: ofCluster(), Generation: generation, LeaseTTL: 300 * time.Millisecond,
	})
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	w.check(m.Ready(ctx))
	return m, func() {
		cancel()
		w.check(<-done)
	}
}

func wantMetrics(t *testing.T, g prometheus.Gatherer, line string) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(line, " ")
	for _, f := range families {
		if f.GetName() == name {
			if got := f.GetMetric()[0].GetGauge().GetValue(); (got == 0) != (value == "0") {
				t.Errorf("%s is %v, want %s", name, got, value)
			}
			return
		}
	}
	t.Errorf("no metric %s", name)
}

// Two members at once: one does it, the other waits and then has nothing to do.
func TestOneNodeRebuilds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.write(1, names(30, "a")...)
		w.archive()
		want := w.snapshot()
		w.claim("node-2", nil)
		var one sync.Once
		var r1, r2 *Rebuild
		var err2 error
		done := make(chan struct{})
		w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
			one.Do(func() { // in the middle of the first one's work
				go func() {
					defer close(done)
					err2 = r2.Run(t.Context())
				}()
				time.Sleep(time.Second)
				if p := r2.Progress(); p.Phase != PhaseWait || p.Problem != "" {
					t.Errorf("the second is at %+v", p)
				}
			})
			return storetest.Fault{}
		})
		var err error
		r1, err = New(w.config(nil))
		w.check(err)
		r2, err = New(w.config(nil))
		w.check(err)
		w.check(r1.Run(t.Context()))
		<-done
		w.check(err2)
		w.wantSnapshot(want)
		if p := r2.Progress(); p.Adopted+p.Read != 0 || p.Phase != PhaseDone {
			t.Errorf("the second did %+v", p)
		}
	})
}

// Packs that can't be acknowledged now hold nothing up: they are live, and left
// to the keeper.
func TestPacksAreLeftToTheKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.write(1, names(30, "a")...)
		w.archive()
		w.claim("node-2", nil)
		p := w.rebuild(func(c *Config) {
			c.Acknowledge = func(context.Context, *raftmeta.Pack) error { return errors.New("the source does not answer") }
		})
		if p.Left == 0 || p.Left != p.ToAcknowledge || p.Acknowledged != 0 {
			t.Errorf("progress %+v", p)
		}
		w.wantServed("a/file-003.txt", 1)
		w.check(w.keeper(nil).Once(t.Context()))
		for id, p := range w.snapshot() {
			if !p.Acknowledged || len(p.Dead) > 0 {
				t.Errorf("pack %s: acknowledged %t, dead %v", id, p.Acknowledged, p.Dead)
			}
		}
	})
}

// A source that refuses all is not asked about each of many packs.
func TestASourceThatRefusesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fill(100, 1)
		w.claim("node-2", nil)
		calls := 0
		p := w.rebuild(func(c *Config) {
			c.Acknowledge = func(context.Context, *raftmeta.Pack) error { calls++; return errors.New("no right to do that") }
		})
		if p.Left != 100 || calls != ackRounds*maxErrors {
			t.Errorf("%d calls for %d packs", calls, p.Left)
		}
	})
}

// The first life has no rebuild, and a recorded one is not done twice.
func TestNothingToRebuild(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt")
	w.archive()
	want := w.snapshot()
	w.store.SetNoList()
	w.rebuild(nil)
	w.wantSnapshot(want)
}

func TestRunEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.claim("node-2", nil)
	ctx, cancel := context.WithCancel(t.Context())
	w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
		cancel()
		return storetest.Fault{Err: storetest.ErrInjected}
	})
	r, err := New(w.config(nil))
	w.check(err)
	if err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want the context's end", err)
	}
}

func TestBadConfig(t *testing.T) {
	w := newWorld(t)
	for name, edit := range map[string]func(*Config){
		"no manifest":         func(c *Config) { c.Manifest = nil },
		"no commands":         func(c *Config) { c.Commands = nil },
		"no store":            func(c *Config) { c.Store = nil },
		"a base without text": func(c *Config) { c.Base = "x" },
		"negative":            func(c *Config) { c.Footers = -1 },
	} {
		if _, err := New(w.config(edit)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
