package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// pipes is a listener whose connections are pipes, which virtual time knows.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serving returns a node that answers as handler does, inside a bubble.
func serving(t *testing.T, name string, handler http.HandlerFunc) *rig.Node {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(p) }()
	n := &rig.Node{Name: name, Base: "http://" + name, Client: &http.Client{Transport: &http.Transport{DialContext: p.dial, MaxIdleConnsPerHost: 256}}}
	t.Cleanup(func() {
		n.Client.CloseIdleConnections()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return n
}

// contents answers for files.
func contents(files []*rig.File) http.HandlerFunc {
	by := map[string]*rig.File{}
	for _, f := range files {
		by["/files/"+f.Name] = f
	}
	return func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(by[r.URL.Path].Content()) }
}

// A node that stalls for two seconds delays all reads that were due meanwhile,
// also those that a generator waiting for answers would not have sent.
func TestLoadCountsFromTheMomentAReadWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := rig.NewFiles(1, "f", 10, rig.Always(100))
		answer := contents(files)
		began := time.Now()
		n := serving(t, "n1", func(w http.ResponseWriter, r *http.Request) {
			if at := time.Since(began); at >= 3*time.Second && at < 5*time.Second {
				time.Sleep(5*time.Second - at)
			}
			answer(w, r)
		})
		l := newLoad(t.Context(), files, 50, 1, n)
		if err := l.run(t.Context(), 8*time.Second); err != nil {
			t.Fatal(err)
		}
		for i, s := range l.samples {
			if s.outcome != goodRead {
				t.Fatalf("read %d: %+v", i, s)
			}
			want := time.Duration(0)
			if s.at >= 3*time.Second && s.at < 5*time.Second {
				want = 5*time.Second - s.at
			}
			if s.took != want {
				t.Errorf("the read due at %s took %s, want %s", s.at, s.took, want)
			}
		}
		if q := l.worstSecond(0, 8*time.Second); q.max != 2*time.Second || q.p99 != 2*time.Second || q.count != 50 {
			t.Errorf("the worst second: %+v", q)
		}
		if q := l.worstSecond(5*time.Second, 8*time.Second); q.max != 0 {
			t.Errorf("after the stall: %+v", q)
		}
	})
}

func TestLoadLetsGoOfARetiredNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := rig.NewFiles(1, "f", 10, rig.Always(100))
		answer := contents(files)
		var frozen atomic.Bool
		one := serving(t, "n1", answer)
		two := serving(t, "n2", func(w http.ResponseWriter, r *http.Request) {
			if frozen.Load() {
				<-r.Context().Done()
				return
			}
			answer(w, r)
		})
		l := newLoad(t.Context(), files, 10, 1, one, two)
		err := l.run(t.Context(), 4*time.Second,
			event{950 * time.Millisecond, func() error { frozen.Store(true); return nil }},
			event{2050 * time.Millisecond, func() error { l.retire(two); return nil }})
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, s := range l.samples {
			count[fmt.Sprintf("%s %d", s.node.Name, s.outcome)]++
		}
		// 40 reads: 21 before the retirement, of n2 5 before it froze and 5 after.
		want := map[string]int{
			fmt.Sprintf("n1 %d", goodRead): 30, fmt.Sprintf("n2 %d", goodRead): 5, fmt.Sprintf("n2 %d", letRead): 5,
		}
		for k, n := range want {
			if count[k] != n {
				t.Errorf("%s: %d reads, want %d of %v", k, count[k], n, count)
			}
		}
	})
}

func TestLoadTellsWrongFromFailed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		want   outcome
		note   string
	}{
		{"other bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("other")) }, wrongRead, "other bytes"},
		{"missing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, failedRead, "404"},
		{"unconfirmed", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"code":"unconfirmed"}`))
		}, failedRead, "503 unconfirmed"},
		{"never", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, failedRead, "deadline"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("a"))
		}, failedRead, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLoad(t.Context(), rig.NewFiles(1, "f", 1, rig.Always(100)), 1, 1, serving(t, "n1", tc.answer))
				if err := l.run(t.Context(), time.Second); err != nil {
					t.Fatal(err)
				}
				if s := l.samples[0]; s.outcome != tc.want || !strings.Contains(s.note, tc.note) {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestLoadEndsWithAFailedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := rig.NewFiles(1, "f", 1, rig.Always(1))
		l := newLoad(t.Context(), files, 10, 1, serving(t, "n1", contents(files)))
		err := l.run(t.Context(), time.Hour, event{time.Second, func() error { return rig.ErrEnded }})
		if !errors.Is(err, rig.ErrEnded) {
			t.Errorf("%v", err)
		}
		if s := l.samples[len(l.samples)-1]; s.outcome != unsentRead {
			t.Errorf("the last read: %+v", s)
		}
	})
}

func TestQuantiles(t *testing.T) {
	upTo := func(n int) (d []time.Duration) {
		for i := range n {
			d = append(d, time.Duration((i*7)%n+1)) // 1 to n, in another order
		}
		return d
	}
	for _, tc := range []struct {
		name string
		took []time.Duration
		want quantiles
	}{
		{"none", nil, quantiles{}},
		{"one", upTo(1), quantiles{1, 1, 1, 1}},
		{"three", upTo(3), quantiles{3, 2, 3, 3}},
		{"a hundred", upTo(100), quantiles{100, 50, 99, 100}},
		{"five hundred", upTo(500), quantiles{500, 250, 495, 500}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := quantilesOf(tc.took); got != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
}
