package sourcetest

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// registers reports whether the driver has Register at all.
func registers(t *testing.T, tb *table, files ...source.File) ([]source.Registered, bool) {
	t.Helper()
	got, err := tb.Register(t.Context(), files)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return got, true
}

func register(t *testing.T, tb *table) {
	var files []source.File
	for _, name := range numbered(220) { // several groups, and a part of one
		files = append(files, file(name))
	}
	got, ok := registers(t, tb, files...)
	if !ok {
		return
	}
	want := make([]source.Registered, len(files)) // RegisteredNew
	if !slices.Equal(got, want) {
		t.Errorf("new files: %v", got)
	}
	r := tb.named(t, "file0007")
	if r.Size != 100 || !r.ModTime.Equal(modified) || r.FileID != "1:file0007" || r.State != source.Active || r.Source != cmp.Or(tb.Source, "files") {
		t.Errorf("the new row: %+v", r)
	}
	rows, err := tb.Eligible(t.Context(), time.Time{}, "", 300)
	if err != nil || len(rows) != len(files) {
		t.Errorf("%d of %d rows are eligible at once, %v", len(rows), len(files), err)
	}
	if got, _ = registers(t, tb, files...); slices.ContainsFunc(got, func(r source.Registered) bool { return r != source.RegisteredUnchanged }) {
		t.Errorf("files registered again: %v", got)
	}

	changed := files[60]
	changed.Size++
	touched := files[61]
	touched.ModTime = touched.ModTime.Add(tb.Unit)
	moved := files[62]
	moved.FileID = "9:9"
	taken := source.File{Name: files[63].Name, Path: "/elsewhere", Size: 1, ModTime: modified}
	fresh := file("fresh")
	twice := fresh
	got, _ = registers(t, tb, files[0], changed, touched, moved, taken, fresh, twice)
	wantSome := []source.Registered{
		source.RegisteredUnchanged, source.RegisteredChanged, source.RegisteredChanged, source.RegisteredUnchanged,
		source.RegisteredTaken, source.RegisteredNew,
	}
	if !slices.Equal(got[:6], wantSome) || got[6] == source.RegisteredTaken {
		t.Errorf("a mixture: %v, want %v and no longer new or unchanged", got, wantSome)
	}
	if r := tb.named(t, changed.Name); r.Size != changed.Size {
		t.Errorf("the changed row: %+v", r)
	}
	if r := tb.named(t, moved.Name); r.FileID != "9:9" {
		t.Errorf("the row of a new inode: %+v", r)
	}
	if r := tb.named(t, files[63].Name); r.Path != files[63].Path {
		t.Errorf("the row whose name was taken: %+v", r)
	}
	// The whole mixture in one full group, whose insertion goes in partly.
	mixture := append(slices.Clone(files[190:]), taken)
	for _, name := range []string{"x1", "x2", "x3"} {
		mixture = append(mixture, file(name))
	}
	for len(mixture) < 60 {
		mixture = append(mixture, files[len(mixture)])
	}
	got, _ = registers(t, tb, mixture...)
	for i, r := range got {
		want := source.RegisteredUnchanged
		switch {
		case i == 30:
			want = source.RegisteredTaken
		case i > 30 && i < 34:
			want = source.RegisteredNew
		case mixture[i].Path == changed.Path, mixture[i].Path == touched.Path:
			want = source.RegisteredChanged
		}
		if r != want {
			t.Errorf("%s in a mixture: %v, want %v", mixture[i].Path, r, want)
		}
	}
}

// registerChanged: whatever has become of a row, a changed file is ACTIVE
// again; an unchanged one leaves the row alone, unless its file was deleted:
// then there was none any more.
func registerChanged(t *testing.T, tb *table) {
	if _, ok := registers(t, tb); !ok {
		return
	}
	states := map[string]func(string) source.Row{
		"active":  func(n string) source.Row { return tb.add(t, n)[0] },
		"marked":  func(n string) source.Row { return tb.marked(t, n)[0] },
		"packed":  func(n string) source.Row { return tb.packed(t, packOne, n)[0] },
		"deleted": func(n string) source.Row { return tb.deleted(t, tb.packed(t, packOne, n)[0]) },
		"claimed": func(n string) source.Row {
			r := tb.packed(t, packOne, n)[0]
			if ok, err := tb.Claim(t.Context(), r, claim); err != nil || !ok {
				t.Fatalf("claim: %v, %v", ok, err)
			}
			return tb.byID(t, r.ID)
		},
		"failed": func(n string) source.Row {
			r := tb.marked(t, n)[0]
			if _, err := tb.Attempt(t.Context(), r, source.CodeChanged, "", 1, markedAt); err != nil {
				t.Fatal(err)
			}
			return tb.byID(t, r.ID)
		},
	}
	for name, make := range states {
		row := make(name)
		want := row
		wantDone := source.RegisteredUnchanged
		if row.State == source.DeletedSource {
			want.State, want.Claim, wantDone = source.Active, "", source.RegisteredChanged
		}
		if got, _ := registers(t, tb, file(name)); got[0] != wantDone {
			t.Errorf("%s, unchanged: %v", name, got)
		}
		tb.want(t, name, want)
		changed := file(name)
		changed.Size, changed.ModTime, changed.FileID = 7, modified.Add(time.Hour), "2:2"
		if got, _ := registers(t, tb, changed); got[0] != source.RegisteredChanged {
			t.Errorf("%s, changed: %v", name, got)
		}
		want.State, want.Size, want.ModTime, want.FileID = source.Active, 7, modified.Add(time.Hour), "2:2"
		want.Claim, want.Attempts, want.ErrorCode, want.ErrorText, want.LastAttempt = "", 0, "", "", time.Time{}
		tb.want(t, name+", changed", want)
		if got, _ := registers(t, tb, changed); got[0] != source.RegisteredUnchanged {
			t.Errorf("%s, registered again: %v", name, got)
		}
		again := tb.mark(t, []source.Row{tb.byID(t, row.ID)})[0]
		if again.Version != row.Version+1 {
			t.Errorf("%s: marked again as version %d, was %d", name, again.Version, row.Version)
		}
		// The older version's deletion or acknowledgement finds nothing to change.
		if row.State == source.Marked {
			if got := tb.acknowledge(t, acks(packOne, []source.Row{row})...); got[0] != source.AckGone {
				t.Errorf("%s: acknowledging the older version: %v", name, got)
			}
		}
		if now := tb.byID(t, row.ID); !reflect.DeepEqual(now, again) {
			t.Errorf("%s: %+v, want %+v", name, now, again)
		}
	}
}
