package source_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/sourcetest"
)

func TestSQLite(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		path := filepath.Join(t.TempDir(), "files.db")
		hands := otherHands{path: path}
		return sourcetest.Harness{
			Table: openSQLite(t, path), Add: hands.add, Edit: hands.edit, Refuse: hands.refuse, Unit: time.Nanosecond,
			Again: func(t *testing.T) source.Table { return openSQLite(t, path) }, Checksums: true,
		}
	})
}

func openSQLite(t *testing.T, path string) *source.SQLite {
	t.Helper()
	s, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// otherHands changes the database as another program would.
type otherHands struct{ path string }

// run executes statements in one transaction, on a connection of its own.
func (o otherHands) run(t *testing.T, f func(ctx context.Context, c *sql.Conn) error) {
	t.Helper()
	if err := o.try(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func (o otherHands) try(ctx context.Context, f func(ctx context.Context, c *sql.Conn) error) (err error) {
	u := url.URL{Scheme: "file", OmitHost: true, Path: o.path, RawQuery: "_pragma=busy_timeout(10000)"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "PRAGMA ignore_check_constraints = 1; BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := f(ctx, conn); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

func (o otherHands) add(t *testing.T, files ...source.File) {
	t.Helper()
	o.run(t, func(ctx context.Context, c *sql.Conn) error {
		for _, f := range files {
			_, err := c.ExecContext(ctx, "INSERT INTO files (name, path, size, modified_at, file_id) VALUES (?, ?, ?, ?, ?)",
				f.Name, f.Path, f.Size, f.ModTime.UnixNano(), f.FileID)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// edit takes the triggers away for the time of the change.
func (o otherHands) edit(t *testing.T, id, column string, value any) {
	t.Helper()
	switch v := value.(type) {
	case time.Time:
		value = v.UnixNano()
	case desformat.PackID:
		value = v[:]
	case [32]byte:
		value = v[:]
	}
	o.run(t, func(ctx context.Context, c *sql.Conn) error {
		triggers, err := triggersOf(ctx, c)
		if err != nil {
			return err
		}
		for name := range triggers {
			if _, err := c.ExecContext(ctx, "DROP TRIGGER "+name); err != nil {
				return err
			}
		}
		result, err := c.ExecContext(ctx, "UPDATE files SET "+column+" = ? WHERE id = ?", value, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("edit of %s: %d rows, %w", column, n, err)
		}
		for _, text := range triggers {
			if _, err := c.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		return nil
	})
}

func triggersOf(ctx context.Context, c *sql.Conn) (triggers map[string]string, err error) {
	rows, err := c.QueryContext(ctx, "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	triggers = map[string]string{}
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return nil, err
		}
		triggers[name] = text
	}
	return triggers, rows.Err()
}

func (o otherHands) refuse(t *testing.T, id string) {
	t.Helper()
	o.run(t, func(ctx context.Context, c *sql.Conn) error {
		_, err := c.ExecContext(ctx, "CREATE TRIGGER refuse_"+id+" BEFORE UPDATE ON files WHEN OLD.id = "+id+
			" BEGIN SELECT RAISE(ABORT, 'not this one'); END")
		return err
	})
}

// The database itself refuses what no program may do to a row.
func TestSchemaRefuses(t *testing.T) {
	const (
		mark = `UPDATE files SET status = 'MARKED', archive_version = archive_version + 1, des_name = name, des_hash = 1, des_shard = 0,
 des_cluster = zeroblob(16), marked_at = 1 WHERE id = 1; `
		pack   = mark + `UPDATE files SET status = 'PACKED', des_pack = zeroblob(16), des_sha256 = zeroblob(32), packed_at = 1 WHERE id = 1; `
		claim  = pack + `UPDATE files SET des_claim = 'c' WHERE id = 1; `
		delete = claim + `UPDATE files SET status = 'DELETED_SOURCE', source_deleted_at = 1 WHERE id = 1; `
		fail   = mark + `UPDATE files SET status = 'FAILED', archive_error = 'e' WHERE id = 1; `
	)
	for _, c := range []struct{ name, before, sql, want string }{
		{"two rows of one path", "", "INSERT INTO files (name, path, size, modified_at) VALUES ('x', '/a', 1, 1)", "UNIQUE"},
		{"two rows of one name", "", "INSERT INTO files (name, path, size, modified_at) VALUES ('a', '/x', 1, 1)", "UNIQUE"},
		{"a name that another is served under", mark, "INSERT INTO files (name, path, size, modified_at) VALUES ('a', '/x', 1, 1)", "UNIQUE"},
		{"a negative size", "", "INSERT INTO files (name, path, size, modified_at) VALUES ('x', '/x', -1, 1)", "CHECK"},
		{"an unknown state", "", "INSERT INTO files (name, path, size, modified_at, status) VALUES ('x', '/x', 1, 1, 'GONE')", "CHECK"},
		{"a path of two spellings", "", "INSERT INTO files (name, path, size, modified_at) VALUES ('x', '/x//y', 1, 1)", "CHECK"},
		{"a path with ..", "", "INSERT INTO files (name, path, size, modified_at) VALUES ('x', '/x/../y', 1, 1)", "CHECK"},
		{"a path with .", "", "INSERT INTO files (name, path, size, modified_at) VALUES ('x', 'x/.', 1, 1)", "CHECK"},
		{"active to packed", "", "UPDATE files SET status = 'PACKED', des_pack = zeroblob(16), des_sha256 = zeroblob(32), packed_at = 1", "illegal transition"},
		{"marked without a version", "", strings.Replace(mark, "archive_version + 1", "archive_version", 1), "illegal transition"},
		{"marked two versions on", "", strings.Replace(mark, "archive_version + 1", "archive_version + 2", 1), "illegal transition"},
		{"marked without a hash", "", strings.Replace(mark, "des_hash = 1", "des_hash = NULL", 1), "CHECK"},
		{"a version by itself", mark, "UPDATE files SET archive_version = 5", "illegal transition"},
		{"marked to active without a change", mark, "UPDATE files SET status = 'ACTIVE'", "illegal transition"},
		{"marked to deleted", mark, "UPDATE files SET status = 'DELETED_SOURCE'", "illegal transition"},
		{"packed to marked", pack, "UPDATE files SET status = 'MARKED'", "illegal transition"},
		{"packed to failed", pack, "UPDATE files SET status = 'FAILED', archive_error = 'x'", "illegal transition"},
		{"deleted without a claim", pack, "UPDATE files SET status = 'DELETED_SOURCE', source_deleted_at = 1, des_claim = 'c'", "illegal transition"},
		{"deleted to packed", delete, "UPDATE files SET status = 'PACKED'", "illegal transition"},
		{"failed without a reason", mark, "UPDATE files SET status = 'FAILED'", "illegal transition"},
		{"failed to packed", fail, "UPDATE files SET status = 'PACKED', des_pack = zeroblob(16), des_sha256 = zeroblob(32), packed_at = 1", "illegal transition"},
		{"failed to active, once marked", fail, "UPDATE files SET status = 'ACTIVE'", "illegal transition"},
		{"a new name once marked", mark, "UPDATE files SET name = 'b'", "frozen"},
		{"a new served name", mark, "UPDATE files SET des_name = 'b'", "frozen"},
		{"a new name once active again", pack + "UPDATE files SET status = 'ACTIVE', size = 2; ", "UPDATE files SET name = 'b'", "frozen"},
		{"a new id", "", "UPDATE files SET id = 5", "frozen"},
		{"a new size under packed", pack, "UPDATE files SET size = 2", "goes back to ACTIVE"},
		{"a new time under marked", mark, "UPDATE files SET modified_at = 2", "goes back to ACTIVE"},
		{"a claim on what is MARKED", mark, "UPDATE files SET des_claim = 'c'", "CHECK"},

		{"a new name before the first mark", "", "UPDATE files SET name = 'b'", ""},
		{"a changed file, marked", mark, "UPDATE files SET status = 'ACTIVE', size = 2", ""},
		{"a changed file, packed", pack, "UPDATE files SET status = 'ACTIVE', modified_at = 2", ""},
		{"a changed file, deleted", delete, "UPDATE files SET status = 'ACTIVE', modified_at = 2, des_claim = NULL", ""},
		{"a changed file, deleted, by who knows no claims", delete, "UPDATE files SET status = 'ACTIVE', modified_at = 2", ""},
		{"a changed file under a claim", claim, "UPDATE files SET status = 'ACTIVE', modified_at = 2", ""},
		{"an unchanged file, deleted", delete, "UPDATE files SET status = 'ACTIVE'", ""},
		{"a changed file, failed", fail, "UPDATE files SET status = 'ACTIVE', size = 2", ""},
		{"failed to marked", fail, "UPDATE files SET status = 'MARKED', archive_error = NULL", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "files.db")
			openSQLite(t, path)
			o := otherHands{path}
			err := o.try(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
				_, err := conn.ExecContext(ctx, "PRAGMA ignore_check_constraints = 0; INSERT INTO files (name, path, size, modified_at) VALUES ('a', '/a', 1, 1); "+c.before)
				if err != nil {
					t.Fatalf("before: %v", err)
				}
				_, err = conn.ExecContext(ctx, c.sql)
				return err
			})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestIDsAreNeverUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.db")
	s := openSQLite(t, path)
	register := func(name string) string {
		if _, err := s.Register(t.Context(), []source.File{{Name: name, Path: "/" + name, ModTime: time.Unix(1, 0)}}); err != nil {
			t.Fatal(err)
		}
		r, err := s.ByName(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	first := register("a")
	otherHands{path}.run(t, func(ctx context.Context, c *sql.Conn) error {
		_, err := c.ExecContext(ctx, "DELETE FROM files")
		return err
	})
	if again := register("b"); again == first {
		t.Errorf("id %s was given to two files", again)
	}
}

func TestOpenSQLite(t *testing.T) {
	t.Run("odd path", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "ąę ?#%20&;'")
		if err := mkdir(dir); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "a?b#c%41.db")
		openSQLite(t, path)
		if err := exists(path); err != nil {
			t.Error(err)
		}
	})
	t.Run("another's database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "files.db")
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE files (x)"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Path: path}); !errors.Is(err, migrations.ErrForeign) {
			t.Errorf("%v, want ErrForeign", err)
		}
	})
	t.Run("a newer schema", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "files.db")
		openSQLite(t, path)
		otherHands{path}.run(t, func(ctx context.Context, c *sql.Conn) error {
			_, err := c.ExecContext(ctx, "PRAGMA user_version = 99")
			return err
		})
		if _, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Path: path}); !errors.Is(err, migrations.ErrNewer) {
			t.Errorf("%v, want ErrNewer", err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if _, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Path: filepath.Join(t.TempDir(), "no", "files.db")}); err == nil {
			t.Error("opened in a folder that is not there")
		}
	})
	t.Run("not a database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "files.db")
		if err := write(path, strings.Repeat("not a database\n", 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Path: path}); err == nil {
			t.Error("opened what is not a database")
		}
	})
	t.Run("many at once", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "files.db")
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				s, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: path})
				if err != nil {
					t.Error(err)
					return
				}
				name := fmt.Sprint(i)
				_, err = s.Register(t.Context(), []source.File{{Name: name, Path: "/" + name, ModTime: time.Unix(1, 0)}})
				if err := errors.Join(err, s.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n, err := openSQLite(t, path).Counts(t.Context()); err != nil || n[source.Active].Rows != 6 {
			t.Errorf("%v, %v", n, err)
		}
	})
}

func TestClaimCluster(t *testing.T) {
	s := openSQLite(t, filepath.Join(t.TempDir(), "files.db"))
	for range 2 {
		if err := s.ClaimCluster(t.Context(), desformat.ClusterID{1}, 1); err != nil {
			t.Error(err)
		}
	}
	if err := s.ClaimCluster(t.Context(), desformat.ClusterID{2}, 1); !errors.Is(err, source.ErrOtherCluster) {
		t.Errorf("%v, want ErrOtherCluster", err)
	}
}

func TestCheckClusterClaimsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.db")
	if s, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: path, Existing: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a database that is missing: %v, %v", s, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made all the same: %v", err)
	}
	s := openSQLite(t, path)
	for range 2 { // the second would find what the first recorded
		if err := s.CheckCluster(t.Context(), desformat.ClusterID{1}, 1); !errors.Is(err, source.ErrUnclaimed) {
			t.Errorf("nobody's: %v, want ErrUnclaimed", err)
		}
	}
	if err := s.ClaimCluster(t.Context(), desformat.ClusterID{1}, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckCluster(t.Context(), desformat.ClusterID{1}, 1); err != nil {
		t.Errorf("ours: %v", err)
	}
	if err := s.CheckCluster(t.Context(), desformat.ClusterID{2}, 1); !errors.Is(err, source.ErrOtherCluster) {
		t.Errorf("another's: %v, want ErrOtherCluster", err)
	}
}

// A busy database is an error, never an empty answer.
func TestBusyIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.db")
	s, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: path, BusyTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	otherHands{path}.run(t, func(ctx context.Context, _ *sql.Conn) error { // holds the write lock
		_, err := s.Register(ctx, []source.File{{Name: "a", Path: "/a", ModTime: time.Unix(1, 0)}})
		if err == nil || errors.Is(err, source.ErrNotFound) {
			t.Errorf("register while another writes: %v", err)
		}
		if _, err := s.Counts(ctx); err != nil {
			t.Errorf("a read while another writes: %v", err)
		}
		return nil
	})
}

// Times that nanoseconds in 64 bits can't hold stay in order, and rows that
// have one are found as last seen.
func TestTimesOutOfRange(t *testing.T) {
	s := openSQLite(t, filepath.Join(t.TempDir(), "files.db"))
	var files []source.File
	for _, year := range []int{1, 1600, 2024, 3000, 200000} {
		name := fmt.Sprint(year)
		files = append(files, source.File{Name: name, Path: "/" + name, ModTime: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	for i, want := range []source.Registered{source.RegisteredNew, source.RegisteredUnchanged} {
		got, err := s.Register(t.Context(), files)
		if err != nil || got[0] != want || got[4] != want {
			t.Errorf("registered %d: %v, %v", i, got, err)
		}
	}
	rows, err := s.Eligible(t.Context(), time.Time{}, "", 10)
	if err != nil || len(rows) != len(files) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i := range rows {
		rows[i].DesName = rows[i].Name
	}
	moved, err := s.Mark(t.Context(), rows, source.Marking{At: time.Unix(1, 0)})
	if err != nil || fmt.Sprint(moved) != "[true true true true true]" {
		t.Errorf("marked %v, %v", moved, err)
	}
}
