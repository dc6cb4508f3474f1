package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// running is a Backup that runs in a bubble, on virtual time.
type running struct {
	*Backup
	w    *world
	reg  *prometheus.Registry
	stop func()
}

// run runs a Backup on the world's state until the test ends or stop is called.
func (w *world) run(change func(*Config)) *running {
	w.t.Helper()
	r := &running{w: w, reg: prometheus.NewRegistry()}
	cfg := w.config()
	cfg.Now, cfg.Registerer = time.Now, r.reg
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.Backup, err = New(cfg); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
	}
	return r
}

// after lets time pass, and returns how many backups are listed then.
func (r *running) after(d time.Duration) int {
	time.Sleep(d) // virtual
	synctest.Wait()
	r.w.now = time.Now()
	return len(r.w.list().Backups)
}

func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.now, w.keep, w.days = time.Now(), 100, -1
		test(t, w)
	})
}

func TestBackupsFollowChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.run(nil)
		defer r.stop()
		if n := r.after(3 * time.Hour); n != 0 {
			t.Errorf("%d backups of nothing", n)
		}
		w.add()
		if n := r.after(50 * time.Minute); n != 0 {
			t.Errorf("%d backups of what is young", n)
		}
		if n := r.after(15 * time.Minute); n != 1 {
			t.Errorf("%d backups an hour after the first pack", n)
		}
		if n := r.after(5 * time.Hour); n != 1 {
			t.Errorf("%d backups of the same state", n)
		}
		w.add()
		if n := r.after(2 * time.Minute); n != 2 {
			t.Errorf("%d backups after a change", n)
		}
		w.add()
		if n := r.after(30 * time.Minute); n != 2 {
			t.Errorf("%d backups within an hour", n)
		}
		if n := r.after(40 * time.Minute); n != 3 {
			t.Errorf("%d backups after two changes", n)
		}
		if n := testutil.ToFloat64(r.metrics.tries.WithLabelValues(resultOK)); n != 3 {
			t.Errorf("%v are counted", n)
		}
		newest := w.list().Backups[0]
		if got := testutil.ToFloat64(r.metrics.last); got < float64(newest.At.Unix()) || got > float64(newest.At.Unix()+1) {
			t.Errorf("the last one was at %v, and %v is told", newest.At, got)
		}
		if got := testutil.ToFloat64(r.metrics.bytes); got != float64(newest.Bytes) || got < 100 {
			t.Errorf("it has %d bytes, and %v are told", newest.Bytes, got)
		}
		if newest.Packs != 3 || newest.At.After(time.Now()) {
			t.Errorf("listed as %+v", newest)
		}
	})
}

// TestClockInTheFuturePutsNothingOff: somebody's clock was a year ahead once.
func TestClockInTheFuturePutsNothingOff(t *testing.T) {
	w := newWorld(t)
	w.now = w.now.AddDate(1, 0, 0)
	ahead := w.made()
	w.now = w.now.AddDate(-1, 0, 0)
	w.add()
	e, err := w.try()
	if err != nil || e.Key == "" || w.list().Backups[0].Key != e.Key || !slices.Contains(keys(w.list().Backups), ahead.Key) {
		t.Errorf("made %+v, %v; listed %v", e, err, w.list().Backups)
	}
}

// TestSteadyStateListsNothing: nor does a first life ever.
func TestSteadyStateListsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.SetNoList()
		r := w.run(nil)
		defer r.stop()
		for range 5 {
			w.add()
			r.after(time.Hour)
		}
		before := w.store.Counts()
		w.add()
		r.after(time.Hour)
		if n := w.store.Counts().Sub(before); n != (store.Counts{Put: 1, Head: 1, BytesPut: n.BytesPut}) {
			t.Errorf("one backup made the requests %+v", n)
		}
	})
}

func TestSwitchedOffMakesOnlyWhatIsAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.run(func(c *Config) { c.Every = -1 })
		defer r.stop()
		w.add()
		if n := r.after(100 * time.Hour); n != 0 {
			t.Errorf("%d backups", n)
		}
		for i := range 2 { // also when nothing has changed
			e, err := r.Now(t.Context())
			if err != nil || e.Index == 0 || e.Packs != 1 || len(w.list().Backups) != i+1 {
				t.Errorf("made %+v, %v", e, err)
			}
		}
	})
}

func TestManyNodesMakeOneBackup(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add()
		var all []*running
		for i := range 4 {
			meta, err := raftmeta.OpenLocal(raftmeta.LocalConfig{
				Node: raftmeta.NodeID(fmt.Sprint("node-", i)), Cluster: desformat.ClusterID{1}, Journal: w.journal, Generation: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			w.unseen(func() {
				err = w.meta.PutMember(t.Context(), raftmeta.Member{ID: raftmeta.NodeID(fmt.Sprint("node-", i))})
			})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w.run(func(c *Config) { c.Manifest = &following{meta} }))
		}
		for _, r := range all {
			defer r.stop()
		}
		time.Sleep(2 * time.Hour) // virtual
		synctest.Wait()
		if err := w.meta.CatchUp(); err != nil {
			t.Fatal(err)
		}
		if got := w.list().Backups; len(got) != 1 || len(w.inStore()) != 1 {
			t.Errorf("listed %v, in the store %q", keys(got), w.inStore())
		}
		tries, last := 0.0, 0
		for _, r := range all {
			tries += testutil.ToFloat64(r.metrics.tries.WithLabelValues(resultOK))
			if testutil.ToFloat64(r.metrics.last) > 0 {
				last++
			}
			if n := testutil.ToFloat64(r.metrics.tries.WithLabelValues(resultFailed)); n != 0 || r.Problem() != nil {
				t.Errorf("failed %v times: %v", n, r.Problem())
			}
		}
		if tries != 1 || last != len(all) {
			t.Errorf("%v were made, %d of %d nodes know of it", tries, last, len(all))
		}
	})
}

// following is a Local whose view is that of the cluster, as a Meta's is.
type following struct{ *raftmeta.Local }

func (f *following) View() *raftmeta.View {
	_ = f.CatchUp()
	return f.Local.View()
}

func TestStoreThatFailsIsToldAndTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var tries atomic.Int64
		var down atomic.Bool
		down.Store(true)
		w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
			if down.Load() && strings.HasPrefix(c.Key, Prefix) {
				tries.Add(1)
				return storetest.Fault{Err: errInjected}
			}
			return storetest.Fault{}
		})
		w.add()
		r := w.run(nil)
		defer r.stop()
		if n := r.after(7 * time.Hour); n != 0 {
			t.Errorf("%d backups in no store", n)
		}
		if n := tries.Load(); n < 5 || n > 20 {
			t.Errorf("tried %d times in 6 hours", n)
		}
		if err := r.Problem(); !errors.Is(err, errInjected) {
			t.Errorf("the problem is %v", err)
		}
		if n := testutil.ToFloat64(r.metrics.tries.WithLabelValues(resultFailed)); n < 5 {
			t.Errorf("%v failures are counted", n)
		}
		down.Store(false)
		if n := r.after(2 * time.Hour); n != 1 {
			t.Errorf("%d backups when it is back", n)
		}
		if err := r.Problem(); err != nil {
			t.Errorf("still %v", err)
		}
	})
}

// TestProblemEndsWithABackupOfAnotherNode, which the store does let write.
func TestProblemEndsWithABackupOfAnotherNode(t *testing.T) {
	w := newWorld(t)
	w.add()
	w.now = w.now.Add(time.Hour)
	w.start()
	w.at, w.fault = 3, notApplied
	b := w.backup()
	if _, err := b.due(t.Context()); !errors.Is(err, errInjected) || !errors.Is(b.Problem(), errInjected) {
		t.Fatalf("failed with %v, told is %v", err, b.Problem())
	}
	w.now = w.now.Add(time.Minute)
	if _, err := w.try(); err != nil || b.Problem() != nil {
		t.Errorf("%v, still %v", err, b.Problem())
	}
}

func TestNowWaitsForTheOneUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.add()
		b := w.backup()
		err := w.meta.WithLease(t.Context(), raftmeta.Job{Kind: raftmeta.JobBackup}, func(ctx context.Context, _ raftmeta.Lease) error {
			short, cancel := context.WithTimeout(t.Context(), 9*busyPause/2)
			defer cancel()
			if _, err := b.Now(short); !errors.Is(err, raftmeta.ErrClash) {
				t.Errorf("got %v", err)
			}
			go func() {
				if e, err := b.Now(t.Context()); err != nil || e.Key == "" {
					t.Errorf("made %+v, %v", e, err)
				}
			}()
			time.Sleep(10 * time.Second) // virtual
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * busyPause) // virtual
		synctest.Wait()
		if n := len(w.list().Backups); n != 1 {
			t.Errorf("%d backups", n)
		}
	})
}

// TestStateThatIsRebuiltIsNotBackedUp: it would be the newest, and know less.
func TestStateThatIsRebuiltIsNotBackedUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		old := w.add()
		w.generation, w.journal = 2, &raftmeta.Journal{}
		w.start()
		r := w.run(nil)
		defer r.stop()
		w.unseen(func() {
			if err := w.meta.Adopt(t.Context(), raftmeta.Adoption{Packs: []raftmeta.Pack{old}}); err != nil {
				t.Fatal(err)
			}
		})
		if n := r.after(10 * time.Hour); n != 0 {
			t.Errorf("%d backups", n)
		}
		if _, err := r.Now(t.Context()); !errors.Is(err, raftmeta.ErrRebuilding) {
			t.Errorf("asked for: %v", err)
		}
		w.unseen(func() {
			if err := w.meta.RecordRebuild(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
		if n := r.after(2 * time.Minute); n != 1 { // its packs are old
			t.Errorf("%d backups of the rebuilt state", n)
		}
	})
}

// TestNewLifeKeepsTheBackupsBefore: they are listed once, whatever the state
// that was restored says, and go when their time comes.
func TestNewLifeKeepsTheBackupsBefore(t *testing.T) {
	w := newWorld(t)
	w.keep = 4
	for range 3 {
		w.made()
	}
	before := keys(w.list().Backups)
	stale, _, _ := w.meta.View().Setting(listSetting)
	w.nextLife()
	w.unseen(func() {
		if err := w.meta.Set(t.Context(), listSetting, stale, 0); err != nil { // as a restore may take it over
			t.Fatal(err)
		}
	})
	if all, err := List(w.meta.View()); err != nil || len(all) != 0 {
		t.Errorf("another life's list is believed: %v, %v", all, err)
	}
	first := w.made()
	if first.Generation != 2 {
		t.Errorf("made %+v", first)
	}
	all, err := List(w.meta.View())
	if err != nil || len(all) != 4 || all[0].Key != first.Key || !slices.Equal(keys(all[1:]), before) {
		t.Errorf("listed %v, %v", keys(all), err)
	}
	w.store.SetNoList()
	w.made()
	if got := keys(w.list().Backups); len(got) != 4 || slices.Contains(got, before[0]) || !slices.Contains(got, before[2]) {
		t.Errorf("after the next one: %q", got)
	}
}

func TestConfigIsHeldAgainstItsRules(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Config){
		"no manifest":   func(c *Config) { c.Manifest = nil },
		"no store":      func(c *Config) { c.Store = nil },
		"negative keep": func(c *Config) { c.Keep = -1 },
	} {
		cfg := w.config()
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	got := Config{}.withDefaults()
	if got.Every != time.Hour || got.Keep != 48 || got.KeepDays != 30 {
		t.Errorf("the zero Config is %+v", got)
	}
	if err := got.Current(t.Context()); err != nil {
		t.Error(err)
	}
	reg := prometheus.NewRegistry()
	for i := range 2 {
		cfg := w.config()
		cfg.Registerer = reg
		if _, err := New(cfg); (err == nil) != (i == 0) {
			t.Errorf("registered %d times: %v", i+1, err)
		}
	}
}
