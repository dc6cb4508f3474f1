package migrations_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
	"github.com/datavision/desnode/migrations"
)

// server is the Postgres of all tests of this package; nil with -short.
var server *dev.Postgres

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devtest.With(m, devtest.Servers{Postgres: &server}))
}

var databases atomic.Int32

// database makes an empty database and returns its URL as superuser.
func database(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	return databaseOf(t, server)
}

// benchDatabase is database for benchmarks.
func benchDatabase(b *testing.B) string {
	b.Helper()
	return databaseOf(b, server)
}

func databaseOf(t testing.TB, s *dev.Postgres) string {
	t.Helper()
	name := fmt.Sprintf("test%d", databases.Add(1))
	exec1(t, connect(t, s.URL), "CREATE DATABASE "+name)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func connect(t testing.TB, dbURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dbURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// exec1 runs SQL, several statements if need be, and fails the test on an error.
func exec1(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if err := try(t, conn, sql); err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
}

func try(t testing.TB, conn *pgx.Conn, sql string) error {
	t.Helper()
	_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	return err
}

// sqlState returns the SQLSTATE of an error, "" when there is none.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// one reads one value as text.
func one(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var s *string
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&s); err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
	if s == nil {
		return "NULL"
	}
	return *s
}

// psql runs a script as an operator would, and returns what psql printed.
func psql(t *testing.T, dbURL, script string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "psql", "--no-psqlrc", "-f", file, dbURL)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// mustScript returns InitScript's script.
func mustScript(t *testing.T, m migrations.Mapping, o migrations.ScriptOptions) string {
	t.Helper()
	script, err := migrations.InitScript(m, o)
	if err != nil {
		t.Fatal(err)
	}
	return script
}

// rollbackOf returns the script's rollback without its comment signs.
func rollbackOf(t *testing.T, script string) string {
	t.Helper()
	_, comments, ok := strings.Cut(script, "-- The way back.")
	if !ok {
		t.Fatal("the script has no way back")
	}
	_, comments, _ = strings.Cut(comments, "\n\n")
	lines := []string{`\set ON_ERROR_STOP on`}
	for line := range strings.Lines(comments) {
		lines = append(lines, strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "-- "))
	}
	return strings.Join(lines, "\n") + "\n"
}
