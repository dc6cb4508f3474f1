package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/migrations"
)

// keyed is a Tally and what it was grouped by.
type keyed struct {
	key string
	Tally
}

// maxScans is how many statements that may take long run at once. The other
// connections of the reader's pool are for files that are asked for.
const maxScans = 2

// scan is collect for a statement that may read the whole table.
func scan[T any](ctx context.Context, p *Postgres, op string, build func(*pgQueries) request, each func(*pgQueries, pgCells) (T, error)) ([]T, error) {
	select {
	case p.scans <- struct{}{}:
		defer func() { <-p.scans }()
	case <-ctx.Done():
		return nil, p.wrap(op, ctx.Err())
	}
	return collect(ctx, p, call{role: RoleReader, op: op, limit: p.cfg.ScanTimeout}, build, each)
}

// tallies sums up rows, grouped by an expression.
func (p *Postgres) tallies(ctx context.Context, op string, build func(*pgQueries, *params) (key, where string)) ([]keyed, error) {
	return scan(ctx, p, op, func(q *pgQueries) request {
		v := &params{}
		key, where := build(q, v)
		modified := q.col(migrations.ColModifiedAt)
		return request{"SELECT " + key + ", count(*), " + sumOf("greatest("+q.size+", 0)") + ", " +
			q.modified.instant("min("+modified+")") + ", " + q.modified.instant("max("+modified+")") + q.from(where) + " GROUP BY 1", *v}
	}, func(q *pgQueries, c pgCells) (keyed, error) {
		k, err := scanKeyed(q, c)
		k.Oldest, k.Newest = c.time(3), c.time(4)
		return k, err
	})
}

// scanKeyed scans a key, a count and a sum.
func scanKeyed(_ *pgQueries, c pgCells) (k keyed, err error) {
	k.key = c.text(0)
	if k.Rows, err = c.integer(1); err == nil {
		k.Bytes, err = c.integer(2)
	}
	return k, err
}

// Counts sums up the rows by state. It reads the whole table. Words that are no
// mapped state stand for themselves.
func (p *Postgres) Counts(ctx context.Context) (map[State]Tally, error) {
	found, err := p.tallies(ctx, "count", func(q *pgQueries, _ *params) (key, where string) {
		return q.col(migrations.ColStatus) + "::text", "true"
	})
	if err != nil {
		return nil, err
	}
	q := p.queries.Load()
	counts := map[State]Tally{}
	for _, k := range found {
		state := State(k.key)
		if q != nil {
			if known, ok := q.words[k.key]; ok {
				state = known
			}
		}
		counts[state] = k.Tally
	}
	return counts, nil
}

// Pending counts the MARKED and the FAILED rows by their partial indexes.
func (p *Postgres) Pending(ctx context.Context) (marked, failed Tally, err error) {
	found, err := scan(ctx, p, "count the pending", func(q *pgQueries) request {
		sums := ", count(*), " + sumOf("greatest("+q.size+", 0)")
		return request{"SELECT 'm'" + sums + q.from(q.is(Marked)) +
			" UNION ALL SELECT 'f'" + sums + q.from(q.is(Failed)+" AND "+q.col(migrations.ColError)+" IS NOT NULL"), nil}
	}, scanKeyed)
	for _, k := range found {
		if k.key == "m" {
			marked = k.Tally
		} else {
			failed = k.Tally
		}
	}
	return marked, failed, err
}

// EligibleTally sums up the ACTIVE rows that are eligible, and the others.
func (p *Postgres) EligibleTally(ctx context.Context, before time.Time) (eligible, young Tally, err error) {
	found, err := p.tallies(ctx, "count the eligible", func(q *pgQueries, v *params) (key, where string) {
		return q.eligible(v, before), q.is(Active)
	})
	for _, k := range found {
		if k.key == "t" {
			eligible = k.Tally
			p.idle.forget() // somebody waits for them
		} else {
			young = k.Tally
		}
	}
	return eligible, young, err
}

// failing is the condition that the row has an archive_error, of that code.
func (q *pgQueries) failing(v *params, code string) string {
	where := q.col(migrations.ColError) + " IS NOT NULL"
	if code != "" {
		where += " AND " + q.errorCode() + " = " + v.text(code)
	}
	return where
}

func (q *pgQueries) errorCode() string {
	return "split_part(" + q.col(migrations.ColError) + ", ': ', 1)"
}

// FailureTally sums up the rows that have an archive_error, by its code.
func (p *Postgres) FailureTally(ctx context.Context) (map[string]Tally, error) {
	found, err := p.tallies(ctx, "count the failures", func(q *pgQueries, v *params) (key, where string) {
		return q.errorCode(), q.failing(v, "")
	})
	if err != nil {
		return nil, err
	}
	byCode := map[string]Tally{}
	for _, k := range found {
		byCode[k.key] = k.Tally
	}
	return byCode, nil
}

// Failures lists rows that have an archive_error, by rising id.
func (p *Postgres) Failures(ctx context.Context, code, after string, limit int) ([]Row, error) {
	return p.list(ctx, call{role: RoleReader, op: "list the failures"}, after, limit, func(q *pgQueries, v *params) string {
		return q.failing(v, code)
	})
}

// Retry gives rows that have an archive_error another chance, at most MaxBatch
// of them in a transaction.
func (p *Postgres) Retry(ctx context.Context, which Selection, at time.Time) (total int64, err error) {
	if len(which.Names) == 0 {
		return p.retry(ctx, which, at)
	}
	for names := range slices.Chunk(which.Names, MaxBatch) {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !storable(name) })
		if len(names) == 0 {
			continue
		}
		n, err := p.retry(ctx, Selection{Names: names, Code: which.Code}, at)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (p *Postgres) retry(ctx context.Context, which Selection, at time.Time) (total int64, err error) {
	for after := ""; ; {
		page, err := collect(ctx, p, call{role: RoleMarker, op: "retry"}, func(q *pgQueries) request {
			return q.retry(which, after, at)
		}, func(_ *pgQueries, c pgCells) (string, error) { return c.text(0), nil })
		if err != nil {
			return total, err
		}
		total += int64(len(page))
		if len(page) > 0 {
			p.idle.forget() // some may be ACTIVE again
		}
		if len(page) == 0 {
			return total, nil
		}
		after = page[len(page)-1]
	}
}

// retry needs no guard but the error's presence: it is the operator's word
// about whatever state the rows are in, and repeating it finds no error left.
func (q *pgQueries) retry(which Selection, after string, at time.Time) request {
	v := &params{}
	id, status, marked := q.col(migrations.ColID), q.col(migrations.ColStatus), q.col(migrations.ColMarkedAt)
	where := q.failing(v, which.Code)
	if len(which.Names) > 0 {
		names := v.texts(which.Names)
		where += fmt.Sprintf(" AND (%s = ANY (%s) OR %s = ANY (%s))", q.col(migrations.ColDesName), names, q.col(migrations.ColName), names)
	}
	lock := ""
	if q.lockable {
		lock = " FOR NO KEY UPDATE OF t"
	}
	set := []string{
		q.set(migrations.ColAttempts, "0"),
		q.set(migrations.ColError, "NULL"),
		q.set(migrations.ColLastAttemptAt, "NULL"),
		q.set(migrations.ColStatus, fmt.Sprintf("CASE WHEN (%s) IS NOT TRUE THEN %s WHEN %s IS NULL THEN %s ELSE %s END",
			q.is(Failed), status, marked, q.states[string(Active)], q.states[string(Marked)])),
		q.set(migrations.ColMarkedAt, fmt.Sprintf("CASE WHEN %s AND %s IS NOT NULL THEN %s ELSE %s END", q.is(Failed), marked, v.at(at), marked)),
	}
	return request{"WITH s AS MATERIALIZED (SELECT " + id + " AS id" + q.from(where+q.behind(v, after)) + " ORDER BY " + id +
		" LIMIT " + v.integer(MaxBatch) + lock + "), u AS (UPDATE " + q.relation + " SET " + strings.Join(set, ", ") +
		" FROM s WHERE " + id + " = s.id AND " + q.col(migrations.ColError) + " IS NOT NULL RETURNING " + id + " AS id)" +
		" SELECT u.id::text FROM u ORDER BY u.id", *v}
}

// Register is the embedded source's: the rows of this one are the source
// system's.
func (p *Postgres) Register(context.Context, []File) ([]Registered, error) {
	return nil, p.wrap("register", errors.ErrUnsupported)
}

// sumOf sums up a number that somebody else's table holds: what is more than
// a bigint can hold counts as that. Of no rows it is 0, which least would take
// for the larger.
func sumOf(expr string) string {
	return "least(coalesce(sum(" + expr + "), 0), 9223372036854775807)::bigint"
}
