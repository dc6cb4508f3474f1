// Package transporttest is a network of hosts in memory, for tests of whole
// clusters inside testing/synctest: UDP by quic-go's simulated links, which take
// a millisecond, TCP by pipes. Any two hosts can be cut off from each other.
package transporttest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"github.com/datavision/desnode/transport"
)

// Network joins hosts by their addresses. Its methods may be called at once.
type Network struct {
	router simnet.PerfectRouter

	mu        sync.Mutex // guards what follows
	cut       func(a, b netip.Addr) bool
	listeners map[string]*listener
	conns     map[*conn]struct{}
	ports     uint16
}

// New returns a network without hosts.
func New() *Network {
	return &Network{listeners: map[string]*listener{}, conns: map[*conn]struct{}{}, ports: 40000}
}

// Cut loses all packets between hosts of which f says so and breaks their TCP
// connections; dialling hangs until its context ends. nil heals the network.
func (n *Network) Cut(f func(a, b netip.Addr) bool) {
	n.mu.Lock()
	n.cut = f
	var broken []*conn
	for c := range n.conns {
		if n.apart(c.from, c.to) {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		_ = c.Close()
	}
}

// apart reports whether two hosts are cut off from each other; mu is held.
func (n *Network) apart(a, b netip.Addr) bool { return n.cut != nil && a != b && n.cut(a, b) }

// Host returns the network as the host of that IP sees it.
func (n *Network) Host(ip netip.Addr) *transport.Network {
	return &transport.Network{
		ListenPacket: func(addr string) (net.PacketConn, error) { return n.listenPacket(ip, addr) },
		Listen:       func(addr string) (net.Listener, error) { return n.listen(ip, addr) },
		Dial:         func(ctx context.Context, addr string) (net.Conn, error) { return n.dial(ctx, ip, addr) },
	}
}

// at returns the address of a port of the host; port 0 is any.
func (n *Network) at(ip netip.Addr, addr string) (netip.AddrPort, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if port != "0" {
		return netip.ParseAddrPort(net.JoinHostPort(ip.String(), port))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports++
	return netip.AddrPortFrom(ip, n.ports), nil
}

// SendPacket makes Network a simnet.Router that loses what is cut.
func (n *Network) SendPacket(p simnet.Packet) error {
	from, errFrom := netip.ParseAddrPort(p.From.String())
	to, errTo := netip.ParseAddrPort(p.To.String())
	n.mu.Lock()
	lost := errFrom != nil || errTo != nil || n.apart(from.Addr(), to.Addr())
	n.mu.Unlock()
	if !lost {
		_ = n.router.SendPacket(p) // to nobody: lost, as on a real network
	}
	return nil
}

// AddNode implements simnet.Router.
func (n *Network) AddNode(addr net.Addr, r simnet.PacketReceiver) { n.router.AddNode(addr, r) }

func (n *Network) listenPacket(ip netip.Addr, addr string) (net.PacketConn, error) {
	at, err := n.at(ip, addr)
	if err != nil {
		return nil, err
	}
	udp := net.UDPAddrFromAddrPort(at)
	link := &simnet.SimulatedLink{UploadPacket: n, Latency: time.Millisecond}
	socket := simnet.NewBlockingSimConn(udp, link)
	link.Start()
	n.AddNode(udp, link) // whoever sends to it finds it started
	return &packets{SimConn: socket, link: link}, nil
}

// packets closes its link with it.
type packets struct {
	*simnet.SimConn
	link *simnet.SimulatedLink
	once sync.Once
}

func (p *packets) Close() (err error) {
	p.once.Do(func() { err = errors.Join(p.SimConn.Close(), p.link.Close()) })
	return err
}

// listener is a TCP port.
type listener struct {
	network *Network
	at      netip.AddrPort
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (n *Network) listen(ip netip.Addr, addr string) (net.Listener, error) {
	at, err := n.at(ip, addr)
	if err != nil {
		return nil, err
	}
	l := &listener{network: n, at: at, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[at.String()] != nil {
		return nil, errors.New("address already in use")
	}
	n.listeners[at.String()] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.at.String())
		l.network.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

var errRefused = errors.New("connection refused")

func (n *Network) dial(ctx context.Context, from netip.Addr, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	l, apart := n.listeners[addr], n.apart(from, to.Addr())
	n.mu.Unlock()
	if apart {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if l == nil {
		return nil, errRefused
	}
	near, far := net.Pipe()
	c, f := &conn{Conn: near, network: n, from: from, to: to.Addr()}, &conn{Conn: far, network: n, from: to.Addr(), to: from}
	n.mu.Lock()
	n.conns[c], n.conns[f] = struct{}{}, struct{}{}
	n.mu.Unlock()
	select {
	case l.conns <- f:
		return c, nil
	case <-l.closed:
		err = errRefused
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, c.Close(), f.Close())
}

// conn is one end of a TCP connection.
type conn struct {
	net.Conn
	network  *Network
	from, to netip.Addr
}

func (c *conn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}

func (c *conn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.to, 1))
}
