package source

import (
	"errors"
	"time"

	"github.com/datavision/desnode/migrations"
)

// Role is what a connection to a Postgres source is for. Each has a database
// role of its own with the least privileges.
type Role string

// The roles.
const (
	RoleMarker  Role = "marker"  // MarkerRows, Retry, ClaimCluster, ReplicaLag, and Backlog without a packer
	RolePacker  Role = "packer"  // PackerRows, Refuse of MARKED rows
	RoleDeleter Role = "deleter" // DeleterRows, IdentityRows
	RoleReader  Role = "reader"  // ReaderRows, ListRows, the rest of OperatorRows
	// RoleRestorer is for RestorerRows alone: it may write whatever desnode writes.
	// No user needs it but while a cluster is rebuilt. It is opened wherever it
	// has a URL.
	RoleRestorer Role = "restorer"
)

// Roles lists the roles of daily work, all but RoleRestorer.
func Roles() []Role { return []Role{RoleMarker, RolePacker, RoleDeleter, RoleReader} }

// Errors of Postgres, returned wrapped.
var (
	// ErrRoleClosed: this node has not opened the role that the call needs.
	ErrRoleClosed = errors.New("the role is not opened on this node")
	// ErrRelation: the table or view is not there, or lacks a column, or a column
	// has a type that the contract does not know.
	ErrRelation = errors.New("the table is not as it is mapped")
	// ErrUnclaimed: no cluster has recorded that it archives the source.
	ErrUnclaimed = errors.New("no node that marks has claimed the source yet")
)

// PostgresConfig says which database to open, and what stands where in it.
type PostgresConfig struct {
	Mapping migrations.Mapping
	URL     string          // connects every role that has no URL of its own
	URLs    map[Role]string // by role
	Roles   []Role          // those that are used beside the restorer; nil: Roles()

	// Connections is the largest number of connections of each role. 0: 4.
	Connections int
	// StatementTimeout bounds each statement, LockTimeout its wait for a lock that
	// others hold: the database ends it then. Both are shortened to the context's
	// deadline. 0: 30 s and 2 s.
	StatementTimeout, LockTimeout time.Duration
	// ScanTimeout bounds the statements that read the whole table for an
	// operator: Counts and the tallies. 0: 10 minutes.
	ScanTimeout time.Duration
	// Observe is told how long each operation took, waits for a connection
	// included, and how it ended; nil: nobody. It must not block.
	Observe func(op string, took time.Duration, err error)
	// Now is the clock of what is remembered for a while (see Sharing); nil:
	// time.Now.
	Now func() time.Time
}

const (
	defaultConnections      = 4
	defaultStatementTimeout = 30 * time.Second
	defaultLockTimeout      = 2 * time.Second
	defaultScanTimeout      = 10 * time.Minute
)

func (c PostgresConfig) withDefaults() PostgresConfig {
	if c.Roles == nil {
		c.Roles = Roles()
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.StatementTimeout == 0 {
		c.StatementTimeout = defaultStatementTimeout
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = defaultLockTimeout
	}
	if c.ScanTimeout == 0 {
		c.ScanTimeout = defaultScanTimeout
	}
	if c.Observe == nil {
		c.Observe = func(string, time.Duration, error) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
