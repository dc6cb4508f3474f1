package router

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// Ring names the nodes to ask for a shard. It may be called by many at once.
type Ring interface {
	// Owners returns at most n nodes, best first; none when there is no ring yet.
	// The caller does not write to the slice.
	Owners(shard uint32, n int) []ring.NodeID
}

// Peers asks other nodes. *transport.Endpoint is one, and its errors are
// Peers's. It may be called by many at once.
type Peers interface {
	// Read returns the head of an answer; who gets a Body closes it, and its
	// io.EOF means that every byte was checked. It ends when ctx does, and so does
	// the Body.
	Read(ctx context.Context, node string, q transport.Request) (*transport.Answer, error)
}

// Config says what a Router works with. Self, Ring, Peers and Local are needed;
// the zero value of everything else is the default named beside it.
type Config struct {
	Self  ring.NodeID
	Ring  Ring
	Peers Peers
	Local *retriever.Retriever

	HopTimeout     time.Duration // until an owner's answer begins; default 250 ms
	PayloadTimeout time.Duration // from there to the end of a small record; default 1 s

	// MaxPayload is how large a record, in bytes of content, comes with an answer;
	// default 1 MiB. Of a larger one only its place does: reading the store is
	// cheaper than QUIC.
	MaxPayload uint32

	NoHedge      bool
	HedgeDelay   time.Duration // least wait for the owner before the next one is asked too; default 10 ms
	HedgePercent int           // hedges in a hundred hops, at most; 1 to 100, default 5

	Registerer prometheus.Registerer // nil: the metrics are kept but not registered
	Logger     *slog.Logger          // nil: slog.Default
}

func (c Config) validate() error {
	switch {
	case c.Self == "", c.Ring == nil, c.Peers == nil, c.Local == nil:
		return errors.New("router: Self, Ring, Peers and Local are needed")
	case c.HopTimeout < 0, c.PayloadTimeout < 0, c.HedgeDelay < 0:
		return errors.New("router: a time is negative")
	case c.HedgePercent < 0, c.HedgePercent > 100:
		return errors.New("router: HedgePercent is not 1 to 100")
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

// withDefaults fills in what the zero values stand for.
func (c Config) withDefaults() Config {
	c.HopTimeout = or(c.HopTimeout, 250*time.Millisecond)
	c.PayloadTimeout = or(c.PayloadTimeout, time.Second)
	c.MaxPayload = or(c.MaxPayload, 1<<20)
	c.HedgeDelay = or(c.HedgeDelay, 10*time.Millisecond)
	c.HedgePercent = or(c.HedgePercent, 5)
	c.Logger = or(c.Logger, slog.Default())
	return c
}
