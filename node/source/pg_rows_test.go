package source_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
)

// hostile is a table without any constraint.
var hostile = pgShape{
	ddl: `CREATE TABLE docs (id bigint PRIMARY KEY, name text, path text, size numeric, modified_at timestamp, status text DEFAULT 'ACTIVE',
 sum text, owner text, pages integer, kind text, made date)`,
	mapping: migrations.Mapping{
		Table: "docs", Columns: map[string]string{"checksum": "sum", "content_type": "kind", "created_at": "made"},
		Metadata: map[string]string{"own'er": "owner", "pages": "pages"}, Generated: true,
	},
	world: pgWorld{table: "docs", id: number, time: timestamps(time.Microsecond), instant: same, unit: time.Microsecond},
}

// Rows that no file can have end FAILED, each by itself, and their neighbours
// are archived.
func TestHostileRows(t *testing.T) {
	w := newWorld(t, hostile)
	const sql = `'; DROP TABLE docs; --`
	bad := map[string]string{ // id → further columns
		"1":  "NULL, '/a', 1, '2020-01-01', NULL",
		"2":  "'b', NULL, 1, '2020-01-01', NULL",
		"3":  "'c', '/c', NULL, '2020-01-01', NULL",
		"4":  "'d', '/d', -1, '2020-01-01', NULL",
		"5":  "'e', '/e', 1, NULL, NULL",
		"6":  "'f', '/f', 1, '-infinity', NULL",
		"7":  "'g', '/g', 1.5, '2020-01-01', NULL",
		"8":  "'h', '/h', 'NaN', '2020-01-01', NULL",
		"9":  "'i', '/i', 1e30, '2020-01-01', NULL",
		"10": "'j', '/j', 1, '0044-03-15 BC', NULL",
		"11": "'k', '/k', 1, '2020-01-01', 'not hex'",
		"12": "'l', '/l', 1, '2020-01-01', 'abcd'",
		"13": "'m', '/m', 1, '1500-01-01', NULL",
	}
	good := map[string]string{
		"100": "'fine', '/fine', 1, '2020-01-01', NULL",
		"101": quote(sql) + ", " + quote(sql) + ", 1, '2020-01-01', ''",
		"102": "'$1::text %s \\ ''', '/x', 0, '2020-01-01', " + quote(strings.Repeat("AB", 32)),
	}
	for _, rows := range []map[string]string{bad, good} {
		for id, values := range rows {
			run(t, w.conn, "INSERT INTO docs (id, name, path, size, modified_at, sum) VALUES ("+id+", "+values+")")
		}
	}
	p := w.open(t)
	rows := eligible(t, p)
	if len(rows) != len(bad)+len(good) {
		t.Fatalf("%d rows are eligible, want %d", len(rows), len(bad)+len(good))
	}
	moved := markAll(t, p, rows) // one batch of all, as if nobody had looked
	for i, r := range rows {
		_, isBad := bad[r.ID]
		if (r.Problem != "") != isBad || moved[i] == isBad {
			t.Errorf("row %s: problem %q, marked %v", r.ID, r.Problem, moved[i])
		}
		if !isBad {
			continue
		}
		if err := p.Refuse(t.Context(), r, source.CodeInvalidRow, r.Problem+" \x00\xff"+sql, time.Unix(2e9, 0)); err != nil {
			t.Fatal(err)
		}
		now, err := p.ByID(t.Context(), r.ID)
		if err != nil || now.State != source.Failed || now.ErrorCode != source.CodeInvalidRow || !strings.HasPrefix(now.ErrorText, r.Problem) {
			t.Errorf("row %s: %s, %s, %q, %v", r.ID, now.State, now.ErrorCode, now.ErrorText, err)
		}
	}
	if left := eligible(t, p); len(left) != 0 {
		t.Errorf("%d rows are eligible after all were dealt with", len(left))
	}
	if r, err := p.ByName(t.Context(), sql); err != nil || r.Path != sql || r.State != source.Marked {
		t.Errorf("the row of SQL: %+v, %v", r, err)
	}
	if r, err := p.ByID(t.Context(), "102"); err != nil || r.SHA256 == nil || r.SHA256[31] != 0xab {
		t.Errorf("a checksum in hex: %x, %v", r.SHA256, err)
	}
	// Their files are nobody's, and known to be.
	unknown, err := p.Unidentified(t.Context(), "", source.MaxBatch)
	if err != nil || len(unknown) != len(rows) {
		t.Fatalf("%d rows are unidentified, %v", len(unknown), err)
	}
	ids := make([]string, len(unknown))
	for i := range ids {
		ids[i] = source.NoFileID
	}
	if err := p.Identify(t.Context(), unknown, ids); err != nil {
		t.Fatal(err)
	}
	if left, err := p.Unidentified(t.Context(), "", source.MaxBatch); err != nil || len(left) != 0 {
		t.Errorf("left unidentified: %+v, %v", left, err)
	}
}

// A word that is no mapped state is the trouble of its row alone.
func TestUnknownStates(t *testing.T) {
	w := newWorld(t, hostile)
	run(t, w.conn, `INSERT INTO docs (id, name, path, size, modified_at, status) VALUES (1, 'a', '/a', 1, '2020-01-01', 'draft'),
 (2, 'b', '/b', 1, '2020-01-01', NULL), (3, 'c', '/c', 1, '2020-01-01', 'ACTIVE')`)
	p := w.open(t)
	for _, id := range []string{"1", "2"} {
		if r, err := p.ByID(t.Context(), id); err != nil || r.State != "" || r.Problem == "" {
			t.Errorf("row %s: %+v, %v", id, r, err)
		}
	}
	if rows := eligible(t, p); len(rows) != 1 || rows[0].ID != "3" {
		t.Errorf("eligible: %+v", rows)
	}
	counts, err := p.Counts(t.Context())
	if err != nil || counts["draft"].Rows != 1 || counts[source.Active].Rows != 1 {
		t.Errorf("counts: %+v, %v", counts, err)
	}
	// Their files count all the same: nobody knows what they are.
	if n, err := p.Sharing(t.Context(), source.Row{Source: "other"}, "", []string{"/a", "/b"}); n != 2 || err != nil {
		t.Errorf("sharing: %d, %v", n, err)
	}
}

// What is mapped beside the required columns comes with the row.
func TestFurtherColumns(t *testing.T) {
	w := newWorld(t, hostile)
	run(t, w.conn, `INSERT INTO docs (id, name, path, size, modified_at, owner, pages, kind, made) VALUES
 (1, 'a', '/a', 1, '2020-01-01', 'Ewa "E"', 3, 'text/x', '2019-05-06'), (2, 'b', '/b', 1, '2020-01-01', NULL, NULL, NULL, NULL)`)
	p := w.open(t)
	r, err := p.ByID(t.Context(), "1")
	var custom map[string]any
	if err == nil {
		err = json.Unmarshal(r.Custom, &custom)
	}
	if err != nil || custom["own'er"] != `Ewa "E"` || custom["pages"] != 3.0 || len(custom) != 2 {
		t.Errorf("custom: %s, %v", r.Custom, err)
	}
	if r.ContentType != "text/x" || !r.Created.Equal(time.Date(2019, 5, 6, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("content type %q, created %v", r.ContentType, r.Created)
	}
	if r, err := p.ByID(t.Context(), "2"); err != nil || r.Custom != nil || r.ContentType != "" || !r.Created.IsZero() {
		t.Errorf("without them: %+v, %v", r, err)
	}
}

// Times are the same when they differ by less than a unit, in every type.
func TestTimesOfEveryType(t *testing.T) {
	for _, c := range []struct {
		ddl, value string
		want       time.Time
		unit       time.Duration
	}{
		{"date", "'2024-02-29'", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC), 24 * time.Hour},
		{"date", "'1955-02-28'", time.Date(1955, 2, 28, 0, 0, 0, 0, time.UTC), 24 * time.Hour},
		{"timestamp(0)", "'1931-01-01 10:11:12'", time.Date(1931, 1, 1, 10, 11, 12, 0, time.UTC), time.Second},
		{"timestamp(2)", "'2024-03-31 02:30:00.25'", time.Date(2024, 3, 31, 2, 30, 0, 250e6, time.UTC), 10 * time.Millisecond},
		{"timestamptz", "'2024-03-31 02:30:00.123456+02'", time.Date(2024, 3, 31, 0, 30, 0, 123456e3, time.UTC), time.Microsecond},
		{"integer", "-5", time.Unix(-5, 0).UTC(), time.Second},
		{"numeric(20,3)", "1700000000.125", time.Unix(1700000000, 125e6).UTC(), time.Millisecond},
		{"numeric", "-1.5", time.Unix(-2, 500e6).UTC(), time.Microsecond},
	} {
		t.Run(c.ddl+" "+c.value, func(t *testing.T) {
			w := newWorld(t, pgShape{
				ddl: `CREATE DOMAIN stamp AS ` + c.ddl + `; CREATE TABLE docs (id bigint PRIMARY KEY, name text, path text, size int, modified_at stamp,
 status text DEFAULT 'ACTIVE'); INSERT INTO docs VALUES (1, 'a', '/a', 1, ` + c.value + `)`,
				mapping: migrations.Mapping{Table: "docs"},
			})
			p := w.open(t)
			if rows, err := p.Eligible(t.Context(), c.want, "", 1); err != nil || len(rows) != 0 {
				t.Errorf("eligible before its own time: %v, %v", rows, err)
			}
			rows, err := p.Eligible(t.Context(), c.want.Add(1), "", 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) != 1 || !rows[0].ModTime.Equal(c.want) || p.TimePrecision() != c.unit {
				t.Fatalf("rows %+v at a precision of %v, want %v at %v", rows, p.TimePrecision(), c.want, c.unit)
			}
			for _, d := range []time.Duration{-c.unit, c.unit} {
				other := rows[0]
				other.ModTime = other.ModTime.Add(d)
				if moved := markAll(t, p, []source.Row{other}); moved[0] {
					t.Errorf("marked as of %v", other.ModTime)
				}
			}
			near := rows[0]
			near.ModTime = near.ModTime.Add(1 - c.unit)
			if moved := markAll(t, p, []source.Row{near}); !moved[0] {
				t.Fatalf("not marked as of %v", near.ModTime)
			}
			marked := allMarked(t, p)
			marked[0].ModTime = marked[0].ModTime.Add(c.unit - 1)
			got, err := p.Acknowledge(t.Context(), acksOf(marked, [16]byte{1}), 5, time.Unix(2e9, 0))
			if err != nil || got[0] != source.AckDone {
				t.Errorf("acknowledge: %v, %v", got, err)
			}
		})
	}
}

// Tables that do not fit are told, not guessed at; and looked at anew once they
// were altered.
func TestTablesThatDoNotFit(t *testing.T) {
	w := newWorld(t, hostile)
	run(t, w.conn, `INSERT INTO docs (id, name, path, size, modified_at) VALUES (1, 'a', '/a', 1, '2020-01-01')`)
	p := w.open(t)
	if rows := eligible(t, p); len(rows) != 1 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, c := range []struct{ name, alter string }{
		{"a column is gone", "ALTER TABLE docs RENAME COLUMN size TO bytes"},
		{"another type of time", "ALTER TABLE docs RENAME COLUMN bytes TO size; ALTER TABLE docs ALTER COLUMN modified_at TYPE interval USING '1 day'"},
	} {
		run(t, w.conn, c.alter)
		_, _ = p.Eligible(t.Context(), time.Now(), "", 1) // finds that the table was altered
		if _, err := p.Eligible(t.Context(), time.Now(), "", 1); !errors.Is(err, source.ErrRelation) || source.Unavailable(err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	run(t, w.conn, "ALTER TABLE docs ALTER COLUMN modified_at TYPE timestamptz(0) USING '2020-01-01'")
	if rows := eligible(t, p); len(rows) != 1 || p.TimePrecision() != time.Second {
		t.Errorf("after it was altered back: %d rows at a precision of %v", len(rows), p.TimePrecision())
	}
}

// More rows than one window are searched, and the proof that all are known is
// remembered for a while.
func TestSharingIsProvenOnce(t *testing.T) {
	w := newWorld(t, shapes()[0])
	const n = 12_000
	w.fill(t, n)
	now := time.Unix(1e9, 0)
	p := w.open(t, func(c *source.PostgresConfig) { c.Now = func() time.Time { return now } })
	run(t, w.conn, fmt.Sprintf(`INSERT INTO desnode.file_id (source, id, path, size, modified_at, file_id)
 SELECT 'files', id::text, path, size, modified_at, '1:' || id FROM desnode.files WHERE id <> %d`, n-3))
	row, err := p.ByID(t.Context(), "5")
	if err != nil || row.FileID != "1:5" {
		t.Fatalf("%+v, %v", row, err)
	}
	share := func(want int, wantErr error) {
		t.Helper()
		if got, err := p.Sharing(t.Context(), row, row.FileID, []string{row.Path}); got != want || !errors.Is(err, wantErr) {
			t.Errorf("sharing: %d, %v; want %d, %v", got, err, want, wantErr)
		}
	}
	share(0, source.ErrUnidentified)
	unknown, err := p.Unidentified(t.Context(), "", 10)
	if err != nil || len(unknown) != 1 || unknown[0].ID != fmt.Sprint(n-3) {
		t.Fatalf("unidentified: %+v, %v", unknown, err)
	}
	if err := p.Identify(t.Context(), unknown, []string{"1:x"}); err != nil {
		t.Fatal(err)
	}
	share(0, nil)
	sent := p.Statements()
	share(0, nil)
	if got := p.Statements() - sent; got > 4 {
		t.Errorf("%d statements for what was proven a moment ago", got)
	}
	// A new row has a higher id.
	run(t, w.conn, fmt.Sprintf("INSERT INTO desnode.files (id, name, path, size, modified_at) VALUES (%d, 'new', '/new', 1, '2020-01-01')", n+1))
	share(0, source.ErrUnidentified)
	run(t, w.conn, fmt.Sprintf("DELETE FROM desnode.files WHERE id = %d", n+1))
	share(0, nil)
	// Equal paths and file ids are seen at once, whatever was proven.
	run(t, w.conn, "UPDATE desnode.file_id SET file_id = '1:5' WHERE id = '9'")
	share(1, nil)
	run(t, w.conn, "UPDATE desnode.file_id SET file_id = '1:9' WHERE id = '9'; DELETE FROM desnode.file_id WHERE id = '8'")
	share(0, nil) // within the window
	now = now.Add(time.Minute)
	share(0, source.ErrUnidentified)
	if err := p.Identify(t.Context(), []source.Row{row}, []string{"1:other"}); err != nil {
		t.Fatal(err)
	}
	if r, err := p.ByID(t.Context(), "5"); err != nil || r.FileID != "1:5" {
		t.Errorf("a known file id was replaced by %s, %v", r.FileID, err)
	}
}
