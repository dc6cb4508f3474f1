package source_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
)

// checkDDL is a customer's table as it should be before init.
const checkDDL = `CREATE TABLE docs (id bigint PRIMARY KEY, title text NOT NULL UNIQUE, path text NOT NULL UNIQUE, size bigint NOT NULL,
 modified_at timestamptz NOT NULL, status varchar(20) NOT NULL DEFAULT 'ACTIVE', tenant int NOT NULL DEFAULT 1, secret text);
INSERT INTO docs SELECT i, 'n' || i, '/' || i, 1, now() FROM generate_series(1, 3) i;`

// checkViewDDL is a view over such a table, with all that desnode fills.
const checkViewDDL = `ALTER TABLE docs ADD des_cluster bytea, ADD des_name text UNIQUE, ADD des_shard int, ADD des_hash bigint, ADD des_pack bytea,
 ADD des_sha256 bytea, ADD des_claim text, ADD archive_version bigint NOT NULL DEFAULT 0, ADD marked_at timestamptz, ADD packed_at timestamptz,
 ADD source_deleted_at timestamptz, ADD last_archive_attempt_at timestamptz, ADD archive_attempts int NOT NULL DEFAULT 0, ADD archive_error text;
CREATE INDEX ON docs (id) WHERE status = 'ACTIVE'; CREATE INDEX ON docs (des_hash, id) WHERE status = 'MARKED';
CREATE INDEX ON docs (des_pack, id) WHERE status = 'PACKED'; CREATE INDEX ON docs (id) WHERE archive_error IS NOT NULL;
CREATE VIEW shown AS SELECT id, title AS label, path, size, modified_at, status, tenant, des_cluster, des_name, des_shard, des_hash, des_pack, des_sha256,
 des_claim, archive_version, marked_at, packed_at, source_deleted_at, last_archive_attempt_at, archive_attempts, archive_error FROM docs`

var (
	checkTable = migrations.Mapping{Source: "docs", Table: "docs", Columns: map[string]string{"name": "title"}, Filter: "t.tenant = 1"}
	checkView  = migrations.Mapping{Source: "docs", Table: "shown", Columns: map[string]string{"name": "label"}, Filter: "t.tenant = 1"}
	checkSide  = migrations.Mapping{Source: "docs", Table: "docs", Columns: map[string]string{"name": "title"}, Filter: "t.tenant = 1", Side: true}
)

// checked prepares a database, spoils it and checks it with a user for each
// role.
func checked(t *testing.T, m migrations.Mapping, scope source.CheckScope, spoil string, change ...func(*source.PostgresConfig)) source.Report {
	t.Helper()
	db := database(t)
	conn := connect(t, db)
	run(t, conn, checkDDL)
	if m.Table == checkView.Table {
		run(t, conn, checkViewDDL)
	}
	if _, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{Login: true, Delete: scope.Delete, Trigger: true}); err != nil {
		t.Fatal(err)
	}
	if spoil != "" {
		run(t, conn, spoil)
	}
	before := contents(t, conn)
	cfg := source.PostgresConfig{Mapping: m, URLs: map[source.Role]string{}}
	for _, role := range source.Roles() {
		cfg.URLs[role] = as(t, db, "desnode_"+string(role))
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := source.CheckPostgres(t.Context(), cfg, scope)
	if err != nil {
		t.Fatal(err)
	}
	if after := contents(t, conn); after != before {
		t.Errorf("the check changed the database:\n%s\n\nbefore:\n%s", after, before)
	}
	return r
}

// contents are the rows that a dry run could have changed.
func contents(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var s *string
	err := conn.QueryRow(t.Context(), `SELECT concat((SELECT string_agg(d::text, E'\n' ORDER BY d::text) FROM docs d),
 (SELECT string_agg(e::text, E'\n') FROM desnode.entry e), (SELECT count(*) FROM desnode.file_id), (SELECT count(*) FROM desnode.cluster))`).Scan(&s)
	if err != nil {
		return err.Error()
	}
	return *s
}

// bad lists the findings that are not ok, "level check: what".
func bad(r source.Report) []string {
	var list []string
	for _, f := range r.Findings {
		if f.Level != source.LevelOK {
			list = append(list, string(f.Level)+" "+f.Check+": "+f.What)
		}
	}
	return list
}

func TestCheckFindsNothingInWhatInitMade(t *testing.T) {
	for _, c := range []struct {
		name    string
		mapping migrations.Mapping
		spoil   string
	}{
		{"table", checkTable, ""},
		{"side", checkSide, ""},
		{"reference", migrations.Mapping{Source: "files"}, "INSERT INTO desnode.files (name, path, size, modified_at) VALUES ('a', '/a', 1, now())"},
		{"rows in every state", checkTable, `
UPDATE docs SET status = 'MARKED', archive_version = 1, des_name = title, des_hash = 1, des_shard = 1, des_cluster = decode(repeat('00', 16), 'hex'), marked_at = now() WHERE id > 1;
UPDATE docs SET status = 'PACKED', des_pack = decode(repeat('00', 16), 'hex'), des_sha256 = decode(repeat('00', 32), 'hex'), packed_at = now() WHERE id > 2`},
		{"a partial unique index that covers the filter", checkTable, "ALTER TABLE docs DROP CONSTRAINT docs_title_key; CREATE UNIQUE INDEX ON docs (title) WHERE tenant = 1"},
		{"an updatable view", checkView, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, scope := range []source.CheckScope{{}, {Delete: true}} {
				r := checked(t, c.mapping, scope, c.spoil)
				if found := bad(r); len(found) > 0 || r.Err() != nil {
					t.Errorf("deleting %t: %s", scope.Delete, strings.Join(found, "\n"))
				}
				if len(r.Findings) < 10 {
					t.Errorf("only %d things were looked at", len(r.Findings))
				}
			}
		})
	}
}

// TestCheckFinds spoils one thing at a time.
func TestCheckFinds(t *testing.T) {
	const fail, warn = "fail ", "warn "
	oneUser := func(user string) func(*source.PostgresConfig) {
		return func(cfg *source.PostgresConfig) {
			for role, u := range cfg.URLs {
				cfg.URLs[role] = strings.Replace(u, "desnode_"+string(role)+"@", user+"@", 1)
			}
		}
	}
	for _, c := range []struct {
		name   string
		m      migrations.Mapping
		spoil  string
		want   string // the beginning of a finding
		change []func(*source.PostgresConfig)
	}{
		{"no table", checkTable, "DROP TABLE docs", fail + `"public"."docs": is not there`, nil},
		{"no schema", checkTable, "DROP SCHEMA desnode CASCADE", fail + "schema desnode: is not there", nil},
		{"an older schema", checkTable, "DELETE FROM desnode.schema_version WHERE version_id > 0", fail + "schema desnode: is at step 0", nil},
		{"a newer schema", checkTable, "INSERT INTO desnode.schema_version (version_id, is_applied) VALUES (99, true)", warn + "schema desnode: is at step 99", nil},
		{"a column less", checkTable, "ALTER TABLE docs DROP COLUMN des_pack", fail + "column des_pack", nil},
		{"a type", checkTable, "ALTER TABLE docs ALTER COLUMN des_hash TYPE integer", fail + "column des_hash", nil},
		{"a time that is none", checkTable, "ALTER TABLE docs ALTER COLUMN modified_at TYPE text", fail + "column modified_at", nil},
		{"a time that is coarse", checkTable, "ALTER TABLE docs ALTER COLUMN modified_at TYPE date", warn + "column modified_at", nil},
		{"a name that is cut", checkTable, "ALTER TABLE docs ALTER COLUMN des_name TYPE varchar(255)", fail + "column des_name", nil},
		{"a column that takes no NULL", checkTable, "UPDATE docs SET des_claim = 'x'; ALTER TABLE docs ALTER COLUMN des_claim SET NOT NULL", fail + "column des_claim", nil},
		{"a state too long", checkTable, "DROP TRIGGER zz_desnode_docs_transition ON docs; ALTER TABLE docs ALTER COLUMN status TYPE varchar(8)", fail + "column status", nil},
		{"ids twice", checkTable, "ALTER TABLE docs DROP CONSTRAINT docs_pkey", fail + "UNIQUE id", nil},
		{"names twice", checkTable, "ALTER TABLE docs DROP CONSTRAINT docs_title_key; CREATE INDEX ON docs (title)", fail + "UNIQUE name", nil},
		{"names twice in the side", checkSide, "ALTER TABLE docs DROP CONSTRAINT docs_title_key", fail + "UNIQUE name", nil},
		{"a partial unique index that does not cover", checkTable, "ALTER TABLE docs DROP CONSTRAINT docs_title_key; CREATE UNIQUE INDEX ON docs (title) WHERE tenant = 2", fail + "UNIQUE name", nil},
		{"names unique with another column only", checkTable, "ALTER TABLE docs DROP CONSTRAINT docs_title_key; CREATE UNIQUE INDEX ON docs (title, tenant)", fail + "UNIQUE name", nil},
		{"paths twice", checkTable, "ALTER TABLE docs DROP CONSTRAINT docs_path_key", fail + "UNIQUE path", nil},
		{"paths twice in the side", checkSide, "ALTER TABLE docs DROP CONSTRAINT docs_path_key", fail + "UNIQUE path", nil},
		{"names twice below a view", checkView, "ALTER TABLE docs DROP CONSTRAINT docs_title_key", fail + "UNIQUE name", nil},
		{"a view that takes no updates", checkView, "CREATE OR REPLACE VIEW shown AS SELECT DISTINCT id, title AS label, path, size, modified_at, status, tenant, des_cluster, des_name, des_shard, des_hash, des_pack, des_sha256, des_claim, archive_version, marked_at, packed_at, source_deleted_at, last_archive_attempt_at, archive_attempts, archive_error FROM docs", fail + `"public"."shown": takes no updates`, nil},
		{"served names twice", checkTable, "DROP INDEX desnode_docs_des_name", fail + "UNIQUE des_name", nil},
		{"no index of the marked", checkTable, "DROP INDEX desnode_docs_marked", warn + "index for MARKED", nil},
		{"no index of the active", checkTable, "DROP INDEX desnode_docs_active", warn + "index for ACTIVE", nil},
		{"no index of the packed", checkTable, "DROP INDEX desnode_docs_packed", warn + "index for PACKED", nil},
		{"no index of the failures", checkTable, "DROP INDEX desnode_docs_error", warn + "index for failures", nil},
		{"an index of another word", checkTable, "DROP INDEX desnode_docs_marked; CREATE INDEX ON docs (des_hash, id) WHERE status = 'M'", warn + "index for MARKED", nil},
		{"a grant less", checkTable, "REVOKE UPDATE (des_hash) ON docs FROM desnode_marker", fail + "role marker: user desnode_marker lacks UPDATE (des_hash)", nil},
		{"a grant less, tried", checkTable, "REVOKE UPDATE (des_hash) ON docs FROM desnode_marker", fail + "role marker: mark:", nil},
		{"no reading", checkTable, "REVOKE SELECT (title) ON docs FROM desnode_reader", fail + "role reader: user desnode_reader lacks SELECT (title)", nil},
		{"no reading of the filter", checkTable, "REVOKE SELECT (tenant) ON docs FROM desnode_packer", fail + "role packer: read:", nil},
		{"a grant less on desnode's own", checkTable, "REVOKE DELETE ON desnode.file_id FROM desnode_deleter", fail + "role deleter: user desnode_deleter lacks DELETE on desnode.file_id", nil},
		{"a trigger that refuses", checkTable, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
 CREATE TRIGGER no BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION no()`, fail + "role marker: mark:", nil},
		{"DELETE", checkTable, "GRANT DELETE ON docs TO desnode_packer", warn + "role packer: user desnode_packer has more than it needs: DELETE", nil},
		{"another column", checkTable, "GRANT UPDATE (secret) ON docs TO desnode_packer", warn + "role packer: user desnode_packer has more than it needs: UPDATE (secret)", nil},
		{"the entries", checkSide, "GRANT UPDATE ON desnode.entry TO desnode_marker", warn + "role marker: user desnode_marker has more", nil},
		{"the customer's table beside the view", checkSide, "GRANT UPDATE (size) ON docs TO desnode_marker", warn + "role marker: user desnode_marker has more", nil},
		{"a superuser", checkTable, "", warn + "role marker: user postgres is a superuser", []func(*source.PostgresConfig){oneUser("postgres")}},
		{"another mapping than the view's", checkSide, "", fail + `"desnode"."docs": was made from another mapping`, []func(*source.PostgresConfig){
			func(cfg *source.PostgresConfig) { cfg.Mapping.Filter = "t.tenant = 2" },
		}},
		{"a view without its trigger", checkSide, "DROP TRIGGER desnode_update ON desnode.docs", fail + `"desnode"."docs": has lost its trigger`, nil},
		{"a side without its ids", checkSide, `DROP VIEW desnode."docs.ids"`, fail + `"desnode"."docs.ids": is not there`, nil},
		{"no reading of the ids", checkSide, `REVOKE SELECT ON desnode."docs.ids" FROM desnode_deleter`, fail + `role deleter: user desnode_deleter lacks SELECT on "desnode"."docs.ids"`, nil},
		{"row security", checkTable, "ALTER TABLE docs ENABLE ROW LEVEL SECURITY", warn + `"public"."docs": has row security`, nil},
		{"a schema that can't be looked into", checkTable, "REVOKE USAGE ON SCHEMA public FROM PUBLIC, desnode_reader", fail + "role reader: user desnode_reader lacks USAGE on its schema", nil},
		{"a filter that is none", checkTable, "", fail + "filter: ERROR: column t.tennant does not exist", []func(*source.PostgresConfig){
			func(cfg *source.PostgresConfig) { cfg.Mapping.Filter = "t.tennant = 1" },
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := checked(t, c.m, source.CheckScope{Delete: true}, c.spoil, c.change...)
			found := bad(r)
			hit := false
			for _, f := range found {
				hit = hit || strings.HasPrefix(f, c.want)
			}
			if !hit {
				t.Errorf("found %q, want %q", found, c.want)
			}
			if err := r.Err(); errors.Is(err, source.ErrUnfit) != strings.Contains(strings.Join(found, "\n"), fail) {
				t.Errorf("Err is %v with %q", err, found)
			}
			if strings.HasPrefix(c.want, warn) && r.Err() != nil {
				t.Errorf("a warning keeps marking from starting: %v", r.Err())
			}
		})
	}
}

// What keeps every query from being asked is told once, and blames nothing else.
func TestCheckNamesTheCauseOnly(t *testing.T) {
	for _, c := range []struct {
		name, spoil, filter string
		metadata            map[string]string
		want                []string
	}{
		{"a filter that is none", "", "t.tennant = 1", nil, []string{"filter"}},
		{"a filter that is no SQL", "", "t.tenant =", nil, []string{"filter"}},
		{"no schema for the reader", "REVOKE USAGE ON SCHEMA public FROM PUBLIC, desnode_reader", "t.tenant = 1", nil, []string{"role reader", "role reader: read"}},
		{"no filter for the reader", "REVOKE SELECT (tenant) ON docs FROM desnode_reader", "t.tenant = 1", nil, []string{"role reader: read"}},
		{"a column to keep that is not there", "", "t.tenant = 1", map[string]string{"author": "writer"}, []string{"metadata author"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := checked(t, checkTable, source.CheckScope{}, c.spoil, func(cfg *source.PostgresConfig) {
				cfg.Mapping.Filter, cfg.Mapping.Metadata = c.filter, c.metadata
			})
			var got []string
			for _, f := range r.Findings {
				if f.Level == source.LevelFail {
					got = append(got, f.Check)
					if f.Cure == "" {
						t.Errorf("%s: %s has no cure", f.Check, f.What)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// Generated names need no unique names; paths matter only for deletion.
func TestCheckScope(t *testing.T) {
	generated := checkTable
	generated.Generated = true
	const spoil = "ALTER TABLE docs DROP CONSTRAINT docs_title_key; ALTER TABLE docs DROP CONSTRAINT docs_path_key"
	for _, c := range []struct {
		name  string
		m     migrations.Mapping
		scope source.CheckScope
		want  string
	}{
		{"names from the table", checkTable, source.CheckScope{}, "UNIQUE name"},
		{"generated names, nothing deleted", generated, source.CheckScope{}, ""},
		{"generated names, originals deleted", generated, source.CheckScope{Delete: true}, "UNIQUE path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checked(t, c.m, c.scope, spoil).Err()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A database that does not answer is an error, no finding.
func TestCheckWithoutAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	_, err := source.CheckPostgres(t.Context(), source.PostgresConfig{
		Mapping: checkTable, URL: "postgres://x:secret@127.0.0.1:1/x?sslmode=disable",
	}, source.CheckScope{})
	if err == nil || errors.Is(err, source.ErrUnfit) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, want an error that is not ErrUnfit and holds no password", err)
	}
}
