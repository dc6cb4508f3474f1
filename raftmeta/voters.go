package raftmeta

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

const (
	votersEvery = time.Second // how often the leader looks who should vote

	// A node is alive while its reports, one a second, are no older than that.
	aliveWithin = 5 * time.Second
	// A node votes only after it has been alive and caught up for that long.
	stableFor = 10 * time.Second
	// A voter is replaced when it has not been heard of for that long.
	failedAfter = 15 * time.Second
	// maxLag is how many entries a node that is caught up may lack.
	maxLag = 256
	// deadBrake is how many parts of DeadAfter lie between two removals of dead
	// members: a leader that hears badly does not empty the cluster at once.
	deadBrake = 10
)

// wantedVoters is how many voters a cluster has: an odd number, five at most,
// since each more makes commands dearer and saves nobody.
func wantedVoters(members int) int {
	switch {
	case members < 3:
		return 1
	case members < 5:
		return 3
	default:
		return 5
	}
}

// rollCall is what a leader knows of all nodes at one moment. Deciding on it
// needs no clock and no network.
type rollCall struct {
	self    NodeID
	members []Member // by rising id
	servers []rollServer
	alive   map[NodeID]bool // heard of lately; self is
	ready   map[NodeID]bool // alive and caught up for a while
	failed  map[NodeID]bool // not heard of for long
}

type rollServer struct {
	id    NodeID
	voter bool
}

// step is one change of Raft's configuration.
type step struct {
	do   stepKind
	node NodeID
}

type stepKind string

// The changes.
const (
	stepNone    stepKind = ""
	stepAdd     stepKind = "add"      // a member as nonvoter
	stepRemove  stepKind = "remove"   // a server that is no member
	stepPromote stepKind = "promote"  // to voter
	stepDemote  stepKind = "demote"   // to nonvoter
	stepHand    stepKind = "handover" // leadership, to the node
)

// next returns the change to be made now. No change leaves a configuration in
// which the living voters are no majority, if they were one before.
func (c *rollCall) next() step {
	for _, rule := range []func() step{c.follow, c.resign, c.grow, c.shrink, c.replace} {
		if s := rule(); s.do != stepNone {
			return s
		}
	}
	return step{}
}

// follow brings the servers in step with the members.
func (c *rollCall) follow() step {
	for _, m := range c.members {
		if !slices.ContainsFunc(c.servers, func(s rollServer) bool { return s.id == m.ID }) {
			return step{stepAdd, m.ID}
		}
	}
	for _, s := range c.servers {
		if _, member := c.member(s.id); !member && s.id != c.self && (!s.voter || c.safeWithout(s.id)) {
			return step{stepRemove, s.id}
		}
	}
	return step{}
}

// resign hands leadership on when this node leaves: to a voter that stays, or
// to one that is made a voter for it.
func (c *rollCall) resign() step {
	if m, member := c.member(c.self); member && !m.Leaving {
		return step{}
	}
	for _, id := range c.voters() {
		if id != c.self && c.stays(id) && c.ready[id] {
			return step{stepHand, id}
		}
	}
	if heirs := c.candidates(); len(heirs) > 0 && c.safeWith(heirs[0]) {
		return step{stepPromote, heirs[0]}
	}
	return step{}
}

// grow promotes while voters are wanted. An even number of voters is worth no
// more than one less, so two candidates are waited for when one would make it
// even.
func (c *rollCall) grow() step {
	voters := len(c.stayingVoters())
	if voters >= c.wanted() {
		return step{}
	}
	candidates := c.candidates()
	need := 1 + voters%2
	if len(candidates) < need || !c.safeWith(candidates[0]) {
		return step{}
	}
	return step{stepPromote, candidates[0]}
}

// shrink demotes who leaves, and then those that are too many, the failed first
// and this node never. An even number of voters bears no more failures than one
// less, so one goes when nobody is there who could make it odd.
func (c *rollCall) shrink() step {
	surplus := len(c.stayingVoters()) - c.wanted()
	voters := c.voters()
	if surplus < 0 && len(voters)%2 == 0 && !slices.ContainsFunc(c.servers, func(s rollServer) bool {
		return !s.voter && c.stays(s.id) && !c.failed[s.id]
	}) {
		surplus = 1
	}
	slices.SortStableFunc(voters, func(a, b NodeID) int {
		return cmp.Or(-compareBool(!c.stays(a), !c.stays(b)), -compareBool(c.failed[a], c.failed[b]), -compareBool(!c.alive[a], !c.alive[b]))
	})
	for _, id := range voters {
		if id == c.self || c.stays(id) && surplus <= 0 {
			continue
		}
		if c.safeWithout(id) {
			return step{stepDemote, id}
		}
	}
	return step{}
}

// replace demotes a failed voter for whom another stands ready, who is then
// promoted: the other order would ask more voters to be alive than there are.
func (c *rollCall) replace() step {
	if len(c.candidates()) == 0 {
		return step{}
	}
	for _, id := range c.voters() {
		if c.failed[id] && id != c.self && c.safeWithout(id) {
			return step{stepDemote, id}
		}
	}
	return step{}
}

func (c *rollCall) member(id NodeID) (Member, bool) {
	i, found := slices.BinarySearchFunc(c.members, id, func(m Member, id NodeID) int { return cmp.Compare(m.ID, id) })
	if !found {
		return Member{}, false
	}
	return c.members[i], true
}

// stays reports whether the node is a member that does not leave.
func (c *rollCall) stays(id NodeID) bool {
	m, member := c.member(id)
	return member && !m.Leaving
}

func (c *rollCall) wanted() int {
	staying := 0
	for _, m := range c.members {
		if !m.Leaving {
			staying++
		}
	}
	return wantedVoters(staying)
}

func (c *rollCall) voters() (ids []NodeID) {
	for _, s := range c.servers {
		if s.voter {
			ids = append(ids, s.id)
		}
	}
	return ids
}

func (c *rollCall) stayingVoters() []NodeID {
	return slices.DeleteFunc(c.voters(), func(id NodeID) bool { return !c.stays(id) })
}

// candidates are the nonvoters that may be promoted, those of a zone without a
// voter first.
func (c *rollCall) candidates() (ids []NodeID) {
	zones := map[string]bool{}
	for _, id := range c.stayingVoters() {
		m, _ := c.member(id)
		zones[m.Zone] = true
	}
	for _, s := range c.servers {
		if !s.voter && c.stays(s.id) && c.ready[s.id] {
			ids = append(ids, s.id)
		}
	}
	slices.SortFunc(ids, func(a, b NodeID) int {
		ma, _ := c.member(a)
		mb, _ := c.member(b)
		return cmp.Or(compareBool(zones[ma.Zone], zones[mb.Zone]), cmp.Compare(a, b))
	})
	return ids
}

// safeWithout reports whether the living voters are a majority when that one
// votes no more.
func (c *rollCall) safeWithout(id NodeID) bool {
	return c.majority(slices.DeleteFunc(c.voters(), func(v NodeID) bool { return v == id }))
}

// safeWith reports the same when that one votes too.
func (c *rollCall) safeWith(id NodeID) bool { return c.majority(append(c.voters(), id)) }

func (c *rollCall) majority(voters []NodeID) bool {
	alive := 0
	for _, id := range voters {
		if c.alive[id] || id == c.self {
			alive++
		}
	}
	return alive > len(voters)/2
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// hearing is a leader's memory of when it heard of the others.
type hearing struct {
	began   time.Time            // of the reign
	heard   map[NodeID]time.Time // last report
	steady  map[NodeID]time.Time // since when alive and caught up without a break
	removed time.Time            // when a dead member was removed last
}

// listen brings the memory up to date.
func (h *hearing) listen(now time.Time, reports map[NodeID]report, caughtUp func(report) bool) {
	for id, r := range reports {
		gap := r.At.Sub(h.heard[id]) > aliveWithin // since the last look, which may be long ago
		h.heard[id] = r.At
		well := now.Sub(r.At) <= aliveWithin && caughtUp(r)
		if gap || !well {
			delete(h.steady, id)
		}
		if _, ok := h.steady[id]; well && !ok {
			h.steady[id] = now
		}
	}
}

// since returns for how long the node has not been heard of, counted from the
// beginning of the reign at most.
func (h *hearing) since(id NodeID, now time.Time) time.Duration {
	if at, ok := h.heard[id]; ok && at.After(h.began) {
		return now.Sub(at)
	}
	return now.Sub(h.began)
}

// rollCall puts together what this leader knows.
func (m *Meta) rollCall(h *hearing, now time.Time) *rollCall {
	last, term := m.raft.LastIndex(), m.raft.CurrentTerm()
	h.listen(now, m.reports(), func(r report) bool { return r.Term == term && r.LastIndex+maxLag >= last })
	c := &rollCall{
		self: m.cfg.Node, members: m.View().Members(),
		alive: map[NodeID]bool{m.cfg.Node: true}, ready: map[NodeID]bool{}, failed: map[NodeID]bool{},
	}
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		id := NodeID(s.ID)
		c.servers = append(c.servers, rollServer{id, s.Suffrage == raft.Voter})
		if id == m.cfg.Node {
			continue
		}
		quiet := h.since(id, now)
		steady, ok := h.steady[id]
		c.alive[id] = quiet <= aliveWithin && !h.heard[id].IsZero()
		c.ready[id] = ok && now.Sub(steady) >= stableFor
		c.failed[id] = quiet > failedAfter
	}
	return c
}

// keepVoters makes one change after the other while this node leads.
func (m *Meta) keepVoters(ctx context.Context) {
	h := &hearing{began: time.Now(), heard: map[NodeID]time.Time{}, steady: map[NodeID]time.Time{}}
	for pause(ctx, votersEvery) {
		now := time.Now()
		c := m.rollCall(h, now)
		s := c.next()
		m.tellWaits(c.waits(s))
		if s.do != stepNone {
			err := m.take(ctx, c, s)
			told := m.log.With("change", string(s.do), "server", string(s.node), "voters_before", len(c.voters()))
			if err != nil {
				told.Warn("the voters could not be changed", "error", errText(err))
			} else {
				told.Info("the voters have changed")
			}
			continue
		}
		m.removeDead(ctx, h, c, now)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// take makes one change, and returns when it is committed. Nobody else makes
// any in this reign, and raft accepts none before the last is committed.
func (m *Meta) take(ctx context.Context, c *rollCall, s step) error {
	if err := m.askFor(ctx, c, s); err != nil {
		return err
	}
	const index = 0 // raft does not tell the present one
	timeout := m.cfg.timeout()
	id, at := raft.ServerID(s.node), raft.ServerAddress(s.node)
	return m.pending.do(ctx, func() error {
		switch s.do {
		case stepAdd:
			return m.raft.AddNonvoter(id, at, index, timeout).Error()
		case stepPromote:
			return m.raft.AddVoter(id, at, index, timeout).Error()
		case stepDemote:
			return m.raft.DemoteVoter(id, index, timeout).Error()
		case stepRemove:
			return m.raft.RemoveServer(id, index, timeout).Error()
		case stepHand:
			return m.raft.LeadershipTransferToServer(id, at).Error()
		}
		return nil
	})
}

// askFor has most of the voters that the change would leave answer before it is
// made: what they reported is seconds old, and they have to commit it.
func (m *Meta) askFor(ctx context.Context, c *rollCall, s step) error {
	after := c.votersAfter(s)
	others := slices.DeleteFunc(slices.Clone(after), func(id NodeID) bool { return id == m.cfg.Node })
	need := len(after)/2 + 1 - (len(after) - len(others))
	if m.cfg.Peers == nil || len(after) == len(c.voters()) || need <= 0 {
		return nil
	}
	return m.askOthers(ctx, others, need, m.raft.CurrentTerm())
}

// removeDead removes the member that has been silent longest, if that was for
// DeadAfter. A voter loses its vote first. It does nothing while more than half
// of the members are silent, which is rather this node's own trouble, nor soon
// after another: see deadBrake.
func (m *Meta) removeDead(ctx context.Context, h *hearing, c *rollCall, now time.Time) {
	after := m.cfg.deadAfter()
	if now.Sub(h.removed) < after/deadBrake {
		return
	}
	var dead NodeID
	alive, longest := 0, after
	for _, member := range c.members {
		if c.alive[member.ID] {
			alive++
		} else if quiet := h.since(member.ID, now); quiet >= longest {
			dead, longest = member.ID, quiet
		}
	}
	if dead == "" || 2*alive < len(c.members) {
		return
	}
	var gone command = &removeMemberCommand{dead}
	if slices.Contains(c.voters(), dead) {
		gone = &leavingCommand{dead, true}
	} else {
		h.removed = now
	}
	m.log.Warn("a member is removed for ever: it has not been heard of for too long", "member", string(dead), "silent", longest.String(), "step", gone.kind())
	data, err := encodeCommand(m.cfg.Node, gone)
	if err == nil {
		_, _, err = m.apply(ctx, data)
	}
	if err != nil {
		m.log.Error("remove a dead member", "member", string(dead), "error", err)
	}
}
