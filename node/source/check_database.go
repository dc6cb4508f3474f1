package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
)

// initAgain is the cure of what `source init` makes.
func (c *check) initAgain() string { return "desnode source init " + c.cfg.Mapping.Source }

// transport warns of a connection that others can read.
func (c *check) transport(conn *pgx.Conn) {
	if _, ok := conn.PgConn().Conn().(*tls.Conn); ok {
		c.ok("connection", "TLS")
		return
	}
	addr := conn.PgConn().Conn().RemoteAddr()
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		c.warn("connection", "no TLS to "+addr.String(), "whoever is on the way reads rows and may change them",
			"add sslmode=verify-full&sslrootcert=FILE to the URL")
		return
	}
	c.ok("connection", "on this machine")
}

func (c *check) database(ctx context.Context) error {
	var version int
	var encoding, schema string
	var recovery bool
	err := c.one(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),
 coalesce((SELECT nspname FROM pg_namespace WHERE nspname = 'desnode'), '')`, nil, &version, &encoding, &recovery, &schema)
	if err != nil {
		return err
	}
	switch {
	case version < 140000:
		c.fail("server", fmt.Sprintf("Postgres %d", version/10000), "times are not exact before Postgres 14", "")
	case recovery && c.writes():
		c.fail("server", "a standby, which takes no updates", "rows could not be marked", "name the primary in the URL, or add target_session_attrs=read-write")
	default:
		c.ok("server", fmt.Sprintf("Postgres %d", version/10000))
	}
	if encoding != "UTF8" {
		c.warn("server", "the database's encoding is "+encoding, "names that it can't hold are refused one by one", "")
	}
	if schema == "" {
		c.fail("schema desnode", "is not there", "desnode keeps there whose the source is and which file each row reaches", c.initAgain())
		c.stop = true
		return nil
	}
	return c.schemaVersion(ctx)
}

// writes reports whether one of the roles in use updates rows.
func (c *check) writes() bool {
	return slices.ContainsFunc(c.cfg.Roles, func(r Role) bool { return r != RoleReader })
}

func (c *check) schemaVersion(ctx context.Context) error {
	const name = "schema desnode"
	want, err := migrations.SchemaSteps()
	if err != nil {
		return err
	}
	var readable *bool
	err = c.one(ctx, `SELECT has_schema_privilege('desnode', 'USAGE')
 AND has_table_privilege((SELECT oid FROM pg_class WHERE relname = 'schema_version' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'desnode')), 'SELECT')`,
		nil, &readable)
	if err != nil {
		return err
	}
	if readable == nil {
		c.fail(name, "was not made by `desnode source init`", "its tables are unknown", c.initAgain())
		c.stop = true
		return nil
	}
	if !*readable {
		c.fail(name, "the user of role "+string(c.role)+" may not look into it", "no role could work",
			fmt.Sprintf("GRANT desnode_%s TO the user; or %s", c.role, c.initAgain()))
		c.stop = true
		return nil
	}
	var steps int
	if err := c.one(ctx, `SELECT max(version_id) FROM desnode.schema_version`, nil, &steps); err != nil {
		return err
	}
	switch {
	case steps < want:
		c.fail(name, fmt.Sprintf("is at step %d of %d", steps, want), "this desnode counts on the later ones", c.initAgain())
	case steps > want:
		c.warn(name, fmt.Sprintf("is at step %d, this desnode knows %d", steps, want), "a newer desnode was here", "")
	default:
		c.ok(name, fmt.Sprintf("step %d", steps))
	}
	return nil
}

// relation looks at the kind of the table or view.
func (c *check) relation(ctx context.Context) error {
	name := c.view.Relation
	var kind, comment string
	var updatable, rls, keys bool
	var triggers int
	err := c.one(ctx, `SELECT c.relkind::text, pg_relation_is_updatable(c.oid, true) & 4 <> 0, c.relrowsecurity,
 coalesce(obj_description(c.oid, 'pg_class'), ''), (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND tgtype & 64 <> 0 AND tgenabled <> 'D'),
 CASE WHEN has_schema_privilege($1, 'USAGE') THEN to_regclass($3) IS NOT NULL ELSE true END -- which refuses to look elsewhere
 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
		[]any{c.view.SchemaName, c.view.TableName, c.view.Keys}, &kind, &updatable, &rls, &comment, &triggers, &keys)
	if errors.Is(err, pgx.ErrNoRows) {
		cure := c.initAgain()
		if !c.view.Side && c.cfg.Mapping.Table != "" {
			cure = "set the source's `table`; names are taken as they are in the catalog, capitals included"
		}
		c.fail(name, "is not there", "it lists the files", cure)
		c.stop = true
		return nil
	}
	if err != nil {
		return err
	}
	c.kind = kind
	switch {
	case c.view.Side && comment != c.cfg.Mapping.Fingerprint():
		c.fail(name, "was made from another mapping than the configured one", "what the configuration says would not count", c.initAgain())
	case c.view.Side && triggers == 0:
		c.fail(name, "has lost its trigger", "it takes no updates", c.initAgain())
	case c.view.Side && !keys:
		c.fail(c.view.Keys, "is not there", "large tables are walked by it", c.initAgain())
	case !slices.Contains([]string{"r", "p", "v", "f"}, kind):
		c.fail(name, "is neither a table nor a view", "it takes no updates", "")
		c.stop = true
	case !updatable && c.writes():
		c.fail(name, "takes no updates", "rows could not be marked", "make the view updatable, or use `binding: side`")
	case kind == "f":
		c.warn(name, "is a foreign table", "its indexes and uniqueness can't be proven from here", "")
	default:
		c.ok(name, map[string]string{"r": "a table", "p": "a partitioned table", "v": "a view"}[kind])
	}
	if rls {
		c.warn(name, "has row security", "rows that a role's policies hide are not archived, and not counted as sharing a file", "")
	}
	return nil
}

// columnFacts is one column as the catalog has it.
type columnFacts struct {
	typ       pgType
	category  string // pg_type.typcategory
	notNull   bool
	generated bool
	length    int // of varchar(n); 0: none
	labels    []string
}

// columnsOf reads the columns of the relation.
func (c *check) columnsOf(ctx context.Context) (map[string]columnFacts, error) {
	rows, err := c.tx.Query(ctx, `SELECT a.attname::text, coalesce(b.typname, y.typname)::text, a.atttypmod, coalesce(b.typcategory, y.typcategory)::text,
 a.attnotnull, a.attgenerated <> '' OR a.attidentity = 'a',
 (SELECT string_agg(enumlabel, E'\x01') FROM pg_enum WHERE enumtypid = coalesce(b.oid, y.oid))
 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = nullif(y.typbasetype, 0)
 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped`, c.view.SchemaName, c.view.TableName)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]columnFacts{}
	for rows.Next() {
		var name string
		var f columnFacts
		var labels *string
		if err := rows.Scan(&name, &f.typ.name, &f.typ.mod, &f.category, &f.notNull, &f.generated, &labels); err != nil {
			return nil, err
		}
		if (f.typ.name == "varchar" || f.typ.name == "bpchar") && f.typ.mod > 4 {
			f.length = f.typ.mod - 4
		}
		if labels != nil {
			f.labels = strings.Split(*labels, "\x01")
		}
		found[name] = f
	}
	return found, rows.Err()
}

// columns proves that every word has a column of a fitting type.
func (c *check) columns(ctx context.Context) error {
	found, err := c.columnsOf(ctx)
	if err != nil {
		return err
	}
	before := len(c.report.Findings)
	words := slices.Concat(migrations.SourceColumns(), migrations.OptionalColumns(), migrations.ArchiveColumns())
	missing := false
	for _, word := range words {
		name, mapped := c.view.ColumnNames[word]
		if !mapped {
			continue
		}
		f, ok := found[name]
		if !ok {
			missing = true
			c.fail("column "+word, c.view.Columns[word]+" is not there", "the contract needs it", c.columnCure(word))
			continue
		}
		c.column(word, f)
	}
	for key, name := range c.view.MetadataNames {
		if _, ok := found[name]; !ok {
			missing = true
			c.fail("metadata "+key, c.view.Metadata[key]+" is not there", "it is to be kept with each file",
				"map "+key+" to another column in the source's `metadata`, or leave it out; names are taken as they are, capitals included")
		}
	}
	if len(c.report.Findings) == before {
		c.ok("columns", fmt.Sprintf("%d, with fitting types", len(c.view.ColumnNames)+len(c.view.MetadataNames)))
	}
	c.stop = c.stop || missing
	return nil
}

func (c *check) columnCure(word string) string {
	if t := migrations.ArchiveType(word); t != "" && !c.view.Side {
		return c.initAgain() + fmt.Sprintf(", or ALTER TABLE %s ADD COLUMN %s %s", c.view.Relation, c.view.Columns[word], t)
	}
	return "map " + word + " in the source's `columns`"
}

// fitting lists the types that a word's column may have, the best first.
var fitting = map[string][]string{
	migrations.ColName: {"text", "varchar", "citext", "bpchar"}, migrations.ColPath: {"text", "varchar"},
	migrations.ColSize:    {"int8", "int4", "int2", "numeric"},
	migrations.ColStatus:  {"text", "varchar", "bpchar", "enum", "name"},
	migrations.ColCluster: {"bytea"}, migrations.ColDesName: {"text", "varchar"}, migrations.ColShard: {"int4", "int8"},
	migrations.ColHash: {"int8"}, migrations.ColPack: {"bytea"}, migrations.ColSHA256: {"bytea"}, migrations.ColClaim: {"text", "varchar"},
	migrations.ColVersion: {"int8"}, migrations.ColAttempts: {"int4", "int8", "int2"}, migrations.ColError: {"text", "varchar"},
	migrations.ColMarkedAt: {"timestamptz", "timestamp"}, migrations.ColPackedAt: {"timestamptz", "timestamp"},
	migrations.ColDeletedAt: {"timestamptz", "timestamp"}, migrations.ColLastAttemptAt: {"timestamptz", "timestamp"},
	migrations.ColChecksum: {"bytea", "text", "varchar", "bpchar"}, migrations.ColContentType: {"text", "varchar", "bpchar"},
	migrations.ColCustom: {"jsonb", "json"},
}

// leastLength is the least n of varchar(n) that holds what desnode writes.
var leastLength = map[string]int{migrations.ColDesName: 1024, migrations.ColClaim: 64, migrations.ColError: 1024}

func (c *check) column(word string, f columnFacts) {
	name, column := "column "+word, c.view.Columns[word]
	kind := f.typ.name
	if f.category == "E" {
		kind = "enum"
	}
	var err error
	switch word {
	case migrations.ColID:
		c.id, err = newIDType(f.typ)
	case migrations.ColModifiedAt, migrations.ColCreatedAt:
		_, err = newTimeType(f.typ)
	default:
		if !slices.Contains(fitting[word], kind) {
			err = ErrRelation
		}
	}
	desnodes := migrations.ArchiveType(word) != "" || word == migrations.ColStatus
	switch {
	case err != nil:
		c.fail(name, fmt.Sprintf("%s is of type %s", column, f.typ.name), "its values can't be read or written", c.typeCure(word))
	case desnodes && f.generated:
		c.fail(name, column+" is a generated column", "desnode must write it", "")
	case desnodes && f.notNull && mayBeNull(word):
		c.fail(name, column+" is NOT NULL", "desnode clears it", fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", c.view.Relation, column))
	case f.length > 0 && f.length < leastLength[word]:
		c.fail(name, fmt.Sprintf("%s holds %d characters", column, f.length), "desnode writes longer texts", c.typeCure(word))
	case word == migrations.ColStatus:
		c.states(name, column, f)
	case word == migrations.ColModifiedAt && f.typ.name == "date":
		c.warn(name, column+" is a date", "a file that changes twice a day without another size is taken for unchanged", "")
	}
}

// mayBeNull tells whether desnode writes NULL to a column.
func mayBeNull(word string) bool {
	return !slices.Contains([]string{migrations.ColVersion, migrations.ColAttempts, migrations.ColStatus}, word)
}

func (c *check) typeCure(word string) string {
	if t := migrations.ArchiveType(word); t != "" {
		return fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE %s", c.view.Relation, c.view.Columns[word], t)
	}
	return "map " + word + " to a column of a view that casts it"
}

// states proves that the column can hold every word.
func (c *check) states(name, column string, f columnFacts) {
	for _, state := range migrations.States() {
		word := c.view.States[state]
		switch {
		case f.labels != nil && !slices.Contains(f.labels, word):
			c.fail(name, fmt.Sprintf("%s has no value %q for %s", column, word, state), "rows could not get there",
				fmt.Sprintf("ALTER TYPE … ADD VALUE '%s', or map %s in the source's `states`", strings.ReplaceAll(word, "'", "''"), state))
		case f.length > 0 && len([]rune(word)) > f.length:
			c.fail(name, fmt.Sprintf("%q for %s does not fit into %s", word, state, column), "rows could not get there",
				"map "+state+" to a shorter word in the source's `states`")
		}
	}
}
