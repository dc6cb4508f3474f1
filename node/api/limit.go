package api

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// MissLimits says how often one client may ask for what does not exist. The
// zero value of each field is the default named beside it.
type MissLimits struct {
	PerSecond float64          // default 100
	Burst     int              // default 1000
	Clients   int              // remembered at once, at least; default 10,000
	Now       func() time.Time // nil: time.Now
}

// MissLimiter counts misses by client. Only what was not found costs anything:
// a client that asks for files that exist is never limited. A client is an
// IPv4 address or the /64 network of an IPv6 address, which is what one host is
// given.
//
// Its table is bounded: it keeps two generations, and forgets the older one
// when the younger has Clients entries.
type MissLimiter struct {
	limits MissLimits

	mu    sync.Mutex // guards young and old
	young map[netip.Prefix]*rate.Limiter
	old   map[netip.Prefix]*rate.Limiter
}

// NewMissLimiter makes a MissLimiter in which nobody has missed yet.
func NewMissLimiter(limits MissLimits) *MissLimiter {
	limits.PerSecond = or(limits.PerSecond, 100)
	limits.Burst = or(limits.Burst, 1000)
	limits.Clients = or(limits.Clients, 10_000)
	if limits.Now == nil {
		limits.Now = time.Now
	}
	return &MissLimiter{limits: limits, young: make(map[netip.Prefix]*rate.Limiter)}
}

// Allow reports whether client may miss once more. It costs nothing, so misses
// under way at once may exceed the burst by their number.
func (m *MissLimiter) Allow(client string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.find(clientNetwork(client))
	return l == nil || l.TokensAt(m.limits.Now()) >= 1
}

// Missed counts a miss.
func (m *MissLimiter) Missed(client string) {
	network := clientNetwork(client)
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.find(network)
	if l == nil {
		l = rate.NewLimiter(rate.Limit(m.limits.PerSecond), m.limits.Burst)
		m.keep(network, l)
	}
	l.AllowN(m.limits.Now(), 1) // may fail when several missed at once: the tokens are gone all the same
}

// find returns the client's limiter, nil when it is not remembered. One that is
// still in use moves to the younger generation.
func (m *MissLimiter) find(network netip.Prefix) *rate.Limiter {
	if l := m.young[network]; l != nil {
		return l
	}
	l := m.old[network]
	if l != nil {
		m.keep(network, l)
	}
	return l
}

func (m *MissLimiter) keep(network netip.Prefix, l *rate.Limiter) {
	if len(m.young) >= m.limits.Clients {
		m.old, m.young = m.young, make(map[netip.Prefix]*rate.Limiter)
	}
	m.young[network] = l
}

// clientNetwork returns the network that stands for a client, whose address may
// be in brackets. What is no address is one client, the zero network.
func clientNetwork(client string) netip.Prefix {
	addr, err := netip.ParseAddr(strings.Trim(client, "[]"))
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.WithZone("").Unmap()
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}
