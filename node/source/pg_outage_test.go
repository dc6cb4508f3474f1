package source_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// Postgres that is stopped and started in the middle of the work: errors that
// say so, then the work goes on; each row is marked once and packed once.
func TestPostgresOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	dir, err := os.MkdirTemp("", "desnode-source-*") // the server's user can't enter t.TempDir
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
	w := newWorldOn(t, own, shapes()[0])
	run(t, w.conn, `CREATE TABLE moves (id bigint, status text, UNIQUE (id, status)); GRANT INSERT ON moves TO PUBLIC;
 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.moves VALUES (NEW.id, NEW.status); RETURN NEW; END $$;
 CREATE TRIGGER note AFTER UPDATE OF status ON desnode.files FOR EACH ROW EXECUTE FUNCTION note()`)
	const n = 3000
	w.fill(t, n)
	p := w.open(t)
	outages := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range outages {
			if err := errors.Join(own.Stop(), own.Start(context.WithoutCancel(t.Context()))); err != nil {
				t.Error(err)
			}
		}
	})
	failures := 0
	retrying := func(step string, f func() error) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			err := f()
			if err == nil {
				return
			}
			failures++
			if !source.Unavailable(err) || errors.Is(err, source.ErrNotFound) || time.Now().After(deadline) {
				t.Fatalf("%s: %v", step, err)
			}
		}
	}
	batches := 0
	outage := func() {
		if batches++; batches%3 == 1 {
			outages <- struct{}{}
		}
	}
	for {
		var rows []source.Row
		retrying("eligible", func() (err error) { rows, err = p.Eligible(t.Context(), time.Unix(2e9, 0), "", 500); return err })
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			rows[i].DesName = rows[i].Name
		}
		outage()
		retrying("mark", func() error {
			_, err := p.Mark(t.Context(), rows, source.Marking{At: time.Unix(2e9, 0), ShardBits: 10})
			return err
		})
	}
	for {
		var rows []source.Row
		retrying("marked", func() (err error) {
			rows, err = p.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, 500)
			return err
		})
		if len(rows) == 0 {
			break
		}
		outage()
		var results []source.AckResult
		retrying("acknowledge", func() (err error) {
			results, err = p.Acknowledge(t.Context(), acksOf(rows, desformat.PackID{1}), 5, time.Unix(2e9, 0))
			return err
		})
		if slices.ContainsFunc(results, func(r source.AckResult) bool { return r != source.AckDone }) {
			t.Fatalf("acknowledged through outages: %v", results)
		}
	}
	close(outages)
	wg.Wait()
	retrying("counts", func() error {
		counts, err := p.Counts(t.Context())
		if err == nil && (len(counts) != 1 || counts[source.Packed].Rows != n) {
			t.Errorf("after all: %+v", counts)
		}
		return err
	})
	if failures == 0 {
		t.Error("no call met an outage")
	}
}

// A server that has become a standby is not asked again over the same
// connection: the URL leads to another one by then.
func TestReadOnlyServerIsLeft(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(1)...)
	p := w.open(t, func(c *source.PostgresConfig) { c.Connections = 1 })
	marking := source.Marking{At: time.Now()}
	rows := eligible(t, p) // opens the connection
	rows[0].DesName = rows[0].Name
	run(t, w.conn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = w.open(t, func(c *source.PostgresConfig) { c.Connections = 1 })
	if _, err := p.Mark(t.Context(), rows, marking); err == nil {
		t.Fatal("a read-only server marked a row")
	}
	run(t, w.conn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$`)
	if moved, err := p.Mark(t.Context(), rows, marking); err != nil || !moved[0] {
		t.Errorf("after the failover: %v, %v", moved, err)
	}
}

// A database that is down when the node starts is no reason not to.
func TestPostgresDownAtTheStart(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p, err := source.OpenPostgres(t.Context(), source.PostgresConfig{
		Mapping: shapes()[0].mappingNamed("files"), URL: "postgres://u@" + listener.Addr().String() + "/db?sslmode=disable&connect_timeout=1",
		StatementTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := p.ByName(t.Context(), "a"); !source.Unavailable(err) || errors.Is(err, source.ErrNotFound) {
		t.Errorf("a server that says nothing: %v", err)
	}
	if p.TimePrecision() != time.Microsecond {
		t.Errorf("precision %v", p.TimePrecision())
	}
}

// Behind a pooler that gives every transaction another connection nothing of a
// call is left on one, and nothing of it is missing.
func TestPgBouncer(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out Postgres and PgBouncer")
	}
	port := startPgBouncer(t)
	for _, shape := range []pgShape{shapes()[0], sideShapes()[0]} {
		t.Run(shape.name, func(t *testing.T) {
			w := newWorld(t, shape)
			w.insert(t, numberedFiles(300)...)
			p := w.open(t, func(c *source.PostgresConfig) {
				for role, u := range c.URLs {
					c.URLs[role] = strings.Replace(u, fmt.Sprintf(":%d/", server.Port), fmt.Sprintf(":%d/", port), 1)
				}
			})
			deadline := time.Now().Add(10 * time.Second)
			for {
				_, err := p.ByID(t.Context(), "1")
				if err == nil {
					break
				}
				if !source.Unavailable(err) || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			markAll(t, p, eligible(t, p))
			rows := allMarked(t, p)
			if len(rows) != 300 {
				t.Fatalf("%d rows are marked", len(rows))
			}
			var wg sync.WaitGroup
			for chunk := range slices.Chunk(rows, 30) {
				wg.Go(func() {
					acks := acksOf(chunk, desformat.PackID{1})
					acks[0].Name = "another"
					results, err := p.Acknowledge(t.Context(), acks, 5, time.Unix(2e9, 0))
					if err != nil || results[0] != source.AckNoRow || slices.ContainsFunc(results[1:], func(r source.AckResult) bool { return r != source.AckDone }) {
						t.Errorf("acknowledge: %v, %v", results, err)
					}
				})
			}
			wg.Wait()
			var left string
			conn := connect(t, strings.Replace(as(t, w.url, "desnode_packer"), fmt.Sprintf(":%d/", server.Port), fmt.Sprintf(":%d/", port), 1)+"&default_query_exec_mode=simple_protocol")
			if err := conn.QueryRow(t.Context(), "SELECT current_setting('statement_timeout')").Scan(&left); err != nil || left != "0" {
				t.Errorf("left on the connection: statement_timeout %s, %v", left, err)
			}
		})
	}
}

// startPgBouncer starts PgBouncer before the server, in transaction mode, with
// one server connection a user, and returns its port.
func startPgBouncer(t *testing.T) int {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	dir, err := os.MkdirTemp("", "desnode-pgbouncer-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
`, server.Port, port, filepath.Join(dir, "users"))
	var users strings.Builder
	for _, name := range append([]string{"postgres"}, roleNames()...) {
		fmt.Fprintf(&users, "%q \"\"\n", name)
	}
	for name, text := range map[string]string{"conf": conf, "users": users.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", filepath.Join(dir, "conf")}
	if os.Getuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		args = append([]string{"-u", u.Username}, args...)
	}
	cmd := exec.Command(program, args...)
	if err := cmd.Start(); err != nil {
		t.Fatalf("pgbouncer: %v: run `make test-deps`", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return port
}

func roleNames() []string {
	var names []string
	for _, role := range source.Roles() {
		names = append(names, "desnode_"+string(role))
	}
	return names
}
