package migrations_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	_ "modernc.org/sqlite" // the driver

	"github.com/datavision/desnode/migrations"
)

func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.db")
	first := open(t, path)
	want, err := migrations.SQLite(t.Context(), first)
	if err != nil || want < 1 {
		t.Fatalf("%d steps, %v", want, err)
	}
	if _, err := first.ExecContext(t.Context(), "INSERT INTO files (name, path, size, modified_at) VALUES ('a', '/a', 1, 1)"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := migrations.SQLite(t.Context(), open(t, path)); err != nil || got != want {
			t.Errorf("again: %d steps, %v; want %d", got, err, want)
		}
	}
	var n int
	if err := first.QueryRowContext(t.Context(), "SELECT count(*) FROM files").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v; want the one there was", n, err)
	}
}

func TestSQLiteAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.db")
	// SQLite waits for nobody when it changes the journal's mode; that is done
	// once, by whoever makes the file.
	if err := open(t, path).PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		db := open(t, path)
		wg.Go(func() {
			if _, err := migrations.SQLite(t.Context(), db); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestSQLiteRefuses(t *testing.T) {
	for _, c := range []struct {
		name, before string
		want         error
	}{
		{"another's tables", "CREATE TABLE files (x)", migrations.ErrForeign},
		{"another's file", "PRAGMA application_id = 1", migrations.ErrForeign},
		{"another's version", "PRAGMA user_version = 1", migrations.ErrForeign},
		{"a newer schema", "PRAGMA application_id = 0x4445536e; PRAGMA user_version = 1000", migrations.ErrNewer},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := open(t, filepath.Join(t.TempDir(), "files.db"))
			if _, err := db.ExecContext(t.Context(), c.before); err != nil {
				t.Fatal(err)
			}
			if _, err := migrations.SQLite(t.Context(), db); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// Which file a row reaches is forgotten when the row changes, unless whoever
// changes it says; marking and packing change nothing about that.
func TestFileIDIsForgottenWithTheFile(t *testing.T) {
	for _, c := range []struct {
		name, update string
		want         any
	}{
		{"another size", "UPDATE files SET size = 2", nil},
		{"another time", "UPDATE files SET modified_at = 2", nil},
		{"another path", "UPDATE files SET path = '/b'", nil},
		{"another size, the file known", "UPDATE files SET size = 2, file_id = '1:2'", "1:2"},
		{"known afterwards", "UPDATE files SET size = 2; UPDATE files SET file_id = '1:1'", "1:1"},
		{"the same again", "UPDATE files SET size = 1, modified_at = 1, status = 'ACTIVE'", "1:1"},
		{"failed", "UPDATE files SET status = 'FAILED', archive_error = 'x: y'", "1:1"},
		{"back from a failure", "UPDATE files SET status = 'FAILED', archive_error = 'x: y'; UPDATE files SET status = 'ACTIVE', archive_error = NULL", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := open(t, filepath.Join(t.TempDir(), "files.db"))
			if _, err := migrations.SQLite(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			const insert = "INSERT INTO files (name, path, size, modified_at, file_id) VALUES ('a', '/a', 1, 1, '1:1'); "
			if _, err := db.ExecContext(t.Context(), insert+c.update); err != nil {
				t.Fatal(err)
			}
			var got any
			if err := db.QueryRowContext(t.Context(), "SELECT file_id FROM files").Scan(&got); err != nil || got != c.want {
				t.Errorf("file_id = %v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// A database of the first step, with a claim and rows in every state, goes on:
// its claim is of the first generation, and its rows stay as they are.
func TestSQLiteUpgrade(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "files.db"))
	first, err := os.ReadFile("sqlite/0001_files.sql")
	if err != nil {
		t.Fatal(err)
	}
	const rows = `
INSERT INTO files (name, path, size, modified_at) VALUES ('a', '/a', 1, 1), ('b', '/b', 1, 1), ('c', '/c', 1, 1);
UPDATE files SET status = 'MARKED', archive_version = 1, des_name = name, des_hash = 1, des_shard = 0, des_cluster = zeroblob(16), marked_at = 1 WHERE id > 1;
UPDATE files SET status = 'PACKED', des_pack = zeroblob(16), des_sha256 = zeroblob(32), packed_at = 1 WHERE id > 2;
INSERT INTO desnode (one, cluster) VALUES (1, zeroblob(16));
PRAGMA application_id = 0x4445536e; PRAGMA user_version = 1`
	if _, err := db.ExecContext(t.Context(), string(first)+rows); err != nil {
		t.Fatal(err)
	}
	if last, err := migrations.SQLite(t.Context(), db); err != nil || last < 2 {
		t.Fatalf("%d steps, %v", last, err)
	}
	for query, want := range map[string]string{
		"SELECT generation || ' ' || restoring FROM desnode":                         "1 0",
		"SELECT group_concat(status || archive_version, ' ') FROM files ORDER BY id": "ACTIVE0 MARKED1 PACKED1",
	} {
		var got string
		if err := db.QueryRowContext(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", query, got, err, want)
		}
	}
	const restored = "UPDATE files SET status = 'PACKED', archive_version = 4, des_name = name, des_pack = zeroblob(16), des_sha256 = zeroblob(32), packed_at = 1 WHERE id = 1"
	if _, err := db.ExecContext(t.Context(), restored); err == nil {
		t.Error("a row was restored by a transaction that does not say so")
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE desnode SET restoring = 1; "+restored+"; UPDATE desnode SET restoring = 0"); err != nil {
		t.Errorf("restored: %v", err)
	}
}
