package migrations_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
)

// sideDDL is a customer's table that nobody may alter, with rows.
const sideDDL = `CREATE TABLE docs (id %s PRIMARY KEY, name text UNIQUE, path text NOT NULL, size bigint, modified_at %s, tenant int NOT NULL DEFAULT 1)`

var sideMapping = migrations.Mapping{Source: "docs", Table: "docs", Side: true, Filter: "t.tenant = 1"}

// sideMark marks what the view shows as ACTIVE.
const sideMark = `UPDATE desnode.docs AS t SET status = 'MARKED', archive_version = archive_version + 1, des_name = coalesce(des_name, name),
 des_hash = 7, des_shard = 1, des_cluster = decode(repeat('00', 16), 'hex'), marked_at = now() WHERE status = 'ACTIVE'`

const sidePack = `UPDATE desnode.docs SET status = 'PACKED', des_pack = decode(repeat('00', 16), 'hex'),
 des_sha256 = decode(repeat('00', 32), 'hex'), packed_at = now() WHERE status = 'MARKED'`

func sidePrepared(t *testing.T, idType, timeType string) (*pgx.Conn, string) {
	t.Helper()
	db := database(t)
	conn := connect(t, db)
	exec1(t, conn, fmt.Sprintf(sideDDL, idType, timeType))
	if _, err := migrations.Apply(t.Context(), db, sideMapping, migrations.ScriptOptions{}); err != nil {
		t.Fatal(err)
	}
	return conn, db
}

// sideStates lists what the view shows, "id status version" by id.
func sideStates(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	return one(t, conn, "SELECT string_agg(concat_ws(' ', id::text, status, archive_version), ', ' ORDER BY id::text) FROM desnode.docs")
}

func TestSideViewOverTypes(t *testing.T) {
	for _, c := range []struct{ name, idType, timeType, id, time, later string }{
		{"bigint, timestamptz", "bigint", "timestamptz", "42", "2020-01-01 00:00:00.000001+00", "2020-01-01 00:00:00.000002+00"},
		{"uuid, timestamp(0)", "uuid", "timestamp(0)", "00000000-0000-0000-0000-00000000002a", "2020-01-01", "2020-01-01 00:00:01"},
		{"varchar, date", "varchar(20)", "date", "A 1", "2020-01-01", "2020-01-02"},
		{"char, seconds", "char(8)", "bigint", "ab", "1577836800", "1577836801"},
		{"numeric, numeric", "numeric", "numeric", "7", "1577836800.5", "1577836800.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, _ := sidePrepared(t, c.idType, c.timeType)
			exec1(t, conn, fmt.Sprintf("INSERT INTO docs VALUES ('%s', 'a', '/a', 1, '%s', 1), ('%s', 'b', '/b', 1, '%s', 2)", c.id, c.time, c.id[:len(c.id)-1]+"9", c.time))
			steps := []struct{ sql, want string }{
				{"SELECT", c.id + " ACTIVE 0"},
				{sideMark, c.id + " MARKED 1"},
				{sideMark, c.id + " MARKED 1"},
				{"UPDATE docs SET modified_at = '" + c.later + "'", c.id + " ACTIVE 1"},
				{sideMark, c.id + " MARKED 2"},
				{sidePack, c.id + " PACKED 2"},
				{"UPDATE docs SET size = 2", c.id + " ACTIVE 2"},
				{"UPDATE docs SET size = 1", c.id + " PACKED 2"}, // the file that was packed, again
				{"DELETE FROM docs", "NULL"},
			}
			for _, s := range steps {
				exec1(t, conn, s.sql)
				if got := sideStates(t, conn); got != s.want {
					t.Errorf("after %.60s: %q, want %q", s.sql, got, s.want)
				}
			}
		})
	}
}

func TestSideViewRefuses(t *testing.T) {
	conn, db := sidePrepared(t, "bigint", "timestamptz")
	exec1(t, conn, "INSERT INTO docs VALUES (1, 'a', '/a', 1, now())")
	exec1(t, conn, sideMark)
	for _, c := range []struct{ name, sql, code string }{
		{"the customer's columns", "UPDATE desnode.docs SET size = 2", "42501"},
		{"an illegal step", "UPDATE desnode.docs SET status = 'ACTIVE'", "23514"},
		{"a jump of the version", "UPDATE desnode.docs SET archive_version = 9", "23514"},
		{"another served name", "UPDATE desnode.docs SET des_name = 'b'", "23514"},
		{"a word that is none", "UPDATE desnode.docs SET status = 'GONE'", "23514"},
		{"a row", "INSERT INTO desnode.docs (id) VALUES (2)", "55000"},
		{"no row", "DELETE FROM desnode.docs", "55000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := try(t, conn, c.sql); sqlState(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
	// A second row of a name that is live is a unique violation, as in a table.
	exec1(t, conn, "ALTER TABLE docs DROP CONSTRAINT docs_name_key; INSERT INTO docs VALUES (2, 'a', '/b', 1, now())")
	if err := try(t, conn, sideMark); sqlState(err) != "23505" {
		t.Errorf("%v, want a unique violation", err)
	}
	// The roles reach the entries through the view only.
	asMarker := connect(t, db)
	exec1(t, asMarker, "SET ROLE desnode_marker")
	for _, sql := range []string{"SELECT FROM desnode.entry", "UPDATE desnode.entry SET status = 'ACTIVE'", "SELECT FROM public.docs", "UPDATE desnode.docs SET des_pack = NULL"} {
		if err := try(t, asMarker, sql); sqlState(err) != "42501" {
			t.Errorf("%s: %v, want it refused", sql, err)
		}
	}
}

// Eight at once mark the same rows: each row is marked once, and exactly one of
// them is told so.
func TestSideViewConcurrentMarks(t *testing.T) {
	conn, db := sidePrepared(t, "bigint", "timestamptz")
	exec1(t, conn, "INSERT INTO docs SELECT i, 'n' || i, '/' || i, 1, now() FROM generate_series(1, 200) i")
	const workers = 8
	var wg sync.WaitGroup
	var total [workers]int64
	for w := range workers {
		c := connect(t, db)
		wg.Go(func() {
			for id := 1; id <= 200; id++ {
				tag, err := c.Exec(t.Context(), sideMark+fmt.Sprintf(" AND id = %d", id))
				if err != nil {
					t.Error(err)
					return
				}
				total[w] += tag.RowsAffected()
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, n := range total {
		sum += n
	}
	if got := one(t, conn, "SELECT count(*) || ' ' || max(archive_version) FROM desnode.docs WHERE status = 'MARKED'"); got != "200 1" || sum != 200 {
		t.Errorf("%s marked, %d reported, want 200 at version 1", got, sum)
	}
}

// An update that began before the customer changed the file changes nothing.
func TestSideViewStaleUpdate(t *testing.T) {
	conn, db := sidePrepared(t, "bigint", "timestamptz")
	exec1(t, conn, "INSERT INTO docs VALUES (1, 'a', '/a', 1, now())")
	exec1(t, conn, sideMark)
	// Another one holds the entry, so that the update has read the row and waits.
	other := connect(t, db)
	exec1(t, other, "BEGIN; SELECT FROM desnode.entry FOR UPDATE")
	worker := connect(t, db)
	pid := worker.PgConn().PID()
	done := make(chan int64, 1)
	go func() {
		tag, err := worker.Exec(t.Context(), sidePack)
		if err != nil {
			t.Error(err)
		}
		done <- tag.RowsAffected()
	}()
	for one(t, conn, fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE pid = %d AND NOT granted", pid)) == "0" {
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	exec1(t, other, "UPDATE desnode.docs SET archive_attempts = 1, archive_error = 'x: y'; COMMIT")
	if n := <-done; n != 0 {
		t.Errorf("%d rows changed, want none: the row was another one by then", n)
	}
	if got := sideStates(t, conn); got != "1 MARKED 1" {
		t.Error(got)
	}
}

// TestSidePlansPruneArms: a query about one state touches the arm of that
// state only, by the entries' partial index and the table's key.
func TestSidePlansPruneArms(t *testing.T) {
	conn, _ := sidePrepared(t, "bigint", "timestamptz")
	exec1(t, conn, "INSERT INTO docs SELECT i, 'n' || i, '/' || i, 1, now() FROM generate_series(1, 20000) i")
	spread := strings.Replace(sideMark, "des_hash = 7", "des_hash = id * 2654435761 % 4294967296", 1)
	exec1(t, conn, spread+" AND id <= 19000; "+sidePack+" AND id <= 18000; ANALYZE docs; ANALYZE desnode.entry")
	for _, c := range []struct {
		name, query string
		want        []string
		never       []string
	}{
		{
			"marked", "SELECT id FROM desnode.docs WHERE status = 'MARKED' AND des_hash BETWEEN 0 AND 67108863 ORDER BY des_hash, id LIMIT 100",
			[]string{"entry_marked", "docs_pkey"},
			[]string{"Append", "Seq Scan", "entry_packed"},
		},
		{
			"packed", "SELECT id FROM desnode.docs WHERE status = 'PACKED' AND des_pack = decode(repeat('01', 16), 'hex') ORDER BY id LIMIT 100",
			[]string{"entry_packed", "docs_pkey"},
			[]string{"Append", "Seq Scan", "entry_marked"},
		},
		{
			"one served name", "SELECT id FROM desnode.docs WHERE des_name = 'n5'", []string{"entry_served_name"}, []string{"Seq Scan"},
		},
		{
			"one id", "SELECT id FROM desnode.docs WHERE id = 5", []string{"docs_pkey", "entry_pkey"}, []string{"Seq Scan"},
		},
		{
			"one active name", "SELECT id FROM desnode.docs WHERE status = 'ACTIVE' AND name = 'n5'", []string{"docs_name_key"}, []string{"Seq Scan", "entry_marked"},
		},
		{
			"an update by ids", "UPDATE desnode.docs AS t SET des_claim = 'c' WHERE status = 'PACKED' AND id = ANY ('{1,2,3}')",
			[]string{"docs_pkey", "entry_pkey"},
			[]string{"Seq Scan", "Append"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, err := conn.Query(t.Context(), "EXPLAIN "+c.query, pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			for _, w := range c.want {
				if !strings.Contains(plan, w) {
					t.Errorf("does not use %s:\n%s", w, plan)
				}
			}
			for _, n := range c.never {
				if strings.Contains(plan, n) {
					t.Errorf("has a %s:\n%s", n, plan)
				}
			}
		})
	}
}
