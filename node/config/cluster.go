package config

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Defaults of a node's place in its cluster.
const (
	DefaultCluster   = "127.0.0.1:7947"
	DefaultGossip    = "127.0.0.1:7946"
	DefaultDeadAfter = 72 * time.Hour
)

// MaxZone is the length of the longest zone, in bytes.
const MaxZone = 64

// minDeadAfter keeps a restart or an upgrade from being taken for a death: a
// removed node never comes back under its id.
const minDeadAfter = time.Minute

// ClusterAddr returns the ip:port on which the other nodes find this one, QUIC
// on UDP and Raft on TCP. Where none is configured it is DefaultCluster, or a
// free port beside a free HTTP port, so that nodes started with nothing but
// `http: 127.0.0.1:0` do not get into each other's way.
func (c Config) ClusterAddr() string {
	return withHost(cmp.Or(c.Cluster, c.besideHTTP(DefaultCluster)))
}

// GossipAddr returns the ip:port of gossip, on UDP and TCP; its default is
// chosen like ClusterAddr's.
func (c Config) GossipAddr() string { return withHost(cmp.Or(c.Gossip, c.besideHTTP(DefaultGossip))) }

// withHost writes out the host that stands for all addresses: gossip can't
// listen without one.
func withHost(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "0.0.0.0" + addr
	}
	return addr
}

// besideHTTP returns byDefault, or a free port of HTTP's address when HTTP takes
// a free port. Listening on all addresses is never a default: it would need
// Advertise.
func (c Config) besideHTTP(byDefault string) string {
	host, port, err := net.SplitHostPort(c.HTTP)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n != 0 {
		return byDefault
	}
	if wildcard(host) || !isIP(host) { // a name such as localhost
		host, _, _ = net.SplitHostPort(byDefault) // it is an address
	}
	return net.JoinHostPort(host, "0")
}

// wildcard reports whether a host stands for all addresses of the machine.
func wildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// splitAddress splits host:port with a port number.
func splitAddress(addr string) (host string, port uint64, ok bool) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsFunc(host, notInHost) {
		return "", 0, false
	}
	port, err = strconv.ParseUint(text, 10, 16)
	return host, port, err == nil
}

// notInHost reports whether no name and no address of a host has that
// character.
func notInHost(r rune) bool {
	return r <= ' ' || r >= utf8.RuneSelf || strings.ContainsRune(`/\@?#"'`, r) || !unicode.IsPrint(r)
}

func (c Config) validateCluster() error {
	var errs []error
	fail := func(key, format string, args ...any) { errs = append(errs, invalid(key, format, args...)) }
	for _, at := range []struct{ key, addr, byDefault string }{
		{"cluster", c.ClusterAddr(), DefaultCluster},
		{"gossip", c.GossipAddr(), DefaultGossip},
	} {
		host, _, ok := splitAddress(at.addr)
		switch {
		case !ok || !isIP(host):
			fail(at.key, "%q is not an address of this machine; write ip:port, such as %s", at.addr, at.byDefault)
		case wildcard(host) && c.Advertise == "":
			fail(at.key, "%q stands for every address of this machine, and no other node could call it; set advertise to the host that they know it by", at.addr)
		}
	}
	if c.Advertise != "" && !validHost(c.Advertise) {
		fail("advertise", "%q is not the name or address of one host; write it without a port", c.Advertise)
	}
	if len(c.Zone) > MaxZone || !utf8.ValidString(c.Zone) || strings.ContainsFunc(c.Zone, func(r rune) bool { return !unicode.IsPrint(r) }) {
		fail("zone", "%q is not 0 to %d bytes of printable text", c.Zone, MaxZone)
	}
	for i, seed := range c.Seeds {
		host, port, ok := splitAddress(seed)
		switch {
		case !ok || wildcard(host) || port == 0:
			fail("seeds", "%q is not the cluster address of a node; write host:port", seed)
		case slices.Contains(c.Seeds[:i], seed):
			fail("seeds", "%q stands there twice", seed)
		}
	}
	if c.DeadAfter < minDeadAfter {
		fail("dead_after", "%s is shorter than %s: a node that restarts would be removed for ever", c.DeadAfter, minDeadAfter)
	}
	return errors.Join(append(errs, c.validatePorts())...)
}

// validatePorts refuses one TCP port for two purposes.
func (c Config) validatePorts() error {
	taken := map[string]string{}
	for _, at := range []struct{ key, addr string }{{"http", c.HTTP}, {"cluster", c.ClusterAddr()}, {"gossip", c.GossipAddr()}} {
		if _, port, ok := splitAddress(at.addr); !ok || port == 0 {
			continue
		}
		if other, double := taken[at.addr]; double {
			return invalid(at.key, "%s is the address of %s too", at.addr, other)
		}
		taken[at.addr] = at.key
	}
	return nil
}

// validHost reports whether other nodes could call a host of that name.
func validHost(host string) bool {
	if wildcard(host) || strings.ContainsFunc(host, notInHost) {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil || !strings.ContainsAny(host, ":[]")
}
