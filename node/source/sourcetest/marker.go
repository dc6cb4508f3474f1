package sourcetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

func eligible(t *testing.T, tb *table) {
	rows := tb.add(t, "a", "b", "c", "d")
	tb.Edit(t, rows[1].ID, "modified_at", modified.Add(time.Second)) // too young
	tb.mark(t, rows[2:3])                                            // no longer ACTIVE
	// Archived before, changed since: no age is asked of it.
	tb.mark(t, rows[3:4])
	tb.Edit(t, rows[3].ID, "status", string(source.Active))
	tb.Edit(t, rows[3].ID, "modified_at", modified.Add(time.Hour))

	got, err := tb.Eligible(t.Context(), modified.Add(time.Second), "", 10)
	wantNames(t, "eligible", got, err, "a", "d")
	got, err = tb.Eligible(t.Context(), modified, "", 10)
	wantNames(t, "eligible before the first was modified", got, err, "d")

	got, err = tb.Eligible(t.Context(), modified.Add(time.Minute), "", 10)
	wantNames(t, "eligible later", got, err, "a", "b", "d")
	for _, r := range got {
		if r.Name == "a" {
			tb.want(t, "a row as listed", r)
		}
	}
	if _, err := tb.Eligible(t.Context(), modified, "no id", 10); err == nil && !tb.TextIDs {
		t.Error("a place that is no id was taken")
	}
}

func eligiblePages(t *testing.T, tb *table) {
	all := numbered(25)
	tb.add(t, all...)
	var seen []string
	for after := ""; ; {
		rows, err := tb.Eligible(t.Context(), modified.Add(1), after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		if len(rows) > 10 {
			t.Fatalf("%d rows, asked for 10", len(rows))
		}
		seen = append(seen, names(rows)...)
		after = rows[len(rows)-1].ID
	}
	slices.Sort(seen)
	if !slices.Equal(seen, all) {
		t.Errorf("pages hold %q, want each row once", seen)
	}
}

func mark(t *testing.T, tb *table) {
	rows := tb.add(t, "a", "b")
	tb.Edit(t, rows[1].ID, "size", int64(101)) // not as last seen
	for i := range rows {
		rows[i].DesName = rows[i].Name
	}
	moved, err := tb.Mark(t.Context(), rows, marking)
	if err != nil || !slices.Equal(moved, []bool{true, false}) {
		t.Fatalf("mark: %v, %v", moved, err)
	}
	want := rows[0]
	want.State, want.Version, want.MarkedAt = source.Marked, 1, markedAt
	tb.want(t, "the marked row", want)
	if b := tb.byID(t, rows[1].ID); b.State != source.Active || b.Version != 0 {
		t.Errorf("the row not as last seen: %+v", b)
	}
	// Repeated, with the rows as they were.
	later := marking
	later.At = markedAt.Add(time.Hour)
	moved, err = tb.Mark(t.Context(), rows, later)
	if err != nil || !slices.Equal(moved, []bool{false, false}) {
		t.Errorf("mark again: %v, %v", moved, err)
	}
	tb.want(t, "the row marked twice", want)
	// With the row as it is: only ACTIVE rows are marked.
	moved, err = tb.Mark(t.Context(), []source.Row{want}, later)
	if err != nil || moved[0] {
		t.Errorf("mark of a MARKED row: %v, %v", moved, err)
	}
	tb.want(t, "the row marked thrice", want)
}

func markDuplicate(t *testing.T, tb *table) {
	tb.marked(t, "a")
	rows := tb.add(t, "b", "c")
	rows[0].DesName, rows[1].DesName = "a", "c"
	moved, err := tb.Mark(t.Context(), rows, marking)
	if err != nil || !slices.Equal(moved, []bool{false, true}) {
		t.Fatalf("mark: %v, %v", moved, err)
	}
	if b := tb.byID(t, rows[0].ID); b.State != source.Failed || b.ErrorCode != source.CodeDuplicateName || b.DesName != "" {
		t.Errorf("the row whose name is served already: %+v", b)
	}
}

// markRace: of many markers at once, each row is moved by exactly one.
func markRace(t *testing.T, tb *table) {
	rows := tb.add(t, numbered(50)...)
	for i := range rows {
		rows[i].DesName = rows[i].Name
	}
	var mu sync.Mutex
	times := make([]int, len(rows)) // guarded by mu
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			moved, err := tb.Mark(t.Context(), rows, marking)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for i, ok := range moved {
				if ok {
					times[i]++
				}
			}
		})
	}
	wg.Wait()
	for i, n := range times {
		if n != 1 {
			t.Errorf("row %d was moved %d times", i, n)
		}
	}
	if v := tb.byID(t, rows[0].ID).Version; v != 1 {
		t.Errorf("archive_version %d, want 1", v)
	}
}

func refuse(t *testing.T, tb *table) {
	active := tb.add(t, "a")[0]
	marked := tb.marked(t, "b")[0]
	for _, r := range []source.Row{active, marked} {
		want := r
		want.State, want.ErrorCode, want.ErrorText, want.LastAttempt = source.Failed, source.CodeInvalidName, "a tab: bad", packedAt
		for range 2 {
			if err := tb.Table.Refuse(t.Context(), r, source.CodeInvalidName, "a tab: bad", packedAt); err != nil {
				t.Fatal(err)
			}
			tb.want(t, "the refused row", want)
		}
	}
	packed := tb.packed(t, packOne, "c")[0]
	if err := tb.Table.Refuse(t.Context(), packed, source.CodeInvalidName, "", packedAt); err == nil {
		t.Error("a PACKED row was refused without an error")
	}
	tb.want(t, "the packed row", packed)
}

// hashOf returns des_hash of a name.
func hashOf(name string) int64 { return int64(desformat.HashName(name).Top32()) }
