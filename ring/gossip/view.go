package gossip

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/datavision/desnode/ring"
)

// Member is a node that is alive as far as this one knows.
type Member struct {
	ID   ring.NodeID
	Addr netip.AddrPort // of its gossip
	Meta Meta
}

// View is what this node knew at one moment. It never changes.
type View struct {
	Version uint64     // 1 more at each change
	Ring    *ring.Ring // of the members; never nil
	members []Member   // sorted by id
	changed chan struct{}
}

// Members returns the living members that are not removed, this node among
// them while it runs, sorted by id. The slice is the caller's.
func (v *View) Members() []Member { return slices.Clone(v.members) }

// Member returns the living member with that id.
func (v *View) Member(id ring.NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.members, id, func(m Member, id ring.NodeID) int {
		return strings.Compare(string(m.ID), string(id))
	})
	if !ok {
		return Member{}, false
	}
	return v.members[i], true
}

// Mismatched returns the members whose ring is another than this one. For some
// seconds after each change that is normal.
func (v *View) Mismatched() []ring.NodeID {
	var ids []ring.NodeID
	for _, m := range v.members {
		if m.Meta.Digest != (ring.Digest{}) && m.Meta.Digest != v.Ring.Digest() {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// ringMembers is who takes a share of the shards.
func ringMembers(members []Member) []ring.Member {
	out := make([]ring.Member, len(members))
	for i, m := range members {
		out[i] = ring.Member{ID: m.ID, Zone: m.Meta.Zone}
	}
	return out
}
