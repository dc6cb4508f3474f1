package source

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
)

// Eligible lists ACTIVE rows to mark, by rising id. Those without a readable
// time are among them: marking refuses them.
//
// Where one statement answers soon, by the partial index, it is asked for as it
// is. Else, and always with the side binding, whose view has no such index, the
// table is walked in windows (see idle).
func (p *Postgres) Eligible(ctx context.Context, before time.Time, after string, limit int) ([]Row, error) {
	limit = min(limit, MaxBatch)
	c := call{role: RoleMarker, op: "eligible"}
	s := search{p: p, before: before, limit: limit}
	if !p.resolved.Side && !p.idle.narrow(p.cfg.Now()) {
		c.limit = min(p.cfg.StatementTimeout, directLimit)
		began := p.cfg.Now()
		found, err := p.list(ctx, c, after, limit, s.eligible)
		now := p.cfg.Now()
		slow := sqlState(err) == queryCanceled && ctx.Err() == nil
		if slow || err == nil && len(found) < limit && now.Sub(began) > directSlow {
			p.idle.narrowUntil(now.Add(narrowFor))
		}
		if !slow {
			return found, err
		}
	}
	return s.walk(ctx, after)
}

// list lists rows by rising id, behind after.
func (p *Postgres) list(ctx context.Context, c call, after string, limit int, where func(*pgQueries, *params) string) ([]Row, error) {
	var wrong error
	found, err := p.rows(ctx, c, func(q *pgQueries) request {
		v := &params{}
		if wrong = q.place(after); wrong != nil {
			return request{sql: "SELECT WHERE false"}
		}
		sql := "SELECT " + q.row + q.from(where(q, v)+q.behind(v, after)) +
			" ORDER BY " + q.col(migrations.ColID) + " LIMIT " + v.integer(int64(min(limit, MaxBatch)))
		return request{sql, *v}
	})
	if wrong != nil {
		return nil, p.wrap(c.op, wrong)
	}
	return found, err
}

// eligible is the condition of Eligible beside ACTIVE.
func (q *pgQueries) eligible(v *params, before time.Time) string {
	modified := q.col(migrations.ColModifiedAt)
	_, first := q.modified.bounds(clamp(before)) // of those that are not before
	return fmt.Sprintf("(%s < %s::%s OR %s > 0 OR %s IS NULL)", modified, v.text(*first), q.modified.cast, q.version, modified)
}

// clamp keeps a time within what every type of times can say.
func clamp(t time.Time) time.Time {
	switch {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}

// Mark moves rows from ACTIVE to MARKED. A row whose DesName is another row's
// becomes FAILED as duplicate-name, one that the database refuses otherwise
// FAILED as row-refused; both are reported as not moved. So is a row that
// somebody else holds locked at this moment: it stays ACTIVE and is found by
// the next round, while the source system's own updates wait for nobody.
func (p *Postgres) Mark(ctx context.Context, rows []Row, m Marking) ([]bool, error) {
	const op = "mark"
	if err := checkBatch(len(rows)); err != nil {
		return nil, p.wrap(op, err)
	}
	moved := make([]bool, len(rows))
	if len(rows) == 0 {
		return moved, nil
	}
	c := call{role: RoleMarker, op: op}
	var batch []lastSeen
	changed, err := collect(ctx, p, c, func(q *pgQueries) request {
		batch = batch[:0]
		for i := range rows {
			if s := q.seen(i, &rows[i]); rows[i].State == Active && rows[i].Problem == "" && q.possible(s) && storable(rows[i].DesName) {
				batch = append(batch, s)
			}
		}
		q.inOrder(batch)
		return q.mark(rows, batch, m)
	}, scanPlace)
	if err == nil {
		for _, n := range changed {
			moved[batch[n-1].index] = true
		}
		return moved, nil
	}
	if !rowRefused(err) {
		return nil, err
	}
	err = p.update(ctx, c, func(ctx context.Context, s *session, q *pgQueries) error {
		clear(moved)
		b := bisect{
			s:     s,
			apply: func(from, to int) request { return q.mark(rows, batch[from:to], m) },
			done:  func(i int) { moved[batch[i].index] = true },
			alone: func(ctx context.Context, i int, why *pgconn.PgError) error {
				return q.markRefused(ctx, s, &rows[batch[i].index], why, m.At)
			},
		}
		return b.run(ctx, 0, len(batch))
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

// scanPlace scans what update returns.
func scanPlace(_ *pgQueries, c pgCells) (int, error) {
	n, err := c.integer(0)
	return int(n), err
}

func (q *pgQueries) mark(rows []Row, batch []lastSeen, m Marking) request {
	names := make([]string, len(batch))
	hashes := make([]int64, len(batch))
	shards := make([]int64, len(batch))
	for i, s := range batch {
		names[i] = rows[s.index].DesName
		hash := desformat.HashName(names[i])
		hashes[i], shards[i] = int64(hash.Top32()), int64(hash.Shard(m.ShardBits))
	}
	v := &params{}
	more := []string{v.texts(names), v.add(hashes, "bigint[]"), v.add(shards, "bigint[]")}
	return q.update(v, batch, change{
		state: Active, more: more, skipLocked: true,
		set: []string{
			q.set(migrations.ColStatus, q.states[string(Marked)]),
			q.set(migrations.ColVersion, q.version+" + 1"),
			q.set(migrations.ColDesName, "s.m1"),
			q.set(migrations.ColHash, "s.m2"),
			q.set(migrations.ColShard, "s.m3"),
			q.set(migrations.ColCluster, v.bytes(m.Cluster[:])),
			q.set(migrations.ColMarkedAt, v.at(m.At)),
			q.set(migrations.ColClaim, "NULL"),
			q.set(migrations.ColAttempts, "0"),
			q.set(migrations.ColError, "NULL"),
			q.set(migrations.ColLastAttemptAt, "NULL"),
		},
	})
}

// markRefused moves a row that can't be marked to FAILED. One that may not even
// fail stays as it is.
func (q *pgQueries) markRefused(ctx context.Context, s *session, row *Row, why *pgconn.PgError, at time.Time) error {
	code, text := CodeRefused, why.Message
	if why.Code == uniqueViolation {
		code, text = CodeDuplicateName, fmt.Sprintf("another row is served as %q", row.DesName)
	}
	_, err := s.try(ctx, nil, q.refuse(row, code, text, at))
	return err
}

func (q *pgQueries) refuse(row *Row, code, text string, at time.Time) request {
	v := &params{}
	set := []string{
		q.set(migrations.ColStatus, q.states[string(Failed)]),
		q.set(migrations.ColError, v.text(failed(code, text))),
		q.set(migrations.ColLastAttemptAt, v.at(at)),
	}
	if row.State == Active {
		// A MARKED row has no claim. By its marked_at Retry knows where it came from.
		set = append(set, q.set(migrations.ColClaim, "NULL"), q.set(migrations.ColMarkedAt, "NULL"))
	}
	return q.update(v, []lastSeen{q.seen(0, row)}, change{state: row.State, set: set})
}

// Refuse moves an ACTIVE or MARKED row to FAILED.
func (p *Postgres) Refuse(ctx context.Context, row Row, code, text string, at time.Time) error {
	const op = "refuse"
	if row.State != Active && row.State != Marked {
		return p.wrap(op, fmt.Errorf("row %s is %s", row.ID, row.State))
	}
	role := RoleMarker
	if row.State == Marked { // the packer's find, on a node that may not mark
		role = RolePacker
	}
	_, err := p.one(ctx, call{role: role, op: op}, &row, func(q *pgQueries) request { return q.refuse(&row, code, text, at) })
	return err
}

// one runs an update of one row and reports whether it changed it.
func (p *Postgres) one(ctx context.Context, c call, row *Row, build func(*pgQueries) request) (bool, error) {
	changed, err := collect(ctx, p, c, func(q *pgQueries) request {
		if !q.possible(q.seen(0, row)) {
			return request{sql: "SELECT 0 WHERE false"}
		}
		return build(q)
	}, scanPlace)
	return err == nil && len(changed) > 0, err
}
