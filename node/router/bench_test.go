package router

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// connect puts real endpoints on loopback between the nodes of a world.
func (w *world) connect(b testing.TB) {
	b.Helper()
	ca, err := transport.NewAuthority("bench", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	addrs := map[string]string{}
	for _, id := range w.order {
		identity, err := transport.FormIdentity(filepath.Join(b.TempDir(), "identity.pem"), ca, string(id), transport.NewSecret(), nil)
		if err != nil {
			b.Fatal(err)
		}
		e, err := transport.New(transport.Config{
			Identity: identity, Bind: "127.0.0.1:0", Reader: late{w, id},
			Allowed: func(string) bool { return true },
			Resolve: func(node string) (string, bool) {
				mu.Lock()
				defer mu.Unlock()
				a, ok := addrs[node]
				return a, ok
			},
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		mu.Lock()
		addrs[string(id)] = e.Addr()
		mu.Unlock()
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		b.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
		w.start(id, func(c *Config) { c.Peers = e })
	}
}

// late is the router of a node, which is made after its endpoint.
type late struct {
	w  *world
	id ring.NodeID
}

func (l late) ServeRead(ctx context.Context, from string, q *transport.Request) (*transport.Reply, error) {
	return l.w.nodes[l.id].router.ServeRead(ctx, from, q)
}

// The whole way over real sockets: what the tests elsewhere see of answers is
// what transport makes of them.
func TestOverRealEndpoints(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.connect(t)
	for _, v := range published() {
		w.add(v)
	}
	w.add(tombstone("gone", 2))
	b := w.nodes["b"]
	for _, v := range published() {
		b.wantRead(t, v.name, v.content)
		b.wantRead(t, v.name, v.content)
	}
	b.wantError(t, "gone", retriever.ErrGone)
	b.wantError(t, "absent", retriever.ErrNotFound)
	if b.fallbacks(reasonGone) != 1 || b.fallbacks(reasonNotFound) != 1 || routed(b, routeFallback) != 2 {
		t.Error("the owner was not asked, or did not answer")
	}
	if routed(b, routeLocal) != 0 || routed(b, routeLocation) != 2 {
		t.Errorf("%d reads local, %d by location", routed(b, routeLocal), routed(b, routeLocation))
	}
}

// BenchmarkThroughNonOwner measures reads of one record that its owner has in
// memory, over two endpoints on loopback in one process: asked of the owner,
// of another node each time, and of another node that keeps it. The three are
// asked in turn, so that what else the machine does hits all; the figures are
// medians. An op is one read of each.
func BenchmarkThroughNonOwner(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			w := newWorld(b, "a", "b")
			w.connect(b)
			content := long("content", size)
			w.add(version{name: "documents/2024/invoice-000001.pdf", seq: 1, content: content})
			owner, keeps := w.nodes["a"], w.nodes["b"]
			var took [3][]time.Duration
			read := func(i int, n *node) {
				began := time.Now()
				f, err := n.router.Open(b.Context(), "documents/2024/invoice-000001.pdf", retriever.Query{RequestID: "0123456789abcdef"})
				if err != nil {
					b.Fatal(err)
				}
				got, whole := f.Content()
				f.Close()
				took[i] = append(took[i], time.Since(began))
				if !whole || len(got) != size {
					b.Fatalf("%d bytes in memory", len(got))
				}
			}
			forgets := &node{w: w, id: "b"} // asks each time: it has room for nothing
			forgets.at.Store(w.head())
			var err error
			forgets.local, err = retriever.New(retriever.Config{
				Manifest: forgets, Store: forgets, Sources: func() []retriever.Source { return nil }, DataBytes: 1, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			cfg := keeps.router.cfg
			cfg.Local = forgets.local
			if forgets.router, err = New(cfg); err != nil {
				b.Fatal(err)
			}
			for range 10 {
				read(0, owner)
				read(1, forgets)
				read(2, keeps)
			}
			took = [3][]time.Duration{}
			b.SetBytes(int64(size))
			for b.Loop() {
				read(0, owner)
				read(1, forgets)
				read(2, keeps)
			}
			var p50 [3]float64
			for i := range took {
				slices.Sort(took[i])
				p50[i] = took[i][len(took[i])/2].Seconds() * 1e6
			}
			if got := routed(forgets, routeOwner); got < len(took[1]) {
				b.Fatalf("%d of %d reads were answered by the owner", got, len(took[1]))
			}
			b.ReportMetric(p50[0], "owner-µs")
			b.ReportMetric(p50[1], "hop-µs")
			b.ReportMetric(p50[2], "hot-µs")
			b.ReportMetric(p50[2]/p50[0], "hot/owner")
		})
	}
}

// BenchmarkOwnHotRead is what the router costs a read that its own node answers
// from memory, beside the retriever alone.
func BenchmarkOwnHotRead(b *testing.B) {
	for _, nodes := range [][]ring.NodeID{{}, {"a"}, {"a", "b", "c"}} {
		w := newWorld(b, nodes...)
		n := w.start("a", nil)
		w.add(version{name: "documents/2024/invoice-000001.pdf", seq: 1, content: "hello"})
		for _, way := range []struct {
			name string
			open func(context.Context, string, retriever.Query) (retriever.File, error)
		}{{"retriever", n.local.Open}, {"router", n.router.Open}} {
			b.Run(fmt.Sprintf("nodes=%d/%s", len(nodes), way.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f, err := way.open(b.Context(), "documents/2024/invoice-000001.pdf", retriever.Query{})
					if err != nil {
						b.Fatal(err)
					}
					f.Close()
				}
			})
		}
	}
}
