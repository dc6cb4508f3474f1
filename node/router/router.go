package router

import (
	"context"
	"fmt"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// Router answers reads like a retriever.Retriever, whose errors are its own,
// and the reads of other nodes. All methods may be called at once.
type Router struct {
	cfg     Config
	metrics *metrics
	waits   waits
	budget  budget
}

var _ transport.Reader = (*Router)(nil)

// New makes a Router and starts nothing.
func New(cfg Config) (*Router, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg.withDefaults()}
	r.budget.percent = int64(r.cfg.HedgePercent)
	var err error
	if r.metrics, err = newMetrics(r.cfg.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return r, nil
}

// nodes is how many of a shard's owners are of interest: who is asked, who is
// asked too, and one more for people.
const nodes = 3

// Open finds the file of a name, here or with the help of the name's owner.
func (r *Router) Open(ctx context.Context, name string, q retriever.Query) (retriever.File, error) {
	k, err := retriever.KeyOf(name)
	if err != nil {
		return r.cfg.Local.Open(ctx, name, q) // which says so and counts it
	}
	if f, ok := r.elsewhere(ctx, k, q); ok {
		return f, nil
	}
	return r.cfg.Local.OpenKey(ctx, k, q)
}

// OpenID finds the file of a row: the row comes from its source, the record of
// its name as in Open.
func (r *Router) OpenID(ctx context.Context, source, id string, q retriever.Query) (retriever.File, error) {
	return r.cfg.Local.OpenIDFrom(ctx, source, id, q, func(ctx context.Context, k retriever.Key) (retriever.File, bool) {
		return r.elsewhere(ctx, k, q)
	})
}

// Locate tells where a name is served from, and by whom.
func (r *Router) Locate(ctx context.Context, name string) (*retriever.Place, error) {
	p, err := r.cfg.Local.Locate(ctx, name)
	if err != nil {
		return nil, err
	}
	for i, owner := range r.cfg.Ring.Owners(p.Shard, nodes) {
		if i == 0 {
			p.Owner = string(owner)
		} else {
			p.Fallbacks = append(p.Fallbacks, string(owner))
		}
	}
	return p, nil
}

// elsewhere returns the file as its owner has it; false: this node has to look
// for itself.
func (r *Router) elsewhere(ctx context.Context, k retriever.Key, q retriever.Query) (retriever.File, bool) {
	owners := r.cfg.Ring.Owners(r.cfg.Local.Shard(k), nodes)
	if len(owners) == 0 || owners[0] == r.cfg.Self {
		r.metrics.routes[routeLocal].Inc()
		return retriever.File{}, false
	}
	f, standing := r.cfg.Local.Kept(k, q.Want)
	switch {
	case standing.Kept:
		r.metrics.routes[routeHot].Inc()
		return f, true
	case !standing.Covered: // the owner could say no more than that
		r.metrics.routes[routeLocal].Inc()
		return retriever.File{}, false
	}
	by := routeOwner
	f, err := r.cfg.Local.OpenForeign(ctx, k, q.Want, func(ctx context.Context) (*retriever.Answer, error) {
		a, hedged, err := r.ask(ctx, owners, r.request(k, q, standing.MinIndex))
		if hedged {
			by = routeHedge
		}
		return a, err
	})
	if err != nil {
		r.metrics.routes[routeFallback].Inc()
		r.metrics.fallbacks[reasonOf(err)].Inc()
		return retriever.File{}, false
	}
	if _, whole := f.Content(); !whole && q.Want != retriever.WantHeader {
		by = routeLocation
	}
	r.metrics.routes[by].Inc()
	return f, true
}

// request is what the owner is asked.
func (r *Router) request(k retriever.Key, q retriever.Query, minIndex uint64) transport.Request {
	kind := transport.KindOpen
	if q.Want == retriever.WantHeader {
		kind = transport.KindStat
	}
	return transport.Request{
		Kind: kind, Name: k.Name, MinIndex: minIndex, MaxPayload: r.cfg.MaxPayload,
		RequestID: q.RequestID, Traceparent: q.Traceparent,
	}
}

// next returns the node to hedge with: the first of the other owners, unless
// that is this node, which falls back to itself anyway.
func (r *Router) next(owners []ring.NodeID) (ring.NodeID, bool) {
	if r.cfg.NoHedge || len(owners) < 2 || owners[1] == r.cfg.Self {
		return "", false
	}
	return owners[1], true
}
