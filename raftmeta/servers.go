package raftmeta

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// votersAfter is who votes after the change.
func (c *rollCall) votersAfter(s step) []NodeID {
	switch s.do {
	case stepPromote:
		return append(c.voters(), s.node)
	case stepDemote, stepRemove:
		return slices.DeleteFunc(c.voters(), func(id NodeID) bool { return id == s.node })
	}
	return c.voters()
}

// waits says what a person should know when s is all that can be done now: a
// vote that cannot be taken or given. "": all is as it should be, or is about
// to be.
func (c *rollCall) waits(s step) string {
	if s.do != stepNone {
		return ""
	}
	for _, id := range c.voters() {
		if !c.stays(id) {
			return fmt.Sprintf("%s leaves, but is needed as a voter: nobody is ready in its place, or too few of the others are alive", id)
		}
	}
	for _, id := range c.voters() {
		if c.failed[id] {
			return fmt.Sprintf("voter %s does not answer, and nobody is ready in its place", id)
		}
	}
	if have, want := len(c.voters()), c.wanted(); have < want {
		return fmt.Sprintf("%d of %d voters, and too few nodes that are ready to be one", have, want)
	}
	return ""
}

// tellWaits keeps what the voters wait for, and says it when it is new.
func (m *Meta) tellWaits(waits string) {
	if before := m.votersWait.Swap(&waits); waits != "" && (before == nil || *before != waits) {
		m.log.Warn("the voters stay as they are", "because", waits)
	}
}

// VotersWait says what keeps the leader from having the voters it wants; "":
// nothing, or this node does not lead.
func (m *Meta) VotersWait() string {
	if waits := m.votersWait.Load(); waits != nil && m.leading.now() != nil {
		return *waits
	}
	return ""
}

// Server is one node as Raft has it.
type Server struct {
	ID      NodeID        `json:"id"`
	Voter   bool          `json:"voter"`
	Leader  bool          `json:"leader"`
	Alive   bool          `json:"alive"`             // heard of lately, as the leader knows
	Heard   time.Duration `json:"heard,omitempty"`   // how long ago; 0: the leader itself, or not heard of yet
	Applied uint64        `json:"applied,omitempty"` // Raft index
}

// Servers returns Raft's newest configuration that this node knows, by rising
// id. Only a leader knows who is alive.
func (m *Meta) Servers() []Server {
	select {
	case <-m.started:
	default:
		return nil
	}
	leader, reports, now := m.Leader(), m.reports(), time.Now()
	var all []Server
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		server := Server{ID: NodeID(s.ID), Voter: s.Suffrage == raft.Voter, Leader: NodeID(s.ID) == leader}
		if r, ok := reports[server.ID]; ok {
			server.Heard, server.Applied = now.Sub(r.At), r.Applied
			server.Alive = server.Heard <= aliveWithin
		}
		if server.ID == m.cfg.Node {
			server.Applied = m.View().applied
			server.Alive = server.Leader
		}
		all = append(all, server)
	}
	slices.SortFunc(all, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// ServersConfirmed returns what the leader knows, after a majority has
// confirmed that it leads: ErrUnconfirmed.
func (m *Meta) ServersConfirmed(ctx context.Context) (all []Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	err = m.whileMoving(ctx, func(r *reign, leader NodeID) error {
		if r != nil {
			if _, err := r.rounds.join(ctx); err != nil {
				return err
			}
			all = m.Servers()
			return nil
		}
		answer, err := m.call(ctx, leader, request{Op: opServers})
		all = answer.Servers
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("servers: %w: %w", ErrUnconfirmed, err)
	}
	return all, nil
}
