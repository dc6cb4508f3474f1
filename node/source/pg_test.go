package source_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source/sourcetest"
)

// pgRenamed are columns and states in a customer's own words.
var (
	renamedColumns = map[string]string{
		"id": "doc id", "name": `file"name`, "path": "storage_path", "size": "bytes", "modified_at": "changed", "status": "state",
		"archive_version": "av", "des_name": "served", "marked_at": "m_at",
	}
	renamedStates = map[string]string{"ACTIVE": "a'ctive", "MARKED": `m\arked`, "PACKED": "P", "DELETED_SOURCE": "D", "FAILED": "F"}
)

func quoted(columns map[string]string) map[string]string {
	q := map[string]string{}
	for word, c := range columns {
		q[word] = pgx.Identifier{c}.Sanitize()
	}
	return q
}

// shapes are the kinds of tables that the driver's conformance is proven on.
func shapes() []pgShape {
	const micro = time.Microsecond
	zoneless := func(unit time.Duration) func(time.Time) string {
		return func(at time.Time) string {
			return "'" + at.UTC().Truncate(unit).Format("2006-01-02 15:04:05.999999999") + "'::timestamp"
		}
	}
	utc := func(column string) string { return column + " AT TIME ZONE 'UTC'" }
	epoch := func(at time.Time) string { return fmt.Sprint(at.Truncate(time.Second).Unix()) }
	fromEpoch := func(column string) string { return "to_timestamp(" + column + ")" }
	return []pgShape{
		{
			name:  "reference table",
			world: pgWorld{table: "desnode.files", id: number, time: timestamps(micro), instant: same, unit: micro},
		},
		{
			name: "renamed columns and states, smallint ids, timestamp(0), a filter",
			ddl: `CREATE SCHEMA "we'ird"; CREATE TABLE "we'ird"."my ""docs" ("doc id" smallint PRIMARY KEY, "file""name" varchar(500) UNIQUE,
 storage_path text, bytes integer, changed timestamp(0), state text DEFAULT 'a''ctive', kind text, secret text);
 INSERT INTO "we'ird"."my ""docs" VALUES (999, 'out of scope', '/out', 1, '2020-01-01', 'a''ctive', 'other')`,
			mapping: migrations.Mapping{
				Table: `we'ird."my ""docs"`, Columns: renamedColumns, States: renamedStates, Filter: `t.kind = 'doc' AND kind <> '%s$1'`,
			},
			world: pgWorld{
				table: `"we'ird"."my ""docs"`, id: number, time: zoneless(time.Second), instant: utc, unit: time.Second,
				columns: quoted(renamedColumns), states: renamedStates, extra: map[string]string{"kind": "'doc'"},
			},
		},
		{
			name: "uuid ids, times as seconds, states of an enum, numeric sizes",
			ddl: `CREATE TYPE life AS ENUM ('new', 'm', 'p', 'd', 'f'); CREATE TABLE docs (id uuid PRIMARY KEY, name text UNIQUE,
 path text, size numeric(20), modified_at bigint, status life NOT NULL DEFAULT 'new')`,
			mapping: migrations.Mapping{
				Table:  "public.docs",
				States: map[string]string{"ACTIVE": "new", "MARKED": "m", "PACKED": "p", "DELETED_SOURCE": "d", "FAILED": "f"},
			},
			world: pgWorld{
				table: "docs", id: func(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }, time: epoch, instant: fromEpoch,
				unit: time.Second, states: map[string]string{"ACTIVE": "new", "MARKED": "m", "PACKED": "p", "DELETED_SOURCE": "d", "FAILED": "f"},
			},
			suite: func(h *sourcetest.Harness) { h.OtherID = "ffffffff-0000-0000-0000-000000004711" },
		},
		{
			name: "text ids, timestamptz(3), char states",
			ddl: `CREATE TABLE docs (id text PRIMARY KEY, name text UNIQUE, path text, size bigint, modified_at timestamptz(3),
 status char(5) NOT NULL DEFAULT 'A')`,
			mapping: migrations.Mapping{
				Table: "docs", States: map[string]string{"ACTIVE": "A", "MARKED": "M", "PACKED": "P", "DELETED_SOURCE": "D", "FAILED": "F"},
			},
			world: pgWorld{
				table: "docs", id: func(n int) string { return fmt.Sprintf("doc-%06d", n) }, time: timestamps(time.Millisecond), instant: same,
				unit: time.Millisecond, states: map[string]string{"ACTIVE": "A", "MARKED": "M", "PACKED": "P", "DELETED_SOURCE": "D", "FAILED": "F"},
			},
			suite: func(h *sourcetest.Harness) { h.OtherID, h.TextIDs = "doc-x", true },
		},
	}
}

// TestPostgresTable: the customer's own table, through least-privilege roles.
func TestPostgresTable(t *testing.T) { conformance(t, shapes()) }

// TestUpdatableView: a view that the customer has made over a table.
func TestUpdatableView(t *testing.T) {
	conformance(t, []pgShape{{
		name: "view",
		ddl: `CREATE TABLE docs (pk bigint PRIMARY KEY, title text UNIQUE, folder text, bytes bigint, changed timestamptz, archive text DEFAULT 'ACTIVE',
 hidden boolean DEFAULT false, des_cluster bytea, des_name text UNIQUE, des_shard integer, des_hash bigint, des_pack bytea, des_sha256 bytea,
 des_claim text, archive_version bigint NOT NULL DEFAULT 0, marked_at timestamptz, packed_at timestamptz, source_deleted_at timestamptz,
 last_archive_attempt_at timestamptz, archive_attempts integer NOT NULL DEFAULT 0, archive_error text);
 CREATE VIEW archive AS SELECT pk AS id, title AS name, folder AS path, bytes AS size, changed AS modified_at, archive AS status,
 des_cluster, des_name, des_shard, des_hash, des_pack, des_sha256, des_claim, archive_version, marked_at, packed_at, source_deleted_at,
 last_archive_attempt_at, archive_attempts, archive_error FROM docs WHERE NOT hidden`,
		mapping: migrations.Mapping{Table: "public.archive"},
		world: pgWorld{
			table: "docs", id: number, time: timestamps(time.Microsecond), instant: same, unit: time.Microsecond,
			columns: map[string]string{"id": "pk", "name": "title", "path": "folder", "size": "bytes", "modified_at": "changed", "status": "archive"},
		},
	}})
}

// TestSideTable: the customer's table can't be altered.
func TestSideTable(t *testing.T) {
	conformance(t, sideShapes())
}

// sideShapes are tables for the side binding.
func sideShapes() []pgShape {
	columns := map[string]string{"id": "pk", "name": "title", "path": "folder", "size": "bytes", "modified_at": "changed"}
	side := func(name, types string, w pgWorld, suite func(*sourcetest.Harness)) pgShape {
		w.table, w.columns = "docs", columns
		return pgShape{
			name: name, ddl: "CREATE TABLE docs (" + types + ", state text DEFAULT 'untouched')",
			mapping: migrations.Mapping{Source: "documents", Table: "public.docs", Side: true, Columns: columns}, world: w, suite: suite,
		}
	}
	return []pgShape{
		side("bigint ids", "pk bigint PRIMARY KEY, title text UNIQUE, folder text UNIQUE, bytes bigint, changed timestamptz",
			pgWorld{id: number, time: timestamps(time.Microsecond), instant: same, unit: time.Microsecond}, nil),
		side("uuid ids, times as seconds", "pk uuid PRIMARY KEY, title text UNIQUE, folder text UNIQUE, bytes integer, changed bigint",
			pgWorld{
				id:      func(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) },
				time:    func(at time.Time) string { return fmt.Sprint(at.Truncate(time.Second).Unix()) },
				instant: func(column string) string { return "to_timestamp(" + column + ")" }, unit: time.Second,
			}, func(h *sourcetest.Harness) { h.OtherID = "ffffffff-0000-0000-0000-000000004711" }),
	}
}

func conformance(t *testing.T, shapes []pgShape) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				w := newWorld(t, shape)
				h := w.harness(t)
				if shape.suite != nil {
					shape.suite(&h)
				}
				return h
			})
		})
	}
}
