package store

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/datavision/desnode/deploy/dev"
)

// probed is a real S3 server with the accounts of the probe's tests.
type probed struct {
	*dev.S3
	root string // the source of the root account's credentials
	dir  string
}

func startProbed(t *testing.T) *probed {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out the S3 server")
	}
	s, err := dev.StartS3(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	p := &probed{S3: s, dir: t.TempDir()}
	p.root = p.account(t, dev.S3AccessKey, dev.S3SecretKey)
	return p
}

// account writes a file of credentials and returns how it is named.
func (p *probed) account(t *testing.T, id, secret string) string {
	t.Helper()
	b, err := json.Marshal(map[string]string{"access_key_id": id, "secret_access_key": secret})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.dir, id+"-"+secret+".json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

// bucket makes a bucket and returns how a probe reaches it as root.
func (p *probed) bucket(t *testing.T, name string) ProbeConfig {
	t.Helper()
	if err := p.MakeBucket(name); err != nil {
		t.Fatal(err)
	}
	return p.config(p.Endpoint, name)
}

func (p *probed) config(endpoint, bucket string) ProbeConfig {
	q := url.Values{"endpoint": {endpoint}, "region": {dev.S3Region}}
	return ProbeConfig{S3: S3Config{
		URL: "s3://" + bucket + "/some/prefix?" + q.Encode(), Read: p.root, Write: p.root, Collect: p.root,
	}}
}

// client returns an SDK client for what a test arranges or looks at.
func (p *probed) client(t *testing.T, from string) *s3.Client {
	t.Helper()
	c := p.config(p.Endpoint, "any").S3
	at, err := c.target()
	if err != nil {
		t.Fatal(err)
	}
	hc, err := c.httpClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hc.CloseIdleConnections)
	loaded, err := c.load(t.Context(), at, from)
	if err != nil {
		t.Fatal(err)
	}
	return newS3Client(loaded, at, 1, hc)
}

// keysOf lists every version and every open upload below prefix.
func (p *probed) keysOf(t *testing.T, bucket, prefix string) []string {
	t.Helper()
	c := p.client(t, p.root)
	out, err := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket, Prefix: &prefix})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, v := range out.Versions {
		keys = append(keys, *v.Key)
	}
	for _, v := range out.DeleteMarkers {
		keys = append(keys, *v.Key+" (deleted)")
	}
	open, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: &prefix})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range open.Uploads {
		keys = append(keys, *u.Key+" (upload)")
	}
	return keys
}

// fault breaks a server in one way. Either may be nil.
type fault struct {
	// ask changes a request, or answers it in the server's place.
	ask func(r *http.Request) *http.Response
	// answer changes what the server said.
	answer func(r *http.Request, res *http.Response)
}

// broken is the real server behind a proxy that breaks it. Requests are signed
// anew, as root, since what is changed was signed.
func (p *probed) broken(t *testing.T, f fault) string {
	t.Helper()
	front := httptest.NewServer(p.proxy(t, f))
	t.Cleanup(front.Close)
	return front.URL
}

// proxy hands requests on to the real server.
func (p *probed) proxy(t *testing.T, f fault) http.Handler {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	back := strings.TrimPrefix(p.Endpoint, "http://")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := forward(r, back, transport, f)
		if err != nil {
			t.Errorf("proxy: %s %s: %v", r.Method, r.URL, err)
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = res.Body.Close() }()
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		if len(res.Header["Date"]) == 0 {
			w.Header()["Date"] = nil // net/http would add one
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
}

func forward(in *http.Request, back string, transport http.RoundTripper, f fault) (*http.Response, error) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		return nil, err
	}
	r := in.Clone(in.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	if f.ask != nil {
		if res := f.ask(r); res != nil {
			return res, nil
		}
	}
	if body, err = io.ReadAll(r.Body); err != nil {
		return nil, err
	}
	r.RequestURI, r.URL.Scheme, r.URL.Host, r.Host = "", "http", back, back
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		r.Body = http.NoBody
	}
	r.Header.Del("Content-Length")
	r.Header.Del("Authorization")
	r.Header.Del("Accept-Encoding")
	hash := r.Header.Get("X-Amz-Content-Sha256")
	root := aws.Credentials{AccessKeyID: dev.S3AccessKey, SecretAccessKey: dev.S3SecretKey}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(r.Context(), root, r, hash, "s3", dev.S3Region, time.Now()); err != nil {
		return nil, err
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if f.answer != nil {
		f.answer(r, res)
	}
	return res, nil
}

// say is an answer made up by a fault.
func say(status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {"application/xml"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}},
	}
}

// sayError is S3's form of an error.
func sayError(status int, code string) *http.Response {
	return say(status, "<Error><Code>"+code+"</Code><Message>made up</Message></Error>")
}

// replace puts another body into an answer.
func replace(res *http.Response, body []byte) {
	_ = res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	res.Header.Del("Content-Length")
}

// aims reports whether a request is about an object whose key ends like that.
func aims(r *http.Request, method, end string) bool {
	return r.Method == method && strings.HasSuffix(r.URL.Path, end)
}

// asks reports whether a request has that query parameter.
func asks(r *http.Request, method, name string) bool {
	return r.Method == method && r.URL.Query().Has(name)
}

// found returns the worst finding of a check.
func found(all []Finding, check string) (Finding, bool) {
	var worst Finding
	ok := false
	for _, f := range all {
		if f.Check == check && (!ok || f.Level > worst.Level) {
			worst, ok = f, true
		}
	}
	return worst, ok
}

// counter counts requests, so that a fault can choose among them.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func run(t *testing.T, c ProbeConfig) []Finding {
	t.Helper()
	all, err := Probe(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Check == "" || f.Seen == "" || (f.Level >= LevelWarn && f.Means == "") {
			t.Errorf("a finding that says too little: %+v", f)
		}
	}
	return all
}

// cutAt is a context that ends at the first request for a key that ends like
// that, which gets no further.
func cutAt(t *testing.T, end string) (context.Context, fault) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, fault{ask: func(r *http.Request) *http.Response {
		if ctx.Err() != nil || !strings.HasSuffix(r.URL.Path, end) {
			return nil
		}
		cancel()
		return sayError(http.StatusServiceUnavailable, "SlowDown")
	}}
}
