package source

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
)

// due is the condition of Due.
func (q *pgQueries) due(v *params, d Due) string {
	if d.Backoff <= 0 {
		return ""
	}
	attempts, last := "coalesce("+q.col(migrations.ColAttempts)+", 0)", q.col(migrations.ColLastAttemptAt)
	return fmt.Sprintf(" AND (%[1]s <= 0 OR %[2]s IS NULL OR %[2]s <= %[3]s - make_interval(secs => %[4]s::double precision * (1 << least(%[1]s - 1, 10)::integer)))",
		attempts, last, v.at(d.Now), v.text(strconv.FormatFloat(d.Backoff.Seconds(), 'f', -1, 64)))
}

// Backlog counts the MARKED rows that are due, by ranges of `bits` bits.
func (p *Postgres) Backlog(ctx context.Context, bits uint8, d Due) ([]Bucket, error) {
	const op = "backlog"
	if bits > desformat.MaxRangeBits {
		return nil, p.wrap(op, fmt.Errorf("ranges of %d bits", bits))
	}
	rowCap := d.RowCap
	if rowCap <= 0 {
		rowCap = math.MaxInt64
	}
	role := RolePacker
	if p.pools[role] == nil {
		role = RoleMarker // a node that marks, and does not pack, keeps to its limits by it
	}
	return collect(ctx, p, call{role: role, op: op}, func(q *pgQueries) request {
		v := &params{}
		sql := fmt.Sprintf("SELECT %s >> %d, count(*), %s, min(%s)", q.col(migrations.ColHash),
			desformat.MaxRangeBits-int(bits), sumOf("least("+q.size+", "+v.integer(rowCap)+")"), q.col(migrations.ColMarkedAt))
		return request{sql + q.from(q.is(Marked)+q.due(v, d)) + " GROUP BY 1 ORDER BY 1", *v}
	}, func(_ *pgQueries, c pgCells) (b Bucket, err error) {
		prefix, err := c.integer(0)
		if err == nil {
			b.Range, err = desformat.NewRange(uint32(prefix), bits)
		}
		if err == nil {
			b.Rows, err = c.integer(1)
		}
		if err == nil {
			b.Bytes, err = c.integer(2)
		}
		b.Oldest = c.time(3)
		return b, err
	})
}

// Marked lists MARKED rows of r that are due, by rising (des_hash, id).
func (p *Postgres) Marked(ctx context.Context, r desformat.Range, after After, d Due, limit int) ([]Row, error) {
	const op = "marked"
	var wrong error
	found, err := p.rows(ctx, call{role: RolePacker, op: op}, func(q *pgQueries) request {
		v := &params{}
		if wrong = q.place(after.ID); wrong != nil {
			return request{sql: "SELECT WHERE false"}
		}
		hash, id := q.col(migrations.ColHash), q.col(migrations.ColID)
		where := q.is(Marked) + q.due(v, d) + " AND " + hash + " BETWEEN " +
			v.integer(max(int64(r.First()), after.Hash)) + " AND " + v.integer(int64(r.Last()))
		if after.ID != "" {
			where += fmt.Sprintf(" AND (%s, %s) > (%s, %s::%s)", hash, id, v.integer(after.Hash), v.text(after.ID), q.id.cast)
		}
		return request{"SELECT " + q.row + q.from(where) + " ORDER BY " + hash + ", " + id +
			" LIMIT " + v.integer(int64(min(limit, MaxBatch))), *v}
	})
	if wrong != nil {
		return nil, p.wrap(op, wrong)
	}
	return found, err
}

// Attempt counts a failed attempt at a MARKED row.
func (p *Postgres) Attempt(ctx context.Context, row Row, code, text string, limit int, at time.Time) (bool, error) {
	const op = "attempt"
	if row.State != Marked {
		return false, p.wrap(op, fmt.Errorf("row %s is %s", row.ID, row.State))
	}
	c := call{role: RolePacker, op: op}
	last := row.Attempts+1 >= limit
	ok, err := p.one(ctx, c, &row, func(q *pgQueries) request {
		v := &params{}
		attempts := "coalesce(" + q.col(migrations.ColAttempts) + ", 0)"
		set := []string{
			q.set(migrations.ColAttempts, attempts+" + 1"),
			q.set(migrations.ColLastAttemptAt, v.at(at)),
			q.set(migrations.ColError, v.text(failed(code, text))),
		}
		if last {
			set = append(set, q.set(migrations.ColStatus, q.states[string(Failed)]))
		}
		where := []string{attempts + " = " + v.integer(int64(row.Attempts))}
		return q.update(v, []lastSeen{q.seen(0, &row)}, change{state: Marked, set: set, where: where})
	})
	if err != nil || ok {
		return ok && last, err
	}
	// Counted before, or the row has moved on.
	found, err := p.byID(ctx, c, row.ID)
	if err != nil || len(found) == 0 {
		return false, err
	}
	now := found[0]
	return now.State == Failed && now.Attempts == row.Attempts+1 && now.Version == row.Version, nil
}

// Acknowledge moves the records' rows to PACKED. Rows that the database refuses
// are found by halving the batch; each counts an attempt.
func (p *Postgres) Acknowledge(ctx context.Context, acks []Ack, limit int, at time.Time) ([]AckResult, error) {
	const op = "acknowledge"
	if err := checkBatch(len(acks)); err != nil {
		return nil, p.wrap(op, err)
	}
	a := &pgAck{acks: acks, limit: limit, at: at, results: make([]AckResult, len(acks)), known: make([]bool, len(acks))}
	if len(acks) == 0 {
		return a.results, nil
	}
	c := call{role: RolePacker, op: op}
	changed, err := collect(ctx, p, c, func(q *pgQueries) request {
		a.prepare(q)
		return a.apply(q, 0, len(a.batch))
	}, scanPlace)
	switch {
	case err == nil:
		for _, n := range changed {
			a.set(n-1, AckDone)
		}
	case rowRefused(err):
		err = p.update(ctx, c, func(ctx context.Context, s *session, q *pgQueries) error {
			clear(a.known)
			b := bisect{
				s:     s,
				apply: func(from, to int) request { return a.apply(q, from, to) },
				done:  func(i int) { a.set(i, AckDone) },
				alone: func(ctx context.Context, i int, why *pgconn.PgError) error {
					a.set(i, AckRefused)
					return a.countRefusal(ctx, s, q, i, why)
				},
			}
			return b.run(ctx, 0, len(a.batch))
		})
	}
	if err == nil {
		err = a.lookUp(ctx, p, c)
	}
	if err != nil {
		return nil, err
	}
	return a.results, nil
}

// pgAck is one call of Acknowledge.
type pgAck struct {
	acks  []Ack
	limit int
	at    time.Time

	batch   []lastSeen // those that can be rows here
	results []AckResult
	known   []bool // that there is a result
}

func (a *pgAck) prepare(q *pgQueries) {
	a.batch = a.batch[:0]
	for i := range a.acks {
		ack := &a.acks[i]
		low, high := q.modified.bounds(ack.ModTime)
		if s := (lastSeen{i, ack.ID, ack.Name, ack.Version, ack.Size, low, high}); q.possible(s) {
			a.batch = append(a.batch, s)
		}
	}
	q.inOrder(a.batch)
}

func (a *pgAck) set(place int, r AckResult) {
	i := a.batch[place].index
	a.results[i], a.known[i] = r, true
}

func (a *pgAck) apply(q *pgQueries, from, to int) request {
	packs := make([][]byte, 0, to-from)
	sums := make([][]byte, 0, to-from)
	for _, s := range a.batch[from:to] {
		packs = append(packs, a.acks[s.index].Pack[:])
		sums = append(sums, a.acks[s.index].SHA256[:])
	}
	v := &params{}
	more := []string{v.add(packs, "bytea[]"), v.add(sums, "bytea[]")}
	return q.update(v, a.batch[from:to], change{
		state: Marked, name: migrations.ColDesName, more: more,
		set: []string{
			q.set(migrations.ColStatus, q.states[string(Packed)]),
			q.set(migrations.ColPack, "s.m1"),
			q.set(migrations.ColSHA256, "s.m2"),
			q.set(migrations.ColPackedAt, v.at(a.at)),
			q.set(migrations.ColDeletedAt, "NULL"),
			q.set(migrations.ColAttempts, "0"),
			q.set(migrations.ColError, "NULL"),
		},
	})
}

// countRefusal counts an attempt at a row. A trigger that guards the state may
// refuse FAILED as well: then the attempt alone is counted. A row that may not
// be touched at all is dead all the same.
func (a *pgAck) countRefusal(ctx context.Context, s *session, q *pgQueries, i int, why *pgconn.PgError) error {
	attempts := "coalesce(" + q.col(migrations.ColAttempts) + ", 0) + 1"
	count := func(limit int) request {
		v := &params{}
		return q.update(v, a.batch[i:i+1], change{
			state: Marked, name: migrations.ColDesName,
			set: []string{
				q.set(migrations.ColAttempts, attempts),
				q.set(migrations.ColLastAttemptAt, v.at(a.at)),
				q.set(migrations.ColError, v.text(failed(CodeRefused, why.Message))),
				q.set(migrations.ColStatus, fmt.Sprintf("CASE WHEN %s >= %s THEN %s ELSE %s END", attempts, v.integer(int64(limit)),
					q.states[string(Failed)], q.col(migrations.ColStatus))),
			},
		})
	}
	refused, err := s.try(ctx, nil, count(a.limit))
	if err == nil && refused != nil {
		_, err = s.try(ctx, nil, count(math.MaxInt32))
	}
	return err
}

// lookUp tells of the rows that were not as the catalog lists them whether they
// have this pack already. It is a statement of its own, behind the update: what
// another node has acknowledged meanwhile is in sight. A replica would not show
// it, and a record would be dead that is not.
func (a *pgAck) lookUp(ctx context.Context, p *Postgres, c call) error {
	var ids []string
	for _, s := range a.batch {
		if !a.known[s.index] {
			ids = append(ids, s.id)
		}
	}
	for i := range a.results {
		if !a.known[i] {
			a.results[i] = AckNoRow
		}
	}
	if len(ids) == 0 {
		return nil
	}
	type row struct {
		id string
		acknowledged
	}
	found, err := collect(ctx, p, c, func(q *pgQueries) request {
		v := &params{}
		id := q.col(migrations.ColID)
		return request{"SELECT " + id + "::text, " + q.col(migrations.ColDesName) + "::text, " + q.col(migrations.ColPack) + ", " + q.version +
			"::text, x.replica FROM (SELECT pg_is_in_recovery() AS replica) AS x LEFT JOIN " + q.relation + // a row in any case
			" ON " + id + " = ANY (" + v.texts(ids) + "::" + q.id.cast + "[])", *v}
	}, func(_ *pgQueries, c pgCells) (row, error) {
		if c.text(4) != "f" {
			return row{}, errReplica
		}
		r := row{c.text(0), acknowledged{name: c.text(1)}}
		pack, err := c.bytes(2)
		if err == nil && c[3] != nil {
			var version int64
			version, err = c.integer(3)
			r.version = uint32(max(0, min(version, math.MaxUint32)))
		}
		copy(r.pack[:], pack)
		return r, err
	})
	if err != nil {
		return err
	}
	now := map[string]acknowledged{}
	for _, r := range found {
		now[r.id] = r.acknowledged
	}
	for _, s := range a.batch {
		if h, ok := now[s.id]; ok && !a.known[s.index] {
			a.results[s.index] = h.judge(&a.acks[s.index])
		}
	}
	return nil
}
