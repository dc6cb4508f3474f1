package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SeedTable is the table that Seed fills.
const SeedTable = "desnode_bench.files"

// Seed makes SeedTable anew in a Postgres database and fills it with n ACTIVE
// rows, those that file returns for 0 to n-1, by COPY; their ids are 1 to n. It
// is what a customer's table looks like before desnode is told of it: for load
// tests, which then run `source init` on it.
//
// What an earlier load under the source's name has left in schema desnode is
// forgotten. progress is told after every few thousand rows; nil: nobody.
func Seed(ctx context.Context, url, source string, n int64, file func(i int64) File, progress func(rows int64)) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := seed(ctx, conn, n, file, progress); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if err := forget(ctx, conn, source); err != nil {
		return fmt.Errorf("seed: forget the last load: %w", err)
	}
	return nil
}

// Unseed removes what Seed has made, and what desnode has noted of it.
func Unseed(ctx context.Context, url, source string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("unseed: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS desnode_bench CASCADE"); err != nil {
		return fmt.Errorf("unseed: %w", err)
	}
	if err := forget(ctx, conn, source); err != nil {
		return fmt.Errorf("unseed: %w", err)
	}
	return nil
}

const seedDDL = `
	DROP SCHEMA IF EXISTS desnode_bench CASCADE;
	CREATE SCHEMA desnode_bench;
	CREATE TABLE desnode_bench.files (
		id          bigint PRIMARY KEY,
		name        text NOT NULL UNIQUE,
		path        text NOT NULL UNIQUE,
		size        bigint NOT NULL,
		modified_at timestamptz NOT NULL,
		status      text NOT NULL DEFAULT 'ACTIVE'
	)`

// seedProgress is the number of rows between two calls of progress.
const seedProgress = 10_000

func seed(ctx context.Context, conn *pgx.Conn, n int64, file func(i int64) File, progress func(rows int64)) error {
	if _, err := conn.Exec(ctx, seedDDL); err != nil {
		return err
	}
	var i int64
	next := func() ([]any, error) {
		if i == n {
			return nil, nil
		}
		f := file(i)
		i++
		if progress != nil && i%seedProgress == 0 {
			progress(i)
		}
		return []any{i, f.Name, f.Path, f.Size, f.ModTime}, nil
	}
	columns := []string{"id", "name", "path", "size", "modified_at"}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"desnode_bench", "files"}, columns, pgx.CopyFromFunc(next)); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "ANALYZE desnode_bench.files")
	return err
}

// forget removes desnode's own rows of a source. There are none where schema
// desnode was never made.
func forget(ctx context.Context, conn *pgx.Conn, source string) error {
	for _, table := range []string{"desnode.cluster", "desnode.file_id"} {
		_, err := conn.Exec(ctx, "DELETE FROM "+table+" WHERE source = $1", source)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == undefinedTable {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// undefinedTable is Postgres' code for a table, or its schema, that is not there.
const undefinedTable = "42P01"
