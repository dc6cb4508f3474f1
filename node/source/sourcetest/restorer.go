package sourcetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// record is what the archive says about a row: PACKED, by packOne, as its third
// version.
func record(r source.Row) source.Restored {
	return source.Restored{
		ID: r.ID, Name: r.Name, Version: 3, Size: r.Size, ModTime: r.ModTime, SHA256: [32]byte{1, 2, 3}, Pack: packOne,
		PackedAt: packedAt, State: source.Packed, Cluster: cluster, ShardBits: 10,
	}
}

func records(rows []source.Row) []source.Restored {
	list := make([]source.Restored, len(rows))
	for i, r := range rows {
		list[i] = record(r)
	}
	return list
}

// restores restores and holds the results against want.
func (tb *table) restores(t *testing.T, what string, list []source.Restored, want ...source.RestoreResult) {
	t.Helper()
	tb.claim(t, 1)
	got, err := tb.Restore(t.Context(), list)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
}

// asRecorded is the row with what the record says.
func asRecorded(r source.Row, rec source.Restored) source.Row {
	r.State, r.Version, r.DesName, r.Pack, r.MarkedAt, r.PackedAt = rec.State, rec.Version, rec.Name, rec.Pack, rec.PackedAt, rec.PackedAt
	r.Attempts, r.LastAttempt, r.ErrorCode, r.ErrorText, r.Claim = 0, time.Time{}, "", "", ""
	return r
}

// restore: rows that have lost all that desnode wrote are as they were.
func restore(t *testing.T, tb *table) {
	rows := tb.add(t, "a", "b", "c")
	list := records(rows)
	list[1].State, list[1].DeletedAt = source.DeletedSource, packedAt.Add(time.Hour)
	list[2].State = source.DeletedSource
	slices.Reverse(list) // results come in the order given
	list = append(list, list[0], list[0])
	list[3].ID, list[4].ID = "999999", "no id"
	for n, what := range []source.RestoreResult{source.RestoreDone, source.RestoreAlready} {
		tb.restores(t, "restore", list, what, what, what, source.RestoreMissing, source.RestoreMissing)
		for i, r := range rows {
			want := asRecorded(r, list[2-i])
			want.Claim = tb.byID(t, r.ID).Claim
			if (want.Claim != "") != (want.State == source.DeletedSource) {
				t.Errorf("%s is %s under the claim %q", r.Name, want.State, want.Claim)
			}
			tb.want(t, fmt.Sprintf("%s, restored %d times", r.Name, n+1), want)
		}
	}

	// The record is acknowledged, and its row is where archiving leaves one: it can
	// be deleted, and archived again as the next version.
	ack := source.Ack{ID: rows[0].ID, Name: "a", Version: 3, Size: rows[0].Size, ModTime: rows[0].ModTime, SHA256: [32]byte{1, 2, 3}, Pack: packOne}
	if got := tb.acknowledge(t, ack); got[0] != source.AckDone {
		t.Errorf("acknowledged: %v", got)
	}
	found, err := tb.Deletable(t.Context(), packOne, packedAt.Add(time.Minute), "", 10)
	wantNames(t, "deletable", found, err, "a")
	tb.deleted(t, tb.byID(t, rows[0].ID))
	for _, r := range rows {
		again := tb.mark(t, []source.Row{tb.reactivate(t, tb.byID(t, r.ID))})[0]
		if again.Version != 4 || again.Claim != "" {
			t.Errorf("%s was marked as version %d under the claim %q, want 4 and none", r.Name, again.Version, again.Claim)
		}
	}
}

// The place of the name is restored too: it decides who packs the next version.
func restoreMarked(t *testing.T, tb *table) {
	rows := tb.marked(t, "same version", "older", "newer", "hash")
	tb.Edit(t, rows[2].ID, "archive_version", int64(7))
	tb.Edit(t, rows[3].ID, "des_hash", int64(1))
	rows = tb.again(t, rows)
	if _, err := tb.Attempt(t.Context(), rows[0], source.CodeReadError, "x", 5, markedAt); err != nil {
		t.Fatal(err)
	}
	list := records(rows)
	list[0].Version = 1
	tb.restores(t, "restore", list, source.RestoreDone, source.RestoreDone, source.RestoreDone, source.RestoreDone)
	for i, version := range []uint32{1, 3, 7, 3} {
		want := asRecorded(rows[i], list[i])
		want.Version = version
		tb.want(t, rows[i].Name, want)
	}
	tb.Edit(t, rows[3].ID, "status", string(source.Marked))
	place, err := desformat.NewRange(desformat.HashName("hash").Top32(), desformat.MaxRangeBits)
	if err != nil {
		t.Fatal(err)
	}
	found, err := tb.Marked(t.Context(), place, source.After{Hash: -1}, all, 10)
	wantNames(t, "in its place", found, err, "hash")
}

// restoreNewer: a row that the record is not about stays as it is.
func restoreNewer(t *testing.T, tb *table) {
	active := func(t *testing.T, tb *table, name string) source.Row { return tb.add(t, name)[0] }
	for _, c := range []struct {
		name string
		row  func(t *testing.T, tb *table, name string) source.Row
		rec  func(*source.Restored)
		want source.RestoreResult
	}{
		{"another size", active, func(r *source.Restored) { r.Size++ }, source.RestoreNewer},
		{"another time", active, func(r *source.Restored) { r.ModTime = r.ModTime.Add(tb.Unit) }, source.RestoreNewer},
		{"an earlier time", active, func(r *source.Restored) { r.ModTime = r.ModTime.Add(-tb.Unit) }, source.RestoreNewer},
		{"another name", active, func(r *source.Restored) { r.Name = "former" }, source.RestoreNewer},
		{"a served name", func(t *testing.T, tb *table, name string) source.Row {
			r := tb.add(t, name)
			r[0].DesName = "served"
			if ok, err := tb.Mark(t.Context(), r, marking); err != nil || !ok[0] {
				t.Fatal(ok, err)
			}
			return tb.byID(t, r[0].ID)
		}, func(*source.Restored) {}, source.RestoreNewer},
		{"failed", func(t *testing.T, tb *table, name string) source.Row {
			r := tb.marked(t, name)[0]
			if _, err := tb.Attempt(t.Context(), r, source.CodeReadError, "x", 1, markedAt); err != nil {
				t.Fatal(err)
			}
			return tb.byID(t, r.ID)
		}, func(*source.Restored) {}, source.RestoreNewer},
		{
			"another pack's", func(t *testing.T, tb *table, name string) source.Row { return tb.packed(t, packTwo, name)[0] },
			func(*source.Restored) {}, source.RestoreNewer,
		},
		{"another pack's, deleted", func(t *testing.T, tb *table, name string) source.Row {
			return tb.deleted(t, tb.packed(t, packTwo, name)[0])
		}, func(r *source.Restored) { r.State = source.DeletedSource }, source.RestoreNewer},
		{"another pack's, active again", func(t *testing.T, tb *table, name string) source.Row {
			return tb.reactivate(t, tb.packed(t, packTwo, name)[0])
		}, func(*source.Restored) {}, source.RestoreNewer},
		{"this pack's, active again", func(t *testing.T, tb *table, name string) source.Row {
			return tb.reactivate(t, tb.packed(t, packOne, name)[0])
		}, func(*source.Restored) {}, source.RestoreNewer},
		{
			"this pack's", func(t *testing.T, tb *table, name string) source.Row { return tb.packed(t, packOne, name)[0] },
			func(*source.Restored) {}, source.RestoreAlready,
		},
		{
			"this pack's, not deleted yet", func(t *testing.T, tb *table, name string) source.Row { return tb.packed(t, packOne, name)[0] },
			func(r *source.Restored) { r.State = source.DeletedSource }, source.RestoreAlready,
		},
		{"this pack's, deleted", func(t *testing.T, tb *table, name string) source.Row {
			return tb.deleted(t, tb.packed(t, packOne, name)[0])
		}, func(*source.Restored) {}, source.RestoreAlready},
	} {
		r := c.row(t, tb, c.name)
		rec := record(r)
		rec.Version = max(r.Version, 1)
		c.rec(&rec)
		for range 2 {
			tb.restores(t, c.name, []source.Restored{rec}, c.want)
		}
		if now := tb.byID(t, r.ID); now.Version == rec.Version && r.Version == 0 { // see restoreVersions
			r.Version, r.DesName = now.Version, now.DesName
		}
		tb.want(t, c.name, r)
	}
	if !tb.Checksums {
		return
	}
	r := tb.add(t, "another checksum", "its own checksum")
	tb.Edit(t, r[0].ID, "checksum", [32]byte{9})
	tb.Edit(t, r[1].ID, "checksum", [32]byte{1, 2, 3})
	tb.restores(t, "checksums", records(r), source.RestoreNewer, source.RestoreDone)
}

// restoreVersions: a changed row that will be archived again gets a version
// that no record has. Else an old record would be acknowledged as the new one.
func restoreVersions(t *testing.T, tb *table) {
	rows := slices.Concat(tb.add(t, "active"), tb.marked(t, "marked", "failed"), tb.packed(t, packTwo, "again", "packed"), tb.add(t, "other"))
	if _, err := tb.Attempt(t.Context(), rows[2], source.CodeReadError, "x", 1, markedAt); err != nil {
		t.Fatal(err)
	}
	rows[3] = tb.reactivate(t, rows[3])
	rows = tb.again(t, rows)
	list := records(rows)
	for i := range list {
		list[i].Size = 5
	}
	list[5].Name = "former"
	for range 2 {
		tb.restores(t, "restore", list, slices.Repeat([]source.RestoreResult{source.RestoreNewer}, len(list))...)
		for i, version := range []uint32{3, 3, 3, 3, 1, 0} {
			want := rows[i]
			if want.Version = version; version > 0 {
				want.DesName = want.Name
			}
			tb.want(t, want.Name, want)
		}
	}
	// The source system brings back the very file that the record is about.
	tb.Edit(t, rows[0].ID, "size", int64(5))
	now := tb.mark(t, []source.Row{tb.byID(t, rows[0].ID)})[0]
	ack := source.Ack{ID: now.ID, Name: now.Name, Version: 3, Size: 5, ModTime: now.ModTime, SHA256: [32]byte{1, 2, 3}, Pack: packOne}
	if got := tb.acknowledge(t, ack); got[0] == source.AckDone {
		t.Error("a record of a former version was acknowledged as the new one")
	}
	tb.want(t, "marked anew", now)
	if now.Version != 4 {
		t.Errorf("marked as version %d, want 4", now.Version)
	}
}

func restoreGenerated(t *testing.T, tb *table) {
	rows := tb.add(t, "a", "b")
	list := records(rows)
	list[0].Name, list[0].Generated = "01J-generated", true
	list[1].Name = "02J-generated"
	tb.restores(t, "restore", list, source.RestoreDone, source.RestoreNewer)
	want := asRecorded(rows[0], list[0])
	tb.want(t, "the row", want)
	if got := tb.named(t, "01J-generated"); got.ID != rows[0].ID {
		t.Errorf("it is served as row %s's", got.ID)
	}
}

func restoreRefused(t *testing.T, tb *table) {
	served := tb.packed(t, packTwo, "served")[0]
	rows := tb.add(t, "a", "b", "c", "d", "e")
	marked := tb.mark(t, rows[3:4])
	tb.Harness.Refuse(t, marked[0].ID)
	list := records(rows)
	list[1].Name, list[1].Generated = served.DesName, true
	list[4].Name, list[4].Generated, list[4].Size = served.DesName, true, 5
	tb.restores(t, "restore", list, source.RestoreDone, source.RestoreRefused, source.RestoreDone, source.RestoreRefused, source.RestoreNewer)
	for i, want := range []source.State{source.Packed, source.Active, source.Packed, source.Marked, source.Active} {
		if r := tb.byID(t, rows[i].ID); r.State != want {
			t.Errorf("row %s is %s, want %s", r.Name, r.State, want)
		}
	}
	tb.want(t, "who is served under the name", served)
}

func restoreUnfit(t *testing.T, tb *table) {
	tb.claim(t, 1)
	row := tb.add(t, "a")[0]
	for name, change := range map[string]func(*source.Restored){
		"state":   func(r *source.Restored) { r.State = source.Marked },
		"name":    func(r *source.Restored) { r.Name = "" },
		"version": func(r *source.Restored) { r.Version = 0 },
		"pack":    func(r *source.Restored) { r.Pack = desformat.PackID{} },
		"time":    func(r *source.Restored) { r.PackedAt = time.Time{} },
	} {
		rec := record(row)
		change(&rec)
		if got, err := tb.Restore(t.Context(), []source.Restored{rec}); err == nil {
			t.Errorf("%s: %v, want an error", name, got)
		}
	}
	if _, err := tb.Restore(t.Context(), make([]source.Restored, source.MaxBatch+1)); err == nil {
		t.Error("a batch above MaxBatch was restored")
	}
	if got, err := tb.Restore(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("nothing to restore: %v, %v", got, err)
	}
	tb.want(t, "the row", row)
}
