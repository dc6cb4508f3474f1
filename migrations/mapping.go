package migrations

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

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
	ColCustom      = "custom"       // optional: jsonb, an object; its members join Metadata's

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

// The contract's words for the states.
const (
	StateActive        = "ACTIVE"
	StateMarked        = "MARKED"
	StatePacked        = "PACKED"
	StateDeletedSource = "DELETED_SOURCE"
	StateFailed        = "FAILED"
)

// ErrMapping is what every error about a mapping is, by errors.Is.
var ErrMapping = errors.New("invalid mapping")

// ReferenceTable is the table of those who had none.
const ReferenceTable = Schema + ".files"

// Schema is the schema of all that desnode keeps in Postgres for itself.
const Schema = "desnode"

// Mapping says where the contract's words stand in a customer's Postgres
// database. Its zero value but for Source maps every word to itself, in the
// reference table desnode.files.
//
// Names of schemas, tables and columns are taken as the catalog has them,
// capitals included: CREATE TABLE Files makes "files".
type Mapping struct {
	// Source is the source's short name: lower-case letters, digits, "-", "_".
	Source string
	// Table is the customer's table or view, "schema.table"; default
	// "desnode.files", the reference table. Without a schema it is in "public". A
	// name that holds a dot is put in double quotes, doubled inside.
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
	// Generated: desnode makes the served names itself (`naming: generated`), so
	// that the table's names need not be unique.
	Generated bool
}

// Resolved is a mapping as a driver of Postgres uses it: SQL text, quoted.
type Resolved struct {
	// Relation is the table or view to read and update, quoted, with its schema.
	// Statements give it the alias t.
	Relation string
	// Keys is the relation by whose id, a column named as Relation's, the rows are
	// walked in windows: it holds those of Relation and maybe more, and a window
	// of it costs one look at an index. It is Relation but for the side binding.
	Keys string
	// Columns maps the contract's words to quoted columns without an alias. An
	// optional word that the table does not have is absent.
	Columns map[string]string
	// States maps every state's word to the table's.
	States map[string]string
	// Metadata maps keys to quoted columns.
	Metadata map[string]string
	// Filter is "" or a condition in parentheses, over columns of t.
	Filter string
	// Side: Relation is the view of the side binding. It has the contract's own
	// words and states. Its rows can't be locked (no FOR UPDATE): an UPDATE runs a
	// trigger for each row, which checks the row again and leaves it out of the
	// count when it is no longer as the statement saw it.
	Side bool

	// The same relation and columns as the catalog has them, not quoted.
	SchemaName, TableName string
	ColumnNames           map[string]string
	MetadataNames         map[string]string
}

// State returns the contract's word for the table's, "" when it is none.
func (r Resolved) State(word string) string {
	for state, w := range r.States {
		if w == word {
			return state
		}
	}
	return ""
}

// SourceColumns lists the words of the columns that the source system fills.
func SourceColumns() []string {
	return []string{ColID, ColName, ColPath, ColSize, ColModifiedAt, ColStatus}
}

// OptionalColumns lists the words of the columns that need not be there.
func OptionalColumns() []string {
	return []string{ColCreatedAt, ColChecksum, ColContentType, ColCustom}
}

// ArchiveColumns lists the words of the columns that desnode fills.
func ArchiveColumns() []string {
	return []string{
		ColCluster, ColDesName, ColShard, ColHash, ColPack, ColSHA256, ColClaim, ColVersion, ColMarkedAt,
		ColPackedAt, ColDeletedAt, ColLastAttemptAt, ColAttempts, ColError,
	}
}

// States lists the contract's words for the states.
func States() []string {
	return []string{StateActive, StateMarked, StatePacked, StateDeletedSource, StateFailed}
}

// words lists every column's word.
func words() []string {
	return slices.Concat(SourceColumns(), OptionalColumns(), ArchiveColumns())
}

// reference reports whether the mapping is over the reference table.
func (m Mapping) reference() bool {
	return !m.Side && (m.Table == "" || m.Table == ReferenceTable)
}

var sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// maxIdentifier is Postgres' limit, in bytes; it cuts longer names silently.
const maxIdentifier = 63

// metadataPrefix begins the names of the view's columns that hold metadata.
const metadataPrefix = "meta."

// Validate returns what is wrong with the mapping, all of it.
func (m Mapping) Validate() error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: %s", ErrMapping, fmt.Sprintf(format, args...)))
	}
	if !sourceName.MatchString(m.Source) {
		fail("source %q: a source's name is 1 to 32 lower-case letters, digits, - and _", m.Source)
	}
	if m.Side && slices.Contains(ownRelations(), m.Source) {
		fail("source %q: its view would take the place of a table of desnode's", m.Source)
	}
	if _, _, err := m.table(); err != nil {
		fail("table: %v", err)
	}
	if m.Side && (m.Table == "" || m.Table == ReferenceTable) {
		fail("table: the side binding is for a table of the customer's, name it")
	}
	m.validateColumns(fail)
	m.validateStates(fail)
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		if key == "" || !utf8.ValidString(key) || strings.ContainsRune(key, 0) || len(metadataPrefix+key) > maxIdentifier {
			fail("metadata %q: a key is 1 to %d bytes of UTF-8", key, maxIdentifier-len(metadataPrefix))
		}
		if err := checkIdentifier(m.Metadata[key]); err != nil {
			fail("metadata %q: %v", key, err)
		}
	}
	if err := checkCondition(m.Filter); err != nil {
		fail("filter: %v", err)
	}
	return errors.Join(errs...)
}

func (m Mapping) validateColumns(fail func(string, ...any)) {
	known := words()
	if m.Side {
		// The state and all that desnode fills stand in desnode.entry.
		known = slices.Concat(SourceColumns()[:5], OptionalColumns())
	}
	taken := map[string]string{}
	for _, word := range slices.Sorted(maps.Keys(m.Columns)) {
		switch {
		case !slices.Contains(words(), word):
			fail("columns: %q is no word of the contract; they are %s", word, strings.Join(words(), ", "))
		case !slices.Contains(known, word):
			fail("columns: %q stands in desnode.entry, not in the customer's table", word)
		}
		if err := checkIdentifier(m.Columns[word]); err != nil {
			fail("columns: %s: %v", word, err)
		}
	}
	for _, word := range known {
		column := m.column(word)
		if column == "" {
			continue
		}
		// name and path may be one column; whatever desnode writes may not be
		// another word's.
		if other, ok := taken[column]; ok && (slices.Contains(ArchiveColumns(), word) || word == ColStatus) {
			fail("columns: %s and %s are both column %q", other, word, column)
		}
		taken[column] = word
	}
}

func (m Mapping) validateStates(fail func(string, ...any)) {
	for _, state := range slices.Sorted(maps.Keys(m.States)) {
		if !slices.Contains(States(), state) {
			fail("states: %q is no state of the contract; they are %s", state, strings.Join(States(), ", "))
		}
	}
	if m.Side && len(m.States) > 0 {
		fail("states: the side binding keeps the state itself, in the contract's words")
	}
	taken := map[string]string{}
	for _, state := range States() {
		word := m.state(state)
		switch {
		case word == "" || !utf8.ValidString(word) || strings.ContainsRune(word, 0):
			fail("states: %s: %q is no word", state, word)
		case taken[word] != "":
			fail("states: %s and %s are both %q", taken[word], state, word)
		}
		taken[word] = state
	}
}

// column returns the customer's column for a word, "" when there is none.
func (m Mapping) column(word string) string {
	if c, ok := m.Columns[word]; ok {
		return c
	}
	if slices.Contains(OptionalColumns(), word) && !m.reference() {
		return ""
	}
	return word
}

func (m Mapping) state(word string) string {
	if w, ok := m.States[word]; ok {
		return w
	}
	return word
}

// Resolve checks the mapping and quotes it. For the side binding it is the
// view, under the contract's own words; optional columns are in the view when
// they are mapped.
func (m Mapping) Resolve() (Resolved, error) {
	if err := m.Validate(); err != nil {
		return Resolved{}, err
	}
	r := m.customer()
	if !m.Side {
		return r, nil
	}
	r.Side = true
	r.SchemaName, r.TableName = Schema, m.Source
	r.Filter = "" // the view has it
	for _, word := range words() {
		if m.column(word) != "" {
			r.ColumnNames[word] = word
		}
	}
	for key := range r.MetadataNames {
		r.MetadataNames[key] = metadataPrefix + key
	}
	r.quote()
	r.Keys = quoteIdentifier(Schema) + "." + quoteIdentifier(keysName(m.Source))
	return r, nil
}

// keysName is the name of the side binding's view of the ids. No source's name
// holds a dot.
func keysName(source string) string { return source + ".ids" }

// Customer resolves the mapping to the customer's own table, whatever the
// binding. For the side binding that has neither a status nor what desnode
// fills.
func (m Mapping) Customer() (Resolved, error) {
	if err := m.Validate(); err != nil {
		return Resolved{}, err
	}
	return m.customer(), nil
}

// Fingerprint tells mappings apart. The view of the side binding keeps that of
// the mapping it was made from in its comment.
func (m Mapping) Fingerprint() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %t %q %q %q", m.Source, m.Table, m.Side, m.Columns, m.Metadata, m.Filter))
	return fmt.Sprintf("desnode mapping %x", sum[:8])
}

// customer resolves a valid mapping to the customer's own table. For the side
// binding that has neither a status nor what desnode fills.
func (m Mapping) customer() Resolved {
	schema, table, err := m.table()
	if err != nil {
		panic("migrations: not validated: " + err.Error()) // a bug of this package
	}
	r := Resolved{
		SchemaName: schema, TableName: table, Filter: condition(m.Filter),
		ColumnNames: map[string]string{}, MetadataNames: map[string]string{}, States: map[string]string{},
	}
	for _, word := range words() {
		own := word == ColStatus || slices.Contains(ArchiveColumns(), word)
		if c := m.column(word); c != "" && (!m.Side || !own) {
			r.ColumnNames[word] = c
		}
	}
	for _, state := range States() {
		r.States[state] = m.state(state)
	}
	maps.Copy(r.MetadataNames, m.Metadata)
	r.quote()
	return r
}

// quote fills the quoted half from the other.
func (r *Resolved) quote() {
	r.Relation = quoteIdentifier(r.SchemaName) + "." + quoteIdentifier(r.TableName)
	r.Keys = r.Relation
	r.Columns = make(map[string]string, len(r.ColumnNames))
	for word, c := range r.ColumnNames {
		r.Columns[word] = quoteIdentifier(c)
	}
	r.Metadata = make(map[string]string, len(r.MetadataNames))
	for key, c := range r.MetadataNames {
		r.Metadata[key] = quoteIdentifier(c)
	}
}

// table returns the schema and the table that the mapping names.
func (m Mapping) table() (schema, table string, err error) {
	name := m.Table
	if name == "" {
		name = ReferenceTable
	}
	parts, err := splitName(name)
	if err != nil {
		return "", "", err
	}
	switch len(parts) {
	case 1:
		schema, table = "public", parts[0]
	case 2:
		schema, table = parts[0], parts[1]
	default:
		return "", "", fmt.Errorf("%q is not schema.table; put a name that holds a dot in double quotes", name)
	}
	return schema, table, errors.Join(checkIdentifier(schema), checkIdentifier(table))
}
