package source

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of Postgres (appendix A of its manual) that stand for themselves.
const (
	serializationFailure  = "40001"
	deadlockDetected      = "40P01"
	uniqueViolation       = "23505"
	lockNotAvailable      = "55P03"
	queryCanceled         = "57014" // statement_timeout, or somebody's pg_cancel_backend
	insufficientPrivilege = "42501"
	tooManyConnections    = "53300"
	readOnly              = "25006" // a standby, such as a primary becomes by a failover
	invalidText           = "22P02"
	untranslatable        = "22P05"
	notInRepertoire       = "22021"
)

// sqlState returns the database's code for the error, "" when it is not the
// database's.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// LockTimeout reports whether a call ended because others held a lock for
// longer than it may wait.
func LockTimeout(err error) bool { return sqlState(err) == lockNotAvailable }

// Unavailable reports whether a call ended because the database is down, out of
// reach, shutting down, starting up, or takes no more connections. Nothing of
// the call was done, or all of it: repeating it is safe.
func Unavailable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	switch code := sqlState(err); {
	case strings.HasPrefix(code, "08"), strings.HasPrefix(code, "57P"), strings.HasPrefix(code, "58"), code == tooManyConnections:
		return true
	case code != "":
		return false
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, errNoAnswer) || errors.Is(err, net.ErrClosed) || errors.Is(err, errConnClosed)
}

// errNoAnswer: the database did not answer within its own time limits and some.
var errNoAnswer = errors.New("no answer in time")

// errConnClosed: the connection was lost before the call was over.
var errConnClosed = errors.New("connection lost")

// errReplica: a statement that must see the newest rows was sent to a replica.
var errReplica = errors.New("connected to a replica")

// environment lists the classes of codes that say nothing about a row, but
// that the server, the connection, the statement or the rights are in trouble.
const environment = " 08 0A 0B 25 26 28 2D 34 3B 3D 3F 40 42 53 55 57 58 72 F0 HV XX "

// rowRefused tells whether the database refused a statement for what a row
// would be (a constraint, a trigger, a value that does not fit).
func rowRefused(err error) bool {
	code := sqlState(err)
	return len(code) == 5 && !strings.Contains(environment, " "+code[:2]+" ")
}

// again tells whether the same call may succeed at once: others were in the way,
// or it never reached the server.
func again(err error) bool {
	code := sqlState(err)
	return code == serializationFailure || code == deadlockDetected || pgconn.SafeToRetry(err)
}

// mappingTroubled tells whether the table may have been altered since its types
// were looked up.
func mappingTroubled(err error) bool {
	code := sqlState(err)
	return strings.HasPrefix(code, "42") && code != insufficientPrivilege || code == "0A000"
}
