// Package sourcetest holds the conformance suite of source.Table, which every
// driver passes: each method, its repetition, and each of its guards.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// Harness is a driver's table and what the suite needs to play the source
// system and other hands on it.
type Harness struct {
	// Table is the driver's, over an empty table.
	Table source.Table
	// Source is its short name; "": files.
	Source string
	// Add inserts rows as the source system does: ACTIVE, not eligible at once.
	Add func(t *testing.T, files ...source.File)
	// Edit sets a column of one row behind desnode's back, past every constraint.
	// Columns are named as in the reference schema; value is an int64, a string,
	// a time.Time, a desformat.PackID, a [32]byte or nil.
	Edit func(t *testing.T, id, column string, value any)
	// Refuse makes the database refuse every change of one row.
	Refuse func(t *testing.T, id string)
	// Again opens the same table once more, as another node does; nil: the driver
	// has no claims (see Claimer).
	Again func(t *testing.T) source.Table
	// Checksums: the table has a checksum column.
	Checksums bool
	// Unit is the precision of modified_at.
	Unit time.Duration
	// OtherID is an id that no row has, which Edit can give to one; "": 4711.
	OtherID string
	// TextIDs: any text is an id.
	TextIDs bool
	// UTF8: the database keeps texts in UTF-8 only.
	UTF8 bool
}

// Run holds a driver against the contract of source.Table.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *table)
	}{
		{"eligible", eligible},
		{"eligible pages", eligiblePages},
		{"mark", mark},
		{"mark of a name that is served already", markDuplicate},
		{"racing marks", markRace},
		{"refuse", refuse},
		{"backlog", backlog},
		{"backlog of rows that are due", backlogDue},
		{"marked", marked},
		{"marked pages", markedPages},
		{"attempt", attempt},
		{"acknowledge", acknowledge},
		{"acknowledge by the pack that has the row", acknowledgeAgain},
		{"acknowledge a row that never had it", acknowledgeNever},
		{"acknowledge is refused for one row", acknowledgeRefused},
		{"deletable", deletable},
		{"claim, unclaim and deleted", deletion},
		{"a claim as last seen is taken over", takeOver},
		{"sharing", sharing},
		{"unidentified", unidentified},
		{"by name", byName},
		{"by id", byID},
		{"by ids", byIDs},
		{"rows", rowsInPages},
		{"restore", restore},
		{"restore marked rows", restoreMarked},
		{"restore leaves newer rows alone", restoreNewer},
		{"restore keeps versions apart", restoreVersions},
		{"restore under a generated name", restoreGenerated},
		{"restore is refused for one row", restoreRefused},
		{"restore a batch that no record has", restoreUnfit},
		{"a claim's cluster and generation", claims},
		{"an older generation is fenced out", fence},
		{"counts", counts},
		{"eligible tally", eligibleTally},
		{"failures and retry", retry},
		{"retry goes back to where the row failed", retryState},
		{"register", register},
		{"register changed files in every state", registerChanged},
		{"register listed files", registerListed},
		{"register under another name", registerOtherName},
		{"pending", pending},
		{"times", times},
		{"batches are bounded", batches},
		{"a done context", doneContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newTable(open(t))) })
	}
	t.Run("rows not as last seen", func(t *testing.T) { guards(t, open) })
}

// table is a Harness with the steps that the tests share.
type table struct {
	Harness
	source.Table
}

func newTable(h Harness) *table { return &table{h, h.Table} }

// Fixed times and ids; whole seconds, which every precision keeps.
// maxAttempts is the limit that the suite gives to Acknowledge.
const maxAttempts = 5

var (
	modified = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	markedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	packedAt = markedAt.Add(time.Hour)
	packOne  = desformat.PackID{1}
	packTwo  = desformat.PackID{2}
	cluster  = desformat.ClusterID{7}
	marking  = source.Marking{At: markedAt, Cluster: cluster, ShardBits: 10}
)

func file(name string) source.File {
	return source.File{Name: name, Path: "/srv/" + name, Size: 100, ModTime: modified, FileID: "1:" + name}
}

// add inserts files and returns their rows.
func (tb *table) add(t *testing.T, names ...string) []source.Row {
	t.Helper()
	var files []source.File
	for _, name := range names {
		files = append(files, file(name))
	}
	tb.Add(t, files...)
	rows := make([]source.Row, len(names))
	for i, name := range names {
		rows[i] = tb.named(t, name)
	}
	return rows
}

// marked inserts files and marks them.
func (tb *table) marked(t *testing.T, names ...string) []source.Row {
	t.Helper()
	rows := tb.add(t, names...)
	return tb.mark(t, rows)
}

func (tb *table) mark(t *testing.T, rows []source.Row) []source.Row {
	t.Helper()
	for i := range rows {
		rows[i].DesName = rows[i].Name
	}
	moved, err := tb.Mark(t.Context(), rows, marking)
	if err != nil || slices.Contains(moved, false) {
		t.Fatalf("mark: %v, %v", moved, err)
	}
	return tb.again(t, rows)
}

// packed inserts files and has them packed by pack.
func (tb *table) packed(t *testing.T, pack desformat.PackID, names ...string) []source.Row {
	t.Helper()
	return tb.pack(t, pack, tb.marked(t, names...))
}

func (tb *table) pack(t *testing.T, pack desformat.PackID, rows []source.Row) []source.Row {
	t.Helper()
	for i, got := range tb.acknowledge(t, acks(pack, rows)...) {
		if got != source.AckDone {
			t.Fatalf("acknowledge %s: %v", rows[i].Name, got)
		}
	}
	return tb.again(t, rows)
}

func (tb *table) acknowledge(t *testing.T, list ...source.Ack) []source.AckResult {
	t.Helper()
	results, err := tb.Acknowledge(t.Context(), list, maxAttempts, packedAt)
	if err != nil || len(results) != len(list) {
		t.Fatalf("acknowledge: %v, %v", results, err)
	}
	return results
}

func acks(pack desformat.PackID, rows []source.Row) []source.Ack {
	list := make([]source.Ack, len(rows))
	for i, r := range rows {
		list[i] = source.Ack{
			ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, Pack: pack,
			SHA256: [32]byte{1, 2, 3},
		}
	}
	return list
}

func (tb *table) named(t *testing.T, name string) source.Row {
	t.Helper()
	r, err := tb.ByName(t.Context(), name)
	if err != nil {
		t.Fatalf("row %s: %v", name, err)
	}
	return r
}

func (tb *table) byID(t *testing.T, id string) source.Row {
	t.Helper()
	r, err := tb.ByID(t.Context(), id)
	if err != nil {
		t.Fatalf("row %s: %v", id, err)
	}
	return r
}

// again reads rows anew.
func (tb *table) again(t *testing.T, rows []source.Row) []source.Row {
	t.Helper()
	fresh := make([]source.Row, len(rows))
	for i, r := range rows {
		fresh[i] = tb.byID(t, r.ID)
	}
	return fresh
}

// want holds the row with want's id against want.
func (tb *table) want(t *testing.T, what string, want source.Row) {
	t.Helper()
	got := tb.byID(t, want.ID)
	if want.State == source.DeletedSource { // it reaches no file: a driver may forget which it was
		got.FileID = want.FileID
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func names(rows []source.Row) []string {
	list := make([]string, len(rows))
	for i, r := range rows {
		list[i] = r.Name
	}
	return list
}

func wantNames(t *testing.T, what string, rows []source.Row, err error, want ...string) {
	t.Helper()
	got := names(rows)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %q, %v; want %q", what, got, err, want)
	}
}

func numbered(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("file%04d", i)
	}
	return list
}

func batches(t *testing.T, tb *table) {
	_, errMark := tb.Mark(t.Context(), make([]source.Row, source.MaxBatch+1), marking)
	_, errAck := tb.Acknowledge(t.Context(), make([]source.Ack, source.MaxBatch+1), maxAttempts, packedAt)
	if errMark == nil || errAck == nil {
		t.Errorf("batches above MaxBatch: mark %v, acknowledge %v; want errors", errMark, errAck)
	}
	moved, errMark := tb.Mark(t.Context(), nil, marking)
	results, errAck := tb.Acknowledge(t.Context(), nil, maxAttempts, packedAt)
	if errMark != nil || errAck != nil || len(moved)+len(results) != 0 {
		t.Errorf("empty batches: mark %v, acknowledge %v", errMark, errAck)
	}
}

func doneContext(t *testing.T, tb *table) {
	rows := tb.marked(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errAck := tb.Acknowledge(ctx, acks(packOne, rows), maxAttempts, packedAt)
	_, errRead := tb.ByName(ctx, "a")
	_, errList := tb.Failures(ctx, "", "", 1)
	for what, err := range map[string]error{
		"acknowledge": errAck, "by name": errRead, "failures": errList,
		"refuse": tb.Table.Refuse(ctx, rows[0], source.CodeInvalidName, "", markedAt),
	} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, source.ErrNotFound) {
			t.Errorf("%s under a cancelled context: %v", what, err)
		}
	}
	tb.want(t, "the row", rows[0])
}

// times: rows come back at the precision of their column, in UTC, and a time
// that differs by less than one unit of it is the same.
func times(t *testing.T, tb *table) {
	f := file("a")
	f.ModTime = time.Date(1969, 12, 31, 23, 59, 59, 123456789, time.FixedZone("east", 3600))
	tb.Add(t, f)
	r := tb.named(t, "a")
	if diff := f.ModTime.Sub(r.ModTime); diff < 0 || diff >= tb.Unit || r.ModTime.Location() != time.UTC {
		t.Errorf("a time of %v came back as %v", f.ModTime, r.ModTime)
	}
	r.DesName = r.Name
	other := r
	other.ModTime = r.ModTime.Add(tb.Unit)
	if moved, err := tb.Mark(t.Context(), []source.Row{other}, marking); err != nil || moved[0] {
		t.Errorf("marked as of one unit later: %v, %v", moved, err)
	}
	r.ModTime = r.ModTime.Add(tb.Unit - 1).In(time.FixedZone("west", -3600))
	if moved, err := tb.Mark(t.Context(), []source.Row{r}, marking); err != nil || !moved[0] {
		t.Errorf("not marked as of less than one unit later: %v, %v", moved, err)
	}
}
