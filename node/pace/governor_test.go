package pace

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func newGovernor(t *testing.T, cfg GovernorConfig) *Governor {
	t.Helper()
	g, err := NewGovernor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func codes(g *Governor) []Code {
	var cs []Code
	for _, r := range g.Reasons() {
		cs = append(cs, r.Code)
	}
	return cs
}

func TestWhatSlowsDown(t *testing.T) {
	many := func(n int, f func(i int)) {
		for i := range n {
			f(i)
		}
	}
	for _, tt := range []struct {
		name    string
		observe func(g *Governor)
		want    []Code // none: full pace
	}{
		{"nothing", func(*Governor) {}, nil},
		{"fast statements", func(g *Governor) { many(100, func(int) { g.ObserveDatabase(time.Second, false) }) }, nil},
		{"one slow statement", func(g *Governor) { g.ObserveDatabase(time.Minute, false) }, nil},
		{"a twentieth slow", func(g *Governor) {
			many(100, func(i int) { g.ObserveDatabase(time.Duration(i/95)*2*time.Second, false) })
		}, nil},
		{"more than a twentieth slow", func(g *Governor) {
			many(100, func(i int) { g.ObserveDatabase(time.Duration(i/94)*2*time.Second, false) })
		}, []Code{SlowDatabase}},
		{"one lock time-out", func(g *Governor) { g.ObserveDatabase(time.Millisecond, true) }, []Code{SlowLocks}},
		{"a replica that keeps up", func(g *Governor) { g.ObserveLag("a", 30*time.Second) }, nil},
		{"one store error", func(g *Governor) { g.ObserveStore(0, true, true) }, nil},
		{"store errors within bounds", func(g *Governor) { many(100, func(i int) { g.ObserveStore(0, true, i < 5) }) }, nil},
		{"store errors", func(g *Governor) { many(100, func(i int) { g.ObserveStore(0, true, i < 6) }) }, []Code{SlowStoreErrors}},
		{"slow uploads are as long as they are", func(g *Governor) { many(9, func(int) { g.ObserveStore(time.Hour, false, false) }) }, nil},
		{"slow small requests", func(g *Governor) { many(9, func(int) { g.ObserveStore(3*time.Second, true, false) }) }, []Code{SlowStoreLatency}},
		{"all at once", func(g *Governor) {
			many(9, func(int) { g.ObserveStore(3*time.Second, true, true); g.ObserveDatabase(2*time.Second, true) })
			g.ObserveLag("a", time.Minute)
		}, []Code{SlowLocks, SlowDatabase, SlowReplica, SlowStoreErrors, SlowStoreLatency}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGovernor(t, GovernorConfig{})
				tt.observe(g)
				if f := g.Factor(); f != 1 {
					t.Fatalf("factor %v at once, before its interval", f)
				}
				time.Sleep(5 * time.Second)
				want := 1.0
				if len(tt.want) > 0 {
					want = 0.5
				}
				if got := codes(g); g.Factor() != want || !slices.Equal(got, tt.want) {
					t.Errorf("factor %v for %v, want %v for %v", g.Factor(), got, want, tt.want)
				}
				for _, r := range g.Reasons() {
					if r.Text == "" || r.Since.IsZero() {
						t.Errorf("reason without a text or a time: %+v", r)
					}
				}
			})
		})
	}
}

func TestReplicaLagSlowsDownUntilItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(t, GovernorConfig{})
		for range 10 {
			g.ObserveLag("standby", time.Minute)
			time.Sleep(5 * time.Second)
		}
		if f := g.Factor(); f != slowest || !slices.Equal(codes(g), []Code{SlowReplica}) {
			t.Errorf("factor %v for %v after 50 s of lag, want %v", f, codes(g), slowest)
		}
		last := g.Factor()
		for range 64 {
			g.ObserveLag("standby", time.Second)
			time.Sleep(5 * time.Second)
			if f := g.Factor(); f < last {
				t.Fatalf("factor fell from %v to %v while all is well", last, f)
			}
			last = g.Factor()
			if last < 1 && len(g.Reasons()) == 0 {
				t.Fatalf("factor %v without a reason", last)
			}
		}
		if last != 1 || len(g.Reasons()) != 0 {
			t.Errorf("factor %v for %v after recovery", last, codes(g))
		}
	})
}

func TestAReplicaNobodyAsksAnyMoreDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(t, GovernorConfig{})
		g.ObserveLag("gone", time.Hour)
		time.Sleep(2 * evidence)
		g.Factor()
		time.Sleep(10 * time.Minute)
		if g.Factor() != 1 {
			t.Errorf("factor %v", g.Factor())
		}
	})
}

// One burst of trouble is one halving, however long its figures lie about.
func TestObservationsAreUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(t, GovernorConfig{})
		for range 10 {
			g.ObserveDatabase(time.Minute, true)
			g.ObserveStore(time.Minute, true, true)
		}
		time.Sleep(5 * time.Second)
		if g.Factor() != 0.5 {
			t.Fatalf("factor %v", g.Factor())
		}
		time.Sleep(5 * time.Second)
		if want := 0.5 + step; g.Factor() != want {
			t.Errorf("factor %v an interval later, want %v", g.Factor(), want)
		}
	})
}

func TestReplicaLagIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		g := newGovernor(t, GovernorConfig{})
		p := newPacer(t, newMemory(t), Limits{}, func(c *Config) {
			c.Governor = g
			c.Lags = []LagFunc{
				func(context.Context) (map[string]time.Duration, error) { return nil, errors.New("no answer") },
				func(context.Context) (map[string]time.Duration, error) {
					asked++
					return map[string]time.Duration{"standby": time.Minute}, nil
				},
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(30*time.Second + time.Millisecond)
		cancel()
		if err := <-done; err != nil || asked != 4 {
			t.Errorf("asked %d times, %v", asked, err)
		}
		if !slices.Equal(codes(g), []Code{SlowReplica}) || g.Factor() >= 1 {
			t.Errorf("factor %v for %v", g.Factor(), codes(g))
		}
	})
}

// At a quarter of the pace, work takes a quarter of the time, and of n steps at
// once a quarter is made.
func TestTheSlowDownStretchesThePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(t, GovernorConfig{Interval: 1000 * time.Hour})
		g.factor = 0.25
		w := newPacer(t, newMemory(t), Limits{}, func(c *Config) { c.Governor = g }).Work(Pack)
		began := time.Now()
		for range 10 {
			grant, err := w.Take(t.Context(), files(1))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			grant.End(grant.Amount)
		}
		if took := time.Since(began); took != 10*2*time.Second+9*6*time.Second {
			t.Errorf("10 steps of 2 s took %s", took)
		}
		for n, want := range map[int]int{1: 1, 2: 1, 4: 1, 8: 2, 9: 3} {
			if got := w.Parallel(n); got != want {
				t.Errorf("%d of %d at once, want %d", got, n, want)
			}
		}
	})
}

func TestTheSlowDownStretchesTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(t, GovernorConfig{Interval: 1000 * time.Hour})
		g.factor = 0.5
		w := newPacer(t, newMemory(t), Limits{FilesPerSecond: 100}, func(c *Config) { c.Governor = g }).Work(Mark)
		began := time.Now()
		var done int64
		for time.Since(began) < time.Minute {
			done += take(t, w, files(1000)).Files
		}
		if done < 3000 || done > 3200 {
			t.Errorf("%d files in a minute, want about 3000", done)
		}
	})
}

// Whatever is observed, the factor stays within its bounds, falls at most to a
// half in one interval, and has a reason while it is below 1.
func TestTheFactorKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		g, err := NewGovernor(GovernorConfig{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		last := 1.0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			took := time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				g.ObserveDatabase(took, rapid.IntRange(0, 20).Draw(t, "lock") == 0)
			case 1:
				g.ObserveStore(took, rapid.Bool().Draw(t, "small"), rapid.Bool().Draw(t, "failed"))
			case 2:
				g.ObserveLag("r", 20*took)
			}
			f := g.Factor()
			if f < slowest || f > 1 || math.IsNaN(f) || f < last/2 {
				t.Fatalf("factor %v after %v", f, last)
			}
			if (f < 1) != (len(g.Reasons()) > 0) {
				t.Fatalf("factor %v for %v", f, g.Reasons())
			}
			last = f
			now = now.Add(time.Duration(rapid.IntRange(0, 7000).Draw(t, "later")) * time.Millisecond)
		}
	})
}

func TestGovernorsThatMakeNoSense(t *testing.T) {
	for _, cfg := range []GovernorConfig{{Interval: -1}, {DatabaseLatency: -1}, {ReplicaLag: -1}, {StoreLatency: -1}, {StoreErrors: -1}, {StoreErrors: 1}} {
		if _, err := NewGovernor(cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
