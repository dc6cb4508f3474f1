// Command up gives a developer what a node meets in a company: a Postgres
// database with a customer's table of documents, well-behaved and hostile
// ones, their folder, and an S3 bucket. It starts the servers on loopback,
// writes a configuration that fits them and runs until it is interrupted.
// `make dev-up` calls it.
//
// What it has made stays in the folder, ports included, and is used again;
// removing the folder begins anew.
//
// Not for: tests, which start servers of their own through package dev.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/datavision/desnode/deploy/dev"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir := flag.String("dir", "dev-data", "folder that holds everything")
	desnode := flag.String("desnode", "bin/desnode", "the program that prepares the database")
	flag.Parse()
	if err := run(ctx, *dir, *desnode, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		os.Exit(1)
	}
}

// run starts the servers, prepares them and waits for the end of ctx.
func run(ctx context.Context, dir, desnode string, out io.Writer) (err error) {
	e, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	if err := e.prepare(ctx, desnode, out); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // interrupted while it prepared
		}
		return err
	}
	if _, err := fmt.Fprintf(out, advice, e.relative("env"), e.relative("desnode.yaml"), e.files); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

const advice = `Postgres and S3 are up. In other terminals:

  . %[1]s                          # the environment below, DESNODE_CONFIG included
  make dev-node                           # a node: http://127.0.0.1:8080
  make dev-cluster                        # or three of one cluster
  bin/desnode archive                     # archive the documents
  bin/desnode failed                      # the hostile ones, and why
  bin/desnode get reports/2020/018.txt
  bin/desnode bench archive --files 10000 --source postgres --store s3
  psql "$DESNODE_DEV_POSTGRES" -c 'SELECT state, count(*) FROM documents GROUP BY state'

The configuration is %[2]s, the documents are below %[3]s.
Ctrl-C ends both servers; what they keep stays.
`

// environment is the running servers and the folders around them.
type environment struct {
	dir      string // absolute
	files    string // the customer's documents
	postgres *dev.Postgres
	s3       *dev.S3
}

// start starts the servers below dir.
func start(ctx context.Context, dir string) (*environment, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	e := &environment{dir: dir, files: filepath.Join(dir, "documents")}
	for _, sub := range []string{"postgres", "s3", "documents"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if e.postgres, err = dev.StartPostgres(ctx, filepath.Join(dir, "postgres")); err != nil {
		return nil, err
	}
	if e.s3, err = dev.StartS3(ctx, filepath.Join(dir, "s3")); err != nil {
		return nil, errors.Join(err, e.postgres.Stop())
	}
	return e, nil
}

func (e *environment) stop() error { return errors.Join(e.s3.Stop(), e.postgres.Stop()) }

// prepare makes the bucket, the documents, their table and the configuration,
// and has desnode add to the table what it needs.
func (e *environment) prepare(ctx context.Context, desnode string, out io.Writer) error {
	if err := e.s3.MakeBucket(bucket); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := e.writeDocuments(); err != nil {
		return fmt.Errorf("documents: %w", err)
	}
	if err := e.makeTable(ctx); err != nil {
		return fmt.Errorf("the customer's table: %w", err)
	}
	if err := e.writeConfiguration(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for _, source := range []string{"documents", "files"} {
		cmd := exec.CommandContext(ctx, desnode, "source", "init", source, "--apply", "--login", "--trigger", //nolint:gosec // our own program
			"--admin-url", e.adminURL(), "--config", filepath.Join(e.dir, "desnode.yaml"))
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("desnode source init %s: %w", source, err)
		}
	}
	return nil
}

// relative returns the path of a file in the folder, as short as it can be.
func (e *environment) relative(name string) string {
	path := filepath.Join(e.dir, name)
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(short) {
			return short
		}
	}
	return path
}
