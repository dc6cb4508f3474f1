package peers

import (
	"context"
	"errors"
	"time"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

const (
	// doubtEvery is how often a node without a leader asks whether it is a member.
	doubtEvery = 10 * time.Second
	// doubtAsks is how many others it asks then.
	doubtAsks = 5
)

// Refused returns a channel that is closed when another member has told this
// node that it was removed. Its own state machine may never hear of that: the
// others stop speaking to it as soon as they know.
//
// Whoever says so shows a certificate of the cluster and is not known here as
// removed itself, which is what raft believes as well.
func (p *Peers) Refused() <-chan struct{} { return p.refused }

// heed notes what a call to a node ended with.
func (p *Peers) heed(node string, err error) {
	if node == "" || node == p.id.Node() || !errors.Is(err, transport.ErrNotMember) || p.removed(node) {
		return // then it is this node that refuses the other one
	}
	p.refusedOnce.Do(func() {
		p.log.Error("this node is told that it was removed from the cluster", "by", node)
		close(p.refused)
	})
}

// doubt asks others whether this node is still one of them, as long as it has no
// leader: gossip may still see them, and raft waits to be spoken to.
func (p *Peers) doubt(ctx context.Context) error {
	t := time.NewTicker(doubtEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.refused:
			return nil
		case <-t.C:
		}
		if p.meta.Leader() != "" {
			continue
		}
		for _, node := range p.some(doubtAsks) {
			if _, err := p.greetNode(ctx, node); err != nil && ctx.Err() == nil {
				p.log.DebugContext(ctx, "hello", "member", node, "error", err.Error())
			}
		}
	}
}

// some returns at most n of the other nodes, in no order.
func (p *Peers) some(n int) []string {
	nodes := map[string]bool{}
	for _, m := range p.meta.View().Members() {
		nodes[string(m.ID)] = true
	}
	for _, at := range p.book.places() {
		nodes[at.Node] = true
	}
	var some []string
	for node := range nodes { // others each time: a map's order is another each time
		if len(some) < n && node != p.id.Node() && !p.removed(node) {
			some = append(some, node)
		}
	}
	return some
}

// removed reports whether a node was removed, as far as this one knows.
func (p *Peers) removed(node string) bool { return p.meta.View().Removed(raftmeta.NodeID(node)) }
