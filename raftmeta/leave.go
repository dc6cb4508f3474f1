package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// leavePoll is how often a node that leaves looks how far it is.
const leavePoll = 100 * time.Millisecond

// Leave takes this node out of its cluster for good: it says that it leaves,
// others take over its leadership and its vote, and then it is removed. On nil
// it is no member any more, and the cluster needs it for nothing. Cut anywhere,
// it may be repeated; until it ends the node is a member that does not vote.
//
// ErrLastMember: nobody would be left. ErrVoteNeeded: the others can't take over,
// for instance because none of them has caught up; ctx bounds how long that is
// waited for.
func (m *Meta) Leave(ctx context.Context) error {
	v := m.View()
	if v.Removed(m.cfg.Node) {
		return nil
	}
	if v.members.len() < 2 {
		return fmt.Errorf("leave: %w", ErrLastMember)
	}
	if err := m.setLeaving(ctx, m.cfg.Node, true); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	for !m.expendable() {
		if !pause(ctx, leavePoll) {
			stay, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.timeout())
			defer cancel()
			return errors.Join(fmt.Errorf("leave: leadership or vote can't be taken over: %w: %w", ErrVoteNeeded, context.Cause(ctx)), m.setLeaving(stay, m.cfg.Node, false))
		}
	}
	for {
		err := m.removeSelf(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrLastMember) || !pause(ctx, leavePoll) {
			return fmt.Errorf("leave: %w", err)
		}
	}
}

// removeSelfTime is how long the leader may take to remove this node.
const removeSelfTime = 2 * time.Second

// removeSelf has this node removed. The others stop speaking to it as soon as
// that is committed, so it may never see it: that the leader has committed it,
// or does not know this node any more, is the proof.
func (m *Meta) removeSelf(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeSelfTime)
	defer cancel()
	_, err := m.propose(ctx, &removeMemberCommand{m.cfg.Node})
	lost := errors.Is(err, ErrLagging) && !errors.Is(err, ErrLastMember)
	if lost || errors.Is(err, ErrNotMember) {
		return nil
	}
	return err
}

// expendable reports whether another node leads and this one does not vote.
func (m *Meta) expendable() bool {
	leader := m.Leader()
	return leader != "" && leader != m.cfg.Node && !slices.Contains(voters(m.raft), m.cfg.Node)
}

func (m *Meta) setLeaving(ctx context.Context, id NodeID, leaving bool) error {
	_, err := m.propose(ctx, &leavingCommand{id, leaving})
	return err
}

// removeTime bounds how long RemoveMember waits for others to take over.
const removeTime = 30 * time.Second

// RemoveMember takes a node out of the cluster for ever: its commands are
// refused from then on, its id never comes back. Its leases are not released,
// because a node that is cut off may act on them until its own deadline; they
// cannot be renewed and expire. Removing it again changes nothing.
//
// A node that leads or votes loses that first: nobody speaks to it any more as
// soon as it is removed, and two that are removed while they vote could be a
// majority. That takes seconds; it waits for 30 s at most.
//
// ErrLastMember: nobody would be left. ErrNotMember: nobody knows the id.
// ErrVoteNeeded: the other voters that are alive are no majority, or others
// did not take over in time. The node then stays.
func (m *Meta) RemoveMember(ctx context.Context, id NodeID) error {
	if id == m.cfg.Node {
		return m.Leave(ctx)
	}
	if _, member := m.View().Member(id); member && m.View().members.len() > 1 {
		if err := m.takeVote(ctx, id); err != nil {
			return fmt.Errorf("remove %s: %w", id, err)
		}
	}
	_, err := m.propose(ctx, &removeMemberCommand{id})
	return err
}

// takeVote waits until that node is no voter, and will not become one.
func (m *Meta) takeVote(ctx context.Context, id NodeID) error {
	waitCtx, cancel := context.WithTimeoutCause(ctx, removeTime, ErrVoteNeeded)
	defer cancel()
	servers, err := m.ServersConfirmed(waitCtx)
	if err != nil {
		return err
	}
	if err := dispensable(servers, id); err != nil {
		return err
	}
	if err := m.setLeaving(waitCtx, id, true); err != nil {
		if m.View().Removed(id) {
			return nil // by somebody else, meanwhile
		}
		return err
	}
	for {
		servers, err = m.ServersConfirmed(waitCtx)
		if err == nil && !slices.ContainsFunc(servers, func(s Server) bool { return s.ID == id && s.Voter }) {
			return nil
		}
		if pause(waitCtx, leavePoll) {
			continue
		}
		stay, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.timeout())
		defer cancel()
		return errors.Join(fmt.Errorf("it keeps its vote: %w: %w", ErrVoteNeeded, context.Cause(waitCtx)), err, m.setLeaving(stay, id, false))
	}
}

// dispensable returns ErrVoteNeeded when the voters that are alive would be no
// majority without that node.
func dispensable(servers []Server, id NodeID) error {
	voters, alive, votes := 0, 0, false
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		votes = votes || s.ID == id
		if s.ID != id && s.Alive {
			alive++
		}
	}
	if rest := voters - 1; votes && rest > 0 && alive <= rest/2 {
		return fmt.Errorf("%d of the %d other voters are alive: %w", alive, rest, ErrVoteNeeded)
	}
	return nil
}
