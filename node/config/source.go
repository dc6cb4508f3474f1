package config

import (
	"maps"
	"strings"

	"github.com/datavision/desnode/migrations"
)

// What the keys of a Postgres source default to.
const (
	DefaultTable = "desnode.files" // the reference table

	BindingTable = "table" // the table, or an updatable view, has desnode's columns
	BindingSide  = "side"  // it can't be altered: they stand in desnode.entry

	NamingColumn    = "column"    // files are served under the name in their row
	NamingGenerated = "generated" // desnode makes names up
)

// The roles of a Postgres source, as sources.*.urls names them.
const (
	RoleMarker  = "marker"
	RolePacker  = "packer"
	RoleDeleter = "deleter"
	RoleReader  = "reader"
)

// AllRoles returns every role of a Postgres source.
func AllRoles() []string { return []string{RoleMarker, RolePacker, RoleDeleter, RoleReader} }

// Postgres reports whether the source is a Postgres table rather than an
// embedded one.
func (s Source) Postgres() bool {
	return isPostgres(s.URL) || s.URL == "" && len(s.URLs) > 0
}

func isPostgres(raw string) bool {
	scheme, _, _ := strings.Cut(raw, "://")
	return scheme == "postgres" || scheme == "postgresql"
}

// Generated reports whether desnode makes up the names of the source's files.
func (s Source) Generated() bool { return s.Naming == NamingGenerated }

// Mapping says where the contract's words stand in the database of the
// Postgres source that is configured under name.
func (s Source) Mapping(name string) migrations.Mapping {
	return migrations.Mapping{
		Source:   name,
		Table:    s.Table,
		Side:     s.Binding == BindingSide,
		Columns:  maps.Clone(s.Columns),
		States:   maps.Clone(s.States),
		Metadata: maps.Clone(s.Metadata),
		Filter:   s.Filter,
	}
}

// Roles returns the roles in which this node opens its Postgres sources: those
// that its work needs.
func (c Config) Roles() []string {
	roles := []string{RoleReader}
	if c.Does(WorkMark) {
		roles = append(roles, RoleMarker)
	}
	if c.Does(WorkPack) || c.Does(WorkKeep) { // keeping acknowledges
		roles = append(roles, RolePacker)
	}
	if c.Does(WorkKeep) && c.Archive.DeleteSource {
		roles = append(roles, RoleDeleter)
	}
	return roles
}

// columnWords are the contract's words for columns.
func columnWords() []string {
	return []string{
		migrations.ColID, migrations.ColName, migrations.ColPath, migrations.ColSize, migrations.ColModifiedAt,
		migrations.ColStatus, migrations.ColCreatedAt, migrations.ColChecksum, migrations.ColContentType,
		migrations.ColCluster, migrations.ColDesName, migrations.ColShard, migrations.ColHash, migrations.ColPack,
		migrations.ColSHA256, migrations.ColClaim, migrations.ColVersion, migrations.ColMarkedAt,
		migrations.ColPackedAt, migrations.ColDeletedAt, migrations.ColLastAttemptAt, migrations.ColAttempts,
		migrations.ColError,
	}
}

// stateWords are the contract's words for states.
func stateWords() []string {
	return []string{"ACTIVE", "MARKED", "PACKED", "DELETED_SOURCE", "FAILED"}
}
