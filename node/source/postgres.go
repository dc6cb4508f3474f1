package source

import (
	"github.com/datavision/desnode/migrations"
)

// Role is what a connection to a Postgres source is for. Each has a database
// role of its own with the least privileges.
type Role string

// The roles.
const (
	RoleMarker  Role = "marker"  // MarkerRows, Retry
	RolePacker  Role = "packer"  // PackerRows
	RoleDeleter Role = "deleter" // DeleterRows, IdentityRows
	RoleReader  Role = "reader"  // ReaderRows, the rest of OperatorRows
)

// PostgresConfig says which database to open, and what stands where in it.
type PostgresConfig struct {
	Mapping migrations.Mapping
	URL     string          // connects every role that has no URL of its own
	URLs    map[Role]string // by role
	Roles   []Role          // those that are used; nil: all
}
