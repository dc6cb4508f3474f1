package raftmeta

import (
	"context"
	"fmt"
)

// Raft rests on a voter never forgetting what it wrote. A data dir that was put
// back from an older copy has forgotten: entries that are committed because this
// voter has them may be nowhere any more when it votes for a candidate that
// lacks them too. Nothing in the dir itself tells; three others do:
//
//   - The leader and the state know how far a member had applied. What a node
//     has applied stood in its log, so a node whose log ended before that, when
//     it started, has gone back. It says so, and is whole again as soon as the
//     leader has sent it the rest, which comes with the same messages.
//
//   - A leader has all that is committed. One whose log ends before what a
//     follower of its own term has applied has gone back: it ends.
//
//   - What was applied is never replaced in the log. A node that a leader tells
//     to do so is the last to know what is being lost: it keeps its log as it
//     is, tells that leader, and ends. ReadState brings back what it has.
//
// What nobody can tell: that a voter was put back, before a leader asked it; and
// that of a node that votes alone.

// suffixGuard is a log whose applied entries can't be cut off its end.
type suffixGuard struct {
	logStore
	applied func() uint64
	onCut   func(error)
}

// DeleteRange refuses to remove applied entries for the sake of others that a
// leader sends in their place. Removing what a snapshot holds begins with the
// first entry, and passes.
func (s suffixGuard) DeleteRange(from, to uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	if applied := s.applied(); from > first && from <= applied {
		err := fmt.Errorf("a leader would replace entries %d to %d, of which %d were applied here: "+
			"a voter's data dir was put back from an older copy: %w", from, to, applied-from+1, ErrRolledBack)
		s.onCut(err)
		return err
	}
	return s.logStore.DeleteRange(from, to)
}

// known returns how far a member was known to have applied before now, and
// notes what it reports now.
func (rs *reports) known(node NodeID, v *View, r report) (before uint64) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	before = rs.reached[node]
	if member, ok := v.members.get(string(node)); ok {
		before = max(before, member.Applied)
	}
	rs.reached[node] = max(before, r.Applied)
	return before
}

// heardOf takes a follower's report, and returns how far it was known to be.
func (m *Meta) heardOf(r *reign, from NodeID, told report) uint64 {
	before := r.reports.known(from, m.View(), told)
	if last := m.raft.LastIndex(); told.Term == r.term && told.Applied > last {
		m.fail(fmt.Errorf("%s has applied entry %d, and this node leads it with a log that ends at %d: "+
			"its data dir was put back from an older copy: %w", from, told.Applied, last, ErrRolledBack))
	}
	r.reports.put(from, told)
	return before
}

// ownReport is what this node reports. Until a leader has said how far it knew
// this node to be, or it leads itself, nothing that was applied since the start
// is told, so that the answer is about what was before.
func (m *Meta) ownReport(v *View) *report {
	r := &report{Applied: v.applied, LastIndex: m.raft.LastIndex(), Term: m.raft.CurrentTerm()}
	if !m.checked.Load() {
		r.Applied = min(r.Applied, m.began)
	}
	return r
}

// holdAgainst tells the operator when a leader knew this node to be further
// than its log reached at the start. It goes on: while there is a leader it
// votes for nobody, and ending would only delay that its log is whole again.
func (m *Meta) holdAgainst(known uint64) {
	if known > m.began {
		m.log.Error("this node's log went back in time: its data dir was put back from an older copy, or its disk has lost "+
			"what it had written; the leader sends it again", "had", known, "ended_at", m.began)
	}
}

// accuse tells the leader, once, what this node has applied: of that the
// leader's log has lost a part.
func (m *Meta) accuse(ctx context.Context) {
	leader := m.Leader()
	if leader == "" || leader == m.cfg.Node || m.cfg.Peers == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.roundTimeout())
	defer cancel()
	if _, err := m.ask(ctx, leader, request{Op: opReport, Report: m.ownReport(m.View())}); err != nil {
		m.log.Error("the leader was not told that it has lost entries", "leader", string(leader), "error", err)
	}
}
