package store

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/datavision/desnode/deploy/dev"
)

// s3Config is the configuration of a store in a new bucket of the real server.
func s3Config(t testing.TB) S3Config {
	t.Helper()
	if testServer == nil {
		t.Skip("-short leaves out the S3 server")
	}
	name := "b" + strings.ToLower(rand.Text())
	if err := testServer.MakeBucket(name); err != nil {
		t.Fatal(err)
	}
	from := secret(t, dev.S3AccessKey, dev.S3SecretKey)
	return S3Config{
		URL: "s3://" + name + "/p?endpoint=" + testServer.Endpoint, Read: from, Write: from, Collect: from,
		ReadTimeout: time.Second, WriteTimeout: 5 * time.Second, Stall: time.Second,
	}
}

// secret writes a file of credentials and returns how it is named.
func secret(t testing.TB, id, key string) string {
	t.Helper()
	b, err := json.Marshal(s3Secret{AccessKeyID: id, SecretAccessKey: key})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

// through returns c by way of another endpoint.
func through(c S3Config, endpoint string) S3Config {
	c.URL = strings.Replace(c.URL, testServer.Endpoint, endpoint, 1)
	return c
}

func openTestS3(t testing.TB, c S3Config) *S3 {
	t.Helper()
	s, err := OpenS3(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// enableVersions gives the bucket of c versions.
func enableVersions(t *testing.T, c S3Config) {
	t.Helper()
	s := openTestS3(t, c)
	_, err := s.write.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &s.target.bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// faulty is a proxy before the real server whose hook may answer a request in
// its place, change it, or lose or change the answer.
type faulty struct {
	*httptest.Server
	mu   sync.Mutex
	hook hook // guarded by mu
	seen int  // guarded by mu: requests
}

// hook deals with a request; pass sends it on and its answer back. Panicking
// with http.ErrAbortHandler cuts the connection.
type hook func(w http.ResponseWriter, r *http.Request, pass http.Handler)

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	if testServer == nil {
		t.Skip("-short leaves out the S3 server")
	}
	to, err := url.Parse(testServer.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{}
	transport := &http.Transport{DisableCompression: true}
	// The signature covers the Host header, so it stays that of the client; the
	// real server takes any.
	pass := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host
			p.Out.Host = p.In.Host
		},
		Transport: transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler)
		},
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen++
		h := f.hook
		f.mu.Unlock()
		if h == nil {
			h = func(w http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(w, r) }
		}
		h(w, r, pass)
	}))
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
		transport.CloseIdleConnections()
	})
	return f
}

func (f *faulty) set(h hook) {
	f.mu.Lock()
	f.hook, f.seen = h, 0
	f.mu.Unlock()
}

func (f *faulty) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// lost carries a request out and cuts the connection in place of the answer.
func lost(r *http.Request, pass http.Handler) {
	pass.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// slowDown answers as S3 does when it is asked too much.
func slowDown(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
}

// cutting is a ResponseWriter that cuts the connection after some bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if len(p) >= c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		if f, ok := c.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func bytesOf(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

func readS3(t *testing.T, s *S3, key, version string, off, n int64) (string, error) {
	t.Helper()
	r, err := s.Get(t.Context(), key, version, off, n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), errors.Join(err, r.Close())
}

func putS3(t *testing.T, s *S3, key, content string) Object {
	t.Helper()
	o, err := s.Put(t.Context(), key, strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantS3(t *testing.T, s *S3, key, want string) {
	t.Helper()
	if got, err := readS3(t, s, key, "", 0, -1); err != nil || got != want {
		t.Errorf("%s holds %d bytes, %v; want %d bytes, and those", key, len(got), err, len(want))
	}
}

func wantUploads(t *testing.T, s *S3, want int) []Upload {
	t.Helper()
	var all []Upload
	if err := s.Uploads(t.Context(), "", func(u Upload) error { all = append(all, u); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(all) != want {
		t.Errorf("%d open uploads, want %d: %v", len(all), want, all)
	}
	return all
}
