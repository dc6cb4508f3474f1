package raftmeta

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// report is how far a node is, as it told the leader.
type report struct {
	Applied   uint64    `json:"applied"`    // the last command in its view
	LastIndex uint64    `json:"last_index"` // the last entry in its log
	Term      uint64    `json:"term"`
	At        time.Time `json:"-"` // when the leader received it
}

// reports are the latest reports of the other nodes to one leader.
type reports struct {
	wake chan struct{} // holds at most one signal: there is a new one

	mu      sync.Mutex // guards the fields below
	by      map[NodeID]report
	reached map[NodeID]uint64 // the most that each has ever told in this reign
}

func newReports() *reports {
	return &reports{wake: make(chan struct{}, 1), by: make(map[NodeID]report), reached: make(map[NodeID]uint64)}
}

func (rs *reports) put(node NodeID, r report) {
	r.At = time.Now()
	rs.mu.Lock()
	// Calls may overtake each other; a node applies no less than it did, but
	// one that is restarted begins again.
	rs.by[node] = r
	rs.mu.Unlock()
	select {
	case rs.wake <- struct{}{}:
	default:
	}
}

func (rs *reports) all() map[NodeID]report {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return maps.Clone(rs.by)
}

// reports returns the last report of each other node to this leader in its
// reign; nil: it does not lead.
func (m *Meta) reports() map[NodeID]report {
	if r := m.leading.now(); r != nil {
		return r.reports.all()
	}
	return nil
}

const (
	reportEvery = time.Second     // how often a node tells the leader how far it is
	reportPause = 2 * time.Second // between two commands that record what was reported
)

// report tells the leader how far this node is: every second, when there is a
// new leader, and as soon as this node has applied what the leader may wait for.
func (m *Meta) report(ctx context.Context) {
	for {
		moved := m.leading.changed()
		v := m.View()
		if leader := m.Leader(); leader != "" && leader != m.cfg.Node {
			callCtx, cancel := context.WithTimeout(ctx, m.roundTimeout())
			answer, err := m.call(callCtx, leader, request{Op: opReport, Report: m.ownReport(v)})
			cancel()
			switch {
			case err != nil:
				m.log.Debug("report to the leader", "leader", string(leader), "error", err)
			case m.checked.CompareAndSwap(false, true):
				m.holdAgainst(answer.Index)
				continue // what was held back is told now
			}
		}
		if !m.awaitReport(ctx, v, moved) {
			return
		}
	}
}

// awaitReport waits until there is something new to report since v; false: ctx
// has ended.
func (m *Meta) awaitReport(ctx context.Context, reported *View, moved <-chan struct{}) bool {
	t := time.NewTimer(reportEvery)
	defer t.Stop()
	for v := m.View(); v.awaited <= reported.applied; v = m.View() {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case <-moved:
			return true
		case <-v.changed:
		}
	}
	return ctx.Err() == nil
}

const kindApplied = "applied"

// appliedCommand records how far members are.
type appliedCommand struct {
	Members []appliedMember `json:"members"` // by rising id
}

type appliedMember struct {
	ID      NodeID `json:"id"`
	Applied uint64 `json:"applied"`
}

func (*appliedCommand) kind() string { return kindApplied }

func (c *appliedCommand) apply(s *state, _ uint64) (any, error) {
	for _, a := range c.Members {
		if member, ok := s.members.get(string(a.ID)); ok && member.Applied < a.Applied {
			member.Applied = a.Applied
			s.members = s.members.set(string(a.ID), member)
		}
	}
	return nil, nil
}

// keepReports records what members have applied whenever that matters, so that
// AppliedEverywhere can be answered on every node.
func (m *Meta) keepReports(ctx context.Context, r *reign) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.reports.wake:
		}
		due := dueReports(m.View(), m.cfg.Node, r.reports.all())
		if len(due) == 0 {
			continue
		}
		data, err := encodeCommand(m.cfg.Node, &appliedCommand{due})
		if err == nil {
			_, _, err = m.apply(ctx, data)
		}
		if err != nil {
			m.log.Debug("record what members have applied", "error", err)
		}
		if !pause(ctx, reportPause) {
			return
		}
	}
}

// dueReports returns what is to be recorded: of the members that have applied
// a change of a pack that somebody may wait for, and of which the state does
// not know it. So nothing is recorded when nothing is packed, and recording
// gives no cause to record.
func dueReports(v *View, self NodeID, rs map[NodeID]report) []appliedMember {
	if len(rs) == 0 {
		return nil
	}
	rs[self] = report{Applied: v.applied}
	var due []appliedMember
	for _, id := range slices.Sorted(maps.Keys(rs)) {
		member, ok := v.members.get(string(id))
		// A node may be ahead of this view, which then lacks the member's reach.
		applied := min(rs[id].Applied, v.applied)
		if ok && v.awaits(member.Applied, applied) {
			due = append(due, appliedMember{id, applied})
		}
	}
	return due
}

// awaits reports whether there is a change of a pack after one index, up to
// another, that somebody may wait for all members to have applied.
func (s *state) awaits(after, upTo uint64) bool {
	if s.awaited <= after || upTo <= after {
		return false
	}
	if s.awaited <= upTo {
		return true
	}
	for _, p := range s.packs.all() {
		if at := p.awaitedAt(); at > after && at <= upTo {
			return true
		}
	}
	return false
}

// awaitedAt is the index that all members must have applied before what the
// pack stands for may be deleted: originals after it was added, or the pack
// itself after it was replaced.
func (p *Pack) awaitedAt() uint64 {
	if !p.ReplacedBy.IsZero() {
		return p.ModIndex
	}
	return p.AddIndex
}

// AppliedEverywhere reports whether every member has applied the command at
// index. It is never wrongly true; false may only mean that this node has not
// heard of it yet. Who was removed does not count, who joins does.
func (m *Meta) AppliedEverywhere(index uint64) bool {
	return m.View().appliedEverywhere(m.cfg.Node, index)
}

// appliedEverywhere is AppliedEverywhere as the node knows it whose view this is.
func (v *View) appliedEverywhere(self NodeID, index uint64) bool {
	for _, member := range v.members.all() {
		applied := member.Applied
		if member.ID == self {
			applied = v.applied
		}
		if applied < index {
			return false
		}
	}
	return v.applied >= index
}
