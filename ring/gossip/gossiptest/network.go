// Package gossiptest is a network of memberlist transports in memory, for tests
// of whole clusters inside testing/synctest: packets arrive at once or not at
// all, streams are pipes, and any two addresses can be cut off from each other.
package gossiptest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network joins transports by their addresses. Its methods may be called at once.
type Network struct {
	mu  sync.Mutex // guards the fields below
	at  map[netip.AddrPort]*Transport
	cut func(a, b netip.AddrPort) bool
}

// New returns a network without transports.
func New() *Network { return &Network{at: map[netip.AddrPort]*Transport{}} }

// Cut loses all packets and streams between addresses of which f says so; nil
// heals the network. Streams that are open stay open.
func (n *Network) Cut(f func(a, b netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = f
}

// Listen returns the transport of addr, in the place of one shut down before.
func (n *Network) Listen(addr netip.AddrPort) *Transport {
	t := &Transport{
		net: n, addr: addr, done: make(chan struct{}),
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[addr] = t
	return t
}

// reach returns who listens at to, nil when nobody does or the way is cut.
func (n *Network) reach(from netip.AddrPort, to string) (t *Transport, cut bool, err error) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, false, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at[addr], n.cut != nil && n.cut(from, addr), nil
}

// Transport is one node's.
type Transport struct {
	net     *Network
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	once    sync.Once
	done    chan struct{} // closed by Shutdown
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// FinalAdvertiseAddr returns the transport's own address.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.addr.Addr().AsSlice(), int(t.addr.Port()), nil
}

// WriteToAddress sends a packet, which is lost when there is no way or no room.
func (t *Transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	now := time.Now()
	peer, cut, err := t.net.reach(t.addr, to.Addr)
	if err != nil || peer == nil || cut {
		return now, err
	}
	select {
	case peer.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.addr), Timestamp: now}:
	default:
	}
	return now, nil
}

// WriteTo is WriteToAddress without a name.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// DialAddressTimeout opens a stream: refused at once where nobody listens, after
// the timeout where the way is cut.
func (t *Transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	peer, cut, err := t.net.reach(t.addr, to.Addr)
	if err != nil {
		return nil, err
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%s: connection refused", to.Addr)}
	if peer == nil && !cut {
		return nil, refused
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	here, there := net.Pipe()
	var accept chan<- net.Conn
	var gone <-chan struct{}
	if !cut {
		accept, gone = peer.streams, peer.done
	}
	select {
	case accept <- there:
		return here, nil
	case <-gone:
		err = refused
	case <-t.done:
		err = net.ErrClosed
	case <-late.C:
		err = &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%s: timeout", to.Addr)}
	}
	return nil, errors.Join(err, here.Close(), there.Close())
}

// DialTimeout is DialAddressTimeout without a name.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// PacketCh carries what others sent.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh carries what others opened.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown takes the transport off the network.
func (t *Transport) Shutdown() error {
	t.once.Do(func() { close(t.done) })
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.net.at[t.addr] == t {
		delete(t.net.at, t.addr)
	}
	return nil
}
