package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxHandshakes bounds the TLS handshakes under way on TCP, and those of one
	// host.
	maxHandshakes     = 64
	maxHandshakesHost = 32
	// acceptPatience is how long a welcomed connection waits for Raft to take it.
	acceptPatience = 5 * time.Second
)

// RaftLayer is what Raft's network transport runs on: mutual TLS on TCP, at the
// endpoint's port. It is a net.Listener whose address is the node's id, and it
// dials nodes by id, so Raft's configuration holds ids and outlives addresses.
// Its methods may be called at once.
type RaftLayer struct {
	e      *Endpoint
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once // closes closed

	mu    sync.Mutex // guards conns
	conns map[*raftConn]struct{}
}

func newRaftLayer(e *Endpoint) *RaftLayer {
	return &RaftLayer{e: e, accept: make(chan net.Conn), closed: make(chan struct{}), conns: map[*raftConn]struct{}{}}
}

// nodeAddr is a node as a net.Addr.
type nodeAddr string

func (nodeAddr) Network() string  { return "desnode" }
func (a nodeAddr) String() string { return string(a) }

// Addr returns the node's id as an address.
func (l *RaftLayer) Addr() net.Addr { return nodeAddr(l.e.id.Node()) }

// Accept waits for the next connection of a member. After Close, or that of the
// endpoint, it is net.ErrClosed.
func (l *RaftLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
	case <-l.e.closed:
	}
	return nil, fmt.Errorf("accept for raft: %w", net.ErrClosed)
}

// Close ends Accept and all connections of the layer; the endpoint goes on.
func (l *RaftLayer) Close() error {
	l.closeAll()
	return nil
}

func (l *RaftLayer) closeAll() {
	l.once.Do(func() { close(l.closed) })
	l.closeIf(func(string) bool { return true })
}

// recheck closes the connections of nodes that are members no more.
func (l *RaftLayer) recheck() {
	l.closeIf(func(node string) bool { return !l.e.cfg.Allowed(node) })
}

func (l *RaftLayer) closeIf(cond func(node string) bool) {
	var gone []*raftConn
	l.mu.Lock()
	for c := range l.conns {
		if cond(c.node) {
			gone = append(gone, c)
		}
	}
	l.mu.Unlock()
	for _, c := range gone {
		_ = c.raw.Close() // at once: the TLS layer would wait to say goodbye
		_ = c.Close()
	}
}

// Dial connects to a node within the time-out, which is DialTimeout when it is
// 0. Errors: ErrNotMember, ErrIdentity, ErrRefused, ErrUnreachable, ErrClosed.
func (l *RaftLayer) Dial(node string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), or(timeout, l.e.cfg.DialTimeout))
	defer cancel()
	return l.DialContext(ctx, node)
}

// DialContext is Dial until ctx ends, DialTimeout at most.
func (l *RaftLayer) DialContext(ctx context.Context, node string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.e.cfg.DialTimeout)
	defer cancel()
	c, err := l.dial(ctx, node)
	if err != nil {
		return nil, fmt.Errorf("dial node %s for raft: %w", node, err)
	}
	return c, nil
}

func (l *RaftLayer) dial(ctx context.Context, node string) (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, ErrClosed
	default:
	}
	if !l.e.cfg.Allowed(node) {
		return nil, ErrNotMember
	}
	addr, ok := l.e.cfg.Resolve(node)
	if !ok {
		return nil, fmt.Errorf("%w: its address is not known", ErrUnreachable)
	}
	raw, err := l.e.cfg.Network.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	conn := tls.Client(raw, l.e.id.dialling(alpnRaft, node))
	c, err := l.welcomed(ctx, conn, node)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// welcomed shakes hands and reads the greeting: in TLS 1.3 a client is done
// before the server has looked at its certificate.
func (l *RaftLayer) welcomed(ctx context.Context, conn *tls.Conn, node string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		if errors.Is(err, ErrIdentity) {
			l.e.refusals.tell(conn.RemoteAddr(), alpnRaft, err)
			return nil, err
		}
		return nil, refusedOr(err)
	}
	var greeting [1]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return nil, refusedOr(err)
	}
	switch greeting[0] {
	case codeDone:
	case codeNotMember:
		return nil, fmt.Errorf("%w: the peer says so", ErrNotMember)
	default:
		return nil, fmt.Errorf("%w: code %d", ErrRefused, greeting[0])
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	l.e.m.raft.handshakesOut.Inc()
	return l.keep(conn, node)
}

// refusedOr tells a TLS alert of the peer from a connection that broke.
func refusedOr(err error) error {
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// keep takes a connection into the books.
func (l *RaftLayer) keep(conn *tls.Conn, node string) (*raftConn, error) {
	c := &raftConn{Conn: conn, raw: conn.NetConn(), l: l, node: node}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	// Asked again now that recheck and closeAll see the connection.
	select {
	case <-l.closed:
		return nil, errors.Join(ErrClosed, c.Close())
	default:
	}
	if !l.e.cfg.Allowed(node) {
		return nil, errors.Join(ErrNotMember, c.Close())
	}
	return c, nil
}

// raftConn is a connection with its peer's node id.
type raftConn struct {
	net.Conn
	raw  net.Conn
	l    *RaftLayer
	node string
}

func (c *raftConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.e.m.raft.bytesIn.Add(float64(n))
	return n, err
}

func (c *raftConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.l.e.m.raft.bytesOut.Add(float64(n))
	return n, err
}

func (c *raftConn) RemoteAddr() net.Addr { return nodeAddr(c.node) }

func (c *raftConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// handshakes counts those under way on TCP, in all and by host, so that one host
// that says nothing does not keep all others out.
type handshakes struct {
	mu     sync.Mutex // guards what follows
	all    int
	byHost map[string]int
}

// begin takes a place; false: there is none.
func (h *handshakes) begin(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxHandshakes || h.byHost[host] >= maxHandshakesHost {
		return false
	}
	h.all++
	h.byHost[host]++
	return true
}

// end gives a place back.
func (h *handshakes) end(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.byHost[host]--; h.byHost[host] == 0 {
		delete(h.byHost, host)
	}
}

// acceptTCP hands each connection to a task of its own, so that a peer that
// says nothing holds up nobody.
func (e *Endpoint) acceptTCP(ctx context.Context) error {
	shaking := &handshakes{byHost: map[string]int{}}
	for {
		raw, err := e.tcp.Accept()
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-e.closed:
				return nil
			default:
				return fmt.Errorf("accept on TCP: %w", err)
			}
		}
		host, _, err := net.SplitHostPort(raw.RemoteAddr().String())
		if err != nil {
			host = raw.RemoteAddr().String()
		}
		if !shaking.begin(host) {
			e.refusals.tell(raw.RemoteAddr(), alpnRaft, fmt.Errorf("%w: too many handshakes at once", ErrBusy))
			_ = raw.Close() // the peer tries again
			continue
		}
		if !e.spawn(func() { e.raft.welcome(ctx, raw, func() { shaking.end(host) }) }) {
			_ = raw.Close()
		}
	}
}

// welcome shakes hands with a node that dialled, tells that the handshake is
// over, and hands the connection to Accept.
func (l *RaftLayer) welcome(ctx context.Context, raw net.Conn, over func()) {
	ctx, cancel := context.WithTimeout(ctx, l.e.cfg.DialTimeout)
	defer cancel()
	conn := tls.Server(raw, l.e.id.accepting(alpnRaft, raw.RemoteAddr(), l.e.refusals.tell))
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline) // a connection that takes none fails below
	c, err := l.greet(ctx, conn)
	over()
	if err != nil {
		if !errors.Is(err, ErrIdentity) && !errors.Is(err, ErrNotMember) { // those were told
			l.e.refusals.tell(raw.RemoteAddr(), alpnRaft, err)
		}
		_ = raw.Close()
		return
	}
	_ = raw.SetDeadline(time.Time{})
	patience := time.NewTimer(acceptPatience)
	defer patience.Stop()
	select {
	case l.accept <- c:
	case <-patience.C:
		l.e.log.Warn("a raft connection was dropped: nobody accepts it", "node", c.node)
		_ = c.Close()
	case <-l.closed:
		_ = c.Close()
	case <-l.e.closed:
		_ = c.Close()
	}
}

func (l *RaftLayer) greet(ctx context.Context, conn *tls.Conn) (*raftConn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	state := conn.ConnectionState()
	node, err := nodeOf(state.PeerCertificates[0], l.e.id.Cluster())
	if err != nil {
		return nil, err
	}
	if state.NegotiatedProtocol != alpnRaft {
		_, err := conn.Write([]byte{codeProtocol})
		return nil, errors.Join(fmt.Errorf("%w: it named no plane", ErrVersion), err)
	}
	if !l.e.cfg.Allowed(node) {
		l.e.refusals.tell(conn.RemoteAddr(), alpnRaft, fmt.Errorf("node %s: %w", node, ErrNotMember))
		_, err := conn.Write([]byte{codeNotMember})
		return nil, errors.Join(ErrNotMember, err, conn.Close())
	}
	if _, err := conn.Write([]byte{codeDone}); err != nil {
		return nil, err
	}
	l.e.m.raft.handshakesIn.Inc()
	return l.keep(conn, node)
}
