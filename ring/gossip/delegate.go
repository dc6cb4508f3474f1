package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/datavision/desnode/ring"
)

// seen is a living node as memberlist told of it.
type seen struct {
	addr netip.AddrPort
	meta []byte
}

// delegate is what memberlist calls, most of it under memberlist's own lock: so
// nothing here waits for anything, or calls memberlist. It keeps copies of the
// nodes, because the pointers that Members returns are written to by memberlist
// while they are read, and signals one goroutine to look.
type delegate struct {
	g *Gossip

	mu    sync.Mutex // guards nodes; held for moments only
	nodes map[string]seen
}

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.MergeDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
)

// snapshot returns a copy of the living nodes.
func (d *delegate) snapshot() map[string]seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	nodes := make(map[string]seen, len(d.nodes))
	for name, n := range d.nodes {
		nodes[name] = n
	}
	return nodes
}

// NodeMeta returns the metadata of this node; New has checked its size.
func (d *delegate) NodeMeta(int) []byte { return *d.g.meta.Load() }

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState are not used: all
// that nodes tell each other is in their metadata.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has none.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState expects none.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyJoin is told of a node that is alive again, or for the first time.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.keep(n) }

// NotifyUpdate is told of new metadata.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.keep(n) }

// NotifyLeave is told of a node that has died or left.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	delete(d.nodes, n.Name)
	d.mu.Unlock()
	signal(d.g.look)
}

func (d *delegate) keep(n *memberlist.Node) {
	s := seen{addr: addrOf(n), meta: slices.Clone(n.Meta)}
	d.mu.Lock()
	d.nodes[n.Name] = s
	d.mu.Unlock()
	signal(d.g.look)
}

// NotifyAlive refuses nodes that can be no members of this ring.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == string(d.g.cfg.ID) {
		return nil // memberlist does not live without itself
	}
	_, reason, err := d.g.judge(n.Name, n.Meta)
	if err != nil {
		d.g.metrics.refused.WithLabelValues(reason).Inc()
		d.g.refuse(reason, fmt.Errorf("node %q at %s: %w", n.Name, addrOf(n), err))
	}
	return err
}

// NotifyMerge looks in a list of nodes, of a peer that joins or is joined, for
// this node at another address: the peer still believes in an earlier life of
// it, and refuses this one until that has died.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	self := *d.g.self.Load()
	for _, p := range peers {
		alive := p.State == memberlist.StateAlive || p.State == memberlist.StateSuspect
		if p.Name == string(d.g.cfg.ID) && alive && self.IsValid() && addrOf(p) != self {
			d.g.displaced.Store(true)
			signal(d.g.joinNow)
		}
	}
	return nil
}

// NotifyConflict is told of a node that is alive at one address and claims
// another: it has just restarted, or two nodes share a data dir.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.metrics.conflicts.Inc()
	d.g.refuse(reasonConflict, fmt.Errorf("node %q is at %s and claims to be at %s", existing.Name, addrOf(existing), addrOf(other)))
}

// Why a message or a node was refused, as the metric names it.
const (
	reasonKey      = "key"
	reasonLabel    = "label"
	reasonRemoved  = "removed"
	reasonFormat   = "ring-format"
	reasonMeta     = "meta"
	reasonName     = "name"
	reasonConflict = "conflict"
)

var (
	errRemoved = errors.New("the node was removed from the cluster")
	errFormat  = errors.New("the node computes another ring")
)

// judge returns the metadata of a node that may be a member, or why it may not.
func (g *Gossip) judge(name string, meta []byte) (m Meta, reason string, err error) {
	id, err := ring.ParseNodeID(name)
	if err != nil {
		return m, reasonName, err
	}
	if _, removed := (*g.removed.Load())[id]; removed {
		return m, reasonRemoved, errRemoved
	}
	if m, err = decodeMeta(meta); err != nil {
		return m, reasonMeta, err
	}
	if m.RingFormat != ring.Format {
		return m, reasonFormat, fmt.Errorf("ring format %d, here %d: %w", m.RingFormat, ring.Format, errFormat)
	}
	return m, "", nil
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}

// signal wakes the one who reads c, once however often it is called.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
