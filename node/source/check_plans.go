package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
)

// largeTable is the number of rows from which on a plan that reads the whole
// table is worth a warning.
const largeTable = 10000

// plan is the part of EXPLAIN's answer that is looked at.
type plan struct {
	Node     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Schema   string  `json:"Schema"`
	Rows     float64 `json:"Plan Rows"`
	Cond     string  `json:"Index Cond"`
	Plans    []plan  `json:"Plans"`
}

// nodes visits the plan and all below it.
func (p plan) nodes(visit func(plan)) {
	visit(p)
	for _, sub := range p.Plans {
		sub.nodes(visit)
	}
}

// has reports whether the plan has a node of that type.
func (p plan) has(node string) bool {
	found := false
	p.nodes(func(n plan) { found = found || n.Node == node })
	return found
}

// explain asks for the plan of a query; with indexes only when they can serve
// it at all. An error that the database gave is about the query.
func (c *check) explain(ctx context.Context, query string, indexesOnly bool) (p plan, err error) {
	nested, err := c.tx.Begin(ctx)
	if err != nil {
		return plan{}, err
	}
	defer func() { err = errors.Join(err, nested.Rollback(ctx)) }()
	if indexesOnly {
		if _, err := nested.Exec(ctx, "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off",
			pgx.QueryExecModeSimpleProtocol); err != nil {
			return plan{}, err
		}
	}
	rows, err := nested.Query(ctx, "EXPLAIN (VERBOSE, FORMAT JSON) "+query, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return plan{}, err
	}
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		return plan{}, err
	}
	var answer []struct{ Plan plan }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer) != 1 {
		return plan{}, fmt.Errorf("EXPLAIN answered %q: %w", text, err)
	}
	return answer[0].Plan, nil
}

// from is the relation with the filter, to which conditions are added.
func (c *check) from(conditions ...string) string {
	if c.view.Filter != "" {
		conditions = append(conditions, c.view.Filter)
	}
	sql := " FROM " + c.view.Relation + " AS t"
	if len(conditions) > 0 {
		sql += " WHERE " + strings.Join(conditions, " AND ")
	}
	return sql
}

func (c *check) col(word string) string { return "t." + c.view.Columns[word] }

func (c *check) inState(state string) string {
	return c.col(migrations.ColStatus) + " = " + migrations.Literal(c.view.States[state])
}

// uniqueness proves what must not stand in two rows: ids, served names, names
// unless desnode makes them, and paths when originals are deleted.
func (c *check) uniqueness(ctx context.Context) error {
	type want struct{ word, why string }
	wants := []want{{migrations.ColID, "an update would touch two rows, and a pack could not tell them apart"}}
	if !c.cfg.Mapping.Generated {
		wants = append(wants, want{migrations.ColName, "the second file of a name could not be archived"})
	}
	if c.scope.Delete {
		wants = append(wants, want{migrations.ColPath, "a file that a second row reaches must not be deleted"})
	}
	if !c.view.Side { // desnode.entry has its own
		wants = append(wants, want{migrations.ColDesName, "two rows could be served under one name"})
	}
	for _, w := range wants {
		index, err := c.uniqueIndex(ctx, w.word)
		if err != nil {
			return err
		}
		if index != "" {
			c.ok("UNIQUE "+w.word, "by index "+index)
			continue
		}
		table, column := c.customer.Relation, c.customer.Columns[w.word]
		c.fail("UNIQUE "+w.word, "no unique index proves it", w.why,
			fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s)", table, column))
	}
	return nil
}

// uniqueIndex returns a unique index over the one column that covers all rows
// in scope: the planner is asked, which knows whether a partial index does and
// what a view is made of.
func (c *check) uniqueIndex(ctx context.Context, word string) (string, error) {
	conditions := []string{c.col(word) + " = " + c.someValue(word)}
	if word == migrations.ColName && c.view.Side || word == migrations.ColPath && c.view.Side || word == migrations.ColID && c.view.Side {
		conditions = append(conditions, c.inState(migrations.StateActive)) // the arm over the whole table
	}
	p, err := c.explain(ctx, "SELECT 1"+c.from(conditions...), true)
	if err != nil {
		if sqlState(err) != "" {
			c.refusedQuery(word, err)
			return "", nil
		}
		return "", err
	}
	var candidates []string
	p.nodes(func(n plan) {
		// The value must be what the index is asked for, not a join's condition.
		if n.Index != "" && strings.Contains(n.Cond, strings.TrimSuffix(c.someValue(word), "'")) {
			candidates = append(candidates, n.Index)
		}
	})
	// The planner may take another index: those of the table itself are looked
	// at too, when they are whole.
	var found *string
	err = c.one(ctx, `SELECT min(x.relname)::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
 JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace n ON n.oid = r.relnamespace
 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indnkeyatts = 1 AND i.indexprs IS NULL AND (
  x.relname::text = ANY ($1::text[]) AND n.nspname NOT IN ('desnode')
  OR x.relname::text = ANY ($1::text[]) AND n.nspname = $2
  OR n.nspname = $2 AND r.relname = $3 AND a.attname = $4 AND i.indpred IS NULL)`,
		[]any{candidates, c.customer.SchemaName, c.customer.TableName, c.customer.ColumnNames[word]}, &found)
	if err != nil || found == nil {
		return "", err
	}
	return *found, nil
}

// someValue is a literal that the column's type reads.
func (c *check) someValue(word string) string {
	switch {
	case word != migrations.ColID || c.id.bits == 0 && c.id.form == nil:
		return "'desnode'"
	case c.id.form == uuid:
		return "'00000000-0000-0000-0000-000000000000'"
	}
	return "'0'"
}

// refusedQuery makes a failure of a query that the database would not plan.
func (c *check) refusedQuery(what string, err error) {
	c.fail("query "+what, err.Error(), "desnode asks like this", "")
}

// queue is a query that desnode repeats for ever.
type queue struct {
	name, query, index string
	ordered            bool   // it must come sorted from an index
	key                string // the word of the index's first column
	predicate          string // what a partial index's condition holds
	partial            bool   // no other will do: it would hold all rows
}

func (c *check) queues() []queue {
	id, hash, pack := c.col(migrations.ColID), c.col(migrations.ColHash), c.col(migrations.ColPack)
	state := func(s string) string {
		return strings.TrimPrefix(c.col(migrations.ColStatus), "t.") + " = " + migrations.Literal(c.view.States[s])
	}
	list := []queue{
		{
			"MARKED", "SELECT " + id + c.from(c.inState(migrations.StateMarked), hash+" BETWEEN 1 AND 1000") + " ORDER BY " + hash + ", " + id + " LIMIT 1000",
			fmt.Sprintf("(%s, %s) WHERE %s", hash, id, state(migrations.StateMarked)), !c.view.Side,
			migrations.ColHash, c.view.States[migrations.StateMarked], false,
		},
		{
			"PACKED", "SELECT " + id + c.from(c.inState(migrations.StatePacked), pack+` = '\x00000000000000000000000000000000'`) + " ORDER BY " + id + " LIMIT 1000",
			fmt.Sprintf("(%s, %s) WHERE %s", pack, id, state(migrations.StatePacked)), !c.view.Side,
			migrations.ColPack, c.view.States[migrations.StatePacked], false,
		},
		{
			"failures", "SELECT " + id + c.from(c.col(migrations.ColError)+" IS NOT NULL") + " ORDER BY " + id + " LIMIT 1000",
			fmt.Sprintf("(%s) WHERE %s IS NOT NULL", id, c.col(migrations.ColError)), false,
			migrations.ColID, "", true,
		},
		{
			"look-up by name", "SELECT " + id + c.from(c.col(migrations.ColDesName)+" = 'desnode'"),
			fmt.Sprintf("(%s)", c.col(migrations.ColDesName)), false, "", "", false,
		},
		{
			"look-up by own name", "SELECT " + id + c.from(c.inState(migrations.StateActive), c.col(migrations.ColName)+" = 'desnode'"),
			fmt.Sprintf("(%s)", c.col(migrations.ColName)), false, "", "", false,
		},
	}
	if !c.view.Side { // there is no state in the customer's table to make an index on
		list = append(list, queue{
			"ACTIVE", "SELECT " + id + c.from(c.inState(migrations.StateActive)) + " ORDER BY " + id + " LIMIT 1000",
			fmt.Sprintf("(%s) WHERE %s", id, state(migrations.StateActive)), true,
			migrations.ColID, c.view.States[migrations.StateActive], true,
		})
	}
	return list
}

// indexes warns where no index can serve a queue, and where the planner would
// not use it.
func (c *check) indexes(ctx context.Context) error {
	var size float64
	if err := c.one(ctx, `SELECT greatest(c.reltuples, 0) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2`, []any{c.customer.SchemaName, c.customer.TableName}, &size); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	good := 0
	for _, q := range c.queues() {
		possible, err := c.explain(ctx, q.query, true)
		if err == nil {
			var usual plan
			usual, err = c.explain(ctx, q.query, false)
			lacks := false
			if err == nil {
				lacks, err = c.lacksIndex(ctx, q)
			}
			switch {
			case err != nil:
			case lacks || possible.has("Seq Scan") || q.ordered && possible.has("Sort"):
				c.warn("index for "+q.name, "there is none", "each time the whole table would be read",
					c.initAgain()+", or CREATE INDEX CONCURRENTLY ON "+c.customer.Relation+" "+strings.ReplaceAll(q.index, "t.", ""))
			case size >= largeTable && usual.has("Seq Scan"):
				c.warn("plan for "+q.name, "reads the whole table", "each time, though an index could serve",
					"ANALYZE "+c.customer.Relation)
			default:
				good++
			}
		}
		if err != nil {
			if sqlState(err) == "" {
				return err
			}
			c.refusedQuery(q.name, err)
		}
	}
	if good > 0 {
		c.ok("indexes and plans", fmt.Sprintf("%d of %d queries are served by an index", good, len(c.queues())))
	}
	return nil
}

// lacksIndex looks a queue's index up in the catalog: the planner of a small
// table takes another one that serves as well, until the table is large. Views
// are left to the planner.
func (c *check) lacksIndex(ctx context.Context, q queue) (lacks bool, err error) {
	if q.key == "" || c.kind != "r" {
		return false, nil
	}
	err = c.one(ctx, `SELECT NOT EXISTS (SELECT FROM pg_index i
 JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace n ON n.oid = r.relnamespace
 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 WHERE n.nspname = $1 AND r.relname = $2 AND i.indisvalid AND (
  a.attname = $3 AND i.indpred IS NULL AND NOT $5::bool
  OR a.attname = $3 AND i.indpred IS NOT NULL AND strpos(pg_get_expr(i.indpred, i.indrelid), CASE $4 WHEN '' THEN 'IS NOT NULL' ELSE quote_literal($4) END) > 0
  OR a.attname = $6 AND $4 <> ''))`,
		[]any{c.view.SchemaName, c.view.TableName, c.view.ColumnNames[q.key], q.predicate, q.partial, c.view.ColumnNames[migrations.ColStatus]}, &lacks)
	return lacks, err
}
