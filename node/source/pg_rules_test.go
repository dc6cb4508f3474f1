package source_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
)

// markAll marks the rows under their own names.
func markAll(t testing.TB, p *source.Postgres, rows []source.Row) []bool {
	t.Helper()
	for i := range rows {
		rows[i].DesName = rows[i].Name
	}
	moved, err := p.Mark(t.Context(), rows, source.Marking{At: time.Unix(2e9, 0), ShardBits: 10})
	if err != nil {
		t.Fatal(err)
	}
	return moved
}

func eligible(t testing.TB, p *source.Postgres) []source.Row {
	t.Helper()
	rows, err := p.Eligible(t.Context(), time.Unix(2e9, 0), "", source.MaxBatch)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func acksOf(rows []source.Row, pack desformat.PackID) []source.Ack {
	acks := make([]source.Ack, len(rows))
	for i, r := range rows {
		acks[i] = source.Ack{ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, Pack: pack}
	}
	return acks
}

func allMarked(t testing.TB, p *source.Postgres) []source.Row {
	t.Helper()
	rows, err := p.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, source.MaxBatch)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func numberedFiles(n int) []source.File {
	files := make([]source.File, n)
	for i := range files {
		name := fmt.Sprintf("file%04d", i)
		files[i] = source.File{Name: name, Path: "/srv/" + name, Size: 10, ModTime: time.Unix(1000, 0), FileID: "1:" + name}
	}
	return files
}

// A row of the customer's costs three updates, and the claim of its deletion;
// a batch costs two statements.
func TestUpdatesAndStatementsARow(t *testing.T) {
	w := newWorld(t, shapes()[0])
	run(t, w.conn, `CREATE TABLE touched (n bigint); INSERT INTO touched VALUES (0); CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
 SECURITY DEFINER AS $$ BEGIN UPDATE public.touched SET n = n + 1; RETURN NEW; END $$;
 CREATE TRIGGER touch AFTER UPDATE ON desnode.files FOR EACH ROW EXECUTE FUNCTION touch()`)
	const n = 1000
	w.insert(t, numberedFiles(n)...)
	p := w.open(t)
	if _, err := p.ByID(t.Context(), "1"); err != nil { // the catalog is read once
		t.Fatal(err)
	}
	touched := func() (n int64) {
		if err := w.conn.QueryRow(t.Context(), "SELECT n FROM touched").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	step := func(name string, updates, statements int64, f func()) {
		t.Helper()
		rows, sent := touched(), p.Statements()
		f()
		if got := touched() - rows; got != updates {
			t.Errorf("%s: %d updates of %d rows, want %d", name, got, n, updates)
		}
		if got := p.Statements() - sent; got > statements {
			t.Errorf("%s: %d statements for %d rows, want at most %d", name, got, n, statements)
		}
	}
	var rows []source.Row
	step("list and mark", n, 4, func() { markAll(t, p, eligible(t, p)) })
	step("list the marked", 0, 2, func() { rows = allMarked(t, p) })
	pack := desformat.PackID{1}
	step("acknowledge", n, 2, func() {
		if _, err := p.Acknowledge(t.Context(), acksOf(rows, pack), 5, time.Unix(2e9, 0)); err != nil {
			t.Fatal(err)
		}
	})
	step("identify", 0, 8, func() {
		run(t, w.conn, "DELETE FROM desnode.file_id")
		rows, err := p.Unidentified(t.Context(), "", source.MaxBatch)
		if err != nil || len(rows) != n {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		if err := p.Identify(t.Context(), rows, slices.Repeat([]string{"1:1"}, n)); err != nil {
			t.Fatal(err)
		}
	})
	row, err := p.ByID(t.Context(), "7")
	if err != nil {
		t.Fatal(err)
	}
	step("claim and delete one", 2, 4, func() {
		if ok, err := p.Claim(t.Context(), row, "c"); err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
		if ok, err := p.Deleted(t.Context(), row, "c", time.Unix(2e9, 0)); err != nil || !ok {
			t.Fatalf("%v, %v", ok, err)
		}
	})
}

// Rows that the database refuses are found by halving, and stop nobody else.
func TestRefusedRowsStopNobody(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(500)...)
	p := w.open(t)
	bad := map[string]bool{"3": true, "77": true, "400": true}
	run(t, w.conn, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one' USING ERRCODE = 'ZX001'; END $$;
 CREATE TRIGGER no BEFORE UPDATE ON desnode.files FOR EACH ROW WHEN (OLD.id IN (3, 77, 400) AND NEW.status IN ('MARKED', 'PACKED')) EXECUTE FUNCTION no()`)
	rows := eligible(t, p)
	rows[10].DesName = rows[9].Name // a duplicate inside the batch
	names := make([]string, len(rows))
	for i := range rows {
		names[i] = rows[i].Name
		if i != 10 {
			rows[i].DesName = rows[i].Name
		}
	}
	sent := p.Statements()
	moved, err := p.Mark(t.Context(), rows, source.Marking{At: time.Unix(2e9, 0), ShardBits: 10})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.Statements() - sent; n > 4*4*2*10 { // 4 rows, 4 statements a try, 2 log2(500) tries
		t.Errorf("%d statements to find four rows of 500", n)
	}
	for i, r := range rows {
		if want := !bad[r.ID] && i != 10; moved[i] != want {
			t.Errorf("row %s: moved %v, want %v", r.ID, moved[i], want)
		}
	}
	for id, code := range map[string]string{"3": source.CodeRefused, "77": source.CodeRefused, "400": source.CodeRefused, rows[10].ID: source.CodeDuplicateName} {
		if r, err := p.ByID(t.Context(), id); err != nil || r.State != source.Failed || r.ErrorCode != code {
			t.Errorf("row %s: %s, %s, %v", id, r.State, r.ErrorCode, err)
		}
	}
	run(t, w.conn, "DROP TRIGGER no ON desnode.files; CREATE TRIGGER no BEFORE UPDATE ON desnode.files FOR EACH ROW WHEN (OLD.id IN (5, 499) AND NEW.status = 'PACKED') EXECUTE FUNCTION no()")
	marked := allMarked(t, p)
	results, err := p.Acknowledge(t.Context(), acksOf(marked, desformat.PackID{1}), 2, time.Unix(2e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range marked {
		want := source.AckDone
		if r.ID == "5" || r.ID == "499" {
			want = source.AckRefused
		}
		if results[i] != want {
			t.Errorf("row %s: %v, want %v", r.ID, results[i], want)
		}
	}
	if r, err := p.ByID(t.Context(), "5"); err != nil || r.State != source.Marked || r.Attempts != 1 {
		t.Errorf("the refused row: %s after %d attempts, %v", r.State, r.Attempts, err)
	}
}

// What the roles may not do, the database refuses; and Postgres tells it.
func TestLeastPrivilege(t *testing.T) {
	for _, shape := range []pgShape{shapes()[1], sideShapes()[0]} {
		t.Run(shape.name, func(t *testing.T) {
			w := newWorld(t, shape)
			run(t, w.conn, "ALTER TABLE "+w.table+" ADD COLUMN private text")
			w.insert(t, numberedFiles(1)...)
			for _, role := range source.Roles() {
				conn := connect(t, as(t, w.url, "desnode_"+string(role)))
				for _, sql := range []string{
					"SELECT private FROM " + w.table,
					"SELECT * FROM " + w.table,
					"DELETE FROM " + w.table,
					"TRUNCATE " + w.table,
					"INSERT INTO " + w.table + " DEFAULT VALUES",
					"UPDATE " + w.table + " SET private = 'x'",
					"UPDATE " + w.table + " SET " + w.column("path") + " = 'x'",
					"UPDATE " + w.table + " SET " + w.column("size") + " = 0",
					"DELETE FROM desnode.entry",
					"UPDATE desnode.entry SET status = 'PACKED'",
					"UPDATE desnode.cluster SET cluster = ''",
				} {
					if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err == nil || !strings.Contains(err.Error(), "42501") {
						t.Errorf("%s: %s: %v, want that it is refused", role, sql, err)
					}
				}
			}
			// A role that is not opened is an error of its own.
			p := w.open(t, func(c *source.PostgresConfig) { c.Roles = []source.Role{source.RoleReader} })
			if _, err := p.Eligible(t.Context(), time.Now(), "", 1); !errors.Is(err, source.ErrRoleClosed) {
				t.Errorf("without the marker's role: %v", err)
			}
			if _, err := p.Counts(t.Context()); err != nil {
				t.Errorf("with the reader's role: %v", err)
			}
		})
	}
}

// The customer's own updates of unrelated rows never wait for a lock while
// desnode marks, packs and deletes; nor does marking wait for the customer's.
func TestCustomerNeverWaits(t *testing.T) {
	for _, shape := range []pgShape{shapes()[0], sideShapes()[0]} {
		t.Run(shape.name, func(t *testing.T) {
			w := newWorld(t, shape)
			w.insert(t, numberedFiles(1000)...)
			run(t, w.conn, "UPDATE "+w.table+" SET "+w.column("modified_at")+" = '2050-01-01' WHERE "+w.column("id")+" > 500") // too young: not desnode's
			p := w.open(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			customer := connect(t, w.url)
			run(t, customer, "SET lock_timeout = '1ms'")
			updates := 0
			wg.Go(func() {
				for ; ctx.Err() == nil; updates++ {
					_, err := customer.Exec(context.WithoutCancel(ctx), fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s = %d", w.table,
						w.column("path"), w.column("path"), w.column("id"), 501+updates%500))
					if err != nil {
						t.Error("the customer's update:", err)
						return
					}
				}
			})
			holder := connect(t, w.url)
			run(t, holder, "BEGIN; UPDATE "+w.table+" SET "+w.column("path")+" = "+w.column("path")+" WHERE "+w.column("id")+" = 17")
			rows := eligible(t, p)
			for i := range rows {
				rows[i].DesName = rows[i].Name
			}
			moved, err := p.Mark(t.Context(), rows, source.Marking{At: time.Unix(2e9, 0), ShardBits: 10})
			if err != nil {
				t.Fatal("marking beside a row that the customer holds:", err)
			}
			for i, r := range rows {
				if want := r.ID != "17" || w.side; moved[i] != want { // the side table's rows are not the customer's
					t.Errorf("row %s: moved %v, want %v", r.ID, moved[i], want)
				}
			}
			run(t, holder, "ROLLBACK")
			marked := allMarked(t, p)
			if len(marked) < 499 {
				t.Fatalf("%d rows are marked", len(marked))
			}
			pack := desformat.PackID{1}
			if _, err := p.Acknowledge(t.Context(), acksOf(marked, pack), 5, time.Unix(2e9, 0)); err != nil {
				t.Fatal(err)
			}
			list, err := p.Deletable(t.Context(), pack, time.Unix(3e9, 0), "", 20)
			if err != nil || len(list) != 20 {
				t.Fatalf("%d deletable rows, %v", len(list), err)
			}
			for _, r := range list {
				if ok, err := p.Claim(t.Context(), r, "c"); err != nil || !ok {
					t.Fatalf("%v, %v", ok, err)
				}
				if ok, err := p.Deleted(t.Context(), r, "c", time.Unix(3e9, 0)); err != nil || !ok {
					t.Fatalf("%v, %v", ok, err)
				}
			}
			cancel()
			wg.Wait()
			if updates == 0 {
				t.Error("the customer updated nothing")
			}
		})
	}
}

// A table that somebody holds locked is waited for no longer than configured.
func TestLockTimeout(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(1)...)
	var mu sync.Mutex
	var seen []error // guarded by mu
	p := w.open(t, func(c *source.PostgresConfig) {
		c.LockTimeout = 50 * time.Millisecond
		c.Observe = func(op string, took time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if op == "mark" && took > 0 {
				seen = append(seen, err)
			}
		}
	})
	rows := eligible(t, p)
	run(t, w.conn, "BEGIN; LOCK TABLE desnode.files IN SHARE MODE")
	rows[0].DesName = "a"
	_, err := p.Mark(t.Context(), rows, source.Marking{ShardBits: 10})
	if !source.LockTimeout(err) || source.Unavailable(err) || !strings.Contains(err.Error(), "source files: mark") {
		t.Errorf("mark of a locked table: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 1 || !source.LockTimeout(seen[0]) {
		t.Errorf("observed: %v", seen)
	}
}

// The settings that bound a call end with it.
func TestSettingsStayInsideTheTransaction(t *testing.T) {
	w := newWorld(t, shapes()[0])
	run(t, w.conn, `CREATE TABLE seen (s text, l text, i text, z text); GRANT INSERT ON seen TO PUBLIC;
 CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_setting('statement_timeout'),
  current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), current_setting('TimeZone')); RETURN NEW; END $$;
 CREATE TRIGGER look BEFORE UPDATE ON desnode.files FOR EACH ROW EXECUTE FUNCTION look();
 ALTER ROLE desnode_marker SET TimeZone = 'Europe/Warsaw'; ALTER ROLE desnode_marker SET DateStyle = 'German'`)
	defer run(t, connect(t, server.URL), "ALTER ROLE desnode_marker RESET ALL")
	w.insert(t, numberedFiles(1)...)
	p := w.open(t, func(c *source.PostgresConfig) { c.Connections = 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rows := eligible(t, p)
	if !rows[0].ModTime.Equal(time.Unix(1000, 0)) {
		t.Errorf("under another time zone and style the time is %v", rows[0].ModTime)
	}
	rows[0].DesName = "a"
	if moved, err := p.Mark(ctx, rows, source.Marking{ShardBits: 10}); err != nil || !moved[0] {
		t.Fatalf("%v, %v", moved, err)
	}
	var statement, lock, idle, zone string
	if err := w.conn.QueryRow(t.Context(), "SELECT s, l, i, z FROM seen").Scan(&statement, &lock, &idle, &zone); err != nil {
		t.Fatal(err)
	}
	limit, err := time.ParseDuration(statement)
	if err != nil || limit > 18*time.Second || limit < 10*time.Second || lock != "2s" || zone != "UTC" || idle == "0" {
		t.Errorf("inside: statement_timeout %s, lock_timeout %s, idle %s, zone %s", statement, lock, idle, zone)
	}
	run(t, w.conn, "ALTER TABLE desnode.files DISABLE TRIGGER look")
	lag, known, err := p.ReplicaLag(t.Context())
	if err != nil || known || lag != 0 {
		t.Errorf("replica lag of a role that may not see it: %v, %v, %v", lag, known, err)
	}
}

func TestClaimClusterInPostgres(t *testing.T) {
	w := newWorld(t, shapes()[0])
	theirs := desformat.ClusterID{2}
	reader := w.open(t, func(c *source.PostgresConfig) { c.Roles = []source.Role{source.RoleReader} })
	if err := reader.ClaimCluster(t.Context(), ours, 1); err != nil {
		t.Errorf("a reader, before anybody claimed it: %v", err)
	}
	p := w.open(t)
	for range 2 {
		if err := p.ClaimCluster(t.Context(), ours, 1); err != nil {
			t.Error(err)
		}
	}
	for name, p := range map[string]*source.Postgres{"all roles": p, "reader": reader} {
		if err := p.ClaimCluster(t.Context(), theirs, 1); !errors.Is(err, source.ErrOtherCluster) {
			t.Errorf("%s: another cluster: %v", name, err)
		}
		if err := p.ClaimCluster(t.Context(), ours, 1); err != nil {
			t.Errorf("%s: our own: %v", name, err)
		}
	}
}

// A URL that leads to another database in mid-run, a cluster's own or a restored
// one that was never claimed, gets no work and gives no rows.
func TestAnotherDatabaseInMidRun(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(3)...)
	p := w.open(t)
	packer := w.open(t, func(c *source.PostgresConfig) { c.Roles = []source.Role{source.RolePacker} })
	if err := packer.ClaimCluster(t.Context(), desformat.ClusterID{1}, 1); !errors.Is(err, source.ErrUnclaimed) {
		t.Errorf("a packer, before anybody claimed it: %v", err)
	}
	for _, p := range []*source.Postgres{p, packer} {
		if err := p.ClaimCluster(t.Context(), desformat.ClusterID{1}, 1); err != nil {
			t.Fatal(err)
		}
	}
	rows := eligible(t, p)
	markAll(t, p, rows[:1])
	acks := acksOf(allMarked(t, p), desformat.PackID{1})
	for _, sql := range []string{`UPDATE desnode.cluster SET cluster = '\x` + strings.Repeat("02", 16) + `'`, "DELETE FROM desnode.cluster"} {
		run(t, w.conn, sql)
		_, read := p.ByID(t.Context(), rows[0].ID)
		_, list := p.Eligible(t.Context(), time.Now(), "", 10)
		_, mark := p.Mark(t.Context(), rows[1:], source.Marking{At: time.Now(), Cluster: desformat.ClusterID{1}})
		_, acknowledge := packer.Acknowledge(t.Context(), acks, 1, time.Now())
		for name, err := range map[string]error{
			"read": read, "list": list, "mark": mark, "acknowledge": acknowledge,
			"refuse": p.Refuse(t.Context(), rows[1], source.CodeInvalidRow, "x", time.Now()),
		} {
			if !errors.Is(err, source.ErrOtherCluster) || source.Unavailable(err) {
				t.Errorf("%s: %s: %v", sql, name, err)
			}
		}
	}
	if err := p.ClaimCluster(t.Context(), desformat.ClusterID{1}, 1); err != nil {
		t.Error(err)
	}
	if left := eligible(t, p); len(left) != 2 {
		t.Errorf("%d rows are eligible, want the 2 that were", len(left))
	}
	if got, err := packer.Acknowledge(t.Context(), acks, 1, time.Now()); err != nil || got[0] != source.AckDone {
		t.Errorf("back in the right database: %v, %v", got, err)
	}
}

// However many ask for counts, which may take minutes, the reader's connections
// are not all taken: files are looked up meanwhile.
func TestCountsLeaveConnectionsToReads(t *testing.T) {
	w := newWorld(t, shapes()[0])
	p := w.open(t, func(c *source.PostgresConfig) {
		c.Roles, c.LockTimeout = []source.Role{source.RoleReader}, 3*time.Second
	})
	run(t, w.conn, "BEGIN; LOCK TABLE desnode.files")
	ctx, cancel := context.WithCancel(t.Context())
	var counts sync.WaitGroup
	for range 8 {
		counts.Go(func() { _, _ = p.Counts(ctx) }) // ends by the lock's time limit or with ctx
	}
	run(t, w.conn, `DO $$ BEGIN WHILE (SELECT count(*) FROM pg_locks WHERE NOT granted) < 2 LOOP END LOOP; END $$`)
	for range 50 {
		look, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, _, err := p.ReplicaLag(look); err != nil { // the reader's question that needs no table
			t.Fatal(err)
		}
		cancel()
	}
	cancel()
	counts.Wait()
	run(t, w.conn, "ROLLBACK")
}

// No error shows a password, however the URL is broken.
func TestURLErrorsHideThePassword(t *testing.T) {
	for _, u := range []string{
		"postgres://u:geheim@host:port/db", "postgres://u:geheim@%zz/db", "host=x password=geheim sslmode=maybe", "postgres://u:geheim@h/db?sslrootcert=/none&sslmode=verify-full",
		"://geheim", "postgres://u:geheim@127.0.0.1:1/db?sslmode=disable",
	} {
		p, err := source.OpenPostgres(t.Context(), source.PostgresConfig{Mapping: migrations.Mapping{Source: "files"}, URL: u})
		if err == nil {
			_, err = p.ByName(t.Context(), "a")
			if !source.Unavailable(err) {
				t.Errorf("%s: %v, want that it is unavailable", u, err)
			}
			err = errors.Join(err, p.Close())
		}
		if err == nil || strings.Contains(err.Error(), "geheim") || errors.Is(err, source.ErrNotFound) {
			t.Errorf("%s: %v", u, err)
		}
	}
	if _, err := source.OpenPostgres(t.Context(), source.PostgresConfig{Mapping: migrations.Mapping{Source: "files"}}); err == nil {
		t.Error("no URL at all was taken")
	}
}
