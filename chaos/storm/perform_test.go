package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// sleepers makes a world of nodes that do nothing.
func sleepers(t *testing.T, count int) *world {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "sleeper")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := &world{bin: bin, dir: dir, logf: t.Logf, claims: newClaims((count - 1) / 2), wrong: map[string][]string{}, idle: map[string]int{}}
	for i := range count {
		m := &member{name: "n" + string(rune('1'+i))}
		if err := m.replace(bin, dir, "", nil); err != nil {
			t.Fatal(err)
		}
		if err := m.node.Start("start"); err != nil {
			t.Fatal(err)
		}
		w.members = append(w.members, m)
	}
	t.Cleanup(func() {
		for _, m := range w.members {
			if err := m.node.Kill(); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// deeds notes what is put on and taken off, and what is on at once.
type deeds struct {
	mu   sync.Mutex
	on   map[string]int // by the member's name; "all"
	log  []string
	most int
}

// kind makes a kind that notes what it does.
func (d *deeds) kind(name string, l lane, fails error) *kind {
	return &kind{name: name, lane: l, inject: func(_ context.Context, _ *world, _ planned, m *member) (func(context.Context) error, error) {
		who := "all"
		if m != nil {
			who = m.name
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.on[who]++
		d.log = append(d.log, name+" on "+who)
		d.most = max(d.most, len(d.on))
		return func(ctx context.Context) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.on[who]--; d.on[who] == 0 {
				delete(d.on, who)
			}
			d.log = append(d.log, name+" off "+who)
			return ctx.Err()
		}, fails
	}}
}

func TestEveryFaultThatIsPutOnIsTakenOff(t *testing.T) {
	broken := errors.New("half of it is on")
	for _, tc := range []struct {
		name   string
		faults func(d *deeds) []planned
		ends   time.Duration // of the run; 0: after all of it
		log    []string      // sorted
		wrong  int
		idle   int
	}{
		{"one", func(d *deeds) []planned {
			return []planned{{long: time.Millisecond, kind: d.kind("a", nodeLane, nil), pick: anyone, node: 1}}
		}, 0, []string{"a off n2", "a on n2"}, 0, 0},
		{"one that fails half-way", func(d *deeds) []planned {
			return []planned{{long: time.Hour, kind: d.kind("a", nodeLane, broken), pick: anyone, node: 2}}
		}, 0, []string{"a off n3", "a on n3"}, 1, 0},
		{"three for one node", func(d *deeds) []planned {
			k := d.kind("a", killLane, nil)
			f := planned{long: 100 * time.Millisecond, kind: k, pick: anyone, node: 4}
			return []planned{f, f, f}
		}, 0, nil, 0, 0},
		{"for nobody, beside all", func(d *deeds) []planned {
			return []planned{
				{long: 50 * time.Millisecond, kind: d.kind("a", wholeLane, nil)},
				{long: 50 * time.Millisecond, kind: d.kind("b", storeLane, nil), pick: nobody},
			}
		}, 0, []string{"a off all", "a on all", "b off all", "b on all"}, 0, 0},
		{"the run is told to end", func(d *deeds) []planned {
			return []planned{
				{long: time.Hour, kind: d.kind("a", nodeLane, nil), pick: anyone},
				{at: time.Hour, long: time.Hour, kind: d.kind("b", nodeLane, nil), pick: anyone},
			}
		}, 100 * time.Millisecond, []string{"a off n1", "a on n1"}, 0, 0},
		{"one that hits nothing, until the run ends", func(d *deeds) []planned {
			k := d.kind("a", nodeLane, nil)
			k.met = func(*world, *member) func() bool { return func() bool { return false } }
			return []planned{{long: time.Millisecond, kind: k, pick: anyone}}
		}, 200 * time.Millisecond, []string{"a off n1", "a on n1"}, 0, 1},
		{"one that hits something late", func(d *deeds) []planned {
			k := d.kind("a", nodeLane, nil)
			k.met = func(*world, *member) func() bool {
				calls := 0
				return func() bool { calls++; return calls > 2 }
			}
			return []planned{{long: time.Millisecond, kind: k, pick: anyone}}
		}, 0, []string{"a off n1", "a on n1"}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := sleepers(t, 5)
			d := &deeds{on: map[string]int{}}
			s := &storm{world: w, timeline: newTimeline(), deadline: time.Now().Add(time.Minute)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.ends > 0 {
				ctx, cancel = context.WithTimeout(ctx, tc.ends)
				defer cancel()
			}
			s.perform(ctx, tc.faults(d))
			if got := w.idle["a"]; got != tc.idle {
				t.Errorf("%d faults hit nothing, want %d", got, tc.idle)
			}
			if len(d.on) > 0 {
				t.Errorf("still on: %v", d.on)
			}
			if d.most > 2 {
				t.Errorf("%d nodes in trouble at once", d.most)
			}
			slices.Sort(d.log)
			if tc.log != nil && !slices.Equal(d.log, tc.log) || len(d.log)%2 != 0 {
				t.Errorf("done: %v", d.log)
			}
			if got := len(w.wrong[badFault]); got != tc.wrong {
				t.Errorf("%d went wrong: %v", got, w.wrong)
			}
			for _, span := range s.timeline.spans {
				if span.to.IsZero() {
					t.Errorf("%s has no end in the timeline", span.kind)
				}
			}
		})
	}
}

// TestWhoEndsByItselfIsToldOf: a node that ends while nothing is done to it is
// wrong, and one whose disk fails it is not.
func TestWhoEndsByItselfIsToldOf(t *testing.T) {
	w := sleepers(t, 3)
	s := &storm{world: w, timeline: newTimeline(), deadline: time.Now().Add(100 * time.Millisecond)} // nothing gets ready here
	ended := w.members[1]
	if err := ended.node.Kill(); err != nil {
		t.Fatal(err)
	}
	task := rig.Begin(t.Context(), s.tend)
	err := rig.Await(t.Context(), "it is told of", 10*time.Second, func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.wrong[byItself]) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	task.End()
	if w.claims.taken[ended] {
		t.Error("it is still claimed")
	}
	if !ended.node.Running() { // for the end of the test
		if err := ended.node.Start("start"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.back(t.Context(), w.members[0]); err != nil || len(w.wrong[byItself]) != 1 {
		t.Errorf("a node that runs: %v, %v", err, w.wrong)
	}
}
