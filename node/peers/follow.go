package peers

import (
	"context"
	"time"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/ring/gossip"
)

// followPause is the least time between two looks at what changed: a busy
// cluster commits hundreds of commands a second, and few of them matter here.
// Whoever was removed is refused at once all the same, see allowed.
const followPause = 100 * time.Millisecond

// follow keeps the parts in step with the state machine and with gossip: who was
// removed is refused everywhere, newer gossip keys are used, and where gossip
// finds a member is remembered.
func (p *Peers) follow(ctx context.Context) error {
	f := follower{p: p, seen: map[string]place{}}
	for {
		stateMoved, gossipMoved := p.meta.Changed(), p.gossip.Changed() // before the looks, so that nothing is missed
		f.look(ctx, p.meta.View(), p.gossip.View())
		if !pause(ctx, followPause) {
			return nil
		}
		var again <-chan time.Time
		if f.behind {
			again = time.After(settlePause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stateMoved:
		case <-gossipMoved:
		case <-again:
		}
	}
}

// follower is what follow has done.
type follower struct {
	p         *Peers
	removed   int              // how many nodes were removed
	authority uint64           // ModIndex of the setting that is in the dir
	keys      uint64           // ModIndex of the keys that are in use
	gossip    *gossip.View     // that was looked at last
	seen      map[string]place // where gossip found members
	behind    bool             // something failed and is to be tried again
}

func (f *follower) look(ctx context.Context, v *raftmeta.View, seen *gossip.View) {
	p := f.p
	f.behind = false
	if ids := v.RemovedIDs(); len(ids) != f.removed { // nobody comes back, so the number tells
		f.removed = len(ids)
		gone := make([]ring.NodeID, 0, len(ids))
		for _, id := range ids {
			gone = append(gone, ring.NodeID(id))
		}
		p.gossip.SetRemoved(gone)
		p.endpoint.Recheck()
		p.book.forget(p.removed)
	}
	f.once(ctx, v, authoritySetting, &f.authority, p.keepAuthority, "the CA is not kept in the data dir")
	f.once(ctx, v, keysSetting, &f.keys, p.adoptSetting, "the cluster's gossip keys can't be used")
	if seen != f.gossip {
		f.gossip = seen
		f.noteGossip(seen)
	}
	missing := len(p.missing())
	p.metrics.missing.Set(float64(missing))
	if missing > 0 {
		signal(p.look)
	}
}

// once follows a setting to the change that done names.
func (f *follower) once(ctx context.Context, v *raftmeta.View, key string, done *uint64, follow func(*raftmeta.View) error, otherwise string) {
	_, modIndex, ok := v.Setting(key)
	if !ok || modIndex == *done {
		return
	}
	if err := follow(v); err != nil {
		f.behind = true
		f.p.log.ErrorContext(ctx, otherwise, "error", err.Error())
		return
	}
	*done = modIndex
}

// noteGossip remembers where gossip finds the members. Only what is news to
// gossip counts: for some seconds it holds on to where a node was that has moved
// and told so.
func (f *follower) noteGossip(seen *gossip.View) {
	for _, m := range seen.Members() {
		at := place{Node: string(m.ID), Cluster: m.Meta.ClusterAddr, Gossip: m.Addr.String()}
		if at != f.seen[at.Node] {
			f.seen[at.Node] = at
			f.p.book.gossiped(at.Node, at.Cluster, at.Gossip)
		}
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
