package source_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// BenchmarkPostgresLife takes rows from ACTIVE to PACKED in batches of MaxBatch,
// on the reference table and through the side binding's view: rows a second of
// each step, and statements a 1000 rows of all of them.
func BenchmarkPostgresLife(b *testing.B) {
	for _, shape := range []pgShape{shapes()[0], sideShapes()[0]} {
		b.Run(shape.name, func(b *testing.B) {
			w := newWorld(b, shape)
			w.fill(b, benchRows)
			p := w.open(b)
			began := p.Statements()
			for b.Loop() {
				w.reset(b)
				lifeInPostgres(b, p)
			}
			b.ReportMetric(float64(p.Statements()-began)/float64(b.N)/(benchRows/1000), "statements/1000rows")
		})
	}
}

// fill makes n ACTIVE rows.
func (w *pgWorld) fill(t testing.TB, n int) {
	t.Helper()
	run(t, w.conn, fmt.Sprintf(`INSERT INTO %s (%s, %s, %s, %s, %s) SELECT i, 'folder/name of file ' || i, '/srv/folder/name of file ' || i, 16384, '2024-02-29'
 FROM generate_series(1, %d) AS i; ANALYZE`, w.table, w.column("id"), w.column("name"), w.column("path"), w.column("size"), w.column("modified_at"), n))
}

// reset makes all rows ACTIVE and new.
func (w *pgWorld) reset(t testing.TB) {
	t.Helper()
	sql := `UPDATE desnode.files SET status = 'ACTIVE', archive_version = 0, des_name = NULL WHERE status <> 'ACTIVE'; VACUUM ANALYZE desnode.files`
	if w.side {
		sql = `DELETE FROM desnode.entry; VACUUM ANALYZE desnode.entry`
	}
	for _, s := range append([]string{"SET session_replication_role = replica"}, strings.Split(sql, ";")...) {
		run(t, w.conn, s)
	}
}

func lifeInPostgres(b *testing.B, p *source.Postgres) {
	ctx := b.Context()
	watch := stopwatch{b, time.Now()}
	for after := ""; ; {
		rows, err := p.Eligible(ctx, time.Now(), after, source.MaxBatch)
		if err != nil {
			b.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		after = rows[len(rows)-1].ID
		for i := range rows {
			rows[i].DesName = rows[i].Name
		}
		moved, err := p.Mark(ctx, rows, source.Marking{At: time.Now(), ShardBits: 10})
		if err != nil || slices.Contains(moved, false) {
			b.Fatalf("mark: %v", err)
		}
	}
	watch.lap("mark")
	var pages [][]source.Row
	for after := (source.After{Hash: -1}); ; {
		rows, err := p.Marked(ctx, desformat.Range{}, after, source.Due{Now: time.Now(), Backoff: time.Minute}, source.MaxBatch)
		if err != nil {
			b.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		last := rows[len(rows)-1]
		after = source.After{Hash: int64(desformat.HashName(last.DesName).Top32()), ID: last.ID}
		pages = append(pages, rows)
	}
	watch.lap("list")
	for _, rows := range pages {
		acks := make([]source.Ack, len(rows))
		for i, r := range rows {
			acks[i] = source.Ack{ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, Pack: desformat.PackID{1}}
		}
		results, err := p.Acknowledge(ctx, acks, 5, time.Now())
		if err != nil || slices.ContainsFunc(results, func(r source.AckResult) bool { return r != source.AckDone }) {
			b.Fatalf("acknowledge: %v", err)
		}
	}
	watch.lap("acknowledge")
}

// BenchmarkPostgresRestore gives rows that have lost what desnode wrote back
// what it was: rows a second, the first time and when it is repeated.
func BenchmarkPostgresRestore(b *testing.B) {
	for _, shape := range []pgShape{shapes()[0], sideShapes()[0]} {
		b.Run(shape.name, func(b *testing.B) {
			w := newWorld(b, shape)
			w.fill(b, benchRows)
			p := w.open(b)
			if err := p.ClaimCluster(b.Context(), ours, 1); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				w.reset(b)
				if !w.side {
					run(b, w.conn, "UPDATE desnode.files SET des_pack = NULL")
					run(b, w.conn, "VACUUM ANALYZE desnode.files")
				}
				watch := stopwatch{b, time.Now()}
				restoreAll(b, p, source.RestoreDone)
				watch.lap("restore")
				restoreAll(b, p, source.RestoreAlready)
				watch.lap("again")
			}
		})
	}
}

// restoreAll restores the rows that fill made, in the order of their names'
// hashes, as packs have them.
func restoreAll(b *testing.B, p *source.Postgres, want source.RestoreResult) {
	b.Helper()
	list := make([]source.Restored, benchRows)
	for i := range list {
		list[i] = source.Restored{
			ID: fmt.Sprint(i + 1), Name: fmt.Sprintf("folder/name of file %d", i+1), Version: 3, Size: 16384, ModTime: time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
			Pack: desformat.PackID{byte(i >> 14), 1}, PackedAt: time.Unix(2e9, 0), State: source.Packed, ShardBits: 10,
		}
	}
	slices.SortFunc(list, func(a, b source.Restored) int {
		return cmp.Compare(desformat.HashName(a.Name).Top32(), desformat.HashName(b.Name).Top32())
	})
	for page := range slices.Chunk(list, source.MaxBatch) {
		got, err := p.Restore(b.Context(), page)
		if err != nil || slices.ContainsFunc(got, func(r source.RestoreResult) bool { return r != want }) {
			b.Fatalf("restored: %v", err)
		}
	}
}
