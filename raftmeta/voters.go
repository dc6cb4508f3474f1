package raftmeta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
// and this node never.
func (c *rollCall) shrink() step {
	surplus := len(c.stayingVoters()) - c.wanted()
	voters := c.voters()
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
		h.heard[id] = r.At
		if now.Sub(r.At) > aliveWithin || !caughtUp(r) {
			delete(h.steady, id)
		} else if _, ok := h.steady[id]; !ok {
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
		if s := c.next(); s.do != stepNone {
			err := m.take(ctx, s)
			m.log.Info("voters change", "change", string(s.do), "server", string(s.node), "voters", len(c.voters()), "error", errText(err))
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

// take makes one change, and returns when it is committed. A change that was
// made meanwhile by somebody else is refused by its index.
func (m *Meta) take(ctx context.Context, s step) error {
	timeout := m.cfg.timeout()
	id, at := raft.ServerID(s.node), raft.ServerAddress(s.node)
	index := m.raft.GetConfiguration().Index()
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

// removeDead removes the member that has been silent longest, if that was for
// DeadAfter. It does not while half of the members are silent, which is rather
// this node's own trouble, nor soon after another: see deadBrake.
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
	if dead == "" || 2*alive <= len(c.members) {
		return
	}
	voter := slices.Contains(c.voters(), dead)
	if voter && !c.safeWithout(dead) {
		return
	}
	h.removed = now
	m.log.Warn("a member is removed: it has not been heard of for too long", "member", string(dead), "silent", longest.String())
	data, err := encodeCommand(m.cfg.Node, &removeMemberCommand{dead})
	if err == nil {
		_, _, err = m.apply(ctx, data)
	}
	if err != nil {
		m.log.Error("remove a dead member", "member", string(dead), "error", err)
	}
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
	if err := m.setLeaving(ctx, true); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	for !m.expendable() {
		if !pause(ctx, leavePoll) {
			stay, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.timeout())
			defer cancel()
			return errors.Join(fmt.Errorf("leave: leadership or vote can't be taken over: %w: %w", ErrVoteNeeded, context.Cause(ctx)), m.setLeaving(stay, false))
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

func (m *Meta) setLeaving(ctx context.Context, leaving bool) error {
	_, err := m.propose(ctx, &leavingCommand{m.cfg.Node, leaving})
	return err
}
