package outage

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// faulty stands between the node and the S3 server.
type faulty struct {
	t    *testing.T
	addr string // what the node connects to
	web  string // and that to
	tcp  *toxiproxy.Proxy
	busy atomic.Bool // every request is answered 503 SlowDown
}

func newFaulty(t *testing.T, endpoint string) *faulty {
	t.Helper()
	f := &faulty{t: t}
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorLog: log.New(io.Discard, "", 0), // clients that go away are part of the game
	}
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if f.busy.Load() {
			rw.Header().Set("Content-Type", "application/xml")
			rw.WriteHeader(http.StatusServiceUnavailable)
			_, _ = rw.Write([]byte(`<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`))
			return
		}
		forward.ServeHTTP(rw, r)
	}))
	t.Cleanup(web.Close)
	f.web = strings.TrimPrefix(web.URL, "http://")
	f.addr = "127.0.0.1:0"
	f.start()
	f.addr = f.tcp.Listen
	t.Cleanup(func() { f.tcp.Stop() })
	return f
}

// start begins to pass connections on, without a fault.
func (f *faulty) start() {
	f.t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	f.tcp = toxiproxy.NewProxy(server, "s3", f.addr, f.web)
	if err := f.tcp.Start(); err != nil {
		f.t.Fatal(err)
	}
}

// toxic adds a fault to the connections; the returned function takes it away,
// and them with it: toxiproxy may wait for ever when it takes a fault from
// connections that were cut.
func (f *faulty) toxic(json string) (heal func()) {
	f.t.Helper()
	if _, err := f.tcp.Toxics.AddToxicJson(strings.NewReader(json)); err != nil {
		f.t.Fatal(err)
	}
	return func() {
		f.tcp.Stop()
		f.start()
	}
}
