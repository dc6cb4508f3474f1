package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datavision/desnode/deploy/dev"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/store"
)

// s3Proxy stands before the real S3 server and notes what is sent to it. While
// it is down it cuts every connection.
type s3Proxy struct {
	*httptest.Server
	down atomic.Bool

	mu   sync.Mutex     // guards seen
	seen map[string]int // by method; a LIST is a GET without a key
}

func newS3Proxy(t *testing.T) *s3Proxy {
	t.Helper()
	if servers.pg == nil {
		t.Skip("-short leaves out S3")
	}
	to, err := url.Parse(servers.s3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &s3Proxy{seen: map[string]int{}}
	transport := &http.Transport{DisableCompression: true}
	pass := &httputil.ReverseProxy{
		// The signature covers the Host header, so it stays the client's.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = to.Scheme, to.Host, r.In.Host
		},
		Transport:    transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.down.Load() {
			panic(http.ErrAbortHandler)
		}
		method := r.Method
		if strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0 {
			method = "LIST"
		}
		p.mu.Lock()
		p.seen[method]++
		p.mu.Unlock()
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// config is a node's configuration with the embedded source and a store in a
// bucket behind the proxy.
func (p *s3Proxy) config(t *testing.T) config.Config {
	t.Helper()
	bucket := fmt.Sprintf("proxied%d", servers.made.Add(1))
	if err := servers.s3.MakeBucket(bucket); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", dev.S3AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", dev.S3SecretKey)
	cfg := testConfig(t)
	cfg.Store.URL = fmt.Sprintf("s3://%s/packs?endpoint=%s&region=%s", bucket, url.QueryEscape(p.URL), dev.S3Region)
	return cfg
}

// A node of a formed cluster starts while its store does not answer, although
// it is to delete originals; it deletes none until it knows that the store never
// replaces an object, and then goes on by itself.
func TestStartWithDeletionWhileTheStoreIsDown(t *testing.T) {
	p := newS3Proxy(t)
	cfg := p.config(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	writeFile(t, path, "content")
	n, stop := start(t, cfg)
	n.testImport(t, api.ImportRequest{Dir: dir})
	if last := n.testArchive(t); last.Packed != 1 {
		t.Fatalf("archived: %+v", last)
	}
	stop()

	p.down.Store(true)
	cfg.Archive.DeleteSource, cfg.Archive.DeleteGrace = true, 0
	n, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal("New while the store is down: ", err)
	}
	if n.claimed == nil {
		t.Error("the store was claimed while it was down")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the original: ", err)
	}
	p.down.Store(false)
	run(t, n)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the original is not deleted; problem: ", n.keeper.Problem())
		}
	}
	if status, _, got := n.get(t, "a"); status != http.StatusOK || got != "content" {
		t.Errorf("a: %d %q", status, got)
	}
}

// A node whose configuration names another bucket than the one its cluster was
// formed on does not start, and leaves nothing there; nor does one whose bucket
// is another cluster's.
func TestStoreSwappedInTheConfiguration(t *testing.T) {
	p := newS3Proxy(t)
	other := p.config(t)
	_, stopOther := start(t, other)
	stopOther()
	cfg := p.config(t)
	_, stop := start(t, cfg)
	stop()
	own := cfg.Store.URL
	puts := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.seen[http.MethodPut] + p.seen[http.MethodPost]
	}
	before := puts()
	for _, tc := range []struct {
		name, url string
		want      error
	}{
		{"an empty bucket", p.config(t).Store.URL, ErrStoreLost},
		{"another prefix", strings.Replace(own, "/packs?", "/pakcs?", 1), ErrStoreLost},
		{"another cluster's", other.Store.URL, ErrOtherCluster},
	} {
		cfg.Store.URL = tc.url
		n, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err == nil {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	cfg.Store.URL = strings.Replace(own, "//proxied", "//nowhere", 1)
	if _, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "bucket") {
		t.Errorf("no such bucket: %v", err)
	}
	if n := puts() - before; n != 0 {
		t.Errorf("%d objects or parts were put where the cluster's store is not", n)
	}
	cfg.Store.URL = own
	start(t, cfg)
}

// The bill of archiving: one PUT and one HEAD a pack, no LIST, and all else a
// handful, however many files there are. Verifying is told apart by its cause.
// What the driver counts is what comes to the server.
func TestStoreRequestsOfArchiving(t *testing.T) {
	p := newS3Proxy(t)
	cfg := p.config(t)
	cfg.Archive.PackSize = config.MiB
	const files, size = 400, 16 << 10
	dir := t.TempDir()
	for i := range files {
		writeFile(t, filepath.Join(dir, fmt.Sprint("f", i)), string(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, size/2)))
	}
	n, stop := start(t, cfg)
	n.testImport(t, api.ImportRequest{Dir: dir})
	if last := n.testArchive(t); last.Packed != files || last.Failed != 0 {
		t.Fatalf("archived: %+v", last)
	}
	packs := n.awaitVerified(t)
	if packs < 6 {
		t.Fatalf("%d packs only", packs)
	}
	stop() // so that nothing is under way while it is counted
	type sort struct {
		cause string
		kind  store.Kind
	}
	got, all := map[sort]int64{}, map[store.Kind]int64{}
	var dear int64 // PUT-class, the packs' own apart
	for _, r := range n.store.Requests() {
		got[sort{r.Cause, r.Kind}] += r.Count
		all[r.Kind] += r.Count
		if r.Class == store.ClassPut && r.Cause != "pack" {
			dear += r.Count
		}
	}
	for s, count := range got {
		want, ok := map[sort]int64{
			{"pack", store.KindPut}: packs, {"pack", store.KindHead}: packs, {"verify", store.KindGet}: 3 * packs,
		}[s]
		switch {
		case s.cause == "":
			t.Errorf("%d requests of kind %s have no cause", count, s.kind)
		case s.cause == "probe", s.cause == "claim": // at the start
		case s == sort{"index", store.KindGet} && count <= packs: // new packs' indexes, as far as they were warmed
		case !ok || count != want:
			t.Errorf("%d requests of kind %s for %q, want %d", count, s.kind, s.cause, want)
		}
	}
	if got[sort{"pack", store.KindPut}] != packs || all[store.KindHead]-got[sort{"claim", store.KindHead}] != packs || all[store.KindList] != 0 {
		t.Errorf("%d packs took %v", packs, got)
	}
	if dear > 8 {
		t.Errorf("%d requests of the dear class beside the packs': %v", dear, got)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if int64(p.seen["HEAD"]) != all[store.KindHead] || int64(p.seen["GET"]) != all[store.KindGet] || p.seen["LIST"] != 0 ||
		int64(p.seen["PUT"]+p.seen["POST"]) != all[store.KindPut] {
		t.Errorf("the server got %v, the driver counted %v", p.seen, all)
	}
}

// awaitVerified waits until each pack has been read back, and returns how many
// there are.
func (n *Node) awaitVerified(t *testing.T) (packs int64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		changed := n.meta.Changed()
		waiting := 0
		packs = 0
		for p := range n.meta.View().Packs() {
			packs++
			if p.Copies[0].VerifiedAt.IsZero() {
				waiting++
			}
		}
		if waiting == 0 {
			return packs
		}
		select {
		case <-changed:
		case <-time.After(time.Until(deadline)):
			t.Fatalf("%d of %d packs are not verified", waiting, packs)
		}
	}
}
