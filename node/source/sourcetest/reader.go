package sourcetest

import (
	"slices"
	"testing"

	"github.com/datavision/desnode/node/source"
)

func byIDs(t *testing.T, tb *table) {
	rows := slices.Concat(tb.add(t, "a", "b"), tb.packed(t, packOne, "c"))
	got, err := tb.ByIDs(t.Context(), []string{rows[2].ID, "999999", "no id", rows[0].ID, "", "0" + rows[1].ID, rows[2].ID})
	if tb.TextIDs || err == nil {
		wantNames(t, "by ids", got, err, "a", "c")
	}
	for _, r := range got {
		tb.want(t, "a row as looked up", r)
	}
	if got, err := tb.ByIDs(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("by no ids: %v, %v", got, err)
	}
	if _, err := tb.ByIDs(t.Context(), make([]string, source.MaxBatch+1)); err == nil {
		t.Error("a batch above MaxBatch was looked up")
	}
}

// rowsInPages: each row once, whatever its state, as ByID has it.
func rowsInPages(t *testing.T, tb *table) {
	if got, err := tb.Rows(t.Context(), "", 10); err != nil || len(got) != 0 {
		t.Errorf("rows of nothing: %v, %v", got, err)
	}
	list := numbered(20)
	rows := tb.add(t, list...)
	tb.pack(t, packOne, tb.mark(t, rows[:8]))
	tb.mark(t, rows[8:12])
	tb.deleted(t, tb.byID(t, rows[2].ID))
	if err := tb.Table.Refuse(t.Context(), rows[15], source.CodeInvalidName, "x", markedAt); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for after := ""; len(seen) <= len(list); {
		page, err := tb.Rows(t.Context(), after, 6)
		if err != nil || len(page) > 6 {
			t.Fatalf("%d rows, %v", len(page), err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			tb.want(t, "a row as listed", r)
		}
		seen = append(seen, names(page)...)
		after = page[len(page)-1].ID
	}
	slices.Sort(seen)
	if !slices.Equal(seen, list) {
		t.Errorf("pages hold %q, want each row once", seen)
	}
}
