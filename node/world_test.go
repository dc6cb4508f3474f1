package node

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/deploy/dev/devtest"
	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/config"
)

// servers are what all tests of the package share; nil with -short.
var servers struct {
	pg *dev.Postgres
	s3 *dev.S3
	// made numbers databases and buckets.
	made atomic.Int64
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(devtest.With(m, devtest.Servers{Postgres: &servers.pg, S3: &servers.s3}))
}

// real is one test's own database, bucket and folder of files.
type real struct {
	t      *testing.T
	db     string // the database's URL, as superuser
	name   string // of database and bucket
	folder string
	sql    *pgx.Conn
	s3     *s3.Client
}

// newReal makes an empty database, an empty bucket and a folder.
func newReal(t *testing.T) *real {
	t.Helper()
	if servers.pg == nil {
		t.Skip("-short leaves out Postgres and S3")
	}
	r := &real{t: t, name: fmt.Sprintf("test%d", servers.made.Add(1)), folder: t.TempDir()}
	admin := r.connect(servers.pg.URL)
	r.exec(admin, "CREATE DATABASE "+r.name)
	r.db = strings.Replace(servers.pg.URL, "/postgres?", "/"+r.name+"?", 1)
	r.sql = r.connect(r.db)
	if err := servers.s3.MakeBucket(r.name); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r.s3 = s3.New(s3.Options{
		BaseEndpoint: aws.String(servers.s3.Endpoint), Region: dev.S3Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(dev.S3AccessKey, dev.S3SecretKey, ""),
		HTTPClient:  &http.Client{Transport: transport},
	})
	t.Setenv("AWS_ACCESS_KEY_ID", dev.S3AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", dev.S3SecretKey)
	return r
}

func (r *real) connect(dbURL string) *pgx.Conn {
	r.t.Helper()
	c, err := pgx.Connect(r.t.Context(), dbURL)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

func (r *real) exec(c *pgx.Conn, sql string, args ...any) {
	r.t.Helper()
	if _, err := c.Exec(r.t.Context(), sql, args...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

// config is a node's configuration with one Postgres source, "docs", whose
// files are in the folder, and the store in the bucket.
func (r *real) config(src config.Source) config.Config {
	r.t.Helper()
	cfg := config.Default(filepath.Join(r.t.TempDir(), "data"))
	cfg.HTTP = "127.0.0.1:0"
	cfg.Store.URL = fmt.Sprintf("s3://%s/packs?endpoint=%s&region=%s", r.name, url.QueryEscape(servers.s3.Endpoint), dev.S3Region)
	if src.URL == "" {
		src.URL = r.db
	}
	if src.Roots == nil {
		src.Roots = []string{r.folder}
	}
	cfg.Sources = map[string]config.Source{"docs": src}
	cfg.Archive.MinAge = time.Hour
	if err := cfg.Validate(); err != nil {
		r.t.Fatal(err)
	}
	return cfg
}

// prepare brings desnode's part of a source's database about, as `source init
// --apply` does.
func (r *real) prepare(cfg config.Config) {
	r.t.Helper()
	for name, src := range cfg.Sources {
		options := migrations.ScriptOptions{Login: true, Delete: cfg.Archive.DeleteSource}
		if _, err := migrations.Apply(r.t.Context(), r.db, src.Mapping(name), options); err != nil {
			r.t.Fatal(err)
		}
	}
}

// roles gives each role of a source a connection of its own.
func (r *real) roles() map[string]string {
	urls := map[string]string{}
	for _, role := range config.AllRoles() {
		urls[role] = strings.Replace(r.db, "postgres@", "desnode_"+role+"@", 1)
	}
	return urls
}

// old is when the files of these tests were modified, in whole seconds.
var old = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// file writes a file of that age and returns its path.
func (r *real) file(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.folder, filepath.FromSlash(name))
	writeFile(r.t, path, content)
	if err := os.Chtimes(path, old, old); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// object puts an object and returns its size and time as S3 has them.
func (r *real) object(key, content string) time.Time {
	r.t.Helper()
	_, err := r.s3.PutObject(r.t.Context(), &s3.PutObjectInput{Bucket: &r.name, Key: &key, Body: strings.NewReader(content)})
	if err != nil {
		r.t.Fatal(err)
	}
	head, err := r.s3.HeadObject(r.t.Context(), &s3.HeadObjectInput{Bucket: &r.name, Key: &key})
	if err != nil {
		r.t.Fatal(err)
	}
	return aws.ToTime(head.LastModified)
}

// states counts a table's rows by state.
func (r *real) states(table, column string) map[string]int {
	r.t.Helper()
	rows, err := r.sql.Query(r.t.Context(), "SELECT "+column+"::text, count(*) FROM "+table+" GROUP BY 1")
	if err != nil {
		r.t.Fatal(err)
	}
	states := map[string]int{}
	var state string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		states[state] = n
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return states
}

// byID reads an id over HTTP.
func (n *Node) byID(t *testing.T, source, id string) (status int, content string) {
	t.Helper()
	status, _, content = n.fetch(t, "/ids/"+url.PathEscape(id)+"?source="+source)
	return status, content
}
