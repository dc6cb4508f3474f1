package sourcetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

func deletable(t *testing.T, tb *table) {
	rows := tb.packed(t, packOne, numbered(12)...)
	tb.packed(t, packTwo, "elsewhere")
	tb.deleted(t, rows[0])
	tb.Edit(t, rows[1].ID, "packed_at", packedAt.Add(time.Minute))
	tb.Edit(t, rows[2].ID, "archive_error", source.CodeDiffers)
	if ok, err := tb.Claim(t.Context(), rows[3], claim); err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	var seen []string
	for after := ""; ; {
		page, err := tb.Deletable(t.Context(), packOne, packedAt.Add(time.Second), after, 4)
		if err != nil {
			t.Fatal(err)
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
	if want := numbered(12)[3:]; !slices.Equal(seen, want) {
		t.Errorf("deletable: %q, want %q", seen, want)
	}
	got, err := tb.Deletable(t.Context(), packOne, packedAt, "", 100)
	wantNames(t, "deletable before any was packed", got, err)
}

func deletion(t *testing.T, tb *table) {
	row := tb.packed(t, packOne, "a")[0]
	claimed := row
	claimed.Claim = claim
	for range 2 {
		if ok, err := tb.Claim(t.Context(), row, claim); err != nil || !ok {
			t.Errorf("claim: %v, %v", ok, err)
		}
		tb.want(t, "the claimed row", claimed)
	}
	if ok, err := tb.Claim(t.Context(), row, "2-1"); err != nil || ok {
		t.Errorf("a claim of what another claimed since: %v, %v", ok, err)
	}
	if ok, err := tb.Deleted(t.Context(), claimed, "2-1", packedAt); err != nil || ok {
		t.Errorf("deleted by one who has no claim: %v, %v", ok, err)
	}
	tb.want(t, "the claimed row", claimed)

	for range 2 {
		if err := tb.Unclaim(t.Context(), claimed, claim, "", "", packedAt); err != nil {
			t.Error(err)
		}
		tb.want(t, "the row let go", row)
	}
	if ok, err := tb.Claim(t.Context(), row, claim); err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	gone := claimed
	gone.State = source.DeletedSource
	for range 2 {
		if ok, err := tb.Deleted(t.Context(), claimed, claim, packedAt); err != nil || !ok {
			t.Errorf("deleted: %v, %v", ok, err)
		}
		tb.want(t, "the deleted row", gone)
	}

	row = tb.packed(t, packOne, "b")[0]
	if ok, err := tb.Claim(t.Context(), row, claim); err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	claimed = tb.byID(t, row.ID)
	row.ErrorCode, row.ErrorText, row.LastAttempt = source.CodeShared, "two rows", packedAt
	for range 2 {
		if err := tb.Unclaim(t.Context(), claimed, claim, source.CodeShared, "two rows", packedAt); err != nil {
			t.Error(err)
		}
		tb.want(t, "the row let go for a reason", row)
	}
	if _, err := tb.Claim(t.Context(), row, ""); err == nil {
		t.Error("an empty claim was taken")
	}
}

// takeOver: a deletion that was cut leaves its claim; the next one replaces it,
// and the first can do nothing more.
func takeOver(t *testing.T, tb *table) {
	row := tb.packed(t, packOne, "a")[0]
	if ok, err := tb.Claim(t.Context(), row, "1-1"); err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	first := tb.byID(t, row.ID)
	if ok, err := tb.Claim(t.Context(), first, "1-2"); err != nil || !ok {
		t.Fatalf("claim over: %v, %v", ok, err)
	}
	second := tb.byID(t, row.ID)
	if ok, err := tb.Deleted(t.Context(), first, "1-1", packedAt); err != nil || ok {
		t.Errorf("deleted by the first: %v, %v", ok, err)
	}
	if err := tb.Unclaim(t.Context(), first, "1-1", source.CodeDiffers, "", packedAt); err != nil {
		t.Error(err)
	}
	tb.want(t, "the row", second)
}

// unidentified: no row is proven to share nothing while another's file is
// unknown, its own apart.
func unidentified(t *testing.T, tb *table) {
	rows := tb.packed(t, packOne, "a", "b", "c")
	gone := tb.packed(t, packOne, "gone")[0]
	tb.deleted(t, tb.byID(t, gone.ID))
	for _, id := range []string{rows[1].ID, rows[2].ID, gone.ID} {
		tb.Edit(t, id, "file_id", nil)
	}
	a := rows[0]
	if _, err := tb.Sharing(t.Context(), a, a.FileID, nil); !errors.Is(err, source.ErrUnidentified) {
		t.Errorf("sharing beside unknown files: %v, want ErrUnidentified", err)
	}
	if n, err := tb.Sharing(t.Context(), a, a.FileID, []string{"/srv/b"}); n != 1 || err != nil {
		t.Errorf("sharing: %d, %v; want the one that is known", n, err)
	}
	first, err := tb.Unidentified(t.Context(), "", 1)
	if err != nil || len(first) != 1 {
		t.Fatalf("unidentified: %v, %v", first, err)
	}
	second, err := tb.Unidentified(t.Context(), first[0].ID, 100)
	wantNames(t, "unidentified", append(first, second...), err, "b", "c")
	moved := first[0]
	moved.Size++
	if err := tb.Identify(t.Context(), []source.Row{moved, rows[0]}, []string{"1:1", "1:1"}); err != nil {
		t.Error(err)
	}
	tb.want(t, "a row that was another when it was seen", first[0])
	tb.want(t, "a row that has a file id", a)
	if err := tb.Identify(t.Context(), first, nil); err == nil {
		t.Error("fewer file ids than rows were taken")
	}
	for range 2 {
		if err := tb.Identify(t.Context(), append(first, second...), []string{"1:77", source.NoFileID}); err != nil {
			t.Error(err)
		}
	}
	first[0].FileID, second[0].FileID = "1:77", source.NoFileID
	tb.want(t, "an identified row", first[0])
	tb.want(t, "a row without a file", second[0])
	left, err := tb.Unidentified(t.Context(), "", 100)
	wantNames(t, "unidentified", left, err)
	for range 2 { // a row that led to no file may lead to one by now
		if err := tb.ForgetMissing(t.Context()); err != nil {
			t.Error(err)
		}
	}
	left, err = tb.Unidentified(t.Context(), "", 100)
	wantNames(t, "unidentified again", left, err, second[0].Name)
	if err := tb.Identify(t.Context(), left, []string{source.NoFileID}); err != nil {
		t.Error(err)
	}
	for fileID, want := range map[string]int{"1:77": 1, a.FileID: 0} {
		if n, err := tb.Sharing(t.Context(), a, fileID, nil); n != want || err != nil {
			t.Errorf("sharing %s: %d, %v; want %d", fileID, n, err, want)
		}
	}
	forgetFiles(t, tb, first[0], second[0], a)
	tb.Edit(t, a.ID, "file_id", nil)
	if n, err := tb.Sharing(t.Context(), a, "9:9", nil); n != 0 || err != nil {
		t.Errorf("sharing, only its own file id unknown: %d, %v", n, err)
	}
}

// forgetFiles forgets the devices and inodes, and what led nowhere, of rows of
// which the last is an object's, and gives them file ids again.
func forgetFiles(t *testing.T, tb *table, file, none, object source.Row) {
	t.Helper()
	tb.Edit(t, object.ID, "file_id", "s3:bucket/key")
	object.FileID = "s3:bucket/key"
	for range 2 {
		if err := tb.ForgetFiles(t.Context()); err != nil {
			t.Error(err)
		}
	}
	tb.want(t, "an object's row", object)
	left, err := tb.Unidentified(t.Context(), "", 100)
	wantNames(t, "unidentified, files forgotten", left, err, file.Name, none.Name)
	if _, err := tb.Sharing(t.Context(), object, "s3:bucket/key", nil); !errors.Is(err, source.ErrUnidentified) {
		t.Errorf("sharing beside forgotten files: %v, want ErrUnidentified", err)
	}
	if err := tb.Identify(t.Context(), left, []string{file.FileID, none.FileID}); err != nil {
		t.Error(err)
	}
}

func sharing(t *testing.T, tb *table) {
	rows := tb.packed(t, packOne, "a", "b", "c")
	tb.Edit(t, rows[1].ID, "file_id", rows[0].FileID)
	gone := tb.packed(t, packOne, "gone")[0]
	tb.Edit(t, gone.ID, "file_id", rows[2].FileID)
	tb.deleted(t, tb.byID(t, gone.ID))
	a, c := rows[0], rows[2]
	foreign := a
	foreign.Source = "other"
	for _, k := range []struct {
		name   string
		row    source.Row
		fileID string
		paths  []string
		want   int
	}{
		{"its own", c, c.FileID, []string{c.Path}, 0},
		{"the same inode", a, a.FileID, []string{a.Path}, 1},
		{"the same path", a, "", []string{"/srv/c"}, 1},
		{"one of several paths", a, "", []string{"/no", "/srv/c", "/srv/a"}, 1},
		{"a row counts once", a, a.FileID, []string{"/srv/b"}, 1},
		{"both", a, a.FileID, []string{"/srv/c"}, 2},
		{"the deleted reach nothing", c, c.FileID, []string{gone.Path}, 0},
		{"another source's row has no row here", foreign, a.FileID, nil, 2},
		{"another source's path", foreign, "", []string{a.Path}, 1},
		{"nothing known", a, "", nil, 0},
	} {
		if got, err := tb.Sharing(t.Context(), k.row, k.fileID, k.paths); err != nil || got != k.want {
			t.Errorf("%s: %d rows, %v; want %d", k.name, got, err, k.want)
		}
	}
}
