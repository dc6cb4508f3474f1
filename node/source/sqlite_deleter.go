package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/datavision/desnode/desformat"
)

// Deletable lists PACKED rows of the pack, by rising id.
func (s *SQLite) Deletable(ctx context.Context, pack desformat.PackID, packedBefore time.Time, after string, limit int) ([]Row, error) {
	id, err := afterNumber(after)
	if err != nil {
		return nil, s.wrap("deletable", err)
	}
	return s.queryRows(ctx, "deletable", s.stmts.deletable, packBytes(pack), nanos(packedBefore), id, min(limit, MaxBatch))
}

// Claim sets des_claim on a PACKED row. A claim as last seen is replaced: its
// holder is a deletion that was cut.
func (s *SQLite) Claim(ctx context.Context, row Row, claim string) (ok bool, err error) {
	if err := claimable(&row, claim); err != nil {
		return false, s.wrap("claim", err)
	}
	err = s.update(ctx, "claim", func(tx *sql.Tx) (err error) {
		ok, err = changed(tx.Stmt(s.stmts.claim), seenArgs(&row, packBytes(row.Pack), claim, row.Claim))
		return err
	})
	return ok && err == nil, err
}

func claimable(row *Row, claim string) error {
	if row.State != Packed || row.Pack.IsZero() {
		return fmt.Errorf("row %s is %s", row.ID, row.State)
	}
	if claim == "" {
		return errors.New("an empty claim")
	}
	return nil
}

// Unclaim clears des_claim on a row that claim holds.
func (s *SQLite) Unclaim(ctx context.Context, row Row, claim, code, text string, at time.Time) error {
	if err := claimable(&row, claim); err != nil {
		return s.wrap("unclaim", err)
	}
	return s.update(ctx, "unclaim", func(tx *sql.Tx) error {
		why := nullText("")
		if code != "" {
			why = failure(code, text)
		}
		_, err := changed(tx.Stmt(s.stmts.unclaim), seenArgs(&row, packBytes(row.Pack), claim, why, nanos(at)))
		return err
	})
}

// Deleted moves a row that claim holds to DELETED_SOURCE. The claim stays on
// it, by which a repetition knows its own work.
func (s *SQLite) Deleted(ctx context.Context, row Row, claim string, at time.Time) (ok bool, err error) {
	if err := claimable(&row, claim); err != nil {
		return false, s.wrap("deleted", err)
	}
	err = s.update(ctx, "deleted", func(tx *sql.Tx) (err error) {
		ok, err = changed(tx.Stmt(s.stmts.deleted), seenArgs(&row, packBytes(row.Pack), claim, nanos(at)))
		if ok || err != nil {
			return err
		}
		id, _ := idNumber(row.ID)
		var before sql.NullBool
		err = tx.Stmt(s.stmts.deletedBefore).QueryRow(id, packBytes(row.Pack), claim, int64(row.Version)).Scan(&before)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		ok = before.Bool
		return err
	})
	return ok && err == nil, err
}

// Sharing counts the other rows that reach the same file. A DELETED_SOURCE row
// reaches none: its file is gone, and the system gives its inode to others.
func (s *SQLite) Sharing(ctx context.Context, row Row, fileID string, paths []string) (int, error) {
	var own int64
	if row.Source == s.name {
		own, _ = idNumber(row.ID)
	}
	where := []string{"file_id = ?2"}
	args := []any{own, nullText(fileID)} // NULL equals nothing
	for _, p := range paths {
		args = append(args, p)
		where = append(where, fmt.Sprintf("path = ?%d", len(args)))
	}
	var n int
	var unknown bool
	err := s.read.QueryRowContext(ctx, `SELECT
 (SELECT count(*) FROM files WHERE id <> ?1 AND status <> 'DELETED_SOURCE' AND (`+strings.Join(where, " OR ")+`)),
 EXISTS (SELECT 1 FROM files WHERE id <> ?1 AND `+unidentified+`)`, args...).Scan(&n, &unknown)
	if err == nil && n == 0 && unknown {
		err = ErrUnidentified
	}
	return n, s.wrap("sharing", err)
}

// Unidentified lists rows without a file id, by rising id.
func (s *SQLite) Unidentified(ctx context.Context, after string, limit int) ([]Row, error) {
	id, err := afterNumber(after)
	if err != nil {
		return nil, s.wrap("unidentified", err)
	}
	return s.queryRows(ctx, "unidentified", s.stmts.unidentified, id, min(limit, MaxBatch))
}

// ForgetMissing makes the rows that led to no file unknown again.
func (s *SQLite) ForgetMissing(ctx context.Context) error {
	return s.update(ctx, "forget missing files", func(tx *sql.Tx) error {
		_, err := tx.Stmt(s.stmts.forgetMissing).Exec()
		return err
	})
}

// ForgetFiles makes the rows with a device and an inode unknown again.
func (s *SQLite) ForgetFiles(ctx context.Context) error {
	return s.update(ctx, "forget files", func(tx *sql.Tx) error {
		_, err := tx.Stmt(s.stmts.forgetFiles).Exec()
		return err
	})
}

// Identify writes the file ids of rows that have none.
func (s *SQLite) Identify(ctx context.Context, rows []Row, fileIDs []string) error {
	err := checkBatch(len(rows))
	if err == nil && len(rows) != len(fileIDs) {
		err = fmt.Errorf("%d rows, %d file ids", len(rows), len(fileIDs))
	}
	if err != nil {
		return s.wrap("identify", err)
	}
	return s.update(ctx, "identify", func(tx *sql.Tx) error {
		stmt := tx.Stmt(s.stmts.identify)
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := changed(stmt, seenArgs(&rows[i], nullText(fileIDs[i]))); err != nil {
				return fmt.Errorf("row %s: %w", rows[i].ID, err)
			}
		}
		return nil
	})
}
