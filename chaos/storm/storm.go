package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// storm carries out a plan.
type storm struct {
	*world
	timeline *timeline
	deadline time.Time // all faults are off by then

	mu      sync.Mutex // guards skipped
	skipped []string   // kinds whose moment passed before there was a member for them
}

// Limits of one fault.
const (
	takeWithin   = 25 * time.Second // until a member is free for it; then it is left out
	injectWithin = 2 * time.Minute
	healWithin   = 4 * time.Minute
)

// perform puts each fault of a plan on in its moment and takes it off again.
// It returns when all are off, also when ctx ends before.
func (s *storm) perform(ctx context.Context, faults []planned) {
	var under sync.WaitGroup
	tending := rig.Begin(context.WithoutCancel(ctx), s.tend)
	for _, f := range faults {
		if !sleep(ctx, s.timeline.start.Add(f.at)) {
			break
		}
		under.Go(func() { s.one(ctx, f) })
	}
	under.Wait()
	tending.End()
}

// one puts one fault on, waits and takes it off.
func (s *storm) one(ctx context.Context, f planned) {
	m, give, err := s.claim(ctx, f)
	if err != nil {
		s.mu.Lock()
		s.skipped = append(s.skipped, f.kind.name)
		s.mu.Unlock()
		return
	}
	defer give()
	target := ""
	if m != nil {
		target = m.name
	}
	span := s.timeline.begin(f.kind.name, target, f.kind.touches)
	defer span.end()
	s.logf("%s %s for %s", f.kind.name, target, f.long)
	heal, err := s.inject(ctx, f, m)
	if err != nil {
		s.wrongly(badFault, "%s %s: %v", f.kind.name, target, err)
	} else {
		s.hold(ctx, f, m)
	}
	if heal == nil {
		return
	}
	ctx, cancel := s.within(ctx, healWithin)
	defer cancel()
	if err := heal(ctx); err != nil {
		s.wrongly(badFault, "%s %s is not healed: %v", f.kind.name, target, err)
	}
	s.logf("%s %s is over", f.kind.name, target)
}

// hold lets a fault last, until the run ends at most.
func (s *storm) hold(ctx context.Context, f planned, m *member) {
	var met func() bool
	if f.kind.met != nil {
		met = f.kind.met(s.world, m)
	}
	_ = rig.Pause(ctx, f.long) // it is healed when the run ends
	if met == nil {
		return
	}
	err := rig.Await(ctx, f.kind.name+" hits something", metWithin, func(context.Context) error {
		if !met() {
			return errNothingHit
		}
		return nil
	})
	if err != nil {
		s.missed(f.kind.name)
	}
}

// metWithin is how much longer a fault stays that has hit nothing.
const metWithin = 20 * time.Second

var errNothingHit = errors.New("nothing yet")

// within bounds what is done also when the run is told to end: by a time, and
// by the run's own.
func (s *storm) within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	limit = min(limit, time.Until(s.deadline))
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("not done in %s", limit.Round(time.Second)))
}

// inject puts a fault on.
func (s *storm) inject(ctx context.Context, f planned, m *member) (heal func(context.Context) error, err error) {
	if m != nil && f.kind.lane != clockLane && !m.node.Running() {
		if err := s.itself(ctx, m); err != nil { // nobody looked since
			return nil, err
		}
	}
	ctx, cancel := s.within(ctx, injectWithin)
	defer cancel()
	return f.kind.inject(ctx, s.world, f, m)
}

// claim finds the member that a fault is for.
func (s *storm) claim(ctx context.Context, f planned) (m *member, give func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	switch {
	case f.kind.lane == wholeLane:
		return nil, s.claims.giveAll, s.claims.takeAll(ctx)
	case f.pick == nobody:
		return nil, func() {}, nil
	}
	among := s.prefer(ctx, f)
	if f.kind.lane == clockLane { // it takes nothing from a node
		return among[0], func() {}, nil
	}
	if m, err = s.claims.take(ctx, among); err != nil {
		return nil, nil, err
	}
	return m, func() { s.claims.give(m) }, nil
}

// prefer returns all members, the one first that a fault is meant for.
func (s *storm) prefer(ctx context.Context, f planned) []*member {
	among := slices.Concat(s.members[f.node:], s.members[:f.node])
	id := ""
	switch f.pick {
	case theLeader:
		id = s.leader(ctx)
	case thePacker:
		id = s.packer(ctx)
	}
	for i, m := range among {
		if n := m.seen(); n != nil && n.ID == id {
			among[0], among[i] = among[i], among[0]
		}
	}
	return among
}

// leader returns the id of the node that leads, as one of them sees it; "":
// nobody says.
func (s *storm) leader(ctx context.Context) (id string) {
	_ = s.through(ctx, nil, func(ctx context.Context, n *rig.Node) error { // else there is none
		l, err := n.Members(ctx)
		id = l.Leader
		return err
	})
	return id
}

// packer returns the id of a node that holds a packing lease; "": nobody does.
func (s *storm) packer(ctx context.Context) (id string) {
	_ = s.through(ctx, nil, func(ctx context.Context, n *rig.Node) error { // else there is none
		leases, err := n.Leases(ctx)
		for _, l := range leases {
			if l.Job.Kind == "pack" {
				id = l.Holder
			}
		}
		return err
	})
	return id
}

// tendEvery is how often it is looked for nodes that have ended by themselves.
const tendEvery = 500 * time.Millisecond

// tend starts nodes again that have ended by themselves while no fault is put
// on them.
func (s *storm) tend(ctx context.Context) error {
	for rig.Pause(ctx, tendEvery) == nil {
		for _, m := range s.members {
			if !s.claims.try(m) {
				continue
			}
			if !m.node.Running() {
				ctx, cancel := s.within(ctx, healWithin)
				_ = s.itself(ctx, m) // it is noted
				cancel()
			}
			s.claims.give(m)
		}
	}
	return nil
}

// itself notes that a node ended by itself, and starts it again.
func (s *storm) itself(ctx context.Context, m *member) error {
	m.gone()
	s.wrongly(byItself, "%s: %s", m.name, m.lastError())
	return s.revive(ctx, m, "start")
}
