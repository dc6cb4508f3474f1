package source

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// call says who asks for what.
type call struct {
	role  Role
	op    string
	limit time.Duration // of each statement; 0: the configured one
	// narrow: the statement is about a small part of the table, told by a range of
	// ids. The planner is kept from reading all of it, which it takes for cheaper
	// when its statistics are old.
	narrow bool
	// unclaimed: whose the source is need not be known.
	unclaimed bool
	// restoring: rows are given back what they have lost, which no other
	// transaction may do.
	restoring bool
}

// request is one statement. Each parameter is cast to its own type in the
// text, since the server is not asked what it expects.
type request struct {
	sql  string
	args []any
}

// slack is how much longer than the database's own time limits an answer is
// waited for: an address that swallows packets ends no statement.
const slack = 5 * time.Second

// tries bounds how often a call is repeated that others were in the way of.
const tries = 4

// collect runs one statement as a transaction of its own and returns what scan
// makes of each row.
func collect[T any](ctx context.Context, p *Postgres, c call, build func(*pgQueries) request, scan func(*pgQueries, pgCells) (T, error)) ([]T, error) {
	var found []T
	err := p.do(ctx, c, func(ctx context.Context, s *session, q *pgQueries) error {
		found = found[:0]
		return s.send(ctx, func(row pgCells) error {
			v, err := scan(q, row)
			if err == nil {
				found = append(found, v)
			}
			return err
		}, s.settings(ctx), build(q))
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// noRow is the scan of a statement that returns none.
func noRow(*pgQueries, pgCells) (struct{}, error) { return struct{}{}, nil }

// update runs f inside a transaction of several round trips.
func (p *Postgres) update(ctx context.Context, c call, f func(context.Context, *session, *pgQueries) error) error {
	return p.do(ctx, c, func(ctx context.Context, s *session, q *pgQueries) (err error) {
		defer func() {
			if err != nil {
				s.rollback(ctx)
			}
		}()
		if err := s.send(ctx, nil, request{sql: "BEGIN"}, s.settings(ctx)); err != nil {
			return err
		}
		if err := f(ctx, s, q); err != nil {
			return err
		}
		return s.send(ctx, nil, request{sql: "COMMIT"})
	})
}

// do gives f a connection of the role, again as long as others were in the way.
func (p *Postgres) do(ctx context.Context, c call, f func(context.Context, *session, *pgQueries) error) (err error) {
	began := time.Now()
	defer func() { p.cfg.Observe(c.op, time.Since(began), err) }()
	pool := p.pools[c.role]
	if pool == nil {
		return p.wrap(c.op, fmt.Errorf("%s: %w", c.role, ErrRoleClosed))
	}
	if c.limit == 0 {
		c.limit = p.cfg.StatementTimeout
	}
	for try := 1; ; try++ {
		err = p.attempt(ctx, pool, c, f)
		if err == nil || try == tries || ctx.Err() != nil {
			return p.wrap(c.op, err)
		}
		if errors.Is(err, errLapsed) && p.pools[RoleMarker] != nil {
			if errRaise := p.raise(ctx, *p.claim.Load()); errRaise != nil {
				return errors.Join(p.wrap(c.op, err), errRaise)
			}
			continue
		}
		if !again(err) {
			return p.wrap(c.op, err)
		}
	}
}

func (p *Postgres) attempt(ctx context.Context, pool *pgxpool.Pool, c call, f func(context.Context, *session, *pgQueries) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, c.limit+connectTimeout+slack, errNoAnswer)
	defer cancel()
	err := func() error {
		conn, err := pool.Acquire(bounded)
		if err != nil {
			return err
		}
		defer conn.Release()
		s := &session{p: p, conn: conn.Conn(), limit: c.limit, narrow: c.narrow, restoring: c.restoring}
		if !c.unclaimed {
			s.claim = p.claim.Load()
		}
		q := p.queries.Load()
		if q == nil {
			if q, err = p.lookUp(bounded, s); err != nil {
				return settingsFault(err)
			}
		}
		err = settingsFault(f(bounded, s, q))
		if sqlState(err) == readOnly || errors.Is(err, errReplica) || errors.Is(err, ErrOtherCluster) {
			// Where the primary is now is found by connecting anew.
			err = errors.Join(err, conn.Conn().Close(bounded))
			return err
		}
		if err != nil && conn.Conn().IsClosed() && sqlState(err) == "" {
			err = errors.Join(errConnClosed, err)
		}
		return err
	}()
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return errors.Join(errNoAnswer, err)
	}
	if ctx.Err() != nil && err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if mappingTroubled(err) {
		p.queries.Store(nil) // looked up anew by the next call
	}
	return err
}

// settingsFault tells an answer of settings from one of the statements.
func settingsFault(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != invalidText {
		return err
	}
	switch {
	case strings.Contains(e.Message, notOurs):
		return fmt.Errorf("%w: the URL's database does not record it as ours", ErrOtherCluster)
	case strings.Contains(e.Message, superseded):
		return ErrSuperseded
	case strings.Contains(e.Message, lapsed):
		return errLapsed
	}
	return err
}

// session is one connection for the time of one call.
type session struct {
	p     *Postgres
	conn  *pgx.Conn
	limit time.Duration // of each statement

	narrow, restoring bool
	claim             *claim // nil: not known
}

// settings bounds the statements of this transaction, and makes what is written
// and read the same whatever the database's and the role's own settings are.
func (s *session) settings(ctx context.Context) request {
	limit := s.limit
	if deadline, ok := ctx.Deadline(); ok {
		// Shorter than the context's: its end closes the connection, and the server
		// would go on.
		limit = min(limit, time.Until(deadline)*9/10)
	}
	limit = max(limit, time.Millisecond)
	ms := func(d time.Duration) string { return strconv.FormatInt(max(1, d.Milliseconds()), 10) }
	r := request{
		`SELECT set_config('statement_timeout', $1::text, true), set_config('lock_timeout', $2::text, true),
 set_config('idle_in_transaction_session_timeout', $3::text, true), set_config('TimeZone', 'UTC', true),
 set_config('DateStyle', 'ISO, YMD', true), set_config('bytea_output', 'hex', true),
 set_config('standard_conforming_strings', 'on', true), set_config('jit', 'off', true)`,
		[]any{ms(limit), ms(min(s.p.cfg.LockTimeout, limit)), ms(limit)},
	}
	if s.narrow {
		r.sql += `, set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
 set_config('enable_mergejoin', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)`
	}
	if s.restoring {
		r.sql += `, set_config('desnode.restoring', 'on', true)`
	}
	if s.claim != nil {
		// The first statement of the transaction: the others are not begun.
		sql, args := s.claim.claimed(s.p.cfg.Mapping.Source, len(r.args)+1)
		r.sql += ", " + sql
		r.args = append(r.args, args...)
	}
	return r
}

// send sends statements in one round trip. Outside of a transaction they are
// one. each is given the rows of the last one; its pgCells are valid until it
// returns.
func (s *session) send(ctx context.Context, each func(pgCells) error, list ...request) (err error) {
	batch := &pgx.Batch{}
	for _, r := range list {
		batch.Queue(r.sql, r.args...)
	}
	s.p.sent.Add(int64(len(list)))
	results := s.conn.SendBatch(ctx, batch)
	defer func() {
		// The end of the transaction may fail as well.
		if errClose := results.Close(); err == nil {
			err = errClose
		}
	}()
	for range len(list) - 1 {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	if each == nil {
		_, err := results.Exec()
		return err
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(pgCells(rows.RawValues())); err != nil {
			return err
		}
	}
	return rows.Err()
}

// rollback ends a transaction that failed. Without an answer the connection is
// closed, which ends it as well.
func (s *session) rollback(ctx context.Context) {
	if s.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slack)
	defer cancel()
	if err := s.send(ctx, nil, request{sql: "ROLLBACK"}); err != nil {
		_ = s.conn.Close(ctx) // it is lost either way
	}
}

// try runs a statement inside a transaction that goes on when a row is refused,
// as if nothing had been sent: then refused is why.
func (s *session) try(ctx context.Context, each func(pgCells) error, r request) (refused *pgconn.PgError, err error) {
	err = s.send(ctx, each, request{sql: "SAVEPOINT desnode"}, r)
	if !rowRefused(err) {
		if err != nil {
			return nil, err
		}
		return nil, s.send(ctx, nil, request{sql: "RELEASE SAVEPOINT desnode"})
	}
	errors.As(err, &refused)
	return refused, s.send(ctx, nil, request{sql: "ROLLBACK TO SAVEPOINT desnode"}, request{sql: "RELEASE SAVEPOINT desnode"})
}
