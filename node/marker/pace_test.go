package marker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
)

// fakePace grants step for step, and no more.
type fakePace struct {
	held  *pace.Held
	grant pace.Amount // of each step
	wants []pace.Want
	block chan struct{} // when set, Take waits for it

	mu      sync.Mutex // guards waiting
	waiting bool
}

func (f *fakePace) Held() error {
	if f.held == nil {
		return nil
	}
	return f.held
}

func (f *fakePace) Waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

func (f *fakePace) wait(v bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = v
}

func (f *fakePace) Take(_ context.Context, want pace.Want) (*pace.Grant, error) {
	f.wants = append(f.wants, want)
	if f.block != nil {
		f.wait(true)
		<-f.block
		f.wait(false)
	}
	if f.held != nil {
		return nil, f.held
	}
	return &pace.Grant{Amount: pace.Amount{Files: min(want.Files, f.grant.Files), Bytes: min(want.Bytes, max(want.First, f.grant.Bytes))}}, nil
}

// batches notes what is marked at once.
type batches struct {
	source.Table
	marked []pace.Amount
	looks  int
}

func (b *batches) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	b.looks++
	return b.Table.Eligible(ctx, before, after, limit)
}

func (b *batches) Mark(ctx context.Context, rows []source.Row, m source.Marking) ([]bool, error) {
	var a pace.Amount
	for _, r := range rows {
		a.Files++
		a.Bytes += r.Size
	}
	b.marked = append(b.marked, a)
	return b.Table.Mark(ctx, rows, m)
}

func TestMarksNoMoreThanIsGranted(t *testing.T) {
	table := &batches{Table: openTable(t, "s0")}
	for i := range 10 {
		register(t, table, file(fmt.Sprint("f", i), int64(10*i)))
	}
	f := &fakePace{grant: pace.Amount{Files: 3, Bytes: 65}}
	m := newMarker(t, Config{Pace: f}, table)
	once(t, m, 10, 0)
	if f.wants[0] != (pace.Want{Amount: pace.Amount{Files: 10, Bytes: 450}}) {
		t.Errorf("asked for %+v at first", f.wants[0])
	}
	for _, a := range table.marked {
		if a.Files > 3 || a.Bytes > 65 && a.Files > 1 {
			t.Errorf("marked %+v at once", a)
		}
	}
}

func TestHeldMarkingIsNoErrorAndIsTold(t *testing.T) {
	table := &batches{Table: openTable(t, "s0")}
	register(t, table, file("a", 1))
	f := &fakePace{held: &pace.Held{Kind: pace.Mark, Cause: pace.CausePause, Text: "backup"}, grant: pace.Amount{Files: 9, Bytes: 9}}
	m := newMarker(t, Config{Pace: f}, table, openTable(t, "s1"))
	once(t, m, 0, 0)
	if h := pace.AsHeld(m.Problem()); h != f.held || strings.Contains(m.Problem().Error(), "\n") {
		t.Errorf("problem %v", m.Problem())
	}
	if rested, full, trickles := m.Rested(); !rested || full || trickles || table.looks > 0 {
		t.Errorf("rested %v, full %v, trickles %v after %d looks", rested, full, trickles, table.looks)
	}
	f.held = nil
	once(t, m, 1, 0)
	if m.Problem() != nil {
		t.Errorf("problem %v", m.Problem())
	}
}

func TestARoundThatWaitsForItsPaceTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &memoryTable{active: []source.Row{{ID: "1", Name: "a", Path: "a", ModTime: epoch, State: source.Active}}}
		f := &fakePace{block: make(chan struct{}), grant: pace.Amount{Files: 9}}
		m := newMarker(t, Config{Pace: f}, table)
		m.Kick()
		done := make(chan error, 1)
		go func() {
			_, _, err := m.Once(t.Context())
			done <- err
		}()
		synctest.Wait()
		if rested, _, trickles := m.Rested(); !rested || !trickles {
			t.Errorf("rested %v, trickles %v while it waits", rested, trickles)
		}
		close(f.block)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if rested, _, trickles := m.Rested(); !rested || trickles {
			t.Errorf("rested %v, trickles %v at the end", rested, trickles)
		}
	})
}

func TestGeneratedNamesAreTimeOrderedAndKept(t *testing.T) {
	table := openTable(t, "s0")
	m := newMarker(t, Config{})
	m.cfg.Sources = func() []source.Source { return []source.Source{{Name: "s0", Rows: table, Generated: true}} }
	var names []string
	marked := func() source.Row {
		t.Helper()
		rows, err := table.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var newest source.Row
		for _, r := range rows {
			if r.DesName > newest.DesName {
				newest = r
			}
		}
		return newest
	}
	for i := range 20 {
		// Names that nobody could archive, and that are not unique.
		register(t, table, source.File{Name: fmt.Sprintf(`a\%d`, i), Path: fmt.Sprint("/data/", i), Size: 1, ModTime: epoch})
		once(t, m, 1, 0)
		names = append(names, marked().DesName)
	}
	form := regexp.MustCompile(`^[0-9a-f]{12}7[0-9a-f]{19}$`)
	for _, n := range names {
		if !form.MatchString(n) || desformat.CheckName(n) != nil {
			t.Errorf("name %q", n)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("not rising: %q", names)
	}
	// A row that was archived before keeps its name.
	r := &round{Marker: m, source: m.cfg.Sources()[0], stuck: func(string) bool { return false }}
	kept := &memoryTable{}
	r.source.Rows = kept
	row := source.Row{ID: "1", Name: "x", DesName: names[0], Path: "/p", ModTime: epoch, Version: 1}
	if err := r.page(t.Context(), []source.Row{row}); err != nil || len(kept.marks) != 1 || kept.named[0] != names[0] {
		t.Errorf("marked as %q, %v; want the name it had, %q", kept.named, err, names[0])
	}
}

func TestGeneratedNamesThatCannotBeMadeStopTheRound(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("a", 1))
	broken := errors.New("no randomness")
	m := newMarker(t, Config{NewName: func() (string, error) { return "", broken }})
	m.cfg.Sources = func() []source.Source { return []source.Source{{Name: "s0", Rows: table, Generated: true}} }
	if _, _, err := m.Once(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if got := states(t, table); got[source.Active] != 1 {
		t.Errorf("states %v", got)
	}
}

func TestRowsOfAMissingRootKeepNoOthersWaiting(t *testing.T) {
	table := openTable(t, "s0")
	for i := range 5 {
		register(t, table, source.File{Name: fmt.Sprint("lost", i), Path: fmt.Sprint("/lost/", i), Size: 1, ModTime: epoch})
	}
	stuck := false
	m := newMarker(t, Config{BacklogRows: 5, Stuck: func(string) (int64, int64, func(string) bool) {
		if !stuck {
			return 0, 0, func(string) bool { return false }
		}
		return 5, 5, func(path string) bool { return strings.HasPrefix(path, "/lost/") }
	}}, table)
	once(t, m, 5, 0)
	for i := range 3 {
		register(t, table, file(fmt.Sprint("good", i), 1))
		register(t, table, source.File{Name: fmt.Sprint("more", i), Path: fmt.Sprint("/lost/more", i), Size: 1, ModTime: epoch})
	}
	once(t, m, 0, 0) // at its limit
	stuck = true
	once(t, m, 3, 0)
	if got := states(t, table); got[source.Active] != 3 || got[source.Marked] != 8 {
		t.Errorf("states %v; want those below the missing root left ACTIVE", got)
	}
	stuck = false
	m.cfg.BacklogRows = 100
	once(t, m, 3, 0)
}

// endless lists rows below a missing root without end.
type endless struct {
	memoryTable
	after []string
}

func (e *endless) Eligible(_ context.Context, _ time.Time, after string, limit int) ([]source.Row, error) {
	if limit > 1 {
		e.after = append(e.after, after)
	}
	first := 0
	if after != "" {
		if _, err := fmt.Sscan(after, &first); err != nil {
			return nil, err
		}
	}
	rows := make([]source.Row, 0, limit)
	for i := range limit {
		rows = append(rows, source.Row{ID: fmt.Sprint(first + i + 1), Path: "/lost/x", Name: "x", ModTime: epoch})
	}
	return rows, nil
}

func TestARoundPassesOverABoundedNumberOfRows(t *testing.T) {
	table := &endless{}
	m := newMarker(t, Config{Stuck: func(string) (int64, int64, func(string) bool) { return 0, 0, func(string) bool { return true } }}, table)
	once(t, m, 0, 0)
	pages := len(table.after)
	if pages != maxPassed/source.MaxBatch {
		t.Fatalf("%d pages in one round", pages)
	}
	once(t, m, 0, 0)
	if table.after[0] != "" || table.after[pages] != fmt.Sprint(maxPassed) {
		t.Errorf("the rounds began behind %q and %q", table.after[0], table.after[pages])
	}
}

func TestRowsWithoutWhatIsRequiredFail(t *testing.T) {
	good := source.Row{ID: "1", DesName: "a", Path: "/p", ModTime: epoch}
	for name, spoil := range map[string]func(*source.Row){
		"negative size": func(r *source.Row) { r.Size = -1 },
		"no time":       func(r *source.Row) { r.ModTime = time.Time{} },
		"no id":         func(r *source.Row) { r.ID = "" },
		"id not UTF-8":  func(r *source.Row) { r.ID = "\xff" },
	} {
		row := good
		spoil(&row)
		if code, text := check(row); code != source.CodeInvalidRow || text == "" {
			t.Errorf("%s: %q, %q", name, code, text)
		}
	}
	if code, text := check(good); code != "" {
		t.Errorf("the good row: %q, %q", code, text)
	}
}
