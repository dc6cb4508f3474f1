package bench_test

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/bench"
	"github.com/datavision/desnode/node/source"
)

// startPostgres starts a server of the test's own.
func startPostgres(t *testing.T) *dev.Postgres {
	t.Helper()
	dir, err := os.MkdirTemp("", "desnode-seed-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	pg, err := dev.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	return pg
}

// TestSeedMakesACustomersTable fills the table twice, as two loads on one
// database do, with a cluster's claim in between.
func TestSeedMakesACustomersTable(t *testing.T) {
	if testing.Short() {
		t.Log("left out by -short: Postgres")
		return
	}
	pg := startPostgres(t)
	files := bench.Files{Count: 12_345, Sizes: bench.Sizes{Bytes: 1000, LogNormal: true}}
	mapping := migrations.Mapping{Source: "desnode-bench", Table: source.SeedTable}
	conn, err := pgx.Connect(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()

	for range 2 {
		var told int64
		if err := source.Seed(t.Context(), pg.URL, mapping, files.Count, files.File, func(rows int64) { told = rows }); err != nil {
			t.Fatal(err)
		}
		if told != 10_000 {
			t.Errorf("progress ended at %d", told)
		}
		var n, bytes, archived int64
		if err := conn.QueryRow(t.Context(), "SELECT count(*), sum(size), sum(archive_version) FROM desnode_bench.files WHERE status = 'ACTIVE'").Scan(&n, &bytes, &archived); err != nil {
			t.Fatal(err)
		}
		var want int64
		for i := range files.Count {
			want += files.Sizes.Of(i)
		}
		if n != files.Count || bytes != want || archived != 0 {
			t.Errorf("%d rows of %d bytes, want %d of %d; versions %d", n, bytes, files.Count, want, archived)
		}
		var f source.File
		if err := conn.QueryRow(t.Context(), "SELECT name, path, size, modified_at FROM desnode_bench.files WHERE id = 778").Scan(&f.Name, &f.Path, &f.Size, &f.ModTime); err != nil {
			t.Fatal(err)
		}
		listed := files.File(777)
		if f.Name != listed.Name || f.Path != listed.Path || f.Size != listed.Size || !f.ModTime.Equal(listed.ModTime) {
			t.Errorf("listed %+v, stored %+v", listed, f)
		}
		if tag, err := conn.Exec(t.Context(), "INSERT INTO desnode.cluster (source, cluster) VALUES ('desnode-bench', decode(repeat('ab', 16), 'hex'))"); err != nil || tag.RowsAffected() != 1 {
			t.Errorf("the last cluster's claim was not forgotten: %v", err)
		}
	}

	if err := source.Unseed(t.Context(), pg.URL, mapping.Source); err != nil {
		t.Fatal(err)
	}
	var left int64
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM desnode.cluster WHERE to_regclass('desnode_bench.files') IS NULL").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d claims are left, %v", left, err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT 1 FROM desnode_bench.files"); err == nil {
		t.Error("the table is still there")
	}
}

func TestSeedWritesToNoOtherTable(t *testing.T) {
	err := source.Seed(t.Context(), "postgres://nobody:secret@127.0.0.1:1/none", migrations.Mapping{Source: "x", Table: "public.documents"}, 1, nil, nil)
	if err == nil || !strings.Contains(err.Error(), source.SeedTable) {
		t.Errorf("got %v", err)
	}
	err = source.Seed(t.Context(), "postgres://nobody:secret@127.0.0.1:1/none", migrations.Mapping{Source: "x", Table: source.SeedTable}, 1, nil, nil)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("nobody there: %v", err)
	}
	if err := source.Unseed(t.Context(), "postgres://nobody:secret@127.0.0.1:1/none", "x"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("nobody there: %v", err)
	}
}
