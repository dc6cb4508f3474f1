package migrations

// The contract's words for the columns of a source's table (DESIGN.md §3).
const (
	// What the source system fills.
	ColID          = "id"
	ColName        = "name"
	ColPath        = "path"
	ColSize        = "size"
	ColModifiedAt  = "modified_at"
	ColStatus      = "status"
	ColCreatedAt   = "created_at"   // optional
	ColChecksum    = "checksum"     // optional: SHA-256, bytea or hex text
	ColContentType = "content_type" // optional

	// What desnode fills.
	ColCluster       = "des_cluster"
	ColDesName       = "des_name"
	ColShard         = "des_shard"
	ColHash          = "des_hash"
	ColPack          = "des_pack"
	ColSHA256        = "des_sha256"
	ColClaim         = "des_claim"
	ColVersion       = "archive_version"
	ColMarkedAt      = "marked_at"
	ColPackedAt      = "packed_at"
	ColDeletedAt     = "source_deleted_at"
	ColLastAttemptAt = "last_archive_attempt_at"
	ColAttempts      = "archive_attempts"
	ColError         = "archive_error"
)

// Mapping says where the contract's words stand in a customer's Postgres
// database. Its zero value but for Source maps every word to itself, in the
// reference table desnode.files.
type Mapping struct {
	// Source is the source's short name: lower-case letters, digits, "-", "_".
	Source string
	// Table is the customer's table or view, "schema.table"; default
	// "desnode.files", the reference table.
	Table string
	// Side: the customer's table can't be altered. Its rows are only read, and
	// what desnode fills, the status among it, stands in desnode.entry. The view
	// desnode.<source>, made by InitScript, shows both under the contract's words
	// and takes the updates.
	Side bool
	// Columns maps the contract's words to the customer's columns; a word left
	// out stands for itself. The optional ones are there only when listed, or in
	// the reference table.
	Columns map[string]string
	// States maps the states' words; one left out stands for itself.
	States map[string]string
	// Metadata maps keys of the JSON object kept with the record to columns.
	Metadata map[string]string
	// Filter is an SQL condition over the table's own columns, under the alias
	// t; rows outside it are never touched. Empty: every row.
	Filter string
}
