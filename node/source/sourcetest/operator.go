package sourcetest

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

func byName(t *testing.T, tb *table) {
	active := tb.add(t, "active")[0]
	renamed := tb.add(t, "own name")[0]
	renamed.DesName = "served name"
	if moved, err := tb.Mark(t.Context(), []source.Row{renamed}, marking); err != nil || !moved[0] {
		t.Fatalf("mark: %v, %v", moved, err)
	}
	failed := tb.add(t, "bad name")[0]
	if err := tb.Table.Refuse(t.Context(), failed, source.CodeInvalidName, "", markedAt); err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]string{"active": active.ID, "served name": renamed.ID} {
		if r, err := tb.ByName(t.Context(), name); err != nil || r.ID != id {
			t.Errorf("%q: %+v, %v", name, r, err)
		}
	}
	// "own name" is served under another; "bad name" is FAILED and never was.
	for _, name := range []string{"own name", "bad name", "nothing", "", "act%", "\x00", "\xff", "a'b", "active\x00"} {
		if r, err := tb.ByName(t.Context(), name); !errors.Is(err, source.ErrNotFound) {
			t.Errorf("%q: %+v, %v; want ErrNotFound", name, r, err)
		}
	}
	odd := "odd \xff'\"%_\u202e name"
	if tb.UTF8 {
		odd = strings.ToValidUTF8(odd, "$")
	}
	row := tb.marked(t, odd)[0]
	if r := tb.named(t, odd); r.ID != row.ID || r.Name != odd || r.DesName != odd {
		t.Errorf("%q came back as %q", odd, r.Name)
	}
}

func byID(t *testing.T, tb *table) {
	row := tb.add(t, "a")[0]
	if got := tb.byID(t, row.ID); got.Name != "a" || got.Source != cmp.Or(tb.Source, "files") || got.FileID != "1:a" || got.Path != "/srv/a" {
		t.Errorf("%+v", got)
	}
	for _, id := range []string{"", "999999", "x", "-1", "+" + row.ID, "0" + row.ID, " " + row.ID, "1e0", "99999999999999999999"} {
		if _, err := tb.ByID(t.Context(), id); !errors.Is(err, source.ErrNotFound) {
			t.Errorf("id %q: %v, want ErrNotFound", id, err)
		}
	}
}

func counts(t *testing.T, tb *table) {
	if got, err := tb.Counts(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("counts of nothing: %v, %v", got, err)
	}
	rows := tb.add(t, "a", "b")
	tb.Edit(t, rows[1].ID, "modified_at", modified.Add(time.Hour))
	tb.marked(t, "c")
	tb.packed(t, packOne, "d", "e", "f")
	tb.deleted(t, tb.packed(t, packOne, "g")[0])
	got, err := tb.Counts(t.Context())
	want := map[source.State]source.Tally{
		source.Active:        {Rows: 2, Bytes: 200, Oldest: modified, Newest: modified.Add(time.Hour)},
		source.Marked:        {Rows: 1, Bytes: 100, Oldest: modified, Newest: modified},
		source.Packed:        {Rows: 3, Bytes: 300, Oldest: modified, Newest: modified},
		source.DeletedSource: {Rows: 1, Bytes: 100, Oldest: modified, Newest: modified},
	}
	if err != nil || len(got) != len(want) {
		t.Fatalf("counts: %v, %v", got, err)
	}
	for state, tally := range want {
		if got[state] != tally {
			t.Errorf("%s: %+v, want %+v", state, got[state], tally)
		}
	}
}

func eligibleTally(t *testing.T, tb *table) {
	if e, y, err := tb.EligibleTally(t.Context(), modified); err != nil || e.Rows+y.Rows != 0 || !e.Oldest.IsZero() {
		t.Errorf("of nothing: %+v, %+v, %v", e, y, err)
	}
	rows := tb.add(t, "a", "b", "c")
	tb.Edit(t, rows[2].ID, "modified_at", modified.Add(time.Hour))
	tb.marked(t, "d")
	e, y, err := tb.EligibleTally(t.Context(), modified.Add(time.Minute))
	if want := (source.Tally{Rows: 2, Bytes: 200, Oldest: modified, Newest: modified}); err != nil || e != want {
		t.Errorf("eligible %+v, %v; want %+v", e, err, want)
	}
	if later := modified.Add(time.Hour); y != (source.Tally{Rows: 1, Bytes: 100, Oldest: later, Newest: later}) {
		t.Errorf("young %+v", y)
	}
}

func retry(t *testing.T, tb *table) {
	var failed []source.Row
	for _, r := range tb.marked(t, "a", "b", "c") {
		if _, err := tb.Attempt(t.Context(), r, source.CodeReadError, "broken", 1, packedAt); err != nil {
			t.Fatal(err)
		}
		failed = append(failed, tb.byID(t, r.ID))
	}
	fine := tb.marked(t, "fine")[0]
	kept := tb.packed(t, packOne, "kept")[0]
	tb.Edit(t, kept.ID, "archive_error", source.CodeDiffers+": why")

	got, err := tb.Failures(t.Context(), "", "", 100)
	wantNames(t, "failures", got, err, "a", "b", "c", "kept")
	first, err := tb.Failures(t.Context(), "", "", 2)
	if err != nil || len(first) != 2 {
		t.Fatalf("two failures: %q, %v", names(first), err)
	}
	rest, err := tb.Failures(t.Context(), "", first[1].ID, 2)
	if err != nil || len(rest) != 2 || rest[0].ID == first[0].ID || rest[0].ID == first[1].ID {
		t.Errorf("the next two failures: %q after %q, %v", names(rest), names(first), err)
	}

	tallies, err := tb.FailureTally(t.Context())
	if err != nil || len(tallies) != 2 || tallies[source.CodeReadError].Rows != 3 || tallies[source.CodeDiffers] != (source.Tally{
		Rows: 1, Bytes: 100, Oldest: modified, Newest: modified,
	}) {
		t.Errorf("failures by code: %+v, %v", tallies, err)
	}
	got, err = tb.Failures(t.Context(), source.CodeDiffers, "", 100)
	wantNames(t, "failures of one code", got, err, "kept")

	at := packedAt.Add(time.Hour)
	for i, want := range []int64{1, 0} {
		if n, err := tb.Retry(t.Context(), source.Selection{Names: []string{"b", "nothing", "fine"}}, at); err != nil || n != want {
			t.Errorf("retry %d of one by name: %d, %v; want %d", i, n, err, want)
		}
	}
	want := failed[1]
	want.State, want.Attempts, want.ErrorCode, want.ErrorText = source.Marked, 0, "", ""
	want.LastAttempt, want.MarkedAt = time.Time{}, at
	tb.want(t, "the retried row", want)
	tb.want(t, "a row not named", failed[0])
	if n, err := tb.Retry(t.Context(), source.Selection{Code: source.CodeChecksum}, at); err != nil || n != 0 {
		t.Errorf("retry of a code that no row has: %d, %v", n, err)
	}
	if n, err := tb.Retry(t.Context(), source.Selection{Names: []string{"a", "kept"}, Code: source.CodeReadError}, at); err != nil || n != 1 {
		t.Errorf("retry by name and code: %d, %v; want 1", n, err)
	}
	if _, err := tb.Attempt(t.Context(), tb.named(t, "a"), source.CodeReadError, "broken", 1, packedAt); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{3, 0} {
		if n, err := tb.Retry(t.Context(), source.Selection{}, at); err != nil || n != want {
			t.Errorf("retry %d of all: %d, %v; want %d", i, n, err, want)
		}
	}
	tb.want(t, "a row without an error", fine)
	tb.want(t, "a packed row", kept)
	got, err = tb.Failures(t.Context(), "", "", 100)
	wantNames(t, "failures after all", got, err)

	many := append(numbered(2500), "b")
	if _, err := tb.Attempt(t.Context(), tb.named(t, "b"), source.CodeReadError, "", 1, at); err != nil {
		t.Fatal(err)
	}
	if n, err := tb.Retry(t.Context(), source.Selection{Names: many}, at); err != nil || n != 1 {
		t.Errorf("retry of many names: %d, %v; want 1", n, err)
	}
}

func retryState(t *testing.T, tb *table) {
	never := tb.add(t, "never marked")[0]
	again := tb.reactivate(t, tb.packed(t, packOne, "marked before it changed")[0])
	was := tb.marked(t, "was marked")[0]
	for _, r := range []source.Row{never, again, was} {
		if err := tb.Table.Refuse(t.Context(), r, source.CodeInvalidPath, "", packedAt); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := tb.Retry(t.Context(), source.Selection{}, packedAt); err != nil || n != 3 {
		t.Fatalf("retry: %d, %v", n, err)
	}
	for r, want := range map[string]source.State{never.ID: source.Active, again.ID: source.Active, was.ID: source.Marked} {
		if got := tb.byID(t, r); got.State != want {
			t.Errorf("%s is %s, want %s", got.Name, got.State, want)
		}
	}
	if slices.Contains(names(tb.mark(t, []source.Row{tb.byID(t, again.ID)})), "") {
		t.Error("the changed file was not marked")
	}
	if v := tb.byID(t, again.ID).Version; v != 2 {
		t.Errorf("the changed file has archive_version %d, want 2", v)
	}
}
