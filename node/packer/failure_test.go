package packer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

// Every step of packing fails once, in each way, or the process ends there. A
// fresh packer, or the same one, then finishes: each file is PACKED exactly
// once and readable, and no object is unknown.
func TestFailureTable(t *testing.T) {
	steps := []string{
		"backlog", "grant", "create", "list", "find", "open", "write", "sync",
		"announce", "put", "head", "commit", "acknowledge rows", "acknowledge pack", "release",
	}
	modes := []struct {
		name  string
		fault fault
		crash bool // everything after the fault fails too
		often int  // how often the step fails
	}{
		{"not done, once", notDone, false, 1},
		{"done but errored, once", doneLost, false, 1},
		{"not done, for long", notDone, false, 1000},
		{"done but errored, for long", doneLost, false, 1000},
		{"crash before", notDone, true, 0},
		{"crash after", doneLost, true, 0},
	}
	for _, step := range steps {
		for _, mode := range modes {
			t.Run(step+"/"+mode.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // for the pauses between retries
					w := newWorld(t, "a", "b")
					files := w.add(40, func(i int) int { return i * 50 })
					w.write("of-b", []byte("of b"))
					w.register("b", "of-b", "of-b")
					files["of-b"] = []byte("of b")

					var mu sync.Mutex // guards the three
					hit, left, dead := false, mode.often, false
					w.hook = func(s string) fault {
						mu.Lock()
						defer mu.Unlock()
						switch {
						case dead:
							return notDone
						case s != step:
							return noFault
						case mode.crash:
							hit, dead = true, true
							return mode.fault
						case left > 0:
							hit = true
							left--
							return mode.fault
						}
						return noFault
					}
					p := w.packer(func(c *Config) { c.SmallFile = 1000 })
					res, err := p.Once(t.Context(), true)
					if !hit {
						t.Fatalf("step %s was never taken", step)
					}
					if err == nil && (mode.crash || mode.often > 1) {
						t.Errorf("no error: %+v", res)
					}
					w.hook = nil
					if mode.crash {
						p = w.packer()
					}
					w.drain(p)
					w.check(files)
					for name := range files {
						if row := w.row(name); row.Attempts != 0 {
							t.Errorf("%s was charged %d attempts: %s", name, row.Attempts, row.ErrorText)
						}
					}
				})
			})
		}
	}
}

// A retry of the upload sends the same bytes; the fake store fails the test
// that puts other bytes at one key.
func TestRetriedStepsAreBounded(t *testing.T) {
	for _, step := range []string{"announce", "put", "head", "commit"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				files := w.add(3, small)
				calls := 0
				w.hook = func(s string) fault {
					if s == step {
						calls++
						return doneLost
					}
					return noFault
				}
				p := w.packer(func(c *Config) { c.PutRetries = 2 })
				if _, err := p.Once(t.Context(), true); err == nil {
					t.Error("no error")
				}
				if calls != 3 {
					t.Errorf("%d calls, want one and two retries", calls)
				}
				w.hook = nil
				w.drain(p)
				w.check(files)
			})
		})
	}
}

// The build ends with its context, wherever it is, and leaves nothing behind
// but what a collector knows.
func TestContextEndsTheBuild(t *testing.T) {
	for _, step := range []string{"grant", "list", "find", "open", "write", "announce", "put", "head", "commit"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				files := w.add(100, func(i int) int { return i * 50 })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w.hook = func(s string) fault {
					if s == step {
						cancel()
						return notDone
					}
					return noFault
				}
				p := w.packer(func(c *Config) { c.SmallFile = 1000 })
				if _, err := p.Once(ctx, true); err == nil {
					t.Error("no error")
				}
				w.hook = nil
				w.drain(p)
				w.check(files)
			})
		})
	}
}
