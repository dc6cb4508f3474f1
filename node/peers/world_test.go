package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/ring/gossip/gossiptest"
	"github.com/datavision/desnode/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network in memory, a store for addresses, and the nodes on it. It
// must be made inside a synctest bubble.
type world struct {
	t       *testing.T
	dir     string
	net     *transporttest.Network
	gossip  *gossiptest.Network
	store   *memStore
	cluster desformat.ClusterID
	nodes   []*node
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), net: transporttest.New(), gossip: gossiptest.New(), store: &memStore{objects: map[string][]byte{}}, cluster: desformat.ClusterID{7}}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.stop()
		}
		time.Sleep(time.Minute) // virtual: memberlist's and raft's own goroutines end
	})
	return w
}

// memStore is a Rendezvous that counts.
type memStore struct {
	mu      sync.Mutex // guards what follows
	objects map[string][]byte
	puts    int
	gets    int
	down    bool
}

var errDown = errors.New("the store is away")

func (s *memStore) Publish(_ context.Context, key string, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errDown
	}
	s.puts++
	if s.objects[key] == nil {
		s.objects[key] = bytes.Clone(body)
	}
	return nil
}

func (s *memStore) Fetch(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errDown
	}
	s.gets++
	b, ok := s.objects[key]
	if !ok {
		return nil, ErrNotFound
	}
	return b, nil
}

func (s *memStore) set(change func(*memStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *memStore) counts() (puts, gets int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts, s.gets
}

// node is peers and state machine of one node.
type node struct {
	w       *world
	t       *testing.T
	dir     string
	id      string
	ip      netip.Addr
	joined  bool
	seeds   []string
	noStore bool
	now     func() time.Time // nil: the bubble's
	between func(Meta) Meta  // what stands before the state machine; nil: nothing
	wantEnd error            // of Run
	logs    *logBuffer
	reg     *prometheus.Registry // of this life

	*Peers
	meta *raftmeta.Meta
	halt func()
}

type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

func (w *world) host(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", i/200, 1+i%200))
}

// newNode is a node that is not in the cluster yet.
func (w *world) newNode() *node {
	i := len(w.nodes)
	n := &node{w: w, t: w.t, dir: filepath.Join(w.dir, fmt.Sprint("node", i)), id: uuid.NewString(), ip: w.host(i), logs: &logBuffer{}}
	w.nodes = append(w.nodes, n)
	return n
}

// form starts the first node of the cluster.
func (w *world) form() *node {
	w.t.Helper()
	n := w.newNode()
	if err := Form(n.peersDir(), w.cluster.String(), n.id, n.now); err != nil {
		w.t.Fatal(err)
	}
	n.start()
	w.await("the CA is in the state", func() bool {
		_, _, ok := n.meta.View().Setting(keysSetting)
		return ok
	})
	return n
}

func (n *node) peersDir() string { return filepath.Join(n.dir, "cluster") }

// join lets a new node in by another and starts it.
func (w *world) join(by *node) *node {
	w.t.Helper()
	n := w.newNode()
	token := by.token(1)
	if _, err := n.tryJoin(by, token); err != nil {
		w.t.Fatal(err)
	}
	n.joined = true
	n.start()
	return n
}

func (n *node) token(uses uint16) string {
	n.t.Helper()
	token, err := n.CreateToken(n.t.Context(), time.Hour, uses)
	if err != nil {
		n.t.Fatal(err)
	}
	return token.String()
}

func (n *node) tryJoin(by *node, token string) (*Admitted, error) {
	return Join(n.t.Context(), JoinRequest{
		Dir: n.peersDir(), Addr: by.ClusterAddr(), Token: token, Node: n.id, Network: n.w.net.Host(n.ip), Now: n.now,
	})
}

// cluster starts nodes and waits until they see each other.
func (w *world) clusterOf(count int) []*node {
	w.t.Helper()
	w.form()
	for len(w.nodes) < count {
		w.join(w.nodes[len(w.nodes)-1])
	}
	w.awaitAll(w.nodes...)
	return w.nodes
}

// start runs the node until stop.
func (n *node) start() {
	n.t.Helper()
	n.reg = prometheus.NewRegistry()
	cfg := Config{
		Dir: n.peersDir(), Node: n.id, Bind: n.ip.String() + ":7947", GossipBind: n.ip.String() + ":7946", Seeds: n.seeds,
		HTTP: n.ip.String() + ":8080", Work: []string{"keep"}, Settings: func() ([]byte, error) { return []byte("settings"), nil },
		Network: n.w.net.Host(n.ip), GossipTransport: n.w.gossip.Listen(netip.AddrPortFrom(n.ip, 7946)),
		Logger: slog.New(slog.NewTextHandler(n.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Registerer: n.reg, Now: n.now,
	}
	if !n.noStore {
		cfg.Rendezvous = n.w.store
	}
	var err error
	if n.Peers, err = Open(cfg); err != nil {
		n.t.Fatal(err)
	}
	n.meta, err = raftmeta.Open(n.t.Context(), raftmeta.Config{
		Dir: filepath.Join(n.dir, "raft"), Node: raftmeta.NodeID(n.id), Cluster: n.w.cluster, Join: n.joined,
		Transport: n.RaftTransport(), Peers: n.Peers, Logger: cfg.Logger,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.SetMeta(n.meta)
	if n.between != nil {
		n.SetMeta(n.between(n.meta))
	}
	ctx, cancel := context.WithCancel(context.Background())
	metaCtx, cancelMeta := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := n.Peers.Run(ctx); !errors.Is(err, n.wantEnd) {
			n.t.Errorf("peers of %s: %v", n.id, err)
		}
	})
	metaEnded := make(chan struct{})
	go func() {
		defer close(metaEnded)
		if err := n.meta.Run(metaCtx); err != nil {
			n.t.Errorf("state machine of %s: %v", n.id, err)
		}
	}()
	n.halt = sync.OnceFunc(func() {
		cancelMeta()
		<-metaEnded
		cancel()
		group.Wait()
		if err := errors.Join(n.Peers.Close(), n.meta.Close()); err != nil {
			n.t.Errorf("close %s: %v", n.id, err)
		}
	})
}

func (n *node) stop() {
	if n.halt != nil {
		n.halt()
	}
}

// await waits in virtual time until something holds.
func (w *world) await(what string, holds func() bool) { w.awaitWithin(what, 2*time.Minute, holds) }

func (w *world) awaitWithin(what string, limit time.Duration, holds func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if holds() {
			return
		}
	}
	w.t.Fatalf("after %s: not so: %s", limit, what)
}

// awaitAll waits until all the nodes see each other and have a leader.
func (w *world) awaitAll(nodes ...*node) { w.awaitAllWithin(2*time.Minute, nodes...) }

func (w *world) awaitAllWithin(limit time.Duration, nodes ...*node) {
	w.t.Helper()
	w.awaitWithin(fmt.Sprintf("%d nodes see each other and a leader", len(nodes)), limit, func() bool { return together(nodes...) })
}

func together(nodes ...*node) bool {
	for _, n := range nodes {
		for _, o := range nodes {
			if _, sees := n.View().Member(ring.NodeID(o.id)); !sees {
				return false
			}
		}
		if len(n.View().Members()) != len(nodes) || n.meta.Leader() == "" || n.meta.Leader() != nodes[0].meta.Leader() {
			return false
		}
		ctx, cancel := context.WithTimeout(n.t.Context(), time.Second)
		_, err := n.meta.Confirm(ctx)
		cancel()
		if err != nil {
			return false
		}
	}
	return true
}

// voters waits until Raft has so many.
func (w *world) awaitVoters(want int, nodes ...*node) {
	w.t.Helper()
	w.await(fmt.Sprintf("%d voters", want), func() bool {
		for _, n := range nodes {
			voters := 0
			for _, s := range n.meta.Servers() {
				if s.Voter {
					voters++
				}
			}
			if voters != want {
				return false
			}
		}
		return true
	})
}

// metric returns a counter or gauge of the node, of the first label's value.
func (n *node) metric(name, label string) float64 {
	n.t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	n.t.Fatalf("no metric %s %s", name, label)
	return 0
}

func (w *world) cutOff(n *node) {
	cut := func(a, b netip.Addr) bool { return a == n.ip || b == n.ip }
	w.net.Cut(cut)
	w.gossip.Cut(func(a, b netip.AddrPort) bool { return cut(a.Addr(), b.Addr()) })
}

func (w *world) heal() {
	w.net.Cut(nil)
	w.gossip.Cut(nil)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
