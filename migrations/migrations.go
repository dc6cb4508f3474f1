// Package migrations keeps the SQL of the source contract: the reference
// schema of the table that lists the files, with the state machine and the
// uniqueness that DESIGN.md §3 demands enforced by the database itself.
//
// Each file is one step, applied once, in the order of its number, in one
// transaction with the record that it was applied. Steps that were released
// are never changed: a further one follows.
//
// Not for: queries. Those are node/source's.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed sqlite/*.sql
var sqliteSteps embed.FS

// applicationID marks a SQLite file as a source of ours ("DESn").
const applicationID = 0x4445536e

// Errors of SQLite, returned wrapped.
var (
	// ErrNewer: a newer desnode has migrated the database.
	ErrNewer = errors.New("database is of a newer desnode")
	// ErrForeign: the database holds something else.
	ErrForeign = errors.New("database is not a source of desnode")
)

// SQLite brings the database up to the newest step. Any number of processes
// may call it at once, and repeating it has no effect. It returns the number
// of the last step.
func SQLite(ctx context.Context, db *sql.DB) (last int, err error) {
	steps, err := fs.ReadDir(sqliteSteps, "sqlite")
	if err != nil {
		return 0, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// Immediate: of several processes one migrates and the others wait for it,
	// and what is looked at is one state of the database.
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	if err := applySQLite(ctx, conn, steps); err != nil {
		_, errRollback := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return 0, errors.Join(err, errRollback)
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		_, errRollback := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return 0, errors.Join(fmt.Errorf("migrate: %w", err), errRollback)
	}
	return len(steps), nil
}

func applySQLite(ctx context.Context, conn *sql.Conn, steps []fs.DirEntry) error {
	done, err := sqliteVersion(ctx, conn)
	if err != nil {
		return err
	}
	for number := done + 1; number <= len(steps); number++ {
		name := steps[number-1].Name()
		if !strings.HasPrefix(name, fmt.Sprintf("%04d_", number)) {
			return fmt.Errorf("migrate: step %d is named %s", number, name)
		}
		text, err := sqliteSteps.ReadFile("sqlite/" + name)
		if err != nil {
			return err
		}
		if _, err := conn.ExecContext(ctx, string(text)); err != nil {
			return fmt.Errorf("migrate: %s: %w", name, err)
		}
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(steps)))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// sqliteVersion returns how many steps the database has had.
func sqliteVersion(ctx context.Context, conn *sql.Conn) (int, error) {
	var version, application, objects int
	for _, q := range []struct {
		sql string
		to  *int
	}{
		{"PRAGMA user_version", &version},
		{"PRAGMA application_id", &application},
		{"SELECT count(*) FROM sqlite_schema", &objects},
	} {
		if err := conn.QueryRowContext(ctx, q.sql).Scan(q.to); err != nil {
			return 0, fmt.Errorf("migrate: %w", err)
		}
	}
	steps, err := fs.ReadDir(sqliteSteps, "sqlite")
	switch {
	case err != nil:
		return 0, err
	case application == 0 && version == 0 && objects == 0:
		return 0, nil // a new file
	case application != applicationID:
		return 0, fmt.Errorf("%d tables and indexes of something else: %w", objects, ErrForeign)
	case version > len(steps):
		return 0, fmt.Errorf("schema version %d, this desnode knows %d: %w", version, len(steps), ErrNewer)
	}
	return version, nil
}
