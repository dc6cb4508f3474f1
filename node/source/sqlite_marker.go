package source

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/datavision/desnode/desformat"
)

// Eligible lists ACTIVE rows to mark, by rising id.
func (s *SQLite) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]Row, error) {
	id, err := afterNumber(after)
	if err != nil {
		return nil, s.wrap("eligible", err)
	}
	return s.queryRows(ctx, "eligible", s.stmts.eligible, nanos(before), id, min(limit, MaxBatch))
}

// Mark moves rows from ACTIVE to MARKED. A row whose DesName is another row's
// becomes FAILED as duplicate-name and is reported as not moved.
func (s *SQLite) Mark(ctx context.Context, rows []Row, m Marking) ([]bool, error) {
	if err := checkBatch(len(rows)); err != nil {
		return nil, s.wrap("mark", err)
	}
	moved := make([]bool, len(rows))
	err := s.update(ctx, "mark", func(tx *sql.Tx) error {
		mark := tx.Stmt(s.stmts.mark)
		at, cluster := nanos(m.At), m.Cluster[:]
		args := make([]any, 11)
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			row := &rows[i]
			if row.State != Active {
				continue
			}
			hash := desformat.HashName(row.DesName)
			id, _ := idNumber(row.ID)
			args = append(args[:0], id, row.Name, string(Active), int64(row.Version), row.Size, nanos(row.ModTime),
				row.DesName, int64(hash.Top32()), int64(hash.Shard(m.ShardBits)), cluster, at)
			ok, err := changed(mark, args)
			if taken(err) {
				err = s.markDuplicate(tx, row, m.At)
			}
			if err != nil {
				return fmt.Errorf("row %s: %w", row.ID, err)
			}
			moved[i] = ok
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

func (s *SQLite) markDuplicate(tx *sql.Tx, row *Row, at time.Time) error {
	text := failure(CodeDuplicateName, fmt.Sprintf("another row is served as %q", row.DesName))
	_, err := changed(tx.Stmt(s.stmts.markDuplicate), seenArgs(row, text, nanos(at)))
	return err
}

// Refuse moves an ACTIVE or MARKED row to FAILED.
func (s *SQLite) Refuse(ctx context.Context, row Row, code, text string, at time.Time) error {
	if row.State != Active && row.State != Marked {
		return s.wrap("refuse", fmt.Errorf("row %s is %s", row.ID, row.State))
	}
	return s.update(ctx, "refuse", func(tx *sql.Tx) error {
		_, err := changed(tx.Stmt(s.stmts.refuse), seenArgs(&row, failure(code, text), nanos(at)))
		return err
	})
}
