package config

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/datavision/desnode/migrations"
)

// What the keys of a Postgres source default to.
const (
	DefaultTable = migrations.ReferenceTable

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

	RoleRestorer = "restorer" // for `desnode rebuild --source` alone
)

// The words of sources.*.s3: how the buckets of its originals are reached.
// What is left out is the store's when that is a bucket, else the SDK's default.
const (
	S3Endpoint = "endpoint"
	S3Region   = "region"
	S3CAFile   = "ca_file"
	S3Read     = "read"   // credentials to read originals, as of store.credentials
	S3Delete   = "delete" // credentials to delete them; default: those to read
)

func s3Words() []string { return []string{S3Endpoint, S3Region, S3CAFile, S3Read, S3Delete} }

// AllRoles returns every role of a Postgres source.
func AllRoles() []string {
	return []string{RoleMarker, RolePacker, RoleDeleter, RoleReader, RoleRestorer}
}

// Postgres reports whether the source is a Postgres table rather than an
// embedded one.
func (s Source) Postgres() bool {
	return isPostgres(s.URL) || s.URL == "" && len(s.URLs) > 0
}

func isPostgres(raw string) bool {
	scheme, _, _ := strings.Cut(raw, "://")
	return scheme == "postgres" || scheme == "postgresql"
}

// Bucket returns the URL by which a bucket of the source's originals is opened,
// and the certificates that its endpoint is checked against.
func (s Source) Bucket(name string, st Store) (rawURL, caFile string) {
	endpoint, region, caFile := s.S3[S3Endpoint], s.S3[S3Region], s.S3[S3CAFile]
	if own, err := url.Parse(st.URL); err == nil && st.S3() && endpoint == "" {
		endpoint = own.Query().Get("endpoint")
		region = cmp.Or(region, own.Query().Get("region"))
		caFile = cmp.Or(caFile, st.CAFile)
	}
	query := url.Values{}
	if endpoint != "" {
		query.Set("endpoint", endpoint)
	}
	if region != "" {
		query.Set("region", region)
	}
	return (&url.URL{Scheme: "s3", Host: name, RawQuery: query.Encode()}).String(), caFile
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

		Generated: s.Generated(),
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
	return slices.Concat(migrations.SourceColumns(), migrations.OptionalColumns(), migrations.ArchiveColumns())
}
