package rig

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

// Servers are a Postgres and an S3 server of a cluster's own.
type Servers struct {
	dir      string
	Postgres *dev.Postgres
	S3       *dev.S3
}

const bucket = "archive"

// StartServers starts both below dir, which Postgres's user can look into.
// settings are further ones of Postgres.
func StartServers(ctx context.Context, dir string, settings ...string) (_ *Servers, err error) {
	s := &Servers{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
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
	if s.Postgres, err = dev.StartPostgres(ctx, filepath.Join(dir, "postgres"), settings...); err != nil {
		return nil, err
	}
	if s.S3, err = dev.StartS3(ctx, filepath.Join(dir, "s3")); err != nil {
		return nil, err
	}
	return s, s.S3.MakeBucket(bucket)
}

// Stop ends both, when they run.
func (s *Servers) Stop() (err error) {
	if s.S3 != nil {
		err = s.S3.Stop()
	}
	if s.Postgres != nil {
		err = errors.Join(err, s.Postgres.Stop())
	}
	return err
}

// Store is the URL of the cluster's store.
func (s *Servers) Store() string { return s.StoreAt(s.S3.Addr()) }

// StoreAt is that URL where the server is reached at another address.
func (s *Servers) StoreAt(addr string) string {
	return fmt.Sprintf("s3://%s/packs?endpoint=http://%s&region=%s", bucket, addr, dev.S3Region)
}

// Kill ends both at once, as a power cut would; their Start brings them back.
func (s *Servers) Kill() error {
	done := make(chan error, 1)
	go func() { done <- s.S3.Kill() }()
	return errors.Join(s.Postgres.Kill(), <-done)
}

// Object is where the server keeps one object of that store.
func (s *Servers) Object(key string) string {
	return filepath.Join(s.dir, "s3", "buckets", bucket, "packs", filepath.FromSlash(key))
}

// Environ is the credentials of the store.
func (s *Servers) Environ() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + dev.S3AccessKey, "AWS_SECRET_ACCESS_KEY=" + dev.S3SecretKey}
}

// List writes files below dir and has the source system list them.
func (s *Servers) List(ctx context.Context, dir string, files []*File) error {
	if err := Write(dir, files); err != nil {
		return err
	}
	old := time.Now().Add(-100 * 24 * time.Hour).Truncate(time.Second)
	rows := make([][]any, len(files))
	for i, f := range files {
		if err := os.Chtimes(f.Path(dir), old, old); err != nil {
			return err
		}
		rows[i] = []any{f.Name, f.Path(dir), f.Size, old}
	}
	conn, err := pgx.Connect(ctx, s.Postgres.URL)
	if err != nil {
		return err
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"desnode", "files"}, []string{"name", "path", "size", "modified_at"}, pgx.CopyFromRows(rows))
	return errors.Join(err, conn.Close(ctx))
}
