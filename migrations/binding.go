package migrations

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
)

// binding writes the sections of one mapping.
type binding struct {
	m        Mapping
	o        ScriptOptions
	view     Resolved // what desnode reads and updates
	customer Resolved // the customer's table
}

//go:embed postgres/transition.sql
var transitionText string

// transition is what the templates in transition.sql take: expressions and
// quoted columns.
type transition struct {
	OldStatus, NewStatus   string // the contract's word, or OTHER
	OldVersion, NewVersion string
	OldClaim, NewClaim     string
	OldMarkedAt, NewError  string
	OldPack                string

	ID, Name, DesName, Size, ModifiedAt, Version string
	Claim, Attempts, Error, LastAttemptAt        string
}

// render fills a template of transition.sql.
func (t transition) render(name string) string {
	var b strings.Builder
	parsed := template.Must(template.New("").Parse(transitionText))
	if err := parsed.ExecuteTemplate(&b, name, t); err != nil {
		panic("migrations: transition.sql: " + err.Error()) // a bug of this package
	}
	return b.String()
}

func transitionOf(r Resolved) transition {
	old := func(word string) string { return "OLD." + r.Columns[word] }
	now := func(word string) string { return "NEW." + r.Columns[word] }
	status := func(column string) string {
		var b strings.Builder
		b.WriteString("CASE " + column + "::text")
		for _, state := range States() {
			fmt.Fprintf(&b, " WHEN %s THEN '%s'", quoteLiteral(r.States[state]), state)
		}
		return b.String() + " ELSE 'OTHER' END"
	}
	return transition{
		OldStatus: status(old(ColStatus)), NewStatus: status(now(ColStatus)),
		OldVersion: old(ColVersion), NewVersion: now(ColVersion),
		OldClaim: old(ColClaim), NewClaim: now(ColClaim),
		OldMarkedAt: old(ColMarkedAt), NewError: now(ColError), OldPack: old(ColPack),
		ID: r.Columns[ColID], Name: r.Columns[ColName], DesName: r.Columns[ColDesName],
		Size: r.Columns[ColSize], ModifiedAt: r.Columns[ColModifiedAt], Version: r.Columns[ColVersion],
		Claim: r.Columns[ColClaim], Attempts: r.Columns[ColAttempts], Error: r.Columns[ColError],
		LastAttemptAt: r.Columns[ColLastAttemptAt],
	}
}

// archiveTypes are the types of the columns that desnode fills.
var archiveTypes = map[string]string{
	ColCluster: "bytea", ColDesName: "text", ColShard: "integer", ColHash: "bigint", ColPack: "bytea",
	ColSHA256: "bytea", ColClaim: "text", ColVersion: "bigint", ColMarkedAt: "timestamptz",
	ColPackedAt: "timestamptz", ColDeletedAt: "timestamptz", ColLastAttemptAt: "timestamptz",
	ColAttempts: "integer", ColError: "text",
}

// ArchiveType returns the type that init gives the column of a word that
// desnode fills.
func ArchiveType(word string) string { return archiveTypes[word] }

// own names an object of desnode's for this source: an index, a trigger.
func (b binding) own(suffix string) string {
	return quoteIdentifier("desnode_" + b.m.Source + "_" + suffix)
}

// ownFunction names a function of this source in schema desnode.
func (b binding) ownFunction(suffix string) string {
	return Schema + "." + quoteIdentifier(b.m.Source+"_"+suffix)
}

// kind is a query for whether the customer's relation is of one of the kinds
// (pg_class.relkind).
func (b binding) kind(kinds ...string) string {
	return fmt.Sprintf("SELECT coalesce((SELECT relkind IN ('%s') FROM pg_class WHERE oid = to_regclass(%s)), false)",
		strings.Join(kinds, "', '"), quoteLiteral(b.customer.Relation))
}

// exists stops when the customer's relation is not there.
func (b binding) exists() section {
	return section{
		title: "the table or view must be there",
		when:  fmt.Sprintf("SELECT to_regclass(%s) IS NULL", quoteLiteral(b.customer.Relation)),
		sql: []string{raise(codeMapping, fmt.Sprintf("there is no table or view %s; names are taken as they are, capitals included",
			b.customer.Relation))},
	}
}

// reference finishes the reference table, which the steps have made.
func (b binding) reference() []section {
	return slices.Concat(b.trigger(), b.indexes(""))
}

func (b binding) referenceRollback() []rollback {
	down, err := filesSteps.rollback()
	if err != nil {
		panic("migrations: " + err.Error()) // the embedded steps are tested
	}
	return []rollback{{"the reference table, with all that it lists", slices.Concat(
		b.dropTrigger(), down, b.forget())}}
}

// forget drops what schema desnode knows of the source.
func (b binding) forget() []string {
	source := quoteLiteral(b.m.Source)
	return []string{
		"DELETE FROM desnode.file_id WHERE source = " + source,
		"DELETE FROM desnode.cluster WHERE source = " + source,
	}
}

// table prepares the customer's own table; a view gets checks and grants only.
func (b binding) table() []section {
	list := []section{b.exists(), {
		title: "partitions have no unique index but over their key",
		when:  b.kind("p"),
		sql: []string{raise(codeMapping, fmt.Sprintf(
			"%s is partitioned; bind it with `binding: side`", b.customer.Relation))},
	}, {
		title:  "a view's table is altered by whoever made the view",
		when:   b.kind("v"),
		notice: "desnode: a view: its columns and indexes are not touched; `desnode source check` says what is missing",
	}, b.columns()}
	if b.o.Trigger {
		for _, s := range b.trigger() {
			s.when = "SELECT (" + b.kind("r") + ") AND (" + cmp.Or(s.when, "SELECT true") + ")"
			list = append(list, s)
		}
	}
	return append(list, b.indexes(b.kind("r"))...)
}

// columns adds the columns that are missing. Where none is, the table is not
// locked: whoever waits for that lock holds up all who come behind.
func (b binding) columns() section {
	add := "ADD COLUMN IF NOT EXISTS "
	list := []string{add + b.customer.Columns[ColStatus] + " text NOT NULL DEFAULT " + quoteLiteral(b.customer.States[StateActive])}
	names := []string{quoteLiteral(b.customer.ColumnNames[ColStatus])}
	for _, word := range ArchiveColumns() {
		column := add + b.customer.Columns[word] + " " + archiveTypes[word]
		if word == ColVersion || word == ColAttempts {
			column += " NOT NULL DEFAULT 0"
		}
		list = append(list, column)
		names = append(names, quoteLiteral(b.customer.ColumnNames[word]))
	}
	return section{
		title: "the columns that desnode fills; a constant default rewrites nothing",
		when: fmt.Sprintf(`SELECT (%s) AND EXISTS (SELECT FROM unnest(ARRAY[%s]) AS want (name) WHERE NOT EXISTS (
  SELECT FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = want.name AND NOT attisdropped))`,
			b.kind("r"), strings.Join(names, ", "), quoteLiteral(b.customer.Relation)),
		sql: []string{"ALTER TABLE " + b.customer.Relation + "\n  " + strings.Join(list, ",\n  ")},
	}
}

func (b binding) tableRollback() []rollback {
	sql := b.dropTrigger()
	for _, suffix := range indexSuffixes {
		sql = append(sql, "DROP INDEX IF EXISTS "+quoteIdentifier(b.customer.SchemaName)+"."+b.own(suffix))
	}
	for _, word := range ArchiveColumns() {
		sql = append(sql, fmt.Sprintf("ALTER TABLE %s DROP COLUMN IF EXISTS %s", b.customer.Relation, b.customer.Columns[word]))
	}
	return []rollback{
		{"what was added to the table", append(sql, b.forget()...)},
		{"the state, if it was added too; it may have been the table's own", []string{
			fmt.Sprintf("ALTER TABLE %s DROP COLUMN IF EXISTS %s", b.customer.Relation, b.customer.Columns[ColStatus]),
		}},
	}
}

// trigger makes the function anew each time, and the trigger, which locks the
// table, once.
func (b binding) trigger() []section {
	function := b.ownFunction("transition")
	return []section{{
		title: "what the trigger that refuses illegal changes of state does",
		sql: []string{
			"CREATE OR REPLACE FUNCTION " + function + "() RETURNS trigger LANGUAGE plpgsql AS " +
				dollarQuote("\n"+transitionOf(b.customer).render("table")+"\n"),
			"REVOKE ALL ON FUNCTION " + function + "() FROM PUBLIC",
		},
	}, {
		when: fmt.Sprintf("SELECT NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname = %s)",
			quoteLiteral(b.customer.Relation), quoteLiteral(b.triggerName())),
		// Last in the alphabet, so that it judges what the customer's own triggers made.
		sql: []string{fmt.Sprintf("CREATE TRIGGER %s BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()",
			quoteIdentifier(b.triggerName()), b.customer.Relation, function)},
	}}
}

func (b binding) triggerName() string {
	return "zz_desnode_" + b.m.Source + "_transition"
}

func (b binding) dropTrigger() []string {
	return []string{
		fmt.Sprintf("DROP TRIGGER IF EXISTS %s ON %s", quoteIdentifier(b.triggerName()), b.customer.Relation),
		"DROP FUNCTION IF EXISTS " + b.ownFunction("transition") + "()",
	}
}

// index is one index that the queries of the roles need.
type index struct {
	suffix, unique, definition, when string
}

var indexSuffixes = []string{"active", "marked", "packed", "error", "des_name", "name", "path"}

// indexes makes the indexes, each without stopping writers.
func (b binding) indexes(when string) []section {
	c := b.customer.Columns
	state := func(word string) string { return c[ColStatus] + " = " + quoteLiteral(b.customer.States[word]) }
	list := []index{
		{"active", "", fmt.Sprintf("(%s) WHERE %s", c[ColID], state(StateActive)), ""},
		{"marked", "", fmt.Sprintf("(%s, %s) INCLUDE (%s, %s, %s, %s) WHERE %s", c[ColHash], c[ColID],
			c[ColSize], c[ColMarkedAt], c[ColAttempts], c[ColLastAttemptAt], state(StateMarked)), ""},
		{"packed", "", fmt.Sprintf("(%s, %s) WHERE %s", c[ColPack], c[ColID], state(StatePacked)), ""},
		{"error", "", fmt.Sprintf("(%s) WHERE %s IS NOT NULL", c[ColID], c[ColError]), ""},
		{"des_name", "UNIQUE ", fmt.Sprintf("(%s) WHERE %s IS NOT NULL", c[ColDesName], c[ColDesName]), ""},
	}
	// Rows outside the filter may repeat names and paths: what is unique among
	// the others is for the customer to say.
	if b.customer.Filter == "" && !b.m.Generated {
		list = append(list, index{"name", "UNIQUE ", "(" + c[ColName] + ")", b.lacksUnique(ColName)})
	}
	if b.customer.Filter == "" && b.o.Delete && c[ColPath] != c[ColName] {
		list = append(list, index{"path", "UNIQUE ", "(" + c[ColPath] + ")", b.lacksUnique(ColPath)})
	}
	var sections []section
	for _, i := range list {
		sections = append(sections, b.index(i, when)...)
	}
	return sections
}

// index makes one index, after what a broken attempt has left.
func (b binding) index(i index, when string) []section {
	name := b.own(i.suffix)
	qualified := quoteIdentifier(b.customer.SchemaName) + "." + name
	if when == "" {
		when = "SELECT true"
	}
	create := i.when
	if create == "" {
		create = "SELECT true"
	}
	return []section{{
		when: fmt.Sprintf("SELECT (%s) AND EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid)",
			when, quoteLiteral(qualified)),
		alone: true,
		sql:   []string{"DROP INDEX CONCURRENTLY IF EXISTS " + qualified},
	}, {
		when:  fmt.Sprintf("SELECT (%s) AND (%s)", when, create),
		alone: true,
		sql: []string{fmt.Sprintf("CREATE %sINDEX CONCURRENTLY IF NOT EXISTS %s ON %s %s",
			i.unique, name, b.customer.Relation, i.definition)},
	}}
}

// lacksUnique is a query for whether the customer's table has no whole unique
// index over the one column.
func (b binding) lacksUnique(word string) string {
	return fmt.Sprintf(`SELECT NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
  AND i.indpred IS NULL AND a.attname = %s)`, quoteLiteral(b.customer.Relation), quoteLiteral(b.customer.ColumnNames[word]))
}
