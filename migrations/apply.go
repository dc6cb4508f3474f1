package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Errors of Apply beside those of SQLite, returned wrapped.
var (
	// ErrOld: the server is older than Postgres 14.
	ErrOld = errors.New("server is too old")
	// ErrTable: the mapping does not fit the customer's table.
	ErrTable = errors.New("mapping does not fit the table")
)

// lockWait is how often Apply asks for its turn.
const lockWait = 200 * time.Millisecond

// Apply does what InitScript's script does, over a connection to url, which is
// that of the table's owner or a superuser and goes to the server itself, not
// through a pooler. It returns what an operator should know.
func Apply(ctx context.Context, url string, m Mapping, o ScriptOptions) (notices []string, err error) {
	p, err := planFor(m, o)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("apply: not a connection string of Postgres") // err might repeat a password
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := turn(ctx, conn); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	a := applying{conn: conn}
	if err := a.all(ctx, p.before); err != nil {
		return nil, err
	}
	for _, set := range p.steps {
		if err := set.apply(ctx, cfg); err != nil {
			return nil, err
		}
	}
	err = a.all(ctx, p.after)
	return a.notices, err
}

// turn takes the lock that lets one script or Apply run at a time, until conn
// is closed. It asks again and again: a statement that waits would hold up
// CREATE INDEX CONCURRENTLY of the one that runs.
func turn(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(lockWait)
	defer tick.Stop()
	for {
		var got bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtext($1))", lockName).Scan(&got); err != nil || got {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// applying runs sections on one connection.
type applying struct {
	conn    *pgx.Conn
	notices []string
}

func (a *applying) all(ctx context.Context, sections []section) error {
	for _, s := range sections {
		if err := a.section(ctx, s); err != nil {
			if s.title != "" {
				err = fmt.Errorf("%s: %w", s.title, err)
			}
			return fmt.Errorf("apply: %w", err)
		}
	}
	return nil
}

func (a *applying) section(ctx context.Context, s section) error {
	if s.when != "" {
		var do *bool
		if err := a.conn.QueryRow(ctx, s.when).Scan(&do); err != nil {
			return err
		}
		if do == nil || !*do {
			return nil
		}
	}
	if s.notice != "" {
		a.notices = append(a.notices, s.notice)
	}
	if s.alone {
		return a.exec(ctx, s.sql...)
	}
	return pgx.BeginFunc(ctx, a.conn, func(pgx.Tx) error {
		return a.exec(ctx, append([]string{"SET LOCAL lock_timeout = '3s'"}, s.sql...)...)
	})
}

func (a *applying) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := a.conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return known(err)
		}
	}
	return nil
}

// known adds the sentinel to what the script itself raised.
func known(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	for code, sentinel := range map[string]error{
		codeOld: ErrOld, codeForeign: ErrForeign, codeNewer: ErrNewer, codeMapping: ErrTable,
	} {
		if pg.Code == code {
			return fmt.Errorf("%s: %w", pg.Message, sentinel)
		}
	}
	return err
}

// apply brings the steps up to the newest with goose.
func (s stepSet) apply(ctx context.Context, cfg *pgx.ConnConfig) (err error) {
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := s.provider(db)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	version, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if steps := int64(len(p.ListSources())); version > steps {
		return fmt.Errorf("apply: %s is at step %d, this desnode knows %d: %w", s.table, version, steps, ErrNewer)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

func (s stepSet) provider(db *sql.DB) (*goose.Provider, error) {
	files, err := s.fs()
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(s.table), goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true))
}
