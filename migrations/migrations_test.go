package migrations_test

import (
	"database/sql"
	"errors"
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
