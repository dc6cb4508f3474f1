package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/deploy/dev"
)

// servers are a Postgres and an S3 server of a cluster's own.
type servers struct {
	dir      string
	postgres *dev.Postgres
	s3       *dev.S3
}

const bucket = "archive"

// startServers starts both below dir, which Postgres's user can look into.
func startServers(ctx context.Context, dir string) (_ *servers, err error) {
	s := &servers{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, d := range []string{filepath.Dir(dir), dir} { // made for us alone
		if err := os.Chmod(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, sub := range []string{"postgres", "s3"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if s.postgres, err = dev.StartPostgres(ctx, filepath.Join(dir, "postgres")); err != nil {
		return nil, err
	}
	if s.s3, err = dev.StartS3(ctx, filepath.Join(dir, "s3")); err != nil {
		return nil, err
	}
	return s, s.s3.MakeBucket(bucket)
}

func (s *servers) stop() (err error) {
	if s.s3 != nil {
		err = s.s3.Stop()
	}
	if s.postgres != nil {
		err = errors.Join(err, s.postgres.Stop())
	}
	return err
}

// store is the URL of the cluster's store.
func (s *servers) store() string {
	return fmt.Sprintf("s3://%s/packs?endpoint=%s&region=%s", bucket, s.s3.Endpoint, dev.S3Region)
}

// object is where the server keeps one object of that store.
func (s *servers) object(key string) string {
	return filepath.Join(s.dir, "s3", "buckets", bucket, "packs", filepath.FromSlash(key))
}

// environ is the credentials of the store.
func (s *servers) environ() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + dev.S3AccessKey, "AWS_SECRET_ACCESS_KEY=" + dev.S3SecretKey}
}

// list writes files below dir and has the source system list them.
func (s *servers) list(ctx context.Context, dir string, files []*file) error {
	if err := write(dir, files); err != nil {
		return err
	}
	old := time.Now().Add(-100 * 24 * time.Hour).Truncate(time.Second)
	rows := make([][]any, len(files))
	for i, f := range files {
		if err := os.Chtimes(f.path(dir), old, old); err != nil {
			return err
		}
		rows[i] = []any{f.name, f.path(dir), f.size, old}
	}
	conn, err := pgx.Connect(ctx, s.postgres.URL)
	if err != nil {
		return err
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"desnode", "files"}, []string{"name", "path", "size", "modified_at"}, pgx.CopyFromRows(rows))
	return errors.Join(err, conn.Close(ctx))
}
