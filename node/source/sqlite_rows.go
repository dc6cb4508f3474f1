package source

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/desformat"
)

// rowColumns are the columns of a Row, in the order in which scanRow reads
// them. Never "*": a column added to the table must not shift them.
const rowColumns = `id, name, path, size, modified_at, status, archive_version, des_pack, des_name, checksum,
 content_type, created_at, custom, marked_at, packed_at, last_archive_attempt_at, archive_attempts, archive_error,
 des_claim, file_id`

const rowColumnCount = 20

// cells is one result row as the driver gave it: int64, string, []byte or nil.
// Scanning into `any` spares database/sql its conversions, which would cost
// more than the reading.
type cells struct {
	vals [rowColumnCount]any
	ptrs [rowColumnCount]any
}

func newCells() *cells {
	c := &cells{}
	for i := range c.vals {
		c.ptrs[i] = &c.vals[i]
	}
	return c
}

func (c *cells) int(i int) int64   { v, _ := c.vals[i].(int64); return v }
func (c *cells) text(i int) string { v, _ := c.vals[i].(string); return v }
func (c *cells) blob(i int) []byte { v, _ := c.vals[i].([]byte); return v }

func (c *cells) time(i int) time.Time {
	v, ok := c.vals[i].(int64)
	if !ok {
		return time.Time{}
	}
	return time.Unix(0, v).UTC()
}

// row makes a Row of the cells. The schema vouches for the lengths and ranges.
func (c *cells) row(source string) Row {
	r := Row{
		Source: source,
		ID:     strconv.FormatInt(c.int(0), 10), Name: c.text(1), Path: c.text(2), Size: c.int(3), ModTime: c.time(4),
		State: State(c.text(5)), Version: uint32(c.int(6)),
		DesName: c.text(8), ContentType: c.text(10), Created: c.time(11),
		MarkedAt: c.time(13), PackedAt: c.time(14), LastAttempt: c.time(15), Attempts: int(c.int(16)),
		Claim: c.text(18), FileID: c.text(19),
	}
	copy(r.Pack[:], c.blob(7))
	if b := c.blob(9); len(b) == sha256.Size {
		r.SHA256 = (*[sha256.Size]byte)(b)
	}
	if s := c.text(12); s != "" {
		r.Custom = []byte(s)
	}
	r.ErrorCode, r.ErrorText, _ = strings.Cut(c.text(17), ": ")
	return r
}

// queryRows reads the rows that a statement selects by rowColumns.
func (s *SQLite) queryRows(ctx context.Context, what string, stmt *sql.Stmt, args ...any) (found []Row, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, s.wrap(what, err)
	}
	defer func() {
		if errClose := rows.Close(); err == nil && errClose != nil {
			found, err = nil, s.wrap(what, errClose)
		}
	}()
	c := newCells()
	for rows.Next() {
		if err := rows.Scan(c.ptrs[:]...); err != nil {
			return nil, s.wrap(what, err)
		}
		found = append(found, c.row(s.name))
	}
	return found, s.wrap(what, rows.Err())
}

// idNumber parses an id of this source; false: no row of ours has such an id.
func idNumber(id string) (int64, bool) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != id {
		return 0, false
	}
	return n, true
}

// afterNumber parses the place at which a listing goes on.
func afterNumber(after string) (int64, error) {
	if after == "" {
		return 0, nil
	}
	n, ok := idNumber(after)
	if !ok {
		return 0, fmt.Errorf("%q is no id of this source", after)
	}
	return n, nil
}

// asSeen is the condition of every UPDATE: the row is as last seen.
// Its arguments are seenArgs.
const asSeen = `id = ?1 AND name = ?2 AND status = ?3 AND archive_version = ?4 AND size = ?5 AND modified_at = ?6`

func seenArgs(r *Row, more ...any) []any {
	id, _ := idNumber(r.ID) // 0 is no row's
	return append([]any{id, r.Name, string(r.State), int64(r.Version), r.Size, nanos(r.ModTime)}, more...)
}

// nanos is how times are kept. Those that 64 bits can't hold, before 1678 and
// after 2261, become the first and the last that they can.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// nullText keeps empty text out of columns in which NULL means none.
func nullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// failure is the text of archive_error.
func failure(code, text string) string {
	if text == "" {
		return code
	}
	return code + ": " + text
}

// changed executes a statement that touches at most one row and reports
// whether it did.
func changed(stmt *sql.Stmt, args []any) (bool, error) {
	result, err := stmt.Exec(args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// packBytes is the value of des_pack; no row has the zero pack.
func packBytes(p desformat.PackID) []byte { return p[:] }
