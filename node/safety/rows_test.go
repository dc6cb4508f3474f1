package safety

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// rows is a source.Table in memory, as strict as the embedded one: it refuses
// illegal transitions as its triggers do. All of it is durable.
type rows struct {
	name string

	mu      sync.Mutex // guards what follows
	last    int64      // the highest id there was
	byID    map[int64]*row
	cluster desformat.ClusterID // that has claimed the source; zero: none
	newest  uint64              // generation of the claim
	refused map[int64]bool      // rows that no statement may change
	illegal []string            // transitions that were refused
}

// row is one row, with the columns that source.Row does not show.
type row struct {
	source.Row
	id        int64
	hash      int64 // des_hash
	sum       [32]byte
	eligible  bool
	deletedAt time.Time
}

var errRefused = errors.New("the database refuses to change this row")

func newRows(name string) *rows {
	return &rows{name: name, byID: map[int64]*row{}, refused: map[int64]bool{}}
}

// sorted returns the rows that pick takes, by rising id; mu is held.
func (t *rows) sorted(pick func(*row) bool) []*row {
	var found []*row
	for _, r := range t.byID {
		if pick(r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *row) int { return cmp.Compare(a.id, b.id) })
	return found
}

func idOf(id string) int64 {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != id {
		return 0
	}
	return n
}

// list returns up to limit rows behind an id.
func (t *rows) list(ctx context.Context, after string, limit int, pick func(*row) bool) ([]source.Row, error) {
	from := idOf(after)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if after != "" && from == 0 {
		return nil, fmt.Errorf("%q is no id of this source", after)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []source.Row
	for _, r := range t.sorted(func(r *row) bool { return r.id > from && pick(r) }) {
		if len(out) == min(limit, source.MaxBatch) {
			break
		}
		out = append(out, r.Row)
	}
	return out, nil
}

// as reports whether the row is as last seen.
func (r *row) as(seen *source.Row) bool {
	return r.ID == seen.ID && r.Name == seen.Name && r.State == seen.State && r.Version == seen.Version &&
		r.Size == seen.Size && r.ModTime.Equal(seen.ModTime)
}

// find returns the row as last seen; nil: there is none.
func (t *rows) find(seen *source.Row) *row {
	if r := t.byID[idOf(seen.ID)]; r != nil && r.as(seen) {
		return r
	}
	return nil
}

// legal is the trigger of the reference schema.
func legal(was, is *row) bool {
	changed := is.Size != was.Size || !is.ModTime.Equal(was.ModTime)
	switch {
	case changed && is.State != source.Active:
		return false
	case was.State == is.State:
		return is.Version == was.Version
	case was.State == source.Active && is.State == source.Marked:
		return is.Version == was.Version+1
	case is.Version != was.Version:
		return false
	case was.State == source.Marked && is.State == source.Packed:
		return !is.Pack.IsZero() && !is.PackedAt.IsZero()
	case was.State == source.Packed && is.State == source.DeletedSource:
		return was.Claim != "" && is.Claim == was.Claim
	case (was.State == source.Active || was.State == source.Marked) && is.State == source.Failed:
		return is.ErrorCode != ""
	case was.State == source.Failed && is.State == source.Marked:
		return !was.MarkedAt.IsZero()
	case is.State == source.Active:
		return changed || was.State == source.DeletedSource || was.State == source.Failed && was.MarkedAt.IsZero()
	}
	return false
}

// change changes a row, unless the database refuses: then its error is one of
// a constraint, and no other row is touched.
func (t *rows) change(r *row, f func(*row)) error {
	is := *r
	f(&is)
	if t.refused[r.id] {
		return errRefused
	}
	if !legal(r, &is) {
		t.illegal = append(t.illegal, fmt.Sprintf("row %s: %s (version %d) to %s (version %d)", r.ID, r.State, r.Version, is.State, is.Version))
		return fmt.Errorf("%w: illegal transition %s to %s", errRefused, r.State, is.State)
	}
	if r.Version > 0 && is.DesName != r.DesName {
		return fmt.Errorf("%w: the name is frozen", errRefused)
	}
	for _, other := range t.byID {
		if other.id != r.id && other.served() == is.served() {
			return fmt.Errorf("%w: another row is served as %q", errTaken, is.served())
		}
	}
	if is.FileID != "" && is.FileID == r.FileID &&
		(is.Size != r.Size || !is.ModTime.Equal(r.ModTime) || is.State == source.Active && r.State != source.Active) {
		is.FileID = ""
	}
	*r = is
	return nil
}

var errTaken = errors.New("unique constraint")

// served is the name under which the row is served, or will be.
func (r *row) served() string { return cmp.Or(r.DesName, r.Name) }

func (r *row) fail(code, text string) { r.ErrorCode, r.ErrorText = code, text }

func (r *row) forgive() {
	r.Attempts, r.LastAttempt = 0, time.Time{}
	r.fail("", "")
}

// update runs a transaction: what f has changed is undone when it fails.
func (t *rows) update(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := make(map[int64]*row, len(t.byID))
	for id, r := range t.byID {
		old := *r
		before[id] = &old
	}
	last := t.last
	err := f()
	if err != nil {
		t.byID, t.last = before, last
	}
	return err
}

func (t *rows) TimePrecision() time.Duration { return time.Nanosecond }

func (t *rows) Close() error { return nil }

func (t *rows) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]source.Row, error) {
	return t.list(ctx, after, limit, func(r *row) bool {
		return r.State == source.Active && (r.ModTime.Before(before) || r.Version > 0 || r.eligible)
	})
}

var errBatch = fmt.Errorf("more than %d rows", source.MaxBatch)

func (t *rows) Mark(ctx context.Context, list []source.Row, m source.Marking) ([]bool, error) {
	if len(list) > source.MaxBatch {
		return nil, errBatch
	}
	moved := make([]bool, len(list))
	err := t.update(ctx, func() error {
		for i := range list {
			seen := &list[i]
			r := t.find(seen)
			if r == nil || seen.State != source.Active {
				continue
			}
			err := t.change(r, func(r *row) {
				r.State, r.Version, r.MarkedAt, r.Claim = source.Marked, r.Version+1, m.At.UTC(), ""
				r.DesName, r.hash = seen.DesName, int64(desformat.HashName(seen.DesName).Top32())
				r.forgive()
			})
			moved[i] = err == nil
			if errors.Is(err, errTaken) {
				err = t.change(r, func(r *row) { r.refuse(source.CodeDuplicateName, err.Error(), m.At) })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

// refuse makes the row FAILED. One that was ACTIVE loses its marked_at.
func (r *row) refuse(code, text string, at time.Time) {
	if r.State == source.Active {
		r.MarkedAt = time.Time{}
	}
	r.State, r.Claim, r.LastAttempt = source.Failed, "", at.UTC()
	r.fail(code, text)
}

func (t *rows) Refuse(ctx context.Context, seen source.Row, code, text string, at time.Time) error {
	if seen.State != source.Active && seen.State != source.Marked {
		return fmt.Errorf("row %s is %s", seen.ID, seen.State)
	}
	return t.update(ctx, func() error {
		if r := t.find(&seen); r != nil {
			return t.change(r, func(r *row) { r.refuse(code, text, at) })
		}
		return nil
	})
}

func isDue(r *row, d source.Due) bool {
	if r.State != source.Marked {
		return false
	}
	wait := d.Backoff << min(max(r.Attempts-1, 0), 10)
	return d.Backoff == 0 || r.Attempts == 0 || r.LastAttempt.IsZero() || !r.LastAttempt.Add(wait).After(d.Now)
}

func (t *rows) Backlog(ctx context.Context, bits uint8, d source.Due) ([]source.Bucket, error) {
	if bits > desformat.MaxRangeBits {
		return nil, fmt.Errorf("ranges of %d bits", bits)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []source.Bucket
	due := t.sorted(func(r *row) bool { return isDue(r, d) })
	slices.SortStableFunc(due, func(a, b *row) int { return cmp.Compare(a.hash, b.hash) })
	for _, r := range due {
		rng, err := desformat.NewRange(uint32(r.hash>>(desformat.MaxRangeBits-bits)), bits)
		if err != nil {
			return nil, err
		}
		if n := len(out); n == 0 || out[n-1].Range != rng {
			out = append(out, source.Bucket{Range: rng, Oldest: r.MarkedAt})
		}
		b := &out[len(out)-1]
		size := r.Size
		if d.RowCap > 0 {
			size = min(size, d.RowCap)
		}
		b.Rows, b.Bytes = b.Rows+1, b.Bytes+size
		if r.MarkedAt.Before(b.Oldest) {
			b.Oldest = r.MarkedAt
		}
	}
	return out, nil
}

func (t *rows) Marked(ctx context.Context, rng desformat.Range, after source.After, d source.Due, limit int) ([]source.Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	from := idOf(after.ID)
	due := t.sorted(func(r *row) bool {
		behind := r.hash > after.Hash || r.hash == after.Hash && r.id > from
		return isDue(r, d) && behind && r.hash >= int64(rng.First()) && r.hash <= int64(rng.Last())
	})
	slices.SortStableFunc(due, func(a, b *row) int { return cmp.Compare(a.hash, b.hash) })
	var out []source.Row
	for _, r := range due[:min(len(due), limit, source.MaxBatch)] {
		out = append(out, r.Row)
	}
	return out, nil
}

// attempt counts a failed attempt.
func (r *row) attempt(code, text string, limit int, at time.Time) {
	r.Attempts, r.LastAttempt = r.Attempts+1, at.UTC()
	r.fail(code, text)
	if r.Attempts >= limit {
		r.State = source.Failed
	}
}

func (t *rows) Attempt(ctx context.Context, seen source.Row, code, text string, limit int, at time.Time) (failed bool, err error) {
	if seen.State != source.Marked {
		return false, fmt.Errorf("row %s is %s", seen.ID, seen.State)
	}
	err = t.update(ctx, func() error {
		if r := t.find(&seen); r != nil && r.Attempts == seen.Attempts {
			failed = r.Attempts+1 >= limit
			return t.change(r, func(r *row) { r.attempt(code, text, limit, at) })
		}
		r := t.byID[idOf(seen.ID)]
		failed = r != nil && r.State == source.Failed && r.Attempts == seen.Attempts+1 && r.Version == seen.Version
		return nil
	})
	return failed && err == nil, err
}

func (t *rows) Acknowledge(ctx context.Context, acks []source.Ack, limit int, at time.Time) ([]source.AckResult, error) {
	if len(acks) > source.MaxBatch {
		return nil, errBatch
	}
	results := make([]source.AckResult, len(acks))
	err := t.update(ctx, func() error {
		for i := range acks {
			results[i] = t.acknowledge(&acks[i], limit, at)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (t *rows) acknowledge(a *source.Ack, limit int, at time.Time) source.AckResult {
	r := t.byID[idOf(a.ID)]
	if r == nil || r.DesName != "" && r.DesName != a.Name && r.Pack.IsZero() {
		return source.AckNoRow
	}
	if r.State == source.Marked && r.DesName == a.Name && r.Version == a.Version && r.Size == a.Size && r.ModTime.Equal(a.ModTime) {
		err := t.change(r, func(r *row) {
			r.State, r.Pack, r.PackedAt, r.sum, r.deletedAt = source.Packed, a.Pack, at.UTC(), a.SHA256, time.Time{}
			r.Attempts = 0
			r.fail("", "")
		})
		if err == nil {
			return source.AckDone
		}
		_ = t.change(r, func(r *row) { r.attempt(source.CodeRefused, err.Error(), limit, at) }) // a row that nobody may touch
		return source.AckRefused
	}
	switch {
	case r.Pack == a.Pack && r.DesName != a.Name:
		return source.AckNoRow
	case r.Pack == a.Pack:
		return source.AckDone
	case !r.Pack.IsZero():
		return source.AckOtherPack
	case r.Version < a.Version:
		return source.AckOlder
	}
	return source.AckGone
}
