package keeper

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
)

// fakePace grants what it has, and counts it.
type fakePace struct {
	held *pace.Held
	left int64 // files; then it holds
	step int64
	took int
}

func (f *fakePace) Held() error {
	if f.held == nil {
		return nil
	}
	return f.held
}

func (f *fakePace) Take(_ context.Context, want pace.Want) (*pace.Grant, error) {
	if f.left == 0 {
		return nil, &pace.Held{Kind: pace.Delete, Cause: pace.CauseDay}
	}
	f.took++
	n := min(want.Files, f.left, f.step)
	f.left -= n
	return &pace.Grant{Amount: pace.Amount{Files: n, Bytes: want.Bytes}}, nil
}

func TestPausedDeletionTouchesNoOriginal(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	until := w.clock.Now().Add(20 * time.Second)
	f := &fakePace{held: &pace.Held{Kind: pace.Delete, Cause: pace.CausePause, Text: "audit", Until: until}}
	k := w.keeper(func(c *Config) { c.Pace = f })
	w.check(k.Once(t.Context()))
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	if slices.ContainsFunc(w.faults.calls, func(op string) bool { return op == "files.Hide" || op == "rows.Claim" }) {
		t.Error("the original was touched")
	}
	if tasks, next := k.find(); len(tasks) > 0 || next > 20*time.Second {
		t.Errorf("%d tasks, the next look in %s; the pause ends in 20 s", len(tasks), next)
	}
	if k.Problem() != nil {
		t.Errorf("a pause is a problem: %v", k.Problem())
	}
	f.held, f.left, f.step = nil, 9, 9
	w.check(k.Once(t.Context()))
	w.wantFile(w.path("a"), "")
	w.wantRow("a", source.DeletedSource, "")
}

func TestWhatStandsHalfDoneIsSettledDuringAPause(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	crash := errors.New("the process died")
	w.faults.on = func(op string) error {
		if op == "files.Remove" {
			return crash
		}
		return nil
	}
	if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, crash) {
		t.Fatalf("error %v", err)
	}
	w.faults.on = nil
	if len(w.hidden()) != 1 {
		t.Fatalf("hidden: %q; want the original in quarantine", w.hidden())
	}
	w.once(func(c *Config) {
		c.Pace = &fakePace{held: &pace.Held{Kind: pace.Delete, Cause: pace.CausePause, Text: "x"}}
	})
	if h := w.hidden(); len(h) > 0 {
		t.Errorf("left in quarantine during a pause: %q", h)
	}
}

func TestDeletionStopsAtItsBudgetAndGoesOn(t *testing.T) {
	w := newWorld(t)
	names := []string{"a", "b", "c", "d", "e"}
	w.archived(names...)
	f := &fakePace{left: 3, step: 2}
	k := w.keeper(func(c *Config) { c.Pace = f })
	w.check(k.Once(t.Context()))
	deleted := 0
	for _, n := range names {
		if w.row(n).State == source.DeletedSource {
			deleted++
		}
	}
	if deleted != 3 || f.took != 2 || k.Problem() != nil {
		t.Errorf("%d originals deleted in %d steps, problem %v; want 3 in 2", deleted, f.took, k.Problem())
	}
	f.left = 9
	w.check(k.Once(t.Context()))
	for _, n := range names {
		w.wantRow(n, source.DeletedSource, "")
	}
}
