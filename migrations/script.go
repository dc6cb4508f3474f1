package migrations

import (
	"fmt"
	"strings"
)

// ScriptOptions say what InitScript puts in beside what every source needs.
type ScriptOptions struct {
	// Trigger adds to the customer's table the trigger that refuses illegal
	// changes of state. The reference table and the side binding always have it.
	Trigger bool
	// Login lets the roles log in themselves; else they are groups, and users
	// are granted membership.
	Login bool
	// Delete: originals will be deleted, so paths must be unique.
	Delete bool
}

// section is a piece of the script: statements that run in one transaction,
// when a query says so.
type section struct {
	title  string
	when   string   // a query for one boolean; "": always
	alone  bool     // each statement outside of a transaction
	sql    []string // without the last semicolon
	notice string   // what an operator should know when it runs; one line
}

// plan is all that one mapping needs, in order: before, the steps, after.
type plan struct {
	before, after []section
	steps         []stepSet
	rollback      []rollback
}

// rollback is how a part is taken back.
type rollback struct {
	title string
	sql   []string
}

// planFor makes the plan of a mapping.
func planFor(m Mapping, o ScriptOptions) (plan, error) {
	r, err := m.Resolve()
	if err != nil {
		return plan{}, err
	}
	p := plan{before: []section{supported(), foreign(), ownSchema()}, steps: []stepSet{schemaSteps}}
	b := binding{m: m, o: o, view: r, customer: m.customer()}
	switch {
	case m.reference():
		p.steps = append(p.steps, filesSteps)
		p.after = b.reference()
		p.rollback = b.referenceRollback()
	case m.Side:
		p.after = b.side()
		p.rollback = b.sideRollback()
	default:
		p.after = b.table()
		p.rollback = b.tableRollback()
	}
	p.after = append(append([]section{roles(o), generation()}, p.after...), b.grants()...)
	p.rollback = append(p.rollback, rollback{
		"what all sources of this database share; after the last of them",
		[]string{
			dropOwned(), "DROP SCHEMA IF EXISTS desnode CASCADE",
		},
	}, rollback{"the roles, which are the whole server's; after the last database", []string{dropRoles()}})
	return p, nil
}

// InitScript returns the script that prepares a database for the mapping: the
// schema desnode, what the binding needs, the roles if absent and their
// grants. psql runs it, as a user who owns the table or a superuser; running
// it again changes nothing. How to take it back stands in comments at its end.
//
// It executes nothing and needs no connection: what depends on the database is
// asked by the script.
func InitScript(m Mapping, o ScriptOptions) (string, error) {
	p, err := planFor(m, o)
	if err != nil {
		return "", err
	}
	sections := p.before
	for _, set := range p.steps {
		s, err := set.sections()
		if err != nil {
			return "", err
		}
		sections = append(sections, s...)
	}
	sections = append(sections, p.after...)
	var b strings.Builder
	fmt.Fprintf(&b, scriptHead, m.Source, quoteLiteral(lockName))
	for _, s := range sections {
		s.psql(&b)
	}
	b.WriteString(scriptTail)
	for _, r := range p.rollback {
		fmt.Fprintf(&b, "\n-- -- %s:\n", r.title)
		for _, sql := range r.sql {
			fmt.Fprintf(&b, "%s\n", commented(sql+";"))
		}
	}
	return b.String(), nil
}

// lockName is hashed to the advisory lock that lets one script or Apply run at
// a time.
const lockName = "desnode source init"

const scriptHead = `-- desnode: prepares this database for the source %s.
-- Run it with: psql --no-psqlrc -f FILE 'postgres://…'
-- It can be run again at any time. How to take it back stands at its end.
\set ON_ERROR_STOP on
\set QUIET on
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
SET standard_conforming_strings = on;

-- One at a time. Waiting inside one statement would hold up CREATE INDEX
-- CONCURRENTLY of the one that runs.
DO $$
BEGIN
  WHILE NOT pg_try_advisory_lock(hashtext(%s)) LOOP
    COMMIT;
    PERFORM pg_sleep(0.2);
  END LOOP;
END
$$;
`

const scriptTail = `
\echo desnode: the database is ready

-- The way back. Packs stay as they are, and every file can still be read by its
-- name; but what the database knew of the archive is gone with the columns and
-- tables dropped here. Take away the comment signs of what is wanted.
`

// psql writes the section as psql runs it.
func (s section) psql(b *strings.Builder) {
	b.WriteByte('\n')
	if s.title != "" {
		fmt.Fprintf(b, "-- %s\n", s.title)
	}
	if s.when != "" {
		fmt.Fprintf(b, "SELECT (%s) AS desnode_do \\gset\n\\if :desnode_do\n", s.when)
	}
	if !s.alone && len(s.sql) > 0 {
		b.WriteString("BEGIN;\nSET LOCAL lock_timeout = '3s';\n")
	}
	for _, sql := range s.sql {
		b.WriteString(sql)
		if !strings.HasSuffix(sql, ";") {
			b.WriteByte(';')
		}
		b.WriteByte('\n')
	}
	if !s.alone && len(s.sql) > 0 {
		b.WriteString("COMMIT;\n")
	}
	if s.notice != "" {
		fmt.Fprintf(b, "\\echo %s\n", quoteEcho(s.notice))
	}
	if s.when != "" {
		b.WriteString("\\endif\n")
	}
}

// quoteEcho makes one argument of a psql command.
func quoteEcho(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", " ", "\r", " ").Replace(s)
	return "'" + s + "'"
}

// commented puts a comment sign before every line, so that a line break inside
// a name does not end the comment, and stays when the signs are taken away.
func commented(sql string) string {
	return "-- " + strings.ReplaceAll(sql, "\n", "\n-- ")
}
