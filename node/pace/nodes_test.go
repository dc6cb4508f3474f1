package pace

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// takeFor takes steps of that many files until the time is over, and returns
// how many were granted.
func takeFor(t *testing.T, w *Work, step int64, d time.Duration) (done int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for {
		g, err := w.Take(ctx, files(step))
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return done
		}
		done += g.Files
		g.End(g.Amount)
	}
}

func TestARateIsTheClusters(t *testing.T) {
	for _, tt := range []struct {
		name   string
		nodes  int
		limits Limits
		kind   Kind
		marks  func() int
		want   int64 // files in a minute, of all nodes
	}{
		{"one node", 1, Limits{FilesPerSecond: 90}, Mark, nil, 5400},
		{"three nodes", 3, Limits{FilesPerSecond: 90}, Mark, nil, 5400},
		{"less than a file a second for each", 3, Limits{FilesPerSecond: 1}, Mark, nil, 60},
		{"packing", 3, Limits{FilesPerSecond: 90, For: []Kind{Pack}}, Pack, func() int { return 1 }, 5400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t)
				var done atomic.Int64
				var all sync.WaitGroup
				for range tt.nodes {
					w := newPacer(t, m, tt.limits, func(c *Config) {
						c.Nodes, c.Markers = func() int { return tt.nodes }, tt.marks
					}).Work(tt.kind)
					all.Go(func() { done.Add(takeFor(t, w, 10, time.Minute)) })
				}
				all.Wait()
				// A bucket begins full: a second's worth for the cluster, a file at least for each.
				burst := max(tt.limits.FilesPerSecond, int64(tt.nodes))
				if got := done.Load(); got < tt.want-burst || got > tt.want+2*burst {
					t.Errorf("%d files in a minute, want about %d", got, tt.want)
				}
			})
		})
	}
}

func TestOnlyNodesThatMarkShareTheRateOfMarking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPacer(t, newMemory(t), Limits{FilesPerSecond: 90}, func(c *Config) {
			c.Nodes, c.Markers = func() int { return 3 }, func() int { return 1 }
		}).Work(Mark)
		if got := takeFor(t, w, 10, time.Minute); got < 5400 || got > 5600 {
			t.Errorf("%d files in a minute, want 5400", got)
		}
	})
}

func TestTheShareFollowsTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nodes atomic.Int64
		w := newPacer(t, newMemory(t), Limits{FilesPerSecond: 90}, func(c *Config) {
			c.Nodes = func() int { return int(nodes.Load()) }
		}).Work(Mark)
		for _, tt := range []struct{ nodes, want int64 }{{3, 1800}, {1, 5400}, {2, 2700}, {0, 5400}} {
			nodes.Store(tt.nodes)
			if got := takeFor(t, w, 10, time.Minute); got < tt.want-90 || got > tt.want+100 {
				t.Errorf("%d nodes: %d files in a minute, want %d", tt.nodes, got, tt.want)
			}
		}
	})
}

// Three nodes draw on one day's budget at once. Each reserves under the index
// that it saw, so that what one was given no other is.
func TestThreeNodesNeverExceedADaysBudget(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		want   Want
		most   Amount
	}{
		{"files", Limits{FilesPerDay: 10_007}, Want{Amount: Amount{Files: 100}}, Amount{Files: 10_007}},
		{"bytes", Limits{BytesPerDay: 100_003}, Want{Amount: Amount{10, 1000}, First: 1}, Amount{Bytes: 100_003}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t)
				m.delay = time.Millisecond
				var mu sync.Mutex
				var done Amount
				var all sync.WaitGroup
				for range 3 {
					w := newPacer(t, m, tt.limits).Work(Mark)
					all.Go(func() {
						for {
							g, err := w.Take(t.Context(), tt.want)
							if AsHeld(err) != nil {
								return
							}
							if err != nil {
								t.Error(err)
								return
							}
							g.End(g.Amount)
							mu.Lock()
							done = done.plus(g.Amount)
							mu.Unlock()
						}
					})
				}
				all.Wait()
				if tt.most.Files > 0 && done.Files != tt.most.Files || tt.most.Bytes > 0 && (done.Bytes > tt.most.Bytes || done.Bytes < tt.most.Bytes-3) {
					t.Errorf("%+v were granted, the day has %+v", done, tt.most)
				}
				if m.conflicts == 0 {
					t.Error("no node was ever faster than another: the test tries nothing")
				}
			})
		})
	}
}
