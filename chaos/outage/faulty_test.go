package outage

import (
	"context"
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
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	f.tcp = toxiproxy.NewProxy(server, "s3", "127.0.0.1:0", strings.TrimPrefix(web.URL, "http://"))
	if err := f.tcp.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.tcp.Stop)
	f.addr = f.tcp.Listen
	return f
}

// toxic adds a fault to the connections; the returned function takes it away.
func (f *faulty) toxic(json string) (heal func()) {
	f.t.Helper()
	added, err := f.tcp.Toxics.AddToxicJson(strings.NewReader(json))
	if err != nil {
		f.t.Fatal(err)
	}
	return func() {
		if err := f.tcp.Toxics.RemoveToxic(context.WithoutCancel(f.t.Context()), added.Name); err != nil {
			f.t.Error(err)
		}
	}
}
