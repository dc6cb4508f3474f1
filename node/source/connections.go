package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Bounds of what CheckConnections says of clocks.
const (
	clockUnheard = 2 * time.Second // not worth a word
	clockWarn    = time.Minute
)

// CheckConnections connects once as each role that cfg uses, and says how:
// whether the database answers and takes the user, what protects the
// connection, whether a pooler stands before it, and how far its clock is from
// ours (cfg.Now). It changes nothing. Unlike CheckPostgres it takes a database
// that does not answer for a finding.
func CheckConnections(ctx context.Context, cfg PostgresConfig) []Finding {
	cfg = cfg.withDefaults()
	var all []Finding
	clock := true
	for _, role := range cfg.Roles {
		found, conn := connectAs(ctx, cfg, role)
		all = append(all, found...)
		if conn == nil {
			continue
		}
		if clock {
			clock = false
			all = append(all, checkClock(ctx, conn, cfg.Now))
		}
		if err := conn.Close(context.WithoutCancel(ctx)); err != nil {
			all = append(all, Finding{Level: LevelWarn, Check: "role " + string(role), What: "the connection did not end in order: " + err.Error()})
		}
	}
	return all
}

// connectAs connects as one role; nil when that failed.
func connectAs(ctx context.Context, cfg PostgresConfig, role Role) ([]Finding, *pgx.Conn) {
	check := "role " + string(role)
	connect := cfg.URLs[role]
	if connect == "" {
		connect = cfg.URL
	}
	refuse := func(what, cure string) ([]Finding, *pgx.Conn) {
		return []Finding{{LevelFail, check, what, "this node's work needs the role", cure}}, nil
	}
	if connect == "" {
		return refuse("there is no connection URL", fmt.Sprintf("set url or urls.%s of the source", role))
	}
	c, err := pgx.ParseConfig(connect)
	if err != nil {
		return refuse(urlError(err).Error(), "see https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING")
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return refuse(connectFault(err))
	}
	all := []Finding{{Level: LevelOK, Check: check, What: fmt.Sprintf("user %q is let in", c.User)}, protection(c, conn, check)}
	if f, ok := pooler(ctx, conn, check); ok {
		all = append(all, f)
	}
	return all, conn
}

// connectFault says why a connection could not be made and what to do.
func connectFault(err error) (what, cure string) {
	var pe *pgconn.PgError
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &pe):
		what = fmt.Sprintf("the database refuses: %s (%s)", pe.Message, pe.Code)
		switch pe.Code {
		case "28P01", "28000":
			return what, "correct user and password in the URL; see also pg_hba.conf"
		case "3D000":
			return what, "name a database that is there, or make it"
		case tooManyConnections:
			return what, "raise max_connections, or put PgBouncer in transaction mode before the database"
		}
		return what, "see the database's log"
	case errors.As(err, &unknown):
		return "the server's certificate is not accepted: " + unknown.Err.Error(), "name its authority with sslrootcert=FILE, and the host as the certificate has it"
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = connect // its text holds host and user, and no password
	}
	return "the database can't be reached: " + err.Error(), "correct host and port in the URL; see listen_addresses and the network"
}

const cureTLS = "add sslmode=verify-full&sslrootcert=FILE to the URL"

// unprotected judges a connection without TLS by where it leads.
func unprotected(to net.Addr, check string) Finding {
	if addr, ok := to.(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		return Finding{LevelWarn, check, "no TLS to " + addr.String(), "whoever is on the way reads rows and passwords, and may change what is sent", cureTLS}
	}
	return Finding{Level: LevelOK, Check: check, What: "no TLS, on this machine"}
}

// protection says what keeps others from reading and changing what is sent.
func protection(c *pgx.ConnConfig, conn *pgx.Conn, check string) Finding {
	if _, secured := conn.PgConn().Conn().(*tls.Conn); !secured {
		return unprotected(conn.PgConn().Conn().RemoteAddr(), check)
	}
	config := c.TLSConfig // that of the first choice; the fallbacks are of the same kind or none
	if config == nil && len(c.Fallbacks) > 0 {
		config = c.Fallbacks[0].TLSConfig // sslmode=allow
	}
	switch {
	case config == nil || config.InsecureSkipVerify && config.VerifyPeerCertificate == nil:
		return Finding{LevelWarn, check, "TLS, and the server's certificate is not checked", "whoever is on the way can answer in the database's place, and read and change everything", cureTLS}
	case config.InsecureSkipVerify:
		return Finding{LevelWarn, check, "TLS by sslmode=verify-ca", "whoever has a certificate of the same authority can answer in the database's place", cureTLS}
	}
	return Finding{Level: LevelOK, Check: check, What: "TLS, certificate and host name checked"}
}

// pooler tells whether what we talk to is the database itself: a pooler makes
// up the process id that it gives a client.
func pooler(ctx context.Context, conn *pgx.Conn, check string) (Finding, bool) {
	var pid uint32
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		return Finding{LevelFail, check, "a first question failed: " + err.Error(), "no work can be done", "see the database's log"}, true
	}
	if pid == conn.PgConn().PID() {
		return Finding{}, false
	}
	return Finding{
		Level: LevelOK, Check: check, What: "a pooler such as PgBouncer stands before the database",
		Why: "desnode keeps nothing on a connection between transactions: pool_mode=transaction suits it, pool_mode=statement does not",
	}, true
}

// checkClock compares the database's clock with ours.
func checkClock(ctx context.Context, conn *pgx.Conn, now func() time.Time) Finding {
	const check = "clock"
	began := now()
	var theirs time.Time
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&theirs); err != nil {
		return Finding{LevelWarn, check, "could not be asked: " + err.Error(), "", ""}
	}
	ended := now()
	return judgeClock(theirs.Sub(began.Add(ended.Sub(began) / 2)))
}

// judgeClock judges by how much the database's clock is ahead of ours.
func judgeClock(ahead time.Duration) Finding {
	f := Finding{Level: LevelOK, Check: "clock", What: "the database's is ours, to a second or so"}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	if off := ahead.Abs(); off > clockUnheard {
		f.What = fmt.Sprintf("the database's is %s %s ours", off.Round(time.Second), side)
		if off >= clockWarn {
			f.Level = LevelWarn
			f.Why = "rows carry times of both; files become old enough, and attempts due, sooner or later than they should"
			f.Cure = "set both clocks by NTP"
		}
	}
	return f
}
