package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

const testCluster = "c1"

// world is a network of hosts in memory, and one cluster's authority. It works
// inside synctest.
type world struct {
	t    testing.TB
	ca   *Authority
	secr Secret
	dir  string

	router simnet.PerfectRouter
	logs   lockedBuffer

	mu      sync.Mutex // guards what follows
	removed map[string]bool
	addrs   map[string]string // of nodes
	deaf    map[string]bool   // IPs whose packets vanish
	tcp     map[string]*memListener
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, ca: ca, secr: NewSecret(), dir: t.TempDir(),
		removed: map[string]bool{}, addrs: map[string]string{}, deaf: map[string]bool{}, tcp: map[string]*memListener{},
	}
}

// SendPacket and AddNode make world a simnet.Router that can lose packets.
func (w *world) SendPacket(p simnet.Packet) error {
	w.mu.Lock()
	lost := w.deaf[ipOf(p.From.String())] || w.deaf[ipOf(p.To.String())]
	w.mu.Unlock()
	if lost {
		return nil
	}
	_ = w.router.SendPacket(p) // to nobody: lost, as on a real network
	return nil
}

func (w *world) AddNode(addr net.Addr, r simnet.PacketReceiver) { w.router.AddNode(addr, r) }

func ipOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// hole makes an IP's packets vanish, or lets them through again.
func (w *world) hole(ip string, deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf[ip] = deaf
}

func (w *world) remove(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[node] = true
}

// host returns the network of one IP: a link of 1 ms with a socket on it.
func (w *world) host(ip string) *Network {
	return &Network{
		ListenPacket: func(addr string) (net.PacketConn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			if port == "0" {
				port = "40000"
			}
			to, err := netip.ParseAddrPort(net.JoinHostPort(ip, port))
			if err != nil {
				return nil, err
			}
			udp := net.UDPAddrFromAddrPort(to)
			link := &simnet.SimulatedLink{UploadPacket: w, Latency: time.Millisecond}
			conn := simnet.NewBlockingSimConn(udp, link)
			w.AddNode(udp, link)
			link.Start()
			return &simSocket{SimConn: conn, link: link}, nil
		},
		Listen: func(addr string) (net.Listener, error) { return w.listen(addr) },
		Dial:   w.dial,
	}
}

// simSocket closes its link with it.
type simSocket struct {
	*simnet.SimConn
	link *simnet.SimulatedLink
	once sync.Once
}

func (s *simSocket) Close() (err error) {
	s.once.Do(func() { err = errors.Join(s.SimConn.Close(), s.link.Close()) })
	return err
}

// memListener is a TCP port in memory.
type memListener struct {
	w      *world
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type memAddr string

func (memAddr) Network() string  { return "tcp" }
func (a memAddr) String() string { return string(a) }

func (w *world) listen(addr string) (net.Listener, error) {
	l := &memListener{w: w, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tcp[addr] = l
	return l, nil
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
func (l *memListener) Addr() net.Addr { return memAddr(l.addr) }

func (w *world) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	l, deaf := w.tcp[addr], w.deaf[ipOf(addr)]
	w.mu.Unlock()
	if l == nil && !deaf {
		return nil, errors.New("connection refused")
	}
	if deaf {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// node is an endpoint that runs.
type node struct {
	*Endpoint
	ident *Identity
	name  string
	ip    string
	halt  func()
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name+".pem") }

// identity makes a node of the world's cluster.
func (w *world) identity(name string) *Identity {
	w.t.Helper()
	id, err := FormIdentity(w.path(name), w.ca, name, w.secr, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// start runs a node at 1.0.0.<n>.
func (w *world) start(name string, n int, change func(c *Config)) *node {
	w.t.Helper()
	return w.run(w.identity(name), n, change)
}

func (w *world) run(id *Identity, n int, change func(c *Config)) *node {
	w.t.Helper()
	ip := fmt.Sprintf("1.0.0.%d", n)
	name := id.Node()
	cfg := Config{
		Identity: id, Bind: ip + ":7947", Network: w.host(ip),
		Allowed: func(node string) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return !w.removed[node]
		},
		Resolve: func(node string) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			a, ok := w.addrs[node]
			return a, ok
		},
		Logger: slog.New(slog.NewTextHandler(&w.logs, nil)),
		Reader: &fakeReader{},
	}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.addrs[name] = cfg.Bind
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	halt := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("node %s: %v", name, err)
		}
	})
	w.t.Cleanup(halt)
	return &node{Endpoint: e, ident: id, name: name, ip: ip, halt: halt}
}

// fakeReader answers by the request's name.
type fakeReader struct {
	serve func(ctx context.Context, from string, q *Request) (*Reply, error)

	mu   sync.Mutex // guards seen
	seen []*Request
}

func (f *fakeReader) ServeRead(ctx context.Context, from string, q *Request) (*Reply, error) {
	f.mu.Lock()
	f.seen = append(f.seen, q)
	f.mu.Unlock()
	if _, ok := ctx.Deadline(); !ok || q.Hops != 1 {
		return nil, fmt.Errorf("a request without deadline, or with %d hops", q.Hops)
	}
	if f.serve != nil {
		return f.serve(ctx, from, q)
	}
	return &Reply{Response: Response{Name: q.Name, Size: int64(len(q.Name)), Applied: 7, Origin: OriginPack}, Data: []byte(q.Name)}, nil
}

// slowBody gives bytes as they are asked for, and counts that it was closed.
type slowBody struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func (b *slowBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// pattern returns n bytes that repeat nothing.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
