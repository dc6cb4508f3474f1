// Package devtest runs the tests of a package over the real servers of package
// dev: started once, before the first test, and ended before leaks are looked
// for. With -short nothing is started; tests that need a server leave
// themselves out then, and say so.
package devtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/datavision/desnode/deploy/dev"
)

// Servers says which servers the tests want: those whose pointer is not nil,
// which is set once the server runs and stays nil with -short.
type Servers struct {
	Postgres **dev.Postgres
	Settings []string // of Postgres, such as "max_connections=50"
	S3       **dev.S3
}

// With returns the tests of m with the servers around them, for
// goleak.VerifyTestMain.
func With(m *testing.M, servers Servers) *Tests { return &Tests{m, servers} }

// Tests are the tests of a package.
type Tests struct {
	m       *testing.M
	servers Servers
}

// Run runs the tests and returns their exit code, 1 when a server did not
// start or end.
func (t *Tests) Run() int {
	flag.Parse()
	if testing.Short() {
		return t.m.Run()
	}
	code, err := t.run(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers for the tests:", err)
		return 1
	}
	return code
}

func (t *Tests) run(ctx context.Context) (code int, err error) {
	var dir string
	if want := t.servers.Postgres; want != nil {
		if dir, err = os.MkdirTemp("", "desnode-postgres-*"); err != nil {
			return 0, err
		}
		defer removing(dir, &err)
		if *want, err = dev.StartPostgres(ctx, dir, t.servers.Settings...); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, (*want).Stop()) }()
	}
	if want := t.servers.S3; want != nil {
		if dir, err = os.MkdirTemp("", "desnode-s3-*"); err != nil {
			return 0, err
		}
		defer removing(dir, &err)
		if *want, err = dev.StartS3(ctx, dir); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, (*want).Stop()) }()
	}
	return t.m.Run(), nil
}

// removing removes a folder and adds to err what stands in the way.
func removing(dir string, err *error) { *err = errors.Join(*err, os.RemoveAll(dir)) }

// Folder returns an empty folder, removed with the test, that every user may
// look into: Postgres never runs as root.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "desnode-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
