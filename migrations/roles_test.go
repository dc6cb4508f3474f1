package migrations_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/migrations"
)

// TestRolesMayDoNoMore tries every column and every kind of statement as each
// role: what it is not granted is refused.
func TestRolesMayDoNoMore(t *testing.T) {
	db := database(t)
	owner := connect(t, db)
	exec1(t, owner, "CREATE TABLE docs (id int PRIMARY KEY, name text, path text, size int, modified_at timestamptz, status text, secret text, tenant int, state_of_mind text)")
	m := migrations.Mapping{Source: "docs", Table: "docs", Filter: `t.tenant = 1 AND length(t."state_of_mind") > 0`}
	if _, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range migrations.Roles() {
		t.Run(role, func(t *testing.T) {
			conn := connect(t, db)
			exec1(t, conn, "SET ROLE "+role)
			refused := func(sql string, want bool) {
				t.Helper()
				err := try(t, conn, sql)
				if want != (sqlState(err) == "42501") || !want && err != nil {
					t.Errorf("%s: %v, want refused: %t", sql, err, want)
				}
			}
			for word, column := range r.Columns {
				refused("SELECT "+column+" FROM docs", false)
				refused(fmt.Sprintf("UPDATE docs SET %s = %s", column, column), !slices.Contains(migrations.Updates(role), word))
			}
			refused("SELECT tenant, state_of_mind FROM docs", false) // the filter's
			refused("SELECT secret FROM docs", true)
			refused("SELECT * FROM docs", true)
			refused("UPDATE docs SET secret = ''", true)
			refused("DELETE FROM docs", true)
			refused("INSERT INTO docs (id) VALUES (1)", true)
			refused("TRUNCATE docs", true)
			refused("SELECT cluster FROM desnode.cluster", false)
			refused("UPDATE desnode.cluster SET source = source", true)
			refused("INSERT INTO desnode.cluster SELECT 'x', decode(repeat('00', 16), 'hex') WHERE false", role != "desnode_marker")
			refused("UPDATE desnode.cluster SET generation = 7", true)
			refused("SELECT desnode.raise_generation('x', decode(repeat('00', 16), 'hex'), 2)", role != "desnode_marker")
			refused("DO $$ BEGIN LOCK TABLE desnode.cluster IN ACCESS EXCLUSIVE MODE; END $$", true)
			refused("DELETE FROM desnode.file_id", role != "desnode_deleter")
			refused("SELECT FROM desnode.entry", true)
			refused("CREATE TABLE desnode.mine ()", true)
		})
	}
}

// TestRollbackRollsBack takes the comment signs from the way back and runs it,
// on a server of its own: the roles are the whole server's.
func TestRollbackRollsBack(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	dir, err := os.MkdirTemp("", "desnode-rollback-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	own, err := dev.StartPostgres(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, l := range layouts() {
		t.Run(l.name, func(t *testing.T) {
			db := databaseOf(t, own)
			conn := connect(t, db)
			exec1(t, conn, l.ddl)
			before := one(t, conn, fingerprint)
			script := mustScript(t, l.mapping, migrations.ScriptOptions{Trigger: true, Delete: true, Login: true})
			if out, err := psql(t, db, script); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got := one(t, conn, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'desnode%' AND rolcanlogin"); got != "5" {
				t.Errorf("%s roles may log in, want 5", got)
			}
			if out, err := psql(t, db, rollbackOf(t, script)); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if after := one(t, conn, fingerprint); withoutGrants(after) != withoutGrants(before) {
				t.Errorf("left behind:\n%s\n\nbefore:\n%s", after, before)
			}
			if got := one(t, conn, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'desnode%'"); got != "0" {
				t.Errorf("%s roles are left", got)
			}
		})
	}
}

// withoutGrants leaves out the empty privilege lists that a GRANT and its
// REVOKE leave behind.
func withoutGrants(fingerprint string) string {
	return strings.NewReplacer("{}", "", "{postgres=arwdDxt/postgres}", "", "{postgres=UC/postgres}", "").Replace(fingerprint)
}

func TestApplyRefuses(t *testing.T) {
	docs := migrations.Mapping{Source: "docs", Table: "docs"}
	const table = "CREATE TABLE docs (id int PRIMARY KEY, name text, path text, size int, modified_at timestamptz, status text)"
	for _, c := range []struct {
		name, ddl string
		m         migrations.Mapping
		want      error
	}{
		{"somebody else's schema", table + "; CREATE SCHEMA desnode; CREATE TABLE desnode.cluster (x int)", docs, migrations.ErrForeign},
		{"a newer desnode", table + "; CREATE SCHEMA desnode; CREATE TABLE desnode.schema_version (id serial, version_id bigint, is_applied boolean, tstamp timestamp DEFAULT now());" +
			" INSERT INTO desnode.schema_version (version_id, is_applied) SELECT i, true FROM generate_series(0, 1000) i", docs, migrations.ErrNewer},
		{"no table", "", docs, migrations.ErrTable},
		{"no table for the side", "", sideMapping, migrations.ErrTable},
		{"a time that is none", "CREATE TABLE docs (id int PRIMARY KEY, name text, path text, size int, modified_at text, tenant int)", sideMapping, migrations.ErrTable},
		{"no id", "CREATE TABLE docs (name text, path text, size int, modified_at date, tenant int)", sideMapping, migrations.ErrTable},
		{"a partitioned table", "CREATE TABLE docs (id int, name text, path text, size int, modified_at timestamptz, status text) PARTITION BY HASH (id)", docs, migrations.ErrTable},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := database(t)
			conn := connect(t, db)
			exec1(t, conn, c.ddl)
			if _, err := migrations.Apply(t.Context(), db, c.m, migrations.ScriptOptions{}); !errors.Is(err, c.want) {
				t.Errorf("Apply: %v, want %v", err, c.want)
			}
			out, err := psql(t, db, mustScript(t, c.m, migrations.ScriptOptions{}))
			if err == nil || !strings.Contains(out, "desnode: ") {
				t.Errorf("psql: %v\n%s", err, out)
			}
		})
	}
}

// A view is not altered, and the operator is told so.
func TestApplyOnAView(t *testing.T) {
	db := database(t)
	conn := connect(t, db)
	exec1(t, conn, "CREATE TABLE base (id int PRIMARY KEY, name text, path text, size int, modified_at timestamptz, status text, des_cluster bytea, des_name text, "+
		"des_shard int, des_hash bigint, des_pack bytea, des_sha256 bytea, des_claim text, archive_version bigint, marked_at timestamptz, packed_at timestamptz, "+
		"source_deleted_at timestamptz, last_archive_attempt_at timestamptz, archive_attempts int, archive_error text); CREATE VIEW docs AS SELECT * FROM base")
	before := one(t, conn, "SELECT count(*) FROM pg_index WHERE indrelid = 'base'::regclass")
	notices, err := migrations.Apply(t.Context(), db, migrations.Mapping{Source: "docs", Table: "docs"}, migrations.ScriptOptions{Trigger: true})
	if err != nil || len(notices) != 1 || !strings.Contains(notices[0], "a view") {
		t.Errorf("%q, %v", notices, err)
	}
	if after := one(t, conn, "SELECT count(*) FROM pg_index WHERE indrelid = 'base'::regclass"); after != before {
		t.Errorf("%s indexes, there were %s", after, before)
	}
	exec1(t, conn, "SET ROLE desnode_marker; UPDATE docs SET des_hash = 1; RESET ROLE")
}

// What a failed CREATE INDEX CONCURRENTLY leaves is made anew.
func TestScriptMendsBrokenIndexes(t *testing.T) {
	db := database(t)
	conn := connect(t, db)
	exec1(t, conn, "CREATE TABLE docs (id int PRIMARY KEY, name text, path text, size int, modified_at timestamptz, status text)")
	exec1(t, conn, "INSERT INTO docs VALUES (1, 'a'), (2, 'a')")
	m := migrations.Mapping{Source: "docs", Table: "docs"}
	if _, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{}); sqlState(err) != "23505" {
		t.Fatalf("%v, want a unique violation: two rows have one name", err)
	}
	exec1(t, conn, "UPDATE docs SET name = 'b' WHERE id = 2")
	if _, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := one(t, conn, "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE NOT indisvalid"); got != "NULL" {
		t.Errorf("broken: %s", got)
	}
	if err := try(t, conn, "UPDATE docs SET name = 'a'"); sqlState(err) != "23505" {
		t.Errorf("%v, want the index on name at work", err)
	}
}

// Two that prepare one database at once wait for each other.
func TestApplyAtOnce(t *testing.T) {
	db := database(t)
	exec1(t, connect(t, db), "CREATE TABLE docs (id int PRIMARY KEY, name text, path text, size int, modified_at timestamptz, status text)")
	m := migrations.Mapping{Source: "docs", Table: "docs"}
	done := make(chan error, 3)
	for range 2 {
		go func() {
			_, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{})
			done <- err
		}()
	}
	script := mustScript(t, m, migrations.ScriptOptions{})
	go func() {
		out, err := psql(t, db, script)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
