package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// dialer is a transport that opens streams its own way.
type dialer struct {
	Transport
	open func(to memberlist.Address, timeout time.Duration) (net.Conn, error)
}

// DialAddressTimeout opens a stream.
func (d dialer) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return d.open(to, timeout)
}

// DialTimeout opens a stream.
func (d dialer) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return d.open(memberlist.Address{Addr: addr}, timeout)
}

// bounded returns t with streams that end with ctx, and after their time limit
// whatever they do: memberlist sets none while it sends.
func bounded(ctx context.Context, t Transport) Transport {
	return dialer{t, func(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		conn, err := dial(ctx, t, to, timeout)
		if err != nil {
			return nil, err
		}
		if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		return stream{conn, stop}, nil
	}}
}

// dial lets the end of ctx end dialling too, which NetTransport would not.
func dial(ctx context.Context, t Transport, to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if _, ok := t.(*memberlist.NetTransport); !ok {
		return t.DialAddressTimeout(to, timeout)
	}
	d := net.Dialer{Timeout: timeout}
	return d.DialContext(ctx, "tcp", to.Addr)
}

// stream is a connection that lets go of its context when it is closed.
type stream struct {
	net.Conn
	stop func() bool
}

// Close closes the connection.
func (s stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

// Listen opens the sockets at an ip:port for Config.Transport, so that a port
// that is taken, or the one that port 0 became, is known before Run. Run closes
// them; who never calls Run calls Shutdown.
func Listen(bind string, log *slog.Logger) (Transport, error) {
	return listen(bind, slog.NewLogLogger(log.Handler(), slog.LevelInfo))
}

// listen opens the sockets at an ip:port. The kernel chooses a free port for TCP
// alone, so the same one may be taken for UDP: then it chooses again.
func listen(bind string, logger *log.Logger) (Transport, error) {
	at, err := netip.ParseAddrPort(bind)
	if err != nil {
		return nil, fmt.Errorf("bind gossip to %q: %w", bind, err)
	}
	tries := 1
	if at.Port() == 0 {
		tries = 10
	}
	for range tries {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{at.Addr().String()},
			BindPort:  int(at.Port()),
			Logger:    logger,
		})
		if err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("bind gossip to %s: %w", bind, cmp.Or(bindError(at), err))
}

// bindError returns why an address could not be bound, as the system's error:
// memberlist gives its text alone. nil: it can be bound by now.
func bindError(at netip.AddrPort) error {
	stream, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	packets, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	return errors.Join(packets.Close(), stream.Close())
}

// advertised returns the address that others are told, as memberlist wants it:
// nothing for what the transport is bound to.
func advertised(ctx context.Context, advertise string, bound uint16) (ip string, port int, err error) {
	if advertise == "" {
		return "", 0, nil
	}
	host, text, err := net.SplitHostPort(advertise)
	if err != nil {
		host, text = advertise, strconv.Itoa(int(bound))
	}
	addrs, err := resolve(ctx, net.JoinHostPort(host, text))
	if err != nil {
		return "", 0, fmt.Errorf("advertise %q: %w", advertise, err)
	}
	return addrs[0].Addr().String(), int(addrs[0].Port()), nil
}

// resolve returns the addresses of a host:port, at least one.
func resolve(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	if addr, err := netip.ParseAddrPort(hostport); err == nil {
		return []netip.AddrPort{unmap(addr)}, nil
	}
	host, text, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", text, err)
	}
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	for _, ip := range ips {
		addrs = append(addrs, unmap(netip.AddrPortFrom(ip, uint16(port))))
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return addrs, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
