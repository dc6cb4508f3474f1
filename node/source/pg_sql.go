package source

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/migrations"
)

// pgQueries are the parts of the statements over one relation, in the terms of
// its own columns and types. Values of rows are always parameters; words of
// states stand in the text, or no partial index would be found.
type pgQueries struct {
	source   string // the source's name as a literal
	relation string
	keys     string // the relation to walk by id
	filter   string // "" or " AND (…)"
	lockable bool

	id       idType
	modified timeType
	columns  map[string]string // word → t.column; absent: not mapped
	states   map[string]string // state → literal
	words    map[string]State  // the table's word → state
	size     string            // the size; -1 when it is none
	version  string

	fileID string // the row's file id as a subquery
	row    string // the columns of a Row
}

// lookUp asks the catalog for the columns' types and builds the statements.
func (p *Postgres) lookUp(ctx context.Context, s *session) (*pgQueries, error) {
	types, lockable, err := columnTypes(ctx, s, p.resolved)
	if err != nil {
		return nil, err
	}
	q, err := newQueries(p.cfg.Mapping.Source, p.resolved, types)
	if err != nil {
		return nil, err
	}
	q.lockable = lockable
	p.queries.Store(q)
	return q, nil
}

func newQueries(source string, r migrations.Resolved, types map[string]pgType) (*pgQueries, error) {
	q := &pgQueries{
		source: sqlText(source), relation: r.Relation + " AS t", keys: r.Keys + " AS t",
		columns: map[string]string{}, states: map[string]string{}, words: map[string]State{},
	}
	if r.Filter != "" {
		q.filter = " AND " + r.Filter
	}
	for word, name := range r.ColumnNames {
		if _, found := types[name]; !found {
			return nil, fmt.Errorf("%s has no column %s for %s: %w", r.Relation, r.Columns[word], word, ErrRelation)
		}
		q.columns[word] = "t." + r.Columns[word]
	}
	for state, word := range r.States {
		q.states[state] = sqlText(word)
		q.words[word] = State(state)
	}
	typeOf := func(word string) pgType { return types[r.ColumnNames[word]] }
	var err error
	if q.id, err = newIDType(typeOf(migrations.ColID)); err != nil {
		return nil, fmt.Errorf("column %s: %w", r.Columns[migrations.ColID], err)
	}
	if q.modified, err = newTimeType(typeOf(migrations.ColModifiedAt)); err != nil {
		return nil, fmt.Errorf("column %s: %w", r.Columns[migrations.ColModifiedAt], err)
	}
	q.version = "coalesce(" + q.col(migrations.ColVersion) + ", 0)"
	q.size = q.col(migrations.ColSize)
	if typeOf(migrations.ColSize).name == "numeric" {
		q.size = fmt.Sprintf("CASE WHEN %[1]s BETWEEN 0 AND 9223372036854775807 AND %[1]s = trunc(%[1]s) THEN (%[1]s)::bigint END", q.size)
	}
	q.size = "coalesce(" + q.size + ", -1)"
	q.fileID = "(SELECT f.file_id" + q.identified() + ")"
	q.row, err = q.rowColumns(r, types)
	return q, err
}

// rowColumns lists what scanRow reads, in its order. Never "*": a role may read
// these columns and no others.
func (q *pgQueries) rowColumns(r migrations.Resolved, types map[string]pgType) (string, error) {
	text := func(word string) string {
		if c := q.columns[word]; c != "" {
			return c + "::text"
		}
		return "NULL"
	}
	instant := func(word string) (string, error) {
		c := q.columns[word]
		if c == "" {
			return "NULL", nil
		}
		t, err := newTimeType(types[r.ColumnNames[word]])
		if err != nil {
			return "", fmt.Errorf("column %s: %w", r.Columns[word], err)
		}
		return t.instant(c), nil
	}
	list := make([]string, cellCount)
	for i, word := range map[int]string{
		cellID: migrations.ColID, cellName: migrations.ColName, cellPath: migrations.ColPath,
		cellState: migrations.ColStatus, cellPack: migrations.ColPack, cellDesName: migrations.ColDesName,
		cellChecksum: migrations.ColChecksum, cellContentType: migrations.ColContentType,
		cellAttempts: migrations.ColAttempts, cellError: migrations.ColError, cellClaim: migrations.ColClaim,
	} {
		list[i] = text(word)
	}
	for i, word := range map[int]string{
		cellModified: migrations.ColModifiedAt, cellCreated: migrations.ColCreatedAt, cellMarkedAt: migrations.ColMarkedAt,
		cellPackedAt: migrations.ColPackedAt, cellLastAttempt: migrations.ColLastAttemptAt,
	} {
		var err error
		if list[i], err = instant(word); err != nil {
			return "", err
		}
	}
	list[cellSize] = "(" + q.size + ")::text"
	list[cellVersion] = q.version + "::text"
	list[cellFileID] = q.fileID
	list[cellCustom] = q.custom(r)
	return strings.Join(list, ", "), nil
}

// custom is the JSON object of the further columns that are kept with a record.
// Columns that are NULL are left out.
func (q *pgQueries) custom(r migrations.Resolved) string {
	var objects []string
	if c := q.columns[migrations.ColCustom]; c != "" {
		objects = append(objects, "coalesce("+c+"::jsonb, '{}')")
	}
	if len(r.Metadata) > 0 {
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
			pairs = append(pairs, "("+sqlText(key)+", to_jsonb(t."+r.Metadata[key]+"))")
		}
		objects = append(objects, "(SELECT coalesce(jsonb_object_agg(m.k, m.v), '{}') FROM (VALUES "+
			strings.Join(pairs, ", ")+") AS m(k, v) WHERE m.v IS NOT NULL)")
	}
	if len(objects) == 0 {
		return "NULL"
	}
	return "nullif(" + strings.Join(objects, " || ") + ", '{}')::text"
}

// col returns a column under its alias.
func (q *pgQueries) col(word string) string { return q.columns[word] }

// is is the condition that the row is in the state.
func (q *pgQueries) is(state State) string {
	return q.col(migrations.ColStatus) + " = " + q.states[string(state)]
}

// set assigns an expression to a column.
func (q *pgQueries) set(word, sql string) string {
	return strings.TrimPrefix(q.col(word), "t.") + " = " + sql
}

// identified is the FROM and WHERE of desnode.file_id's word about the row t: it
// holds for the path, size and time as they are.
func (q *pgQueries) identified() string {
	return " FROM desnode.file_id AS f WHERE f.source = " + q.source + " AND f.id = " + q.col(migrations.ColID) + "::text" +
		" AND f.path = " + q.path() + " AND f.size = " + q.size + " AND f.modified_at = " + q.written()
}

// path is the row's path, "" when there is none.
func (q *pgQueries) path() string { return "coalesce(" + q.col(migrations.ColPath) + "::text, '')" }

// written is modified_at as desnode.file_id keeps it.
func (q *pgQueries) written() string {
	return "coalesce(" + q.modified.instant(q.col(migrations.ColModifiedAt)) + ", '-infinity')"
}

// behind is the condition that the row comes behind the id in the order of
// ids. No row without an id is ever listed: nothing could be done to it.
func (q *pgQueries) behind(v *params, after string) string {
	id := q.col(migrations.ColID)
	switch {
	case after == "" && q.id.text():
		return " AND " + id + " > ''" // "" would be taken for the start again
	case after == "":
		return " AND " + id + " IS NOT NULL"
	}
	return " AND " + id + " > " + v.text(after) + "::" + q.id.cast
}

// from is the FROM and WHERE of the rows in scope that a condition selects.
func (q *pgQueries) from(where string) string {
	return " FROM " + q.relation + " WHERE " + where + q.filter
}

// params are the parameters of one statement. Each method adds one and returns
// its text, cast to the type in which it is sent.
type params []any

func (v *params) add(value any, cast string) string {
	*v = append(*v, value)
	return fmt.Sprintf("$%d::%s", len(*v), cast)
}

func (v *params) text(s string) string       { return v.add(s, "text") }
func (v *params) integer(n int64) string     { return v.add(n, "bigint") }
func (v *params) bytes(b []byte) string      { return v.add(b, "bytea") }
func (v *params) texts(list []string) string { return v.add(list, "text[]") }
func (v *params) at(t time.Time) string      { return v.add(stamp(t), "text") + "::timestamptz" }

// sqlText makes an SQL text literal, whatever s holds.
func sqlText(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
