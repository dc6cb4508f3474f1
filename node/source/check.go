package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
)

// ErrUnfit: the database is not as the contract demands; nothing is marked.
var ErrUnfit = errors.New("source is not fit for archiving")

// Level says how bad a finding is.
type Level string

// The levels.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn" // works, but costs or risks more than it should
	LevelFail Level = "fail" // marking refuses to start
)

// Finding is what a check found.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"`          // what was looked at
	What  string `json:"what"`           // what is so
	Why   string `json:"why,omitempty"`  // why it matters
	Cure  string `json:"cure,omitempty"` // SQL or a command that mends it
}

// Report is what CheckPostgres found.
type Report struct {
	Source   string    `json:"source"`
	Findings []Finding `json:"findings"`
}

// Err is nil when marking may start, else ErrUnfit with all that stands
// against it.
func (r Report) Err() error {
	var whats []string
	for _, f := range r.Findings {
		if f.Level == LevelFail {
			whats = append(whats, f.Check+": "+f.What)
		}
	}
	if len(whats) == 0 {
		return nil
	}
	return fmt.Errorf("%w: source %s: %s; see `desnode source check`", ErrUnfit, r.Source, strings.Join(whats, "; "))
}

// CheckScope says what the source will be used for.
type CheckScope struct {
	Delete bool // originals will be deleted
}

// Bounds of what a check asks of the database.
const (
	checkTimeout     = 30 * time.Second
	checkLockTimeout = 2 * time.Second
)

// CheckPostgres proves that the database is as the contract demands: columns,
// types, uniqueness, indexes, plans, and the privileges of the roles that cfg
// uses, too few and too many. It tries each role's statements and rolls them
// back. What can't be proven because the database does not answer is the
// error, and no finding: what is there is then as unknown as what is not.
func CheckPostgres(ctx context.Context, cfg PostgresConfig, scope CheckScope) (Report, error) {
	if cfg.Roles == nil {
		cfg.Roles = []Role{RoleReader, RoleMarker, RolePacker, RoleDeleter}
	}
	r := Report{Source: cfg.Mapping.Source}
	view, err := cfg.Mapping.Resolve()
	if err != nil {
		return r, fmt.Errorf("check source %s: %w", r.Source, err)
	}
	customer, err := cfg.Mapping.Customer()
	if err != nil {
		return r, fmt.Errorf("check source %s: %w", r.Source, err)
	}
	c := &check{cfg: cfg, scope: scope, view: view, customer: customer, report: &r}
	for i, role := range cfg.Roles {
		if err := c.as(ctx, role, i == 0); err != nil {
			return r, fmt.Errorf("check source %s: role %s: %w", r.Source, role, err)
		}
		if c.stop {
			break // the rest would repeat in other words that there is no table
		}
	}
	return r, nil
}

// check is one run.
type check struct {
	cfg            PostgresConfig
	scope          CheckScope
	view, customer migrations.Resolved
	report         *Report
	stop           bool
	blind          bool   // the first role may not read
	id             idType // of the id's column
	kind           string // of the relation (pg_class.relkind)

	// Of the role at hand.
	role Role
	tx   pgx.Tx
}

func (c *check) ok(check, what string) {
	c.report.Findings = append(c.report.Findings, Finding{Level: LevelOK, Check: check, What: what})
}

func (c *check) warn(check, what, why, cure string) {
	c.report.Findings = append(c.report.Findings, Finding{LevelWarn, check, what, why, cure})
}

func (c *check) fail(check, what, why, cure string) {
	c.report.Findings = append(c.report.Findings, Finding{LevelFail, check, what, why, cure})
}

// as makes the checks of one role over a connection of its own. The first one
// makes those of the database too: everybody may read the catalog.
func (c *check) as(ctx context.Context, role Role, first bool) (err error) {
	connect := c.cfg.URLs[role]
	if connect == "" {
		connect = c.cfg.URL
	}
	if connect == "" {
		return errors.New("there is no connection URL")
	}
	cfg, err := pgx.ParseConfig(connect)
	if err != nil {
		return urlError(err)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // as the driver: fit for PgBouncer
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	c.role = role
	if first {
		c.transport(conn)
		if err := c.within(ctx, conn, c.database, c.relation, c.columns, c.reach,
			c.seeing(c.uniqueness), c.seeing(c.indexes)); err != nil || c.stop {
			return err
		}
	}
	return c.within(ctx, conn, c.privileges, c.dryRun)
}

// within runs checks in one transaction that is rolled back, each in a
// savepoint of its own.
func (c *check) within(ctx context.Context, conn *pgx.Conn, checks ...func(context.Context) error) (err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if errRollback := tx.Rollback(context.WithoutCancel(ctx)); err == nil && !errors.Is(errRollback, pgx.ErrTxClosed) {
			err = errRollback
		}
	}()
	c.tx = tx
	_, err = tx.Exec(ctx, fmt.Sprintf(`SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d; SET LOCAL TimeZone = 'UTC';
 SET LOCAL standard_conforming_strings = on`, checkTimeout.Milliseconds(), checkLockTimeout.Milliseconds()), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	for _, f := range checks {
		if err := f(ctx); err != nil || c.stop {
			return err
		}
	}
	return nil
}

// try runs a statement and takes it back. refused is the database's answer when
// it would not; err, that there was no answer.
func (c *check) try(ctx context.Context, sql string) (affected int64, refused, err error) {
	nested, err := c.tx.Begin(ctx)
	if err != nil {
		return 0, nil, err
	}
	tag, failed := nested.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err := nested.Rollback(ctx); err != nil {
		return 0, nil, errors.Join(failed, err)
	}
	if failed != nil && sqlState(failed) == "" {
		return 0, nil, failed
	}
	return tag.RowsAffected(), failed, nil
}

// one scans the one row of a query about the catalog.
func (c *check) one(ctx context.Context, sql string, args []any, to ...any) error {
	return c.tx.QueryRow(ctx, sql, args...).Scan(to...)
}
