package source_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// register registers one file and returns its row.
func register(t *testing.T, table *source.SQLite, f source.File) (source.Row, source.Registered) {
	t.Helper()
	done, err := table.Register(t.Context(), []source.File{f})
	if err != nil {
		t.Fatal(err)
	}
	return byName(t, table, f.Name), done[0]
}

func byName(t *testing.T, table *source.SQLite, name string) source.Row {
	t.Helper()
	row, err := table.ByName(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// mark moves an ACTIVE row to MARKED.
func mark(t *testing.T, table *source.SQLite, row source.Row) source.Row {
	t.Helper()
	row.DesName = row.Name
	moved, err := table.Mark(t.Context(), []source.Row{row}, source.Marking{At: time.Unix(1000, 0), ShardBits: 10})
	if err != nil || !moved[0] {
		t.Fatalf("mark: %v, %v", moved, err)
	}
	return byName(t, table, row.Name)
}

// A row that the database keeps from PACKED would be packed again for ever.
func TestARowThatIsRefusedFailsAtTheLimit(t *testing.T) {
	for _, c := range []struct {
		name, trigger string
		want          source.State
		attempts      int
	}{
		{"PACKED is refused", "UPDATE OF status ON files WHEN NEW.status = 'PACKED'", source.Failed, 3},
		{"every state is refused", "UPDATE OF status ON files WHEN NEW.status <> OLD.status", source.Marked, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "files.db")
			table := openSQLite(t, path)
			row, _ := register(t, table, source.File{Name: "a", Path: "/a", Size: 1, ModTime: time.Unix(1, 0)})
			row = mark(t, table, row)
			otherHands{path}.run(t, func(ctx context.Context, conn *sql.Conn) error {
				_, err := conn.ExecContext(ctx, "CREATE TRIGGER customer BEFORE "+c.trigger+" BEGIN SELECT RAISE(ABORT, 'no'); END")
				return err
			})
			ack := source.Ack{ID: row.ID, Name: row.DesName, Version: row.Version, Size: row.Size, ModTime: row.ModTime, Pack: desformat.PackID{1}}
			for i := range 4 {
				got, err := table.Acknowledge(t.Context(), []source.Ack{ack}, 3, time.Unix(int64(i), 0))
				want := source.AckRefused
				if c.want == source.Failed && i == 3 {
					want = source.AckGone // it is FAILED by then
				}
				if err != nil || got[0] != want {
					t.Errorf("attempt %d: %v, %v; want %v", i+1, got, err, want)
				}
			}
			if r, err := table.ByID(t.Context(), row.ID); err != nil || r.State != c.want || r.Attempts != c.attempts || r.ErrorCode != source.CodeRefused {
				t.Errorf("row %+v, %v; want %s after %d attempts", r, err, c.want, c.attempts)
			}
		})
	}
}

// The source system re-activates rows without a word about claims.
func TestARowThatWasDeletedComesBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		deleted bool
	}{{"while its deletion is under way", false}, {"after its deletion", true}} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "files.db")
			table := openSQLite(t, path)
			row := deletedRow(t, table, c.deleted)
			err := otherHands{path}.try(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
				_, err := conn.ExecContext(ctx, `PRAGMA ignore_check_constraints = 0;
 UPDATE files SET status = 'ACTIVE', size = 5, modified_at = modified_at + 1 WHERE name = 'a'`)
				return err
			})
			if err != nil {
				t.Fatal("the source system's update:", err)
			}
			if ok, err := table.Deleted(t.Context(), row, "1-1", time.Unix(4, 0)); err != nil || ok {
				t.Errorf("deleted: %v, %v; its deletion must not go on", ok, err)
			}
			if row := mark(t, table, byName(t, table, "a")); row.State != source.Marked || row.Version != 2 || row.Claim != "" {
				t.Errorf("marked again: %s, version %d, claim %q", row.State, row.Version, row.Claim)
			}
		})
	}
}

func TestARowThatComesBackCanBeRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "files.db")
	table := openSQLite(t, path)
	deletedRow(t, table, true)
	otherHands{path}.run(t, func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, `UPDATE files SET status = 'ACTIVE', size = 5`)
		return err
	})
	if err := table.Refuse(t.Context(), byName(t, table, "a"), source.CodeInvalidName, "why", time.Unix(4, 0)); err != nil {
		t.Fatal(err)
	}
	if row := byName(t, table, "a"); row.State != source.Failed || row.Claim != "" {
		t.Errorf("row is %s, claim %q", row.State, row.Claim)
	}
}

func TestAFileWhereOneWasDeletedIsNew(t *testing.T) {
	table := openSQLite(t, filepath.Join(t.TempDir(), "files.db"))
	row := deletedRow(t, table, true)
	again, done := register(t, table, source.File{Name: "a", Path: "/a", Size: row.Size, ModTime: row.ModTime})
	if done != source.RegisteredChanged || again.State != source.Active || again.Claim != "" {
		t.Errorf("registered: %v, %s, claim %q; want ACTIVE again, though size and time are the same", done, again.State, again.Claim)
	}
}

// deletedRow returns a claimed row, DELETED_SOURCE when deleted.
func deletedRow(t *testing.T, table *source.SQLite, deleted bool) source.Row {
	t.Helper()
	row, _ := register(t, table, source.File{Name: "a", Path: "/a", Size: 1, ModTime: time.Unix(1, 0)})
	row = mark(t, table, row)
	ack := source.Ack{ID: row.ID, Name: row.DesName, Version: row.Version, Size: row.Size, ModTime: row.ModTime, Pack: desformat.PackID{1}}
	if got, err := table.Acknowledge(t.Context(), []source.Ack{ack}, 5, time.Unix(2, 0)); err != nil || got[0] != source.AckDone {
		t.Fatalf("acknowledge: %v, %v", got, err)
	}
	row = byName(t, table, "a")
	if ok, err := table.Claim(t.Context(), row, "1-1"); err != nil || !ok {
		t.Fatalf("claim: %v, %v", ok, err)
	}
	if deleted {
		if ok, err := table.Deleted(t.Context(), row, "1-1", time.Unix(3, 0)); err != nil || !ok {
			t.Fatalf("deleted: %v, %v", ok, err)
		}
	}
	return row
}
