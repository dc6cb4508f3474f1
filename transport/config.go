package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says who an endpoint is and whom it serves. Identity, Allowed and
// Resolve are needed; the zero value of everything else is the default beside it.
type Config struct {
	Identity *Identity
	Bind     string // host:port of UDP and TCP; default 127.0.0.1:7947. Port 0: any that both have free

	// Allowed reports whether the node is a member. It is asked at every dial,
	// every accepted connection and every request, and must not block. A node
	// that does not know its members yet answers true: the certificate has shown
	// by then that the peer was a member once.
	Allowed func(node string) bool
	// Resolve returns the host:port at which a node listens. It is asked at
	// every dial and must not block.
	Resolve func(node string) (addr string, ok bool)

	Reader     Reader                // nil: no read plane
	Handler    Handler               // nil: no call plane
	Issuer     Issuer                // nil: no join plane
	Network    *Network              // nil: the machine's
	Logger     *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // of the figures des_transport_*; nil: not registered

	DialTimeout  time.Duration // of one connection, handshake included; default 2 s
	CallTimeout  time.Duration // until the head of a read's answer, where the context allows more, and of calls without a deadline; default 5 s
	StallTimeout time.Duration // without a byte moving; default 5 s
	KeepAlive    time.Duration // default 1.5 s
	IdleTimeout  time.Duration // a peer not heard of for so long is gone; default 6 s

	MaxCalls    int // reads, and as many calls, under way to one peer; further ones wait. Default 128
	MaxRequests int // reads, and as many calls, answered at once; further ones are busy. Default 1024
	Payload     int // longest payload Read takes, bytes; default 16 MiB

	BreakerFailures int           // failures in a row after which a peer is not read from; default 3
	BreakerDelay    time.Duration // for so long; default 1 s
}

// Network makes sockets. The zero value of a field is the machine's own way;
// tests put simulated networks here.
type Network struct {
	ListenPacket func(addr string) (net.PacketConn, error)
	Listen       func(addr string) (net.Listener, error)
	Dial         func(ctx context.Context, addr string) (net.Conn, error)
}

// withDefaults returns the Config with every default filled in.
func (c Config) withDefaults() Config {
	c.Bind = or(c.Bind, "127.0.0.1:7947")
	c.DialTimeout = or(c.DialTimeout, 2*time.Second)
	c.CallTimeout = or(c.CallTimeout, 5*time.Second)
	c.StallTimeout = or(c.StallTimeout, 5*time.Second)
	c.KeepAlive = or(c.KeepAlive, 1500*time.Millisecond)
	c.IdleTimeout = or(c.IdleTimeout, 6*time.Second)
	c.MaxCalls = or(c.MaxCalls, 128)
	c.MaxRequests = or(c.MaxRequests, 1024)
	c.Payload = or(c.Payload, 16<<20)
	c.BreakerFailures = or(c.BreakerFailures, 3)
	c.BreakerDelay = or(c.BreakerDelay, time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Network = c.Network.orSystem()
	return c
}

func (c Config) validate() error {
	var errs []error
	fail := func(cond bool, text string) {
		if cond {
			errs = append(errs, errors.New(text))
		}
	}
	fail(c.Identity == nil, "Identity is nil")
	fail(c.Allowed == nil, "Allowed is nil")
	fail(c.Resolve == nil, "Resolve is nil")
	fail(c.DialTimeout < 0 || c.CallTimeout < 0 || c.StallTimeout < 0 || c.KeepAlive < 0 || c.IdleTimeout < 0 || c.BreakerDelay < 0, "a time is negative")
	fail(c.MaxCalls < 0 || c.MaxCalls > 1024, "MaxCalls is not 1 to 1024")
	fail(c.MaxRequests < 0 || c.Payload < 0 || c.BreakerFailures < 0, "a number is negative")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("transport config: %w: %w", ErrInvalid, err)
	}
	return nil
}

// or returns v, or the default for its zero value.
func or[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}

// orSystem fills in the machine's own network.
func (n *Network) orSystem() *Network {
	var all Network
	if n != nil {
		all = *n
	}
	if all.ListenPacket == nil {
		all.ListenPacket = func(addr string) (net.PacketConn, error) { return net.ListenPacket("udp", addr) }
	}
	if all.Listen == nil {
		all.Listen = func(addr string) (net.Listener, error) {
			lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
			return lc.Listen(context.Background(), "tcp", addr)
		}
	}
	if all.Dial == nil {
		all.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{KeepAliveConfig: keepAlive()}
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	return &all
}

// keepAlive finds a dead host behind an idle Raft connection in 8 s.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 3}
}

// listen binds UDP and TCP to one address, to one port when it is free to
// choose.
func (n *Network) listen(addr string) (net.PacketConn, net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %q: %w", addr, err)
	}
	const tries = 10 // at a free port of TCP, that of UDP is hardly ever taken
	for try := 1; ; try++ {
		l, err := n.Listen(addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen for raft: %w", err)
		}
		_, chosen, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		pc, err := n.ListenPacket(net.JoinHostPort(host, chosen))
		if err == nil {
			return pc, l, nil
		}
		err = errors.Join(fmt.Errorf("listen for QUIC: %w", err), l.Close())
		if port != "0" || try == tries {
			return nil, nil, err
		}
	}
}
