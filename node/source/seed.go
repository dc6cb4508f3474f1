package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/datavision/desnode/migrations"
)

// SeedTable is the table that Seed fills.
const SeedTable = "desnode_bench.files"

// Seed makes SeedTable anew in a Postgres database, fills it by COPY with n
// ACTIVE rows, those that file returns for 0 to n-1, and then has migrations
// add what desnode needs, as to a customer's table that was there first. m is
// the mapping, its Table SeedTable; ids are 1 to n. For load tests only.
//
// What an earlier load under the source's name has left in schema desnode is
// forgotten. progress is told after every few thousand rows; nil: nobody.
func Seed(ctx context.Context, url string, m migrations.Mapping, n int64, file func(i int64) File, progress func(rows int64)) error {
	if m.Table != SeedTable {
		return fmt.Errorf("seed: the table is %s, not %s", SeedTable, m.Table)
	}
	err := connected(ctx, url, func(conn *pgx.Conn) error {
		if err := forget(ctx, conn, m.Source); err != nil {
			return err
		}
		return copyRows(ctx, conn, n, file, progress)
	})
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if _, err := migrations.Apply(ctx, url, m, migrations.ScriptOptions{Trigger: true}); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	err = connected(ctx, url, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "VACUUM ANALYZE "+SeedTable)
		return err
	})
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

// Unseed removes what Seed has made, and what desnode has noted of the source.
// Schema desnode and the roles stay.
func Unseed(ctx context.Context, url, source string) error {
	err := connected(ctx, url, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS desnode_bench CASCADE"); err != nil {
			return err
		}
		return forget(ctx, conn, source)
	})
	if err != nil {
		return fmt.Errorf("unseed: %w", err)
	}
	return nil
}

// connected calls f with a connection of its own.
func connected(ctx context.Context, url string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err // without the password
	}
	return errors.Join(f(conn), conn.Close(context.WithoutCancel(ctx)))
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

func copyRows(ctx context.Context, conn *pgx.Conn, n int64, file func(i int64) File, progress func(rows int64)) error {
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
	_, err := conn.CopyFrom(ctx, pgx.Identifier{"desnode_bench", "files"}, columns, pgx.CopyFromFunc(next))
	return err
}

// forget removes desnode's own rows of a source. There are none where schema
// desnode was never made.
func forget(ctx context.Context, conn *pgx.Conn, source string) error {
	for _, table := range []string{"desnode.cluster", "desnode.file_id"} {
		_, err := conn.Exec(ctx, "DELETE FROM "+table+" WHERE source = $1", source)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == undefinedTable {
			continue // nobody has ever archived from this database
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// undefinedTable is Postgres' code for a table, or its schema, that is not there.
const undefinedTable = "42P01"
