package raftmeta

import (
	"context"
	"fmt"
	"slices"
)

// Member is one node of the cluster. What it tells of itself (Zone, Version,
// HTTP, Cluster, Work) is what it last announced: a hint, never a permission.
type Member struct {
	ID      NodeID   `json:"id"`
	Applied uint64   `json:"applied"`           // highest Raft index known as applied by it
	Joined  uint64   `json:"joined,omitempty"`  // Raft index at which it became a member; 0: under an older version
	Zone    string   `json:"zone,omitempty"`    // where it stands; voters are spread over zones
	Version string   `json:"version,omitempty"` // of its binary
	HTTP    string   `json:"http,omitempty"`    // host:port for clients
	Cluster string   `json:"cluster,omitempty"` // host:port for nodes
	Work    []string `json:"work,omitempty"`    // kinds of work it does
	Leaving bool     `json:"leaving,omitempty"` // it is about to leave, and votes no more
}

// maxAnnounced is the longest text that a member may announce, in bytes: the
// state is in every node's memory and in every snapshot.
const maxAnnounced = 512

// checkMember refuses what no member can be.
func checkMember(m *Member) error {
	if m.ID == "" || len(m.ID) > maxAnnounced {
		return fmt.Errorf("member with an id of %d bytes: %w", len(m.ID), ErrInvalid)
	}
	n := len(m.Zone) + len(m.Version) + len(m.HTTP) + len(m.Cluster)
	for _, w := range m.Work {
		n += len(w) + 1
	}
	if n > maxAnnounced {
		return fmt.Errorf("member %s announces %d bytes, more than %d: %w", m.ID, n, maxAnnounced, ErrInvalid)
	}
	return nil
}

// announced returns m with what news tells of it. Who announces itself stays.
func (m Member) announced(news Member) Member {
	m.Zone, m.Version, m.HTTP, m.Cluster, m.Work = news.Zone, news.Version, news.HTTP, news.Cluster, slices.Clone(news.Work)
	m.Leaving = false
	return m
}

func (m Member) announcesLike(other Member) bool {
	return m.Leaving == other.Leaving && m.Zone == other.Zone && m.Version == other.Version && m.HTTP == other.HTTP && m.Cluster == other.Cluster &&
		slices.Equal(m.Work, other.Work)
}

// Member returns one node of the cluster.
func (v *View) Member(id NodeID) (Member, bool) { return v.members.get(string(id)) }

// Members returns the cluster's nodes by rising id.
func (v *View) Members() []Member {
	out := make([]Member, 0, v.members.len())
	for _, m := range v.members.all() {
		out = append(out, m)
	}
	return out
}

// Removed reports that the node was a member once and never will be again.
func (v *View) Removed(id NodeID) bool { return v.removedNode(id) }

func (s *state) removedNode(id NodeID) bool {
	_, removed := s.removed.get(string(id))
	return removed
}

// RemovedIDs returns all nodes that were members once, by rising id.
func (v *View) RemovedIDs() []NodeID {
	out := make([]NodeID, 0, v.removed.len())
	for id := range v.removed.all() {
		out = append(out, NodeID(id))
	}
	return out
}

// admit makes a node a member, or leaves it the member it is. ErrRemoved: it
// was removed once. An id that comes back could act on what it knew before.
func (s *state) admit(m Member, index uint64) error {
	if err := checkMember(&m); err != nil {
		return err
	}
	if s.removedNode(m.ID) {
		return fmt.Errorf("member %s: %w", m.ID, ErrRemoved)
	}
	if _, member := s.members.get(string(m.ID)); !member {
		m.Applied, m.Joined = 0, index
		s.members = s.members.set(string(m.ID), m)
	}
	return nil
}

// Announce records what a member tells of itself: zone, version, addresses,
// work. It changes nothing else of it, and nothing at all, not even the log,
// when the view knows that already. ErrNotMember, ErrInvalid (too long).
func (m *Meta) Announce(ctx context.Context, member Member) error {
	if known, ok := m.View().Member(member.ID); ok && known.announcesLike(member) {
		return nil
	}
	_, err := m.propose(ctx, &announceCommand{Member{ID: member.ID}.announced(member)})
	return err
}
