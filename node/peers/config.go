package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/ring/gossip"
	"github.com/datavision/desnode/transport"
)

const (
	defaultBind       = "127.0.0.1:7947"
	defaultGossipBind = "127.0.0.1:7946"
	defaultRejoin     = 30 * time.Second
)

// Config says where a node is. Dir is needed; the zero value of everything else
// is the default beside it.
type Config struct {
	Dir  string // folder that Form or Join has filled
	Node string // the node's id; default: the identity's. ErrOtherNode when they differ

	Bind       string   // host:port of QUIC and raft; default 127.0.0.1:7947. Port 0: any
	GossipBind string   // ip:port of gossip; default 127.0.0.1:7946. Port 0: any
	Advertise  string   // host that others reach this node by; default: what it is bound to
	HTTP       string   // host:port that is told as the HTTP address
	Zone       string   // where the node stands
	Version    string   // of the program
	Work       []string // kinds of work it does
	Seeds      []string // host:port of members' cluster addresses, for when nobody is where he was

	Ring       ring.Config            // of the cluster
	Rendezvous Rendezvous             // nil: none
	Settings   func() ([]byte, error) // what a joiner is told, opaque here; nil: nothing
	Rejoin     time.Duration          // how often members that are not there are looked for; default 30 s

	Network         *transport.Network // nil: the machine's
	GossipTransport gossip.Transport   // nil: UDP and TCP at GossipBind
	Logger          *slog.Logger       // nil: silent
	Registerer      prometheus.Registerer
	Now             func() time.Time // nil: time.Now
}

// Rendezvous keeps small objects where every node finds them: the object store.
// Its methods may be called at once.
type Rendezvous interface {
	// Publish creates an object, durably on return. One that is there already
	// stays as it is and is no error.
	Publish(ctx context.Context, key string, body []byte) error
	// Fetch returns an object, or ErrNotFound.
	Fetch(ctx context.Context, key string) ([]byte, error)
}

// Meta is the part of *raftmeta.Meta that is needed here. Any member writes:
// what does not lead forwards.
type Meta interface {
	State
	Admission
	// Set changes a replicated setting; raftmeta.ErrConflict when it was changed
	// since ifModIndex. Durable on return.
	Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error
	// Announce records what this node tells of itself.
	Announce(ctx context.Context, member raftmeta.Member) error
	// ServeCall answers another node's call of raftmeta.Peers.
	ServeCall(ctx context.Context, from raftmeta.NodeID, request []byte) ([]byte, error)
}

// State is what the cluster agrees on, as this node knows it.
type State interface {
	View() *raftmeta.View
	// Changed is taken before the View that it watches over.
	Changed() <-chan struct{}
	// Confirm returns a view that holds all that was committed before the call.
	Confirm(ctx context.Context) (*raftmeta.View, error)
	// Leader is who leads, as far as this node knows; "" nobody.
	Leader() raftmeta.NodeID
}

// Admission is how nodes become members. Both are durable on return and may be
// repeated.
type Admission interface {
	PutToken(ctx context.Context, token raftmeta.JoinToken) error
	Redeem(ctx context.Context, token string, member raftmeta.Member, at time.Time) error
}

func (c Config) withDefaults() Config {
	c.Bind = or(c.Bind, defaultBind)
	c.GossipBind = or(c.GossipBind, defaultGossipBind)
	c.Rejoin = or(c.Rejoin, defaultRejoin)
	if c.Settings == nil {
		c.Settings = func() ([]byte, error) { return nil, nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	fail := func(cond bool, format string, args ...any) {
		if cond {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fail(c.Dir == "", "Dir is empty")
	fail(c.Rejoin < 0, "Rejoin is negative")
	for _, addr := range append([]string{c.Bind, c.GossipBind}, c.Seeds...) {
		fail(!validAddr(addr), "%q is not host:port", addr)
	}
	fail(c.HTTP != "" && !validAddr(c.HTTP), "HTTP %q is not host:port", c.HTTP)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// validAddr tells a host:port that fits into gossip's metadata.
func validAddr(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != "" && len(s) <= 255
}

// or returns v, or the default for its zero value.
func or[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}
