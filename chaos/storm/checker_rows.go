package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"
)

// row is what the customer's table says of one file.
type row struct {
	name, served string
	state        string
	version      int64
	size         int64
	modified     time.Time
	pack         string // in hex
	sum          [32]byte
	attempts     int
	problem      string
	packed       time.Time // packed_at, by the clock of the node that acknowledged it
}

// The states of the contract.
const (
	stateActive  = "ACTIVE"
	stateMarked  = "MARKED"
	statePacked  = "PACKED"
	stateDeleted = "DELETED_SOURCE"
	stateFailed  = "FAILED"
)

// rowWatch is what the last look at the table found.
type rowWatch struct {
	last     map[string]row
	archived []moment // how many versions each look found archived that were not before
}

// moment is a number at a time.
type moment struct {
	at    time.Time
	count int
}

// lookAtRows reads the whole table and compares each row with the ledger and
// with what it said before.
func (c *checker) lookAtRows(ctx context.Context) error {
	rows, err := c.readTable(ctx)
	if err != nil {
		return fmt.Errorf("%w: the customer's table: %w", errLater, err)
	}
	c.rows.take(c.scene, rows, time.Now())
	return nil
}

// take compares the rows of one look with the ledger and the look before.
func (w *rowWatch) take(s *scene, rows []row, now time.Time) {
	news := 0
	seen := make(map[string]row, len(rows))
	for _, r := range rows {
		if _, twice := seen[r.name]; twice {
			s.verdict.breach(badRows, "%s has two rows", r.name)
		}
		seen[r.name] = r
		f := s.ledger.named(r.name)
		if f == nil {
			s.verdict.breach(badRows, "%s is in no ledger", r.name)
			continue
		}
		before, known := w.last[r.name]
		if known && before == r {
			continue // it was judged already
		}
		if why := illegal(before, r, known); why != "" {
			s.verdict.breach(badRows, "%s: %s", r.name, why)
		}
		if r.state != statePacked && r.state != stateDeleted {
			continue
		}
		fresh, err := s.ledger.archive(f, r.sum, r.pack, now)
		if err != nil {
			s.verdict.breach(badRows, "%v", err)
			continue
		}
		if fresh {
			news++
		}
		if v := s.ledger.state(f).holding(r.sum); v.size != r.size || !v.modified.Equal(r.modified) {
			s.verdict.breach(badRows, "%s: the row is of %d bytes and %s, its pack holds version %d of %d bytes and %s",
				r.name, r.size, r.modified.UTC().Format(time.RFC3339), v.number, v.size, v.modified.Format(time.RFC3339))
		}
	}
	for name := range w.last {
		if _, still := seen[name]; !still {
			s.verdict.breach(badRows, "%s has no row any more", name)
		}
	}
	w.last = seen
	w.archived = append(w.archived, moment{now, news})
}

// illegal says what is wrong with a row by itself or after what it was before;
// "" when nothing is.
func illegal(before, now row, known bool) string {
	switch now.state {
	case stateActive, stateMarked, statePacked, stateDeleted, stateFailed:
	default:
		return fmt.Sprintf("the state %q", now.state)
	}
	if now.state != stateActive && now.state != stateFailed && now.served != now.name {
		return fmt.Sprintf("%s is served as %q", now.state, now.served)
	}
	if !known {
		return ""
	}
	from, to := fmt.Sprintf("%s at version %d", before.state, before.version), fmt.Sprintf("%s at version %d", now.state, now.version)
	changed := before.size != now.size || !before.modified.Equal(now.modified)
	switch {
	case now.version < before.version:
		return "from " + from + " back to " + to
	case changed || follows(before, now):
		return ""
	}
	return "from " + from + " to " + to + " without a change of the file"
}

// follows reports whether a row whose file did not change may have come from
// one state to the other, by any number of steps.
func follows(before, now row) bool {
	again := now.version > before.version
	switch before.state {
	case stateActive:
		return again || now.state == stateActive || now.state == stateFailed
	case stateMarked:
		return !again && now.state != stateActive
	case statePacked:
		return !again && (now.state == statePacked || now.state == stateDeleted)
	case stateDeleted:
		return !again && now.state == stateDeleted
	case stateFailed:
		return true // by an operator's retry
	}
	return true // the look before has told of it
}

// readTable reads the customer's table.
func (c *checker) readTable(ctx context.Context) (rows []row, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = closeConn(conn) }() // all was read, or an error is there already
	found, err := conn.Query(ctx, `SELECT name, coalesce(des_name, ''), status, archive_version, size, modified_at, des_pack, des_sha256,
		archive_attempts, coalesce(archive_error, ''), coalesce(packed_at, 'epoch') FROM `+c.table)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var r row
		var pack, sum []byte
		if err := found.Scan(&r.name, &r.served, &r.state, &r.version, &r.size, &r.modified, &pack, &sum, &r.attempts, &r.problem, &r.packed); err != nil {
			return nil, err
		}
		r.pack, r.modified, r.packed = hex.EncodeToString(pack), r.modified.UTC(), r.packed.UTC()
		copy(r.sum[:], sum)
		rows = append(rows, r)
	}
	return rows, found.Err()
}
