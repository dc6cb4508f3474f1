package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/ring"
)

// ErrConfig: a field of Config is missing or outside its range.
var ErrConfig = errors.New("invalid gossip configuration")

// Transport carries packets and streams in the place of UDP and TCP; tests hand
// in one of gossiptest.
type Transport = memberlist.NodeAwareTransport

const (
	defaultBind   = "127.0.0.1:7946"
	defaultRejoin = 30 * time.Second
)

// Config says where and as whom a node gossips. A zero field is its default.
type Config struct {
	ID      ring.NodeID // this node's persistent id. Required
	Cluster string      // the cluster's id: messages with another label are dropped. Required
	Keys    *KeyRing    // required
	Ring    ring.Config // of the cluster

	Bind      string // ip:port of UDP and TCP; default 127.0.0.1:7946. Port 0: any
	Advertise string // host or host:port that others reach it by; default: what it is bound to
	Meta      Meta   // addresses, zone and version; RingFormat and Digest are set here

	Peers  string          // file that keeps the peers seen; "": none
	Seeds  func() []string // host:port of nodes to join, asked each time; nil: none
	Rejoin time.Duration   // how often peers that are not there are tried; default 30 s

	Transport  Transport             // default: UDP and TCP at Bind
	Logger     *slog.Logger          // default: silent
	Registerer prometheus.Registerer // default: the metrics are not registered
}

func (c Config) withDefaults() Config {
	if c.Bind == "" {
		c.Bind = defaultBind
	}
	if c.Rejoin == 0 {
		c.Rejoin = defaultRejoin
	}
	if c.Seeds == nil {
		c.Seeds = func() []string { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Meta.RingFormat, c.Meta.Digest = ring.Format, ring.Digest{}
	return c
}

func (c Config) validate() error {
	_, errID := ring.ParseNodeID(string(c.ID))
	_, errMeta := c.Meta.encode()
	_, _, errBind := net.SplitHostPort(c.Bind)
	for _, err := range []error{errID, errMeta, errBind} {
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
	}
	switch {
	case c.Keys == nil:
		return fmt.Errorf("no key ring: %w", ErrConfig)
	case c.Cluster == "" || len(c.Cluster) > memberlist.LabelMaxSize:
		return fmt.Errorf("cluster id of %d bytes, 1 to %d: %w", len(c.Cluster), memberlist.LabelMaxSize, ErrConfig)
	case c.Rejoin < 0:
		return fmt.Errorf("rejoin every %v: %w", c.Rejoin, ErrConfig)
	}
	return nil
}
