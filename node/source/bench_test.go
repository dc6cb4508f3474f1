package source_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

const benchRows = 100_000

// BenchmarkSQLite takes benchRows files through the table, each step in
// batches of MaxBatch, and reports rows a second of each.
func BenchmarkSQLite(b *testing.B) {
	for range b.N {
		lifeOfRows(b)
	}
}

type stopwatch struct {
	b     *testing.B
	start time.Time
}

func (s *stopwatch) lap(step string) {
	s.b.ReportMetric(benchRows/time.Since(s.start).Seconds(), step+"-rows/s")
	s.start = time.Now()
}

func lifeOfRows(b *testing.B) {
	ctx := b.Context()
	table, err := source.OpenSQLite(ctx, source.SQLiteConfig{Name: "files", Path: filepath.Join(b.TempDir(), "files.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := table.Close(); err != nil {
			b.Error(err)
		}
	}()
	files := benchFiles()
	w := stopwatch{b, time.Now()}
	registerAll(b, table, files)
	w.lap("register")
	registerAll(b, table, files)
	w.lap("reregister")
	var eligible [][]source.Row
	for after := ""; ; {
		rows, err := table.Eligible(ctx, time.Time{}, after, source.MaxBatch)
		if err != nil {
			b.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			rows[i].DesName = rows[i].Name
		}
		eligible = append(eligible, rows)
		after = rows[len(rows)-1].ID
	}
	w.lap("eligible")
	for _, rows := range eligible {
		moved, err := table.Mark(ctx, rows, source.Marking{At: time.Now(), ShardBits: 10})
		if err != nil || !moved[0] {
			b.Fatal(err, moved[0])
		}
	}
	w.lap("mark")
	if _, err := table.Backlog(ctx, 12, source.Due{Now: time.Now()}); err != nil {
		b.Fatal(err)
	}
	w.lap("backlog")
	var acks [][]source.Ack
	after := source.After{Hash: -1}
	for {
		rows, err := table.Marked(ctx, desformat.Range{}, after, source.Due{Now: time.Now()}, source.MaxBatch)
		if err != nil {
			b.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		batch := make([]source.Ack, len(rows))
		for i, r := range rows {
			batch[i] = source.Ack{ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, Pack: desformat.PackID{1 + byte(desformat.HashName(r.DesName).Shard(3))}}
		}
		acks = append(acks, batch)
		last := rows[len(rows)-1]
		after = source.After{Hash: int64(desformat.HashName(last.DesName).Top32()), ID: last.ID}
	}
	w.lap("marked")
	for _, batch := range acks {
		results, err := table.Acknowledge(ctx, batch, 5, time.Now())
		if err != nil || results[0] != source.AckDone {
			b.Fatal(err, results)
		}
	}
	w.lap("acknowledge")
	counts, err := table.Counts(ctx)
	if err != nil || counts[source.Packed].Rows != benchRows {
		b.Fatal(err, counts)
	}
	w.lap("count")
}

func registerAll(b *testing.B, table *source.SQLite, files []source.File) {
	for i := 0; i < len(files); i += source.MaxBatch {
		if _, err := table.Register(b.Context(), files[i:i+source.MaxBatch]); err != nil {
			b.Fatal(err)
		}
	}
}

func benchFiles() []source.File {
	files := make([]source.File, benchRows)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range files {
		name := fmt.Sprintf("cmd/compile/internal/part%03d/file%05d_test.go", i/100, i)
		files[i] = source.File{
			Name: name, Path: "/usr/local/go/src/" + name, Size: r.Int64N(1 << 17),
			ModTime: time.Unix(1_700_000_000, r.Int64N(1e15)).UTC(), FileID: fmt.Sprintf("10302:%d", 1_000_000+i),
		}
	}
	return files
}
