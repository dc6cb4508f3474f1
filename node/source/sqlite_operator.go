package source

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"
)

// Counts sums up the rows by state. It reads the whole table.
func (s *SQLite) Counts(ctx context.Context) (map[State]Tally, error) {
	counts := map[State]Tally{}
	err := s.tallies(ctx, "count", s.stmts.counts, func(key any, t Tally) {
		if state, ok := key.(string); ok {
			counts[State(state)] = t
		}
	})
	return counts, err
}

// Pending counts MARKED and FAILED rows by their partial indexes.
func (s *SQLite) Pending(ctx context.Context) (marked, failed Tally, err error) {
	rows, err := s.stmts.pending.QueryContext(ctx)
	if err != nil {
		return marked, failed, s.wrap("count the pending", err)
	}
	defer func() { err = errors.Join(err, s.wrap("count the pending", rows.Close())) }()
	for rows.Next() {
		var state State
		var t Tally
		if err := rows.Scan(&state, &t.Rows, &t.Bytes); err != nil {
			return marked, failed, s.wrap("count the pending", err)
		}
		if state == Marked {
			marked = t
		} else {
			failed = t
		}
	}
	return marked, failed, s.wrap("count the pending", rows.Err())
}

// EligibleTally sums up the ACTIVE rows that are eligible, and the others.
func (s *SQLite) EligibleTally(ctx context.Context, before time.Time) (eligible, young Tally, err error) {
	err = s.tallies(ctx, "count the eligible", s.stmts.eligibleTally, func(key any, t Tally) {
		if yes, ok := key.(int64); ok && yes != 0 {
			eligible = t
		} else {
			young = t
		}
	}, nanos(before))
	return eligible, young, err
}

func (s *SQLite) tallies(ctx context.Context, what string, stmt *sql.Stmt, each func(key any, t Tally), args ...any) (err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return s.wrap(what, err)
	}
	defer func() { err = errors.Join(err, s.wrap(what, rows.Close())) }()
	for rows.Next() {
		var key any
		var t Tally
		var oldest, newest int64
		if err := rows.Scan(&key, &t.Rows, &t.Bytes, &oldest, &newest); err != nil {
			return s.wrap(what, err)
		}
		t.Oldest, t.Newest = time.Unix(0, oldest).UTC(), time.Unix(0, newest).UTC()
		each(key, t)
	}
	return s.wrap(what, rows.Err())
}

// FailureTally sums up the rows that have an archive_error, by its code.
func (s *SQLite) FailureTally(ctx context.Context) (map[string]Tally, error) {
	byCode := map[string]Tally{}
	err := s.tallies(ctx, "count the failures", s.stmts.failureTally, func(key any, t Tally) {
		if code, ok := key.(string); ok {
			byCode[code] = t
		}
	})
	return byCode, err
}

// Failures lists rows that have an archive_error, by rising id.
func (s *SQLite) Failures(ctx context.Context, code, after string, limit int) ([]Row, error) {
	id, err := afterNumber(after)
	if err != nil {
		return nil, s.wrap("list the failures", err)
	}
	return s.queryRows(ctx, "list the failures", s.stmts.failing, id, min(limit, MaxBatch), code)
}

// retrySQL needs no guard but the error's presence: it is the operator's word
// about whatever state the rows are in, and repeating it finds no error left.
const retrySQL = `UPDATE files SET archive_attempts = 0, archive_error = NULL, last_archive_attempt_at = NULL,
 status = CASE WHEN status <> 'FAILED' THEN status WHEN marked_at IS NULL THEN 'ACTIVE' ELSE 'MARKED' END,
 marked_at = CASE WHEN status = 'FAILED' AND marked_at IS NOT NULL THEN ?1 ELSE marked_at END
 WHERE archive_error IS NOT NULL AND (?2 = '' OR ` + errorCode + ` = ?2)`

// Retry gives rows that have an archive_error another chance.
func (s *SQLite) Retry(ctx context.Context, which Selection, at time.Time) (total int64, err error) {
	err = s.update(ctx, "retry", func(tx *sql.Tx) error {
		if len(which.Names) == 0 {
			return addAffected(tx, &total, retrySQL, nanos(at), which.Code)
		}
		for chunk := range slices.Chunk(which.Names, MaxBatch) {
			if err := ctx.Err(); err != nil {
				return err
			}
			args := []any{nanos(at), which.Code}
			for range 2 {
				for _, name := range chunk {
					args = append(args, name)
				}
			}
			in := "(?" + strings.Repeat(", ?", len(chunk)-1) + ")"
			if err := addAffected(tx, &total, retrySQL+" AND (des_name IN "+in+" OR name IN "+in+")", args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return total, nil
}

func addAffected(tx *sql.Tx, total *int64, text string, args ...any) error {
	result, err := tx.Exec(text, args...)
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	*total += n
	return err
}
