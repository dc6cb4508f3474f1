package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/datavision/desnode/migrations"
)

// Postgres is the Table of a source system's own table or view, and of the
// view of the side binding, which speaks the contract's own words.
//
// Each call is one round trip where it can be: the settings that bound it and
// its statement go to the server together and are one transaction, so that
// nothing of it outlives the transaction and a pooler such as PgBouncer may
// hand every call another connection. Statements have no names. They are built
// from the mapping and the catalog's types when the database first answers;
// until then, and while it is down, calls return errors that Unavailable knows.
//
// Rows of a batch are locked in the order of their ids, only those that still
// are as last seen; no lock outlives a call.
type Postgres struct {
	cfg      PostgresConfig
	resolved migrations.Resolved
	pools    map[Role]*pgxpool.Pool // some may be the same
	sent     atomic.Int64           // statements
	queries  atomic.Pointer[pgQueries]
	proof    proof
	idle     idle
	claim    atomic.Pointer[claim] // that every statement finds the source to have
	scans    chan struct{}         // one token for each statement that reads the whole table
}

var _ Table = (*Postgres)(nil)

// OpenPostgres checks the configuration. It connects nowhere: a node starts
// while its sources' databases are down.
func OpenPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	cfg = cfg.withDefaults()
	resolved, err := cfg.Mapping.Resolve()
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", cfg.Mapping.Source, err)
	}
	p := &Postgres{cfg: cfg, resolved: resolved, pools: map[Role]*pgxpool.Pool{}, proof: proof{turn: make(chan struct{}, 1)}, scans: make(chan struct{}, maxScans)}
	if err := p.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open source %s: %w", cfg.Mapping.Source, err), p.Close())
	}
	return p, nil
}

// open makes the pools: one for all roles that have the same URL. The restorer
// has one wherever it has a URL, and needs no connection until it is used.
func (p *Postgres) open(ctx context.Context) error {
	shared := map[string][]Role{}
	for _, role := range p.cfg.Roles {
		u := p.cfg.URLs[role]
		if u == "" {
			u = p.cfg.URL
		}
		if u == "" {
			return fmt.Errorf("role %s has no connection URL", role)
		}
		shared[u] = append(shared[u], role)
	}
	restorer := cmp.Or(p.cfg.URLs[RoleRestorer], p.cfg.URL)
	if _, found := shared[restorer]; !found && restorer != "" {
		shared[restorer] = []Role{RoleRestorer}
	}
	for u, roles := range shared {
		cfg, err := poolConfig(u, p.cfg.Connections*len(roles))
		if err != nil {
			return fmt.Errorf("role %s: %w", roles[0], err)
		}
		if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
			cfg.ConnConfig.RuntimeParams["application_name"] = "desnode " + p.cfg.Mapping.Source
		}
		pool, err := pgxpool.NewWithConfig(ctx, cfg)
		if err != nil {
			return fmt.Errorf("role %s: %w", roles[0], err)
		}
		for _, role := range roles {
			p.pools[role] = pool
		}
		if u == restorer {
			p.pools[RoleRestorer] = pool
		}
	}
	return nil
}

// connectTimeout bounds the making of a connection where its URL does not.
const connectTimeout = 5 * time.Second

func poolConfig(connect string, connections int) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(connect)
	if err != nil {
		return nil, urlError(err)
	}
	cfg.MaxConns = int32(min(connections, 100))
	cfg.MinConns = 0
	cfg.MaxConnIdleTime = 5 * time.Minute
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	// Without names and without a Describe: what a call needs goes in one round
	// trip, and nothing of it stays on the connection.
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.ConnConfig.StatementCacheCapacity = 0
	cfg.ConnConfig.DescriptionCacheCapacity = 0
	cfg.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	return cfg, nil
}

// urlError says what is wrong with a connection URL without a word of the URL,
// which holds the password.
func urlError(err error) error {
	var bad *url.Error
	if errors.As(err, &bad) {
		return fmt.Errorf("connection URL: %w", bad.Err)
	}
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return errors.New("connection URL: not one of Postgres, or sslmode is none of disable, allow, prefer, require, verify-ca and verify-full, or a file that it names (sslrootcert, sslcert, sslkey) can't be read")
	}
	return errors.New("connection URL: not one of Postgres")
}

// Close ends the connections, after the calls that are under way.
func (p *Postgres) Close() error {
	for _, pool := range p.pools {
		pool.Close() // repeating it has no effect
	}
	return nil
}

// Statements returns how many statements were sent, the settings and the
// transactions' own included.
func (p *Postgres) Statements() int64 { return p.sent.Load() }

// TimePrecision is the unit of the modified_at column: a microsecond until the
// database has answered.
func (p *Postgres) TimePrecision() time.Duration {
	if q := p.queries.Load(); q != nil {
		return q.modified.unit
	}
	return time.Microsecond
}

// anyRole is the role for what each of them may ask.
func (p *Postgres) anyRole() Role {
	for _, role := range []Role{RoleMarker, RoleReader} {
		if p.pools[role] != nil {
			return role
		}
	}
	return p.cfg.Roles[0]
}

// ReplicaLag returns how far the database's replicas are behind, the slowest of
// them, or this one behind its primary. false: there are none, or the role may
// not see them (it needs pg_monitor or pg_read_all_stats).
func (p *Postgres) ReplicaLag(ctx context.Context) (lag time.Duration, known bool, err error) {
	found, err := collect(ctx, p, call{role: p.anyRole(), op: "replica lag"}, func(*pgQueries) request {
		return request{`SELECT CASE
 WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
 WHEN pg_is_in_recovery() THEN (extract(epoch FROM now() - pg_last_xact_replay_timestamp()) * 1000000)::bigint
 WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN
  (SELECT (extract(epoch FROM max(coalesce(replay_lag, '0'))) * 1000000)::bigint FROM pg_stat_replication)
END`, nil}
	}, func(_ *pgQueries, c pgCells) (*int64, error) { return c.optionalInt(0) })
	if err != nil || len(found) == 0 || found[0] == nil {
		return 0, false, err
	}
	return time.Duration(*found[0]) * time.Microsecond, true, nil
}

func (p *Postgres) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("source %s: %s: %w", p.cfg.Mapping.Source, op, err)
}
