package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// slowOwner makes every nth question to a take slow, and every other question
// quick.
func slowOwner(n *node, nth int64, quick, slow time.Duration) {
	var asked atomic.Int64
	n.asking(func(ctx context.Context, to ring.NodeID, _ *transport.Request) error {
		took := quick
		if to == "a" && asked.Add(1)%nth == 0 {
			took = slow
		}
		select {
		case <-time.After(took):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// names packs n files and returns their names.
func (w *world) names(n int) []string {
	var names []string
	var versions []version
	for i := range n {
		names = append(names, fmt.Sprintf("file-%04d", i))
		versions = append(versions, version{name: names[i], seq: 1, content: names[i]})
	}
	w.add(versions...)
	return names
}

// latencies reads each name once and returns how long that took, sorted.
func (n *node) latencies(t *testing.T, names []string) []time.Duration {
	var took []time.Duration
	for _, name := range names {
		began := time.Now()
		n.wantRead(t, name, name)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

// With an owner that is slow for 3 of 100 questions, asking the next one too
// brings the 99th percentile from the slow time to a little more than the usual
// one, for less than 5 % more questions.
func TestHedgingHelpsWhenAnOwnerIsSlow(t *testing.T) {
	p99 := map[bool]time.Duration{}
	for _, hedged := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b", "c")
			names := w.names(1000)
			c := w.start("c", func(c *Config) { c.NoHedge = !hedged })
			slowOwner(c, 33, 2*time.Millisecond, 200*time.Millisecond)
			took := c.latencies(t, names)
			p99[hedged] = took[990]
			won := testutil.ToFloat64(c.router.metrics.hedgesWon)
			lost := testutil.ToFloat64(c.router.metrics.hedgesLost)
			t.Logf("hedged %v: p50 %v, p95 %v, p99 %v, max %v; %v hedges won, %v lost", hedged, took[500], took[950], took[990], took[999], won, lost)
			switch {
			case !hedged && won+lost != 0:
				t.Errorf("%v hedges though they are switched off", won+lost)
			case hedged && (won < 25 || won+lost > 50):
				t.Errorf("%v hedges won and %v lost in 1000 hops, want about 30 in all", won, lost)
			}
			if got := routed(c, routeHedge); hedged && got != int(won) {
				t.Errorf("%d reads went by hedge, %v hedges won", got, won)
			}
		})
	}
	if p99[false] < 200*time.Millisecond || p99[true] > 20*time.Millisecond {
		t.Errorf("the 99th percentile is %v without hedging and %v with it", p99[false], p99[true])
	}
}

// The share of hedges is kept whatever happens: who is slow more often than the
// share allows is waited for.
func TestHedgesStayWithinTheirShare(t *testing.T) {
	for _, test := range []struct {
		name        string
		percent     int
		nth         int64 // question that is slow
		least, most int64 // hedges in 1000 hops
	}{
		{"slower than usual more often than is allowed", 1, 33, 8, 10},
		{"slow as a rule", 0, 1, 0, 50},
		{"slow every other time", 0, 2, 0, 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b", "c")
				names := w.names(1000)
				c := w.start("c", func(c *Config) { c.HedgePercent = test.percent })
				slowOwner(c, test.nth, time.Millisecond, 100*time.Millisecond)
				c.latencies(t, names)
				if got := w.nodes["b"].asked.Load(); got < test.least || got > test.most {
					t.Errorf("%d of 1000 reads asked the next owner, want %d to %d", got, test.least, test.most)
				}
			})
		})
	}
}

// What is not used any more is ended before the read goes on.
func TestTheSlowerQuestionIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.names(1)
		c := w.start("c", func(c *Config) { c.HedgePercent = 100 })
		ended := make(chan error, 2)
		c.asking(func(ctx context.Context, to ring.NodeID, _ *transport.Request) error {
			if to == "b" {
				return nil
			}
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return ctx.Err()
		})
		began := time.Now()
		c.wantRead(t, "file-0000", "file-0000")
		if took := time.Since(began); took != 10*time.Millisecond {
			t.Errorf("the read took %v, want the hedge's delay of 10 ms", took)
		}
		select {
		case err := <-ended:
			// Not counted against the peer: see transport's breaker.
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the owner's question ended with %v", err)
			}
		default:
			t.Error("the owner's question goes on")
		}
	})
}

// The owner answers after all: nobody waits for the hedge.
func TestHedgeThatIsSlowerIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.names(1)
		c := w.start("c", func(c *Config) { c.HedgePercent = 100 })
		c.asking(func(ctx context.Context, to ring.NodeID, _ *transport.Request) error {
			took := 20 * time.Millisecond
			if to == "b" {
				took = time.Hour
			}
			select {
			case <-time.After(took):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		began := time.Now()
		c.wantRead(t, "file-0000", "file-0000")
		if took := time.Since(began); took != 20*time.Millisecond {
			t.Errorf("the read took %v, the owner 20 ms", took)
		}
		c.wantRoutes(t, map[string]int{"owner": 1})
	})
}

func TestHedgeThatFailsChangesNothing(t *testing.T) {
	for _, test := range []struct {
		name  string
		owner time.Duration // until its answer
		route route
	}{
		{"the owner answers in the end", 100 * time.Millisecond, routeOwner},
		{"nor does the owner answer", time.Hour, routeFallback},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b", "c")
				w.names(1)
				c := w.start("c", func(c *Config) { c.HedgePercent = 100 })
				c.asking(func(ctx context.Context, to ring.NodeID, _ *transport.Request) error {
					if to == "b" {
						return &transport.RemoteError{Status: transport.StatusDeclined}
					}
					select {
					case <-time.After(test.owner):
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})
				began := time.Now()
				c.wantRead(t, "file-0000", "file-0000")
				if took := time.Since(began); took > 250*time.Millisecond {
					t.Errorf("the read took %v, more than a hop's time limit", took)
				}
				if routed(c, test.route) != 1 || testutil.ToFloat64(c.router.metrics.hedgesLost) != 1 {
					t.Errorf("not routed by %s, or the hedge is not counted", routeNames[test.route])
				}
			})
		})
	}
}

// Both may be late: the read has lost one hop's time limit and no more.
func TestHedgedHopIsNoLongerThanAHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.names(1)
		c := w.start("c", func(c *Config) { c.HedgePercent = 100 })
		c.asking(func(ctx context.Context, _ ring.NodeID, _ *transport.Request) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		began := time.Now()
		c.wantRead(t, "file-0000", "file-0000")
		if took := time.Since(began); took != 250*time.Millisecond {
			t.Errorf("the read took %v, want a hop's time limit", took)
		}
		if c.fallbacks(reasonLate) != 1 {
			t.Error("not counted as late")
		}
	})
}

// A node that would be the next to ask reads itself instead.
func TestNextOwnerDoesNotAskItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		names := w.names(50)
		b := w.start("b", func(c *Config) { c.HedgePercent = 100 })
		slowOwner(b, 1, 0, 50*time.Millisecond)
		b.latencies(t, names)
		if got := w.nodes["a"].asked.Load(); got != 50 {
			t.Errorf("the owner was asked %d times", got)
		}
		b.wantRoutes(t, map[string]int{"owner": 50})
	})
}

func TestUsualWaitFollowsRecentHops(t *testing.T) {
	var w waits
	if w.usual() != 0 {
		t.Error("something is usual before anything happened")
	}
	for i := range 100 {
		w.note(time.Duration(i+1)*time.Millisecond, nil)
		w.note(time.Hour, transport.ErrUnreachable) // says nothing
	}
	if got := w.usual(); got != 92*time.Millisecond { // of the first 96: three blocks of 32
		t.Errorf("95 of 100 take %v", got)
	}
	for range 2 * waitsKept {
		w.note(time.Millisecond, nil)
	}
	if got := w.usual(); got != time.Millisecond {
		t.Errorf("old hops still count: %v", got)
	}
}
