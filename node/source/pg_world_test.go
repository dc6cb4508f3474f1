package source_test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/sourcetest"
)

// pgWorld is a database with a customer's table, prepared as `source init`
// does, and the customer's hands on it.
type pgWorld struct {
	url     string // as superuser
	conn    *pgx.Conn
	mapping migrations.Mapping
	table   string                               // SQL of the customer's table
	columns map[string]string                    // the contract's words → SQL; those left out stand for themselves
	states  map[string]string                    // of the table's own status column
	id      func(n int) string                   // the n-th row's id
	time    func(at time.Time) string            // SQL of a modified_at
	extra   map[string]string                    // further columns of inserted rows → SQL
	instant func(column string) (instant string) // SQL of a timestamptz
	side    bool
	unit    time.Duration
	rows    int
}

// pgShape is one kind of customer's table.
type pgShape struct {
	name    string
	ddl     string // run before init
	mapping migrations.Mapping
	world   pgWorld
	suite   func(*sourcetest.Harness)
}

func timestamps(unit time.Duration) func(time.Time) string {
	return func(at time.Time) string {
		return "'" + at.UTC().Truncate(unit).Format("2006-01-02 15:04:05.999999999") + "+00'::timestamptz"
	}
}

func number(n int) string { return fmt.Sprint(n) }

func same(column string) string { return column }

// mappingNamed is the shape's mapping, for a source of that name unless it has
// one.
func (s pgShape) mappingNamed(name string) migrations.Mapping {
	m := s.mapping
	m.Source = cmp.Or(m.Source, name)
	return m
}

// newWorld makes the database of a shape.
func newWorld(t testing.TB, shape pgShape) *pgWorld {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	return newWorldOn(t, server, shape)
}

func newWorldOn(t testing.TB, s *dev.Postgres, shape pgShape) *pgWorld {
	t.Helper()
	w := shape.world
	w.url = databaseOf(t, s)
	w.conn = connect(t, w.url)
	w.mapping = shape.mappingNamed("files")
	w.side = w.mapping.Side
	if shape.ddl != "" {
		run(t, w.conn, shape.ddl)
	}
	_, err := migrations.Apply(t.Context(), w.url, w.mapping, migrations.ScriptOptions{Login: true, Delete: true, Trigger: true})
	if err != nil {
		t.Fatal(err)
	}
	if w.mapping.Table == "" {
		run(t, w.conn, "ALTER TABLE desnode.files ALTER COLUMN id DROP IDENTITY")
	}
	// The suite edits past every constraint.
	run(t, w.conn, `DO $$ DECLARE c record; BEGIN
 FOR c IN SELECT conrelid::regclass AS r, conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 LOOP
  EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.r, c.conname);
 END LOOP; END $$`)
	return &w
}

// open opens the table with a least-privilege user for each role.
func (w *pgWorld) open(t testing.TB, change ...func(*source.PostgresConfig)) *source.Postgres {
	t.Helper()
	cfg := source.PostgresConfig{Mapping: w.mapping, URLs: map[source.Role]string{}}
	for _, role := range append(source.Roles(), source.RoleRestorer) {
		cfg.URLs[role] = as(t, w.url, "desnode_"+string(role))
	}
	for _, f := range change {
		f(&cfg)
	}
	p, err := source.OpenPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (w *pgWorld) harness(t *testing.T) sourcetest.Harness {
	h := sourcetest.Harness{Table: w.open(t), Add: w.add, Edit: w.edit, Refuse: w.refuse, Unit: w.unit, UTF8: true, Source: w.mapping.Source}
	h.Again = func(t *testing.T) source.Table { return w.open(t) }
	h.Checksums = w.mapping.Table == "" && !w.side
	return h
}

func (w *pgWorld) column(word string) string {
	if c, ok := w.columns[word]; ok {
		return c
	}
	return word
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (w *pgWorld) add(t *testing.T, files ...source.File) {
	t.Helper()
	w.insert(t, files...)
}

func (w *pgWorld) insert(t testing.TB, files ...source.File) {
	t.Helper()
	columns := []string{w.column("id"), w.column("name"), w.column("path"), w.column("size"), w.column("modified_at")}
	for c := range w.extra {
		columns = append(columns, c)
	}
	var b strings.Builder
	for _, f := range files {
		w.rows++
		id := w.id(w.rows)
		values := []string{quote(id), quote(f.Name), quote(f.Path), fmt.Sprint(f.Size), w.time(f.ModTime)}
		for _, c := range columns[5:] {
			values = append(values, w.extra[c])
		}
		fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES (%s);\n", w.table, strings.Join(columns, ", "), strings.Join(values, ", "))
		if f.FileID != "" {
			b.WriteString(w.identify(id, f.FileID))
		}
	}
	run(t, w.conn, b.String())
}

func (w *pgWorld) identify(id, fileID string) string {
	return fmt.Sprintf(`INSERT INTO desnode.file_id (source, id, path, size, modified_at, file_id)
 SELECT %[8]s, t.%[2]s::text, %[3]s, %[4]s, %[5]s, %[6]s FROM %[1]s AS t WHERE t.%[2]s = %[7]s
 ON CONFLICT (source, id) DO UPDATE SET path = excluded.path, size = excluded.size, modified_at = excluded.modified_at, file_id = excluded.file_id;
`, w.table, w.column("id"), w.column("path"), w.column("size"), w.instant(w.column("modified_at")), quote(fileID), quote(id), quote(w.mapping.Source))
}

// edit changes a row past triggers.
func (w *pgWorld) edit(t *testing.T, id, column string, value any) {
	t.Helper()
	sql := "SET session_replication_role = replica;"
	switch {
	case column == "file_id" && value == nil:
		sql += "DELETE FROM desnode.file_id WHERE id = " + quote(id)
	case column == "file_id":
		sql += w.identify(id, value.(string))
	case w.side:
		sql += w.editSide(id, column, value)
	default:
		sql += fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s = %s", w.table, w.column(column), w.value(column, value), w.column("id"), quote(id))
	}
	run(t, w.conn, sql+"; SET session_replication_role = origin")
}

// editSide changes what the view shows: the customer's columns in the table,
// with what the entry knows of them, and the others in the entry.
func (w *pgWorld) editSide(id, column string, value any) string {
	number := "extract(epoch FROM t." + w.column("modified_at") + ")"
	if w.unit == time.Second && w.instant("x") != "x" {
		number = "t." + w.column("modified_at") + "::numeric"
	}
	entry := fmt.Sprintf(`INSERT INTO desnode.entry (source, id, size, modified_at, status) SELECT %[6]s, t.%[2]s::text, t.%[3]s, %[4]s, 'ACTIVE'
 FROM %[1]s AS t WHERE t.%[2]s = %[5]s ON CONFLICT (source, id) DO UPDATE SET size = excluded.size, modified_at = excluded.modified_at;`,
		w.table, w.column("id"), w.column("size"), number, quote(id), quote(w.mapping.Source))
	own := fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s = %s;", w.table, w.column(column), w.value(column, value), w.column("id"), quote(id))
	switch column {
	case "id":
		return entry + own + fmt.Sprintf("UPDATE desnode.entry SET id = %s WHERE id = %s", quote(value.(string)), quote(id))
	case "name", "path":
		return own
	case "size", "modified_at":
		return own + entry
	}
	return entry + fmt.Sprintf("UPDATE desnode.entry SET %s = %s WHERE id = %s", column, w.value(column, value), quote(id))
}

func (w *pgWorld) value(column string, value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case int64:
		return fmt.Sprint(v)
	case time.Time:
		if column == "modified_at" {
			return w.time(v)
		}
		return timestamps(time.Microsecond)(v)
	case desformat.PackID:
		return fmt.Sprintf(`'\x%x'`, v[:])
	case [32]byte:
		return fmt.Sprintf(`'\x%x'`, v[:])
	case string:
		if s, ok := w.states[v]; ok && column == "status" {
			return quote(s)
		}
		return quote(v)
	}
	panic(fmt.Sprintf("edit with a %T", value))
}

// refuse makes the database refuse every change of one row.
func (w *pgWorld) refuse(t *testing.T, id string) {
	t.Helper()
	table, column := w.table, w.column("id")
	if w.side {
		table, column = "desnode.entry", "id"
	}
	run(t, w.conn, fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
 CREATE TRIGGER refuse BEFORE UPDATE ON %s FOR EACH ROW WHEN (OLD.%s::text = %s) EXECUTE FUNCTION refuse()`, table, column, quote(id)))
}
