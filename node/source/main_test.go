package source_test

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
)

// server is the Postgres of all tests of this package; nil with -short.
var server *dev.Postgres

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devtest.With(m, devtest.Servers{Postgres: &server, Settings: []string{"track_counts=on"}}))
}

var databases atomic.Int32

// database makes an empty database and returns its URL as superuser.
func database(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out Postgres")
	}
	return databaseOf(t, server)
}

func databaseOf(t testing.TB, s *dev.Postgres) string {
	t.Helper()
	name := fmt.Sprintf("test%d", databases.Add(1))
	run(t, connect(t, s.URL), "CREATE DATABASE "+name)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// as returns the URL of a connection as another user.
func as(t testing.TB, dbURL, user string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(user)
	return u.String()
}

func connect(t testing.TB, dbURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dbURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // a test may have stopped the server
	return conn
}

// run executes SQL, several statements if need be.
func run(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%v\n%s", err, sql)
	}
}
