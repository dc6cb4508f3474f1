package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/ring/gossip/gossiptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a cluster inside a synctest bubble.
type world struct {
	t   *testing.T
	net *gossiptest.Network
	dir string
	log *lines
}

// node is one node of a world.
type node struct {
	*Gossip
	w    *world
	id   ring.NodeID
	addr netip.AddrPort
	keys *KeyRing
	reg  *prometheus.Registry
	stop func()
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: gossiptest.New(), dir: t.TempDir(), log: &lines{}}
	// Virtual time ends with the test, and memberlist's last probes need some.
	t.Cleanup(func() { <-time.After(time.Minute) })
	return w
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

func idOf(i int) ring.NodeID {
	return ring.NodeID(uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "node %d", i)).String())
}

func addrAt(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 7946)
}

func keyOf(b byte) (k Key) {
	k[0] = b
	return k
}

func mustKeys(t *testing.T, use Key, others ...Key) *KeyRing {
	t.Helper()
	keys, err := NewKeyRing(use, others...)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// config is that of node i, which knows node 1 as a seed.
func (w *world) config(i int) Config {
	return Config{
		ID:      idOf(i),
		Cluster: "test",
		Keys:    mustKeys(w.t, keyOf(1)),
		Meta:    Meta{ClusterAddr: fmt.Sprintf("10.0.0.%d:7947", i), HTTPAddr: fmt.Sprintf("10.0.0.%d:8080", i), Zone: "z"},
		Peers:   filepath.Join(w.dir, fmt.Sprintf("peers-%d", i)),
		Seeds:   func() []string { return []string{addrAt(1).String()} },
		Logger:  slog.New(slog.NewTextHandler(w.log, nil)),
	}
}

// start runs node i of the config, changed by f, at the address.
func (w *world) start(i int, at netip.AddrPort, f ...func(*Config)) *node {
	w.t.Helper()
	cfg := w.config(i)
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	for _, change := range f {
		change(&cfg)
	}
	cfg.Transport = w.net.Listen(at)
	g, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			w.t.Errorf("node %d: %v", i, err)
		}
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
	})
	n := &node{Gossip: g, w: w, id: cfg.ID, addr: at, keys: cfg.Keys, reg: reg, stop: stop}
	w.t.Cleanup(stop)
	return n
}

// startN runs nodes 1 to n at their addresses.
func (w *world) startN(n int) []*node {
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = w.start(i+1, addrAt(i+1))
	}
	return nodes
}

// pass lets virtual time go by.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	<-ctx.Done()
	synctest.Wait()
}

// within waits until all nodes agree on exactly these members, with one ring.
func (w *world) within(limit time.Duration, nodes []*node, members ...*node) {
	w.t.Helper()
	start := time.Now()
	for !agree(nodes, members) {
		if time.Since(start) > limit {
			for _, n := range nodes {
				w.t.Logf("%s at %s sees %v", n.id, n.addr, n.View().Members())
			}
			w.t.Fatalf("no agreement on %d members within %v; log:\n%s", len(members), limit, w.log.text.String())
		}
		w.pass(100 * time.Millisecond)
	}
	w.t.Logf("%d members after %v", len(members), time.Since(start))
}

func agree(nodes, members []*node) bool {
	var want []ring.NodeID
	for _, m := range members {
		want = append(want, m.id)
	}
	slices.Sort(want)
	for _, n := range nodes {
		v := n.View()
		var got []ring.NodeID
		for _, m := range v.Members() {
			got = append(got, m.ID)
		}
		if !slices.Equal(got, want) || v.Ring.Digest() != nodes[0].View().Ring.Digest() {
			return false
		}
		for _, m := range members {
			if known, _ := v.Member(m.id); known.Addr != m.addr || known.Meta.ClusterAddr != m.cfg.Meta.ClusterAddr {
				return false
			}
		}
	}
	return true
}

// metric returns the value of a counter or gauge of the node.
func (n *node) metric(name string, label ...string) float64 {
	n.w.t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) == 0 || m.GetLabel()[0].GetValue() == label[0] {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	n.w.t.Fatalf("no metric %s %v", name, label)
	return 0
}
