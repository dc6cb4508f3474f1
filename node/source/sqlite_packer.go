package source

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
)

// Backlog counts the MARKED rows that are due, by ranges of `bits` bits.
func (s *SQLite) Backlog(ctx context.Context, bits uint8, d Due) (buckets []Bucket, err error) {
	if bits > desformat.MaxRangeBits {
		return nil, s.wrap("backlog", fmt.Errorf("ranges of %d bits", bits))
	}
	rowCap := d.RowCap
	if rowCap <= 0 {
		rowCap = math.MaxInt64
	}
	rows, err := s.stmts.backlog.QueryContext(ctx, nanos(d.Now), int64(d.Backoff), desformat.MaxRangeBits-int(bits), rowCap)
	if err != nil {
		return nil, s.wrap("backlog", err)
	}
	defer func() { err = errors.Join(err, s.wrap("backlog", rows.Close())) }()
	for rows.Next() {
		var b Bucket
		var prefix uint32
		var oldest int64
		if err := rows.Scan(&prefix, &b.Rows, &b.Bytes, &oldest); err != nil {
			return nil, s.wrap("backlog", err)
		}
		b.Oldest = time.Unix(0, oldest).UTC()
		if b.Range, err = desformat.NewRange(prefix, bits); err != nil {
			return nil, s.wrap("backlog", err)
		}
		buckets = append(buckets, b)
	}
	return buckets, s.wrap("backlog", rows.Err())
}

// Marked lists MARKED rows of r that are due, by rising (des_hash, id), ids
// compared as numbers.
func (s *SQLite) Marked(ctx context.Context, r desformat.Range, after After, d Due, limit int) ([]Row, error) {
	id, err := afterNumber(after.ID)
	if err != nil {
		return nil, s.wrap("marked", err)
	}
	first := max(int64(r.First()), after.Hash)
	return s.queryRows(ctx, "marked", s.stmts.marked, nanos(d.Now), int64(d.Backoff),
		first, int64(r.Last()), after.Hash, id, min(limit, MaxBatch))
}

// Attempt counts a failed attempt at a MARKED row.
func (s *SQLite) Attempt(ctx context.Context, row Row, code, text string, limit int, at time.Time) (failed bool, err error) {
	if row.State != Marked {
		return false, s.wrap("attempt", fmt.Errorf("row %s is %s", row.ID, row.State))
	}
	err = s.update(ctx, "attempt", func(tx *sql.Tx) error {
		ok, err := changed(tx.Stmt(s.stmts.attempt), seenArgs(&row, nanos(at), failure(code, text), limit, row.Attempts))
		if err != nil {
			return err
		}
		if ok {
			failed = row.Attempts+1 >= limit
			return nil
		}
		// Counted before, or the row has moved on.
		id, _ := idNumber(row.ID)
		err = tx.Stmt(s.stmts.attempted).QueryRow(id, int64(row.Version), row.Attempts+1).Scan(&failed)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return failed && err == nil, err
}

// Acknowledge moves the records' rows to PACKED. A statement that the database
// refuses undoes itself alone, and the transaction goes on with the next row.
func (s *SQLite) Acknowledge(ctx context.Context, acks []Ack, limit int, at time.Time) ([]AckResult, error) {
	if err := checkBatch(len(acks)); err != nil {
		return nil, s.wrap("acknowledge", err)
	}
	ids := make([]int64, len(acks))
	order := make([]int, len(acks))
	for i := range acks {
		ids[i], _ = idNumber(acks[i].ID)
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ids[a], ids[b]) })
	results := make([]AckResult, len(acks))
	err := s.update(ctx, "acknowledge", func(tx *sql.Tx) error {
		a := acknowledging{
			change: tx.Stmt(s.stmts.acknowledge), find: tx.Stmt(s.stmts.ackFind), refuse: tx.Stmt(s.stmts.ackRefused),
			limit: limit, at: nanos(at), args: make([]any, 0, 9),
		}
		for _, i := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			if results[i], err = a.one(ids[i], &acks[i]); err != nil {
				return fmt.Errorf("row %s: %w", acks[i].ID, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// acknowledging is one call of Acknowledge.
type acknowledging struct {
	change, find, refuse *sql.Stmt
	limit                int
	at                   int64
	args                 []any
}

func (a *acknowledging) one(id int64, ack *Ack) (AckResult, error) {
	a.args = append(a.args[:0], id, ack.Name, string(Marked), int64(ack.Version), ack.Size, nanos(ack.ModTime))
	seen := len(a.args)
	ok, err := changed(a.change, append(a.args, packBytes(ack.Pack), ack.SHA256[:], a.at))
	if refused(err) {
		return AckRefused, a.countRefusal(seen, failure(CodeRefused, err.Error()))
	}
	if err != nil || ok {
		return AckDone, err
	}
	var pack []byte
	var name sql.NullString
	var version uint32
	err = a.find.QueryRow(id).Scan(&pack, &name, &version)
	if errors.Is(err, sql.ErrNoRows) {
		return AckNoRow, nil
	}
	if err != nil {
		return AckGone, err
	}
	now := acknowledged{name: name.String, version: version}
	copy(now.pack[:], pack)
	return now.judge(ack), nil
}

// countRefusal counts an attempt at the row that the first args name. A trigger
// that guards the state may refuse FAILED as well: then the attempt alone is
// counted. A row that may not be touched at all is dead all the same.
func (a *acknowledging) countRefusal(args int, why string) error {
	_, err := changed(a.refuse, append(a.args[:args], a.at, why, a.limit))
	if refused(err) {
		_, err = changed(a.refuse, append(a.args[:args], a.at, why, math.MaxInt32))
	}
	if refused(err) {
		return nil
	}
	return err
}
