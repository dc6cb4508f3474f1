package peers

import (
	"context"

	"github.com/datavision/desnode/ring"
)

// follow keeps the parts in step with the state machine and with gossip: who was
// removed is refused everywhere, newer gossip keys are used, and where gossip
// finds a member is remembered.
func (p *Peers) follow(ctx context.Context) error {
	removed, kept := -1, false
	for {
		stateMoved, gossipMoved := p.meta.Changed(), p.gossip.Changed() // before the looks, so that nothing is missed
		v := p.meta.View()
		if ids := v.RemovedIDs(); len(ids) != removed { // nobody comes back, so the number tells
			removed = len(ids)
			gone := make([]ring.NodeID, 0, len(ids))
			for _, id := range ids {
				gone = append(gone, ring.NodeID(id))
			}
			p.gossip.SetRemoved(gone)
			p.endpoint.Recheck()
			p.book.forget(p.removed)
		}
		if _, _, known := v.Setting(authoritySetting); known && !kept {
			err := p.keepAuthority(v)
			if kept = err == nil; !kept {
				p.log.ErrorContext(ctx, "the CA is not kept in the data dir", "error", err.Error())
			}
		}
		if err := p.adoptSetting(v); err != nil {
			p.log.ErrorContext(ctx, "the cluster's gossip keys can't be used", "error", err.Error())
		}
		p.noteGossip()
		select {
		case <-ctx.Done():
			return nil
		case <-stateMoved:
		case <-gossipMoved:
		}
	}
}

// noteGossip remembers where gossip finds the members, and wakes search when one
// is missing.
func (p *Peers) noteGossip() {
	for _, m := range p.gossip.View().Members() {
		if m.ID != ring.NodeID(p.Node()) {
			p.book.gossiped(string(m.ID), m.Meta.ClusterAddr, m.Addr.String())
		}
	}
	missing := len(p.missing())
	p.metrics.missing.Set(float64(missing))
	if missing > 0 {
		signal(p.look)
	}
}

// missing returns the members, and the nodes that may be, which gossip does not
// see.
func (p *Peers) missing() []string {
	seen, v := p.gossip.View(), p.meta.View()
	nodes := map[string]bool{}
	for _, m := range v.Members() {
		nodes[string(m.ID)] = true
	}
	for _, at := range p.book.places() {
		nodes[at.Node] = true
	}
	delete(nodes, string(p.Node()))
	var out []string
	for node := range nodes {
		if _, alive := seen.Member(ring.NodeID(node)); !alive && !p.removed(node) {
			out = append(out, node)
		}
	}
	return out
}

// keepBook writes the file of addresses when it is behind. A disk that refuses
// costs hints only.
func (p *Peers) keepBook(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.book.changed:
			if err := writeJSON(p.path(addressesFile), p.book.file()); err != nil {
				p.log.ErrorContext(ctx, "addresses are not kept", "error", err.Error())
			}
		}
	}
}
