package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// Error codes of QUIC connections and of the byte that greets a Raft
// connection; numbers are on the wire.
const (
	codeDone      = 0
	codeNotMember = 1
	codeNotServed = 2
	codeProtocol  = 3
)

// Error codes of QUIC streams; numbers are on the wire.
const (
	streamCancelled = 0
	streamBadInput  = 1
	streamCut       = 2
)

// Windows. A stream's bytes that its reader has not taken count against the
// connection's window as well, so that window is the sum of all streams': a
// slow reader holds up nobody else. Windows are permissions, not buffers.
const (
	answerWindow  = 512 << 10 // of an answer on its way to the caller
	requestWindow = 512 << 10 // of a request on its way to the server; calls may be long
)

// QUIC connections of unproved addresses that are taken on at once, and each
// second.
const (
	handshakeBurst = 256
	handshakeRate  = 64
)

// wantReceiveBuffer is what quic-go asks for, bytes.
const wantReceiveBuffer = 7 << 20

// Endpoint is one UDP socket with QUIC and one TCP listener at the same port.
// Its methods may be called at once.
type Endpoint struct {
	cfg  Config
	id   *Identity
	log  *slog.Logger
	udp  net.PacketConn
	tcp  net.Listener
	quic *quic.Transport
	raft *RaftLayer

	ready      chan struct{} // closed when calls may be made
	closed     chan struct{} // closed when no more may be made
	m          *metrics
	refusals   *refusals
	stop       sync.Once           // closes closed
	slots      chan struct{}       // one token a read that is answered
	callSlots  chan struct{}       // one token a call that is answered
	callMemory *semaphore.Weighted // bytes of calls' bodies
	joins      chan struct{}       // one token a join that is answered
	bufs       sync.Pool           // *[]byte of a request's or answer's frames

	tasks sync.WaitGroup // everything that Run waits for

	mu      sync.Mutex            // guards what follows
	closing bool                  // no task may start any more
	peers   map[string]*peer      // whom we call, by node
	inbound map[*quic.Conn]string // who calls us; a joiner is ""
}

// New binds the sockets; Run serves them. Close an endpoint that never runs.
func New(cfg Config) (*Endpoint, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	udp, tcp, err := cfg.Network.listen(cfg.Bind)
	if err != nil {
		return nil, err
	}
	reset := quic.StatelessResetKey(cfg.Identity.state.Load().reset)
	free := rate.NewLimiter(handshakeRate, handshakeBurst) // beyond it a newcomer proves its address first
	e := &Endpoint{
		cfg: cfg, id: cfg.Identity, log: cfg.Logger, udp: udp, tcp: tcp,
		quic: &quic.Transport{
			Conn: udp, StatelessResetKey: &reset, ConnectionIDLength: 8,
			VerifySourceAddress: func(net.Addr) bool { return !free.Allow() },
		},
		ready:      make(chan struct{}),
		closed:     make(chan struct{}),
		slots:      make(chan struct{}, cfg.MaxRequests),
		callSlots:  make(chan struct{}, cfg.MaxRequests),
		callMemory: semaphore.NewWeighted(callMemory),
		joins:      make(chan struct{}, maxJoins),
		peers:      map[string]*peer{},
		inbound:    map[*quic.Conn]string{},
	}
	e.bufs.New = func() any { b := make([]byte, 0, 4<<10); return &b }
	e.m = newMetrics(func() float64 { return e.id.Expires().Sub(e.id.now()).Seconds() })
	e.refusals = &refusals{log: e.log, metrics: e.m, now: e.id.now, kinds: map[refusalKind]*refusalLog{}}
	e.raft = newRaftLayer(e)
	if err := e.m.register(cfg.Registerer); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// Addr returns the address of UDP and TCP.
func (e *Endpoint) Addr() string { return e.tcp.Addr().String() }

// Raft returns what Raft's network transport runs on.
func (e *Endpoint) Raft() *RaftLayer { return e.raft }

// Run serves until ctx ends or a socket fails, and returns when everything it
// started has ended. It may be called once.
func (e *Endpoint) Run(ctx context.Context) error {
	select {
	case <-e.closed:
		return ErrClosed
	default:
	}
	ln, err := e.quic.Listen(e.id.planes(e.refusals.tell), e.serverConfig())
	if err != nil {
		return errors.Join(fmt.Errorf("listen for QUIC: %w", err), e.Close())
	}
	e.checkBuffer()
	close(e.ready)
	e.log.Info("transport is up", "addr", e.Addr(), "certificate_expires", e.id.Expires())

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	e.spawn(func() { e.tellStrays(ctx) })
	e.spawn(func() { failed <- e.acceptQUIC(ctx, ln) })
	e.spawn(func() { failed <- e.acceptTCP(ctx) })
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	return errors.Join(err, e.Close())
}

// Close ends all connections and waits for everything that Run started. Run
// calls it; who never calls Run calls it himself. Repeating it is harmless.
func (e *Endpoint) Close() error {
	var err error
	e.stop.Do(func() {
		close(e.closed)
		e.mu.Lock()
		e.closing = true
		conns := make([]*quic.Conn, 0, len(e.inbound)+len(e.peers))
		for c := range e.inbound {
			conns = append(conns, c)
		}
		for _, p := range e.peers {
			conns = append(conns, p.drop(ErrClosed)...)
		}
		e.mu.Unlock()
		for _, c := range conns {
			_ = c.CloseWithError(codeDone, "the node shuts down")
		}
		e.raft.closeAll()
		err = errors.Join(ignoreClosed(e.quic.Close()), ignoreClosed(e.udp.Close()), ignoreClosed(e.tcp.Close()))
		e.tasks.Wait()
	})
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// spawn starts a task that Close waits for; false: the endpoint closes.
func (e *Endpoint) spawn(task func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.tasks.Go(task)
	return true
}

// Recheck closes the connections of nodes that Allowed refuses by now. It is
// called when the members have changed.
func (e *Endpoint) Recheck() {
	var gone []*quic.Conn
	e.mu.Lock()
	for c, node := range e.inbound {
		if node != "" && !e.cfg.Allowed(node) { // a joiner is nobody yet
			gone = append(gone, c)
		}
	}
	for node, p := range e.peers {
		if !e.cfg.Allowed(node) {
			delete(e.peers, node)
			gone = append(gone, p.drop(ErrNotMember)...)
		}
	}
	e.mu.Unlock()
	for _, c := range gone {
		_ = c.CloseWithError(codeNotMember, "removed from the cluster")
	}
	e.raft.recheck()
}

// ReceiveBuffer returns the bytes of the UDP socket's receive buffer and how
// many it should have. got is 0 where the system does not say.
func (e *Endpoint) ReceiveBuffer() (got, want int) {
	got, err := receiveBuffer(e.udp)
	if err != nil {
		return 0, wantReceiveBuffer
	}
	return got, wantReceiveBuffer
}

func (e *Endpoint) checkBuffer() {
	if got, want := e.ReceiveBuffer(); got > 0 && got < want {
		e.log.Warn("the UDP receive buffer is small: bursts from other nodes may be lost and reads through them slow down",
			"bytes", got, "wanted", want, "remedy", "sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000")
	}
}

// serverConfig is for connections that others open.
func (e *Endpoint) serverConfig() *quic.Config {
	c := e.quicConfig()
	streams := 2 * e.cfg.MaxCalls // a cancelled call may linger while the next begins
	c.MaxIncomingStreams = int64(streams)
	c.InitialStreamReceiveWindow, c.MaxStreamReceiveWindow = requestWindow, requestWindow
	c.InitialConnectionReceiveWindow, c.MaxConnectionReceiveWindow = uint64(streams)*requestWindow, uint64(streams)*requestWindow
	return c
}

// clientConfig is for connections that we open.
func (e *Endpoint) clientConfig() *quic.Config {
	c := e.quicConfig()
	c.MaxIncomingStreams = -1
	window := 2 * uint64(e.cfg.MaxCalls) * answerWindow
	c.InitialStreamReceiveWindow, c.MaxStreamReceiveWindow = answerWindow, answerWindow
	c.InitialConnectionReceiveWindow, c.MaxConnectionReceiveWindow = window, window
	return c
}

func (e *Endpoint) quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:  e.cfg.DialTimeout,
		MaxIdleTimeout:        e.cfg.IdleTimeout,
		KeepAlivePeriod:       e.cfg.KeepAlive,
		MaxIncomingUniStreams: -1,
	}
}

// tellStrays tells of packets that are nothing of ours.
func (e *Endpoint) tellStrays(ctx context.Context) {
	var none [1]byte
	for {
		_, from, err := e.quic.ReadNonQUICPacket(ctx, none[:])
		if err != nil {
			return // the endpoint ends
		}
		e.refusals.tell(from, "", errNotQUIC)
	}
}

// acceptQUIC hands each connection to a task of its own.
func (e *Endpoint) acceptQUIC(ctx context.Context, ln *quic.Listener) error {
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-e.closed:
				return nil
			default:
				return fmt.Errorf("accept on QUIC: %w", err)
			}
		}
		if !e.spawn(func() { e.serveConn(ctx, conn) }) {
			_ = conn.CloseWithError(codeDone, "the node shuts down")
		}
	}
}

// serveConn serves one connection until it ends.
func (e *Endpoint) serveConn(ctx context.Context, conn *quic.Conn) {
	state := conn.ConnectionState().TLS
	switch state.NegotiatedProtocol {
	case alpnJoin:
		if e.cfg.Issuer == nil {
			e.refusals.tell(conn.RemoteAddr(), alpnJoin, errNotServed)
			_ = conn.CloseWithError(codeNotServed, "this node admits nobody")
			return
		}
		e.m.join.handshakesIn.Inc()
		e.serveJoins(ctx, conn, &state)
	case alpnRead:
		e.serveNode(ctx, conn, &state, e.cfg.Reader != nil, e.serveRead)
	case alpnCall:
		e.serveNode(ctx, conn, &state, e.cfg.Handler != nil, e.serveCall)
	}
}

// serveNode serves a connection whose certificate was checked, if it is a
// member's and the plane is served.
func (e *Endpoint) serveNode(ctx context.Context, conn *quic.Conn, state *tls.ConnectionState, served bool, serve func(context.Context, *quic.Stream, string)) {
	node, err := nodeOf(state.PeerCertificates[0], e.id.Cluster())
	switch {
	case err != nil:
		_ = conn.CloseWithError(codeProtocol, err.Error())
	case !e.cfg.Allowed(node):
		e.refusals.tell(conn.RemoteAddr(), state.NegotiatedProtocol, fmt.Errorf("node %s: %w", node, ErrNotMember))
		_ = conn.CloseWithError(codeNotMember, "not a member of the cluster")
	case !served:
		e.refusals.tell(conn.RemoteAddr(), state.NegotiatedProtocol, fmt.Errorf("node %s: %w", node, errNotServed))
		_ = conn.CloseWithError(codeNotServed, "this node does not serve that")
	default:
		e.m.of(state.NegotiatedProtocol).handshakesIn.Inc()
		e.serveMember(ctx, conn, node, state.NegotiatedProtocol, serve)
	}
}

// note keeps an inbound connection for Recheck and Close; false: the endpoint
// closes, or the node has been removed meanwhile.
func (e *Endpoint) note(conn *quic.Conn, node string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing || node != "" && !e.cfg.Allowed(node) {
		return false
	}
	e.inbound[conn] = node
	return true
}

func (e *Endpoint) forget(conn *quic.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inbound, conn)
}

// resolveUDP turns host:port into an address.
func resolveUDP(ctx context.Context, addr string) (*net.UDPAddr, error) {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ips[0].Unmap(), uint16(n))), nil
}

// dialQUIC opens a connection, within DialTimeout.
func (e *Endpoint) dialQUIC(ctx context.Context, addr, alpn, node string) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.DialTimeout)
	defer cancel()
	select {
	case <-e.ready:
	case <-e.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: %w: the endpoint does not run yet", addr, ErrClosed)
	}
	to, err := resolveUDP(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w: %w", addr, ErrUnreachable, err)
	}
	conn, err := e.quic.Dial(ctx, to, e.id.dialling(alpn, node), e.clientConfig())
	if err != nil {
		if errors.Is(err, ErrIdentity) {
			e.refusals.tell(to, alpn, err)
		}
		return nil, fmt.Errorf("dial %s: %w", addr, connError(err))
	}
	e.m.of(alpn).handshakesOut.Inc()
	return conn, nil
}

// connError puts our words before an error of a connection.
func connError(err error) error {
	var app *quic.ApplicationError
	var tr *quic.TransportError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrIdentity), errors.Is(err, ErrCAChanged):
		return err
	case errors.Is(err, quic.ErrTransportClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.As(err, &app) && app.Remote && app.ErrorCode == codeNotMember:
		return fmt.Errorf("%w: the peer says: %s", ErrNotMember, app.ErrorMessage)
	case errors.As(err, &app) && app.Remote && app.ErrorCode != codeDone:
		return fmt.Errorf("%w: %s", ErrRefused, app.ErrorMessage)
	case errors.As(err, &tr) && tr.Remote && tr.ErrorCode.IsCryptoError():
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// earlier returns the earlier of two times; a zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
