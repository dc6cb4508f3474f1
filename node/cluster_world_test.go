package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring/gossip/gossiptest"
	"github.com/datavision/desnode/transport/transporttest"
)

// world is a cluster inside a synctest bubble: whole nodes on networks in
// memory, over one folder store and one embedded source on the disk. What the
// disk does takes no time.
type world struct {
	t       *testing.T
	cluster *transporttest.Network
	gossip  *gossiptest.Network
	dir     string
	docs    string
	config  func(*config.Config) // changes every node's configuration; may be nil
	hosts   byte                 // how many there are
	members []*member
	mu      sync.Mutex        // guards content
	content map[string]string // of the files written, by name
}

// member is a node of a world, over all its starts.
type member struct {
	*Node // of the last start

	w     *world
	cfg   config.Config
	ip    netip.Addr
	end   context.CancelFunc
	ended chan error // holds Run's error once it has returned
	open  bool       // Close was not called yet
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := &world{
			t: t, cluster: transporttest.New(), gossip: gossiptest.New(), dir: dir,
			docs: filepath.Join(dir, "docs"), content: map[string]string{},
		}
		// Virtual time ends with the test, and memberlist's last probes need some.
		t.Cleanup(func() { w.pass(time.Minute) })
		test(t, w)
	})
}

// pass lets virtual time go by.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// within waits in virtual time until check finds nothing to say.
func (w *world) within(limit time.Duration, what string, check func() error) {
	w.t.Helper()
	begun := time.Now()
	for {
		err := check()
		if err == nil {
			w.t.Logf("%s: after %v", what, time.Since(begun))
			return
		}
		if time.Since(begun) > limit {
			w.t.Fatalf("not %s within %v: %v", what, limit, err)
		}
		w.pass(100 * time.Millisecond)
	}
}

// newMember is a node that has not been started, on a host and a data dir of
// its own.
func (w *world) newMember() *member {
	m := &member{w: w}
	m.cfg = config.Default(filepath.Join(w.dir, fmt.Sprintf("data-%d", len(w.members)+1)))
	m.cfg.Store.URL = (&url.URL{Scheme: "file", Path: filepath.Join(w.dir, "store")}).String()
	files := m.cfg.Sources["files"]
	files.URL = (&url.URL{Scheme: "sqlite", Path: filepath.Join(w.dir, "files.db")}).String()
	m.cfg.Sources = map[string]config.Source{"files": files}
	if w.config != nil {
		w.config(&m.cfg)
	}
	w.members = append(w.members, m)
	m.move()
	return m
}

// move gives the node another address, for its next start.
func (m *member) move() {
	m.w.hosts++
	m.ip = netip.AddrFrom4([4]byte{10, 0, 0, m.w.hosts})
	m.cfg.HTTP, m.cfg.Cluster, m.cfg.Gossip = m.ip.String()+":8080", m.ip.String()+":7947", m.ip.String()+":7946"
}

// form starts a node that forms a cluster of one.
func (w *world) form() *member {
	w.t.Helper()
	m := w.newMember()
	m.start()
	return m
}

// formThree starts three nodes and waits until all of them are voters.
func (w *world) formThree() (a, b, c *member) {
	w.t.Helper()
	a = w.form()
	b = w.join(a)
	c = w.join(b)
	w.settled(3, a, b, c)
	return a, b, c
}

// token makes a join token for one node.
func (m *member) token() string {
	m.w.t.Helper()
	created, err := m.CreateToken(m.w.t.Context(), api.TokenRequest{TTLSeconds: 3600, Uses: 1})
	if err != nil {
		m.w.t.Fatal(err)
	}
	return created.Token
}

// join lets a new node into the cluster and starts it.
func (w *world) join(via *member, change ...func(*config.Config)) *member {
	w.t.Helper()
	m := w.newMember()
	for _, f := range change {
		f(&m.cfg)
	}
	if err := m.enter(via, via.token()); err != nil {
		w.t.Fatal(err)
	}
	m.start()
	return m
}

// enter makes the node a member, as `desnode join` does.
func (m *member) enter(via *member, token string) error {
	return Join(m.w.t.Context(), m.cfg, JoinRequest{
		Addr: via.peers.ClusterAddr(), Token: token, Network: m.w.cluster.Host(m.ip),
	}, m.w.logger(m))
}

func (w *world) logger(m *member) *slog.Logger {
	return slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("ip", m.ip)
}

// New opens the node at its address.
func (m *member) openNode() (*Node, error) {
	return New(m.w.t.Context(), m.cfg, m.w.logger(m), WithNetworks(Networks{
		HTTP:    newPort(netip.AddrPortFrom(m.ip, 8080)),
		Cluster: m.w.cluster.Host(m.ip),
		Gossip:  m.w.gossip.Listen(netip.AddrPortFrom(m.ip, 7946)),
	}))
}

// begin runs the node and does not wait until it is ready.
func (m *member) begin() {
	m.w.t.Helper()
	n, err := m.openNode()
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.Node, m.open = n, true
	ctx, cancel := context.WithCancel(context.Background())
	m.end, m.ended = cancel, make(chan error, 1)
	go func() { m.ended <- n.Run(ctx) }()
	m.w.t.Cleanup(m.stop)
}

// start runs the node until stop.
func (m *member) start() {
	m.w.t.Helper()
	m.begin()
	m.awaitReady()
}

func (m *member) awaitReady() {
	m.w.t.Helper()
	select {
	case <-m.Ready():
	case err := <-m.ended:
		m.ended <- err
		m.w.t.Fatalf("%s ended before it was ready: %v", m.ip, err)
	case <-time.After(time.Minute):
		m.w.t.Fatalf("%s is not ready after a minute", m.ip)
	}
}

// stop ends the node and waits for it; on one that has ended it only lets go.
func (m *member) stop() {
	if !m.open {
		return
	}
	m.end()
	if err := m.closed(); err != nil {
		m.w.t.Errorf("%s: %v", m.ip, err)
	}
}

// closed waits for the end of Run and closes the node.
func (m *member) closed() error {
	m.open = false
	return errors.Join(<-m.ended, m.Close())
}

// hasEnded reports whether Run has returned.
func (m *member) hasEnded() bool { return len(m.ended) > 0 }

// agree says how the nodes are not yet one cluster of exactly these members,
// with that many voters.
func agree(voters int, members []*member) error {
	want := map[raftmeta.NodeID]bool{}
	for _, m := range members {
		want[m.id.Node] = true
	}
	digest := members[0].peers.View().Ring.Digest()
	for _, m := range members {
		if got := len(m.peers.View().Members()); got != len(members) {
			return fmt.Errorf("%s sees %d nodes by gossip", m.ip, got)
		}
		known := m.meta.View().Members()
		if len(known) != len(members) || slices.ContainsFunc(known, func(k raftmeta.Member) bool { return !want[k.ID] }) {
			return fmt.Errorf("%s has members %v", m.ip, known)
		}
		if got := m.voters(); got != voters {
			return fmt.Errorf("%s knows %d voters", m.ip, got)
		}
		if m.peers.View().Ring.Digest() != digest {
			return fmt.Errorf("the ring of %s is another", m.ip)
		}
	}
	return nil
}

// settled waits until the nodes are one cluster.
func (w *world) settled(voters int, members ...*member) {
	w.t.Helper()
	w.within(2*time.Minute, fmt.Sprintf("%d members with %d voters", len(members), voters), func() error { return agree(voters, members) })
}

// leader returns the one that leads, once there is one that all agree on.
func (w *world) leader(members ...*member) (leader *member, others []*member) {
	w.t.Helper()
	w.within(time.Minute, "a leader", func() error {
		leader, others = nil, nil
		for _, m := range members {
			if m.meta.Leader() == m.id.Node {
				leader = m
			} else {
				others = append(others, m)
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		for _, m := range others {
			if m.meta.Leader() != leader.id.Node {
				return fmt.Errorf("%s follows %q", m.ip, m.meta.Leader())
			}
		}
		return nil
	})
	return leader, others
}

// cutOff loses everything between these nodes and all others; none heals the
// network.
func (w *world) cutOff(members ...*member) {
	apart := map[netip.Addr]bool{}
	for _, m := range members {
		apart[m.ip] = true
	}
	w.cluster.Cut(func(a, b netip.Addr) bool { return apart[a] != apart[b] })
	w.gossip.Cut(func(a, b netip.AddrPort) bool { return apart[a.Addr()] != apart[b.Addr()] })
}

// write makes n files, of which the first is number first, below the folder docs.
func (w *world) write(first, n int) {
	w.t.Helper()
	for i := first; i < first+n; i++ {
		name := fmt.Sprintf("f%04d", i)
		writeFile(w.t, filepath.Join(w.docs, name), w.wrote(name, fmt.Sprintf("content of file %d", i)))
	}
}

// wrote notes what a file holds and returns it.
func (w *world) wrote(name, content string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.content[name] = content
	return content
}

// holds returns what a file was written with.
func (w *world) holds(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.content[name]
}

// names returns the files written, sorted.
func (w *world) names() []string { return slices.Sorted(maps.Keys(w.content)) }

// imports registers what was written.
func (m *member) imports() {
	m.w.t.Helper()
	m.testImport(m.w.t, api.ImportRequest{Dir: m.w.docs})
}

// archives has everything eligible archived, files rows in all, and fails the
// test when that is not done within the time limit.
func (m *member) archives(files int64) {
	m.w.t.Helper()
	ctx, cancel := context.WithTimeout(m.w.t.Context(), archiveLimit)
	defer cancel()
	var last api.ArchiveEvent
	err := m.Archive(ctx, api.ArchiveRequest{}, func(e api.ArchiveEvent) error {
		last = e
		return nil
	})
	if err != nil || last.Packed != files || last.Failed != 0 {
		m.w.t.Fatalf("archived at %s, want %d files: %+v, %v; leases %+v; %v, %v, %v",
			m.ip, files, last, err, m.meta.View().Leases(), m.marker.Problem(), m.packer.Problem(), m.keeper.Problem())
	}
}

// archiveLimit is long enough for the leases of a node that is gone to expire.
const archiveLimit = 2 * time.Minute

// request asks the node's HTTP face, without a network.
func (n *Node) request(ctx context.Context, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	n.api.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
	return w
}

// request is that of the member's node.
func (m *member) request(path string) *httptest.ResponseRecorder {
	return m.Node.request(m.w.t.Context(), path)
}

// read reads a file by name.
func (m *member) read(name string) *httptest.ResponseRecorder {
	return m.request("/files/" + url.PathEscape(name))
}

// serves says how the node does not answer these files, or all, as they were
// written, from a pack or, when that does not matter, from anywhere.
func (m *member) serves(fromPack bool, names ...string) error {
	if len(names) == 0 {
		names = m.w.names()
	}
	for _, name := range names {
		got := m.read(name)
		if got.Code != http.StatusOK || got.Body.String() != m.w.holds(name) {
			return fmt.Errorf("%s answers %s: %d %q", m.ip, name, got.Code, got.Body)
		}
		if fromPack && got.Header().Get("X-Des-Pack") == "" {
			return fmt.Errorf("%s answers %s from no pack", m.ip, name)
		}
	}
	return nil
}

// mustServe is serves for all of them, now.
func (w *world) mustServe(members ...*member) {
	w.t.Helper()
	for _, m := range members {
		if err := m.serves(true); err != nil {
			w.t.Fatal(err)
		}
	}
}

// route returns how many reads took that route.
func (n *Node) route(t *testing.T, route string) float64 {
	t.Helper()
	return n.metric(t, fmt.Sprintf("des_router_routes_total{route=%q}", route))
}

// metric returns one line of the node's metrics, by all its text before the
// value.
func (n *Node) metric(t *testing.T, line string) (value float64) {
	t.Helper()
	for l := range strings.Lines(n.request(t.Context(), "/metrics").Body.String()) {
		if text, ok := strings.CutPrefix(l, line+" "); ok {
			if _, err := fmt.Sscan(text, &value); err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("no metric %s", line)
	return 0
}

// packed waits until every file is in exactly one pack, alive, and each pack
// acknowledged.
func (w *world) packed(m *member) {
	w.t.Helper()
	w.within(10*time.Second, "all files in packs", func() error {
		records := 0
		for p := range m.meta.View().Packs() {
			if !p.Acknowledged {
				return fmt.Errorf("pack %s is not acknowledged", p.ID)
			}
			records += int(p.Records) - len(p.Dead)
		}
		if records != len(w.content) {
			return fmt.Errorf("the packs hold %d live records of %d files", records, len(w.content))
		}
		return nil
	})
}

// port is an HTTP port that nobody calls.
type port struct {
	at     netip.AddrPort
	closed chan struct{}
	once   sync.Once
}

func newPort(at netip.AddrPort) *port { return &port{at: at, closed: make(chan struct{})} }

func (p *port) Accept() (net.Conn, error) {
	<-p.closed
	return nil, net.ErrClosed
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) Addr() net.Addr { return net.TCPAddrFromAddrPort(p.at) }

// settledView waits until gossip shows these nodes exactly that many.
func (w *world) settledView(alive int, members ...*member) {
	w.t.Helper()
	w.within(time.Minute, fmt.Sprintf("%d nodes in sight", alive), func() error {
		for _, m := range members {
			if got := len(m.peers.View().Members()); got != alive {
				return fmt.Errorf("%s sees %d nodes", m.ip, got)
			}
		}
		return nil
	})
}

// writeSized makes n files of that many bytes each.
func (w *world) writeSized(n, bytes int) {
	w.t.Helper()
	for i := range n {
		name := fmt.Sprintf("f%04d", i)
		writeFile(w.t, filepath.Join(w.docs, name), w.wrote(name, strings.Repeat(fmt.Sprintf("%07d\n", i), bytes/8)))
	}
}

// holdMarking takes the lease to mark until release.
func (m *member) holdMarking() (release func()) {
	m.w.t.Helper()
	held, done, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		job := raftmeta.Job{Kind: raftmeta.JobMark, Source: "files"}
		ended <- m.meta.WithLease(context.Background(), job, func(context.Context, raftmeta.Lease) error {
			close(held)
			<-done
			return nil
		})
	}()
	select {
	case <-held:
	case err := <-ended:
		m.w.t.Fatal(err)
	}
	return func() {
		close(done)
		if err := <-ended; err != nil {
			m.w.t.Error(err)
		}
	}
}

// observeLeases counts the leases in the node's view by their holders, until
// the returned function is called.
func (m *member) observeLeases(count map[raftmeta.NodeID]int) (end func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			changed := m.meta.Changed()
			for _, l := range m.meta.View().Leases() {
				count[l.Holder]++
			}
			select {
			case <-changed:
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
