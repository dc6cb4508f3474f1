package keeper

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// running runs a keeper until the test is over or stop is called.
func (w *world) running(edit func(*Config)) (stop func()) {
	w.t.Helper()
	k, err := New(w.configWith(edit))
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		w.check(<-done)
		w.check(k.Close())
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) configWith(edit func(*Config)) Config {
	cfg := w.config()
	if edit != nil {
		edit(&cfg)
	}
	return cfg
}

func TestRunDoesWhatTheViewAsksFor(t *testing.T) {
	w := newWorld(t)
	defer w.running(func(c *Config) { c.DeleteGrace, c.Workers = 0, 3 })()
	w.register("sub/a", "sub/b")
	w.pack()
	for {
		changed := w.meta.Changed()
		if w.row("sub/a").State == source.DeletedSource && w.row("sub/b").State == source.DeletedSource {
			break
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("the test's time is over")
		}
	}
	w.wantFile(w.path("sub/a"), "")
}

// Time inside is virtual: Run must come back by itself after a failure, and to
// a pack whose grace passes without any change of the view.
func TestRunComesBackInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock.now = time.Now()
		w.register("sub/a")
		fails := 0
		w.faults.on = func(op string) error {
			if op == "rows.Acknowledge" && fails < 3 {
				fails++
				return errInjected
			}
			return nil
		}
		w.pack()
		began := time.Now()
		stop := w.running(func(c *Config) { c.Now, c.DeleteGrace = time.Now, 10*time.Minute })
		time.Sleep(30 * time.Second) // virtual
		synctest.Wait()
		w.wantRow("sub/a", source.Packed, "")
		if fails != 3 {
			t.Errorf("%d acknowledgements failed, want 3 and a retry of each", fails)
		}
		time.Sleep(9 * time.Minute) // virtual
		synctest.Wait()
		w.wantFile(w.path("sub/a"), "content of sub/a")
		time.Sleep(2 * time.Minute) // virtual
		synctest.Wait()
		w.wantRow("sub/a", source.DeletedSource, "")
		if time.Since(began) > 12*time.Minute {
			t.Errorf("it took %s", time.Since(began))
		}
		stop()
	})
}

func TestFailedTaskWaitsForItsRetry(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	k := w.keeper(nil)
	broken := errors.New("broken")
	key := taskKey{raftmeta.JobVerify, p.ID}
	waits := []time.Duration{}
	for range 12 {
		if err := k.try(t.Context(), task{key, func(context.Context) error { return broken }}); !errors.Is(err, broken) {
			t.Fatalf("try = %v", err)
		}
		waits = append(waits, k.retryAt[key].at.Sub(w.clock.now).Round(time.Second))
		tasks, next := k.find()
		if slices.ContainsFunc(tasks, func(t task) bool { return t.taskKey == key }) {
			t.Error("found again at once")
		}
		if next > k.cfg.Interval {
			t.Errorf("next look in %s", next)
		}
	}
	if waits[0] != time.Second || waits[1] != 2*time.Second || waits[11] != retryMost {
		t.Errorf("waits = %v", waits)
	}
	w.clock.advance(retryMost)
	if tasks, _ := k.find(); !slices.ContainsFunc(tasks, func(t task) bool { return t.taskKey == key }) {
		t.Error("not found when its time had come")
	}
	if err := k.try(t.Context(), task{key, func(context.Context) error { return raftmeta.ErrClash }}); err != nil {
		t.Errorf("another's lease is an error: %v", err)
	}
	if got := testutil.ToFloat64(k.metrics.errors.WithLabelValues("verify")); got != 12 {
		t.Errorf("errors counted: %v, want 12", got)
	}
}

func TestRetrySetByAClockThatWasAheadIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	k := w.keeper(nil)
	key := taskKey{raftmeta.JobVerify, p.ID}
	w.clock.advance(26 * time.Hour)
	broken := errors.New("broken")
	if err := k.try(t.Context(), task{key, func(context.Context) error { return broken }}); !errors.Is(err, broken) {
		t.Fatalf("try = %v", err)
	}
	found := func() bool {
		tasks, _ := k.find()
		return slices.ContainsFunc(tasks, func(t task) bool { return t.taskKey == key })
	}
	if found() {
		t.Error("found again at once")
	}
	w.clock.advance(-26 * time.Hour)
	if !found() {
		t.Error("not found after the clock was put back: it would wait for 26 hours")
	}
}

func TestPackDrainedByAClockThatWasAheadIsLookedAt(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	k := w.keeper(nil)
	w.clock.advance(26 * time.Hour)
	k.setDrained(p)
	due := func() bool {
		s := &survey{k: k, view: w.meta.View(), now: w.clock.now, next: w.clock.now.Add(time.Hour)}
		return s.mayBeDue(p)
	}
	if due() {
		t.Error("due right after it was found to be drained")
	}
	w.clock.advance(-25 * time.Hour)
	if !due() {
		t.Error("not due after the clock was put back")
	}
}

func TestPackWithoutDueRowsIsLeftInPeace(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	k := w.keeper(nil)
	w.check(k.Once(t.Context()))
	w.faults.reset()
	if tasks, _ := k.find(); len(tasks) != 0 || len(w.faults.calls) != 0 {
		t.Errorf("tasks = %v after calls %q, want none", tasks, w.faults.calls)
	}
	w.clock.advance(time.Hour)
	if tasks, _ := k.find(); len(tasks) != 1 || tasks[0].kind != raftmeta.JobDelete {
		t.Errorf("tasks = %v, want another look at the rows", tasks)
	}
	w.check(k.Once(t.Context()))
	if n := count(w.faults.calls, "meta.WithLease"); n != 0 {
		t.Errorf("%d leases taken to find nothing", n)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewPedanticRegistry()
	w.register("a", "b", "c")
	w.pack()
	w.clock.advance(2 * time.Hour)
	w.registerAgainAt("b", time.Second) // its record is dead
	k := w.keeper(func(c *Config) { c.Registerer = reg; c.DeleteGrace = 0 })
	w.check(k.Once(t.Context()))
	for name, want := range map[string]float64{
		"des_keeper_acknowledged_records_total": 2,
		"des_keeper_dead_records_total":         1,
		"des_keeper_verified_packs_total":       1,
		"des_keeper_damaged_packs":              0,
	} {
		if got, err := value(reg, name); got != want || err != nil {
			t.Errorf("%s = %v, %v; want %v", name, got, err, want)
		}
	}
	if got := testutil.ToFloat64(k.metrics.deletions.WithLabelValues(outcomeDeleted)); got != 2 {
		t.Errorf("deletions = %v, want 2", got)
	}
	if problems, err := testutil.GatherAndLint(reg); len(problems) > 0 || err != nil {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if _, err := New(w.configWith(func(c *Config) { c.Registerer = reg })); err == nil {
		t.Error("two keepers registered the same metrics")
	}
}

func value(reg prometheus.Gatherer, name string) (float64, error) {
	families, err := reg.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue(), nil
		}
	}
	return 0, errors.New("no such metric")
}

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no manifest", func(c *Config) { c.Manifest = nil }, "required"},
		{"no dir", func(c *Config) { c.Dir = "" }, "required"},
		{"negative grace", func(c *Config) { c.DeleteGrace = -1 }, "negative"},
		{"negative workers", func(c *Config) { c.Workers = -1 }, "negative"},
		{"dir that is not there", func(c *Config) { c.Dir += "/no" }, "audit log"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := New(w.configWith(tc.edit)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
		})
	}
	d := Config{}.withDefaults()
	if d.ScrubInterval != 30*24*time.Hour || d.ScrubBytesPerDay != 256<<30 || d.Workers != 2 || d.DeleteWorkers != 4 ||
		d.Interval != time.Minute || d.DeleteSource || d.DeleteGrace != 0 || d.Logger == nil || d.Now == nil {
		t.Errorf("defaults = %+v", d)
	}
	if d.Logger.Enabled(t.Context(), slog.LevelError) {
		t.Error("the default logger writes")
	}
}
