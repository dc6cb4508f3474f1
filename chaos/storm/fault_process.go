package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// processKinds are what happens to processes, and to the data they leave.
func processKinds() []*kind {
	return []*kind{
		{
			name: "kill", lane: killLane, share: 6, least: 300 * time.Millisecond, most: 5 * time.Second, after: 5 * time.Second,
			picks: []pick{anyone, theLeader, thePacker}, inject: kill,
		},
		{
			name: "restart", lane: killLane, share: 1, least: 300 * time.Millisecond, most: 3 * time.Second, after: 5 * time.Second,
			picks: []pick{anyone, theLeader}, inject: restart,
		},
		{ // beyond a lease's 30 s, all that while it is alive to its own mind
			name: "freeze", lane: nodeLane, least: 35 * time.Second, most: 50 * time.Second, after: 3 * time.Second,
			picks: []pick{anyone, theLeader, thePacker}, inject: freeze,
		},
		{
			name: "wipe", lane: nodeLane, least: time.Second, most: 10 * time.Second, after: 25 * time.Second,
			picks: []pick{anyone, theLeader}, inject: wipe,
		},
		{
			name: "clock", lane: clockLane, least: 5 * time.Second, most: 40 * time.Second, after: time.Second,
			picks: []pick{anyone, theLeader}, inject: stepClock,
			needs: func(w *world) error {
				if !w.clocks {
					return errNoClock
				}
				return nil
			},
		},
		{
			name: "power-cut", lane: wholeLane, least: time.Second, most: 8 * time.Second, after: 20 * time.Second,
			touches: touchesStore | touchesDatabase, inject: cutPower,
		},
	}
}

// kill ends a process and starts it again after a time.
func kill(_ context.Context, w *world, _ planned, m *member) (func(context.Context) error, error) {
	if err := w.kill(m); err != nil && !errors.Is(err, rig.ErrEnded) {
		return nil, err
	}
	return func(ctx context.Context) error { return w.revive(ctx, m, "start") }, nil
}

// restart has a process end in good order and starts it on other ports.
func restart(ctx context.Context, w *world, f planned, m *member) (func(context.Context) error, error) {
	m.retire()
	err := m.node.Stop(ctx)
	m.gone()
	m.node.Shift = (m.node.Shift + 1 + int(f.chance(1, 50))) % 500
	return func(ctx context.Context) error { return w.revive(ctx, m, "start") }, err
}

// freeze stops a process where it is, for longer than its leases live.
func freeze(_ context.Context, _ *world, _ planned, m *member) (func(context.Context) error, error) {
	m.retire()
	if err := m.node.Freeze(); err != nil {
		return nil, err
	}
	return func(context.Context) error {
		defer m.well()
		return m.node.Thaw()
	}, nil
}

// removedWithin is how long the others may take to remove a member, which takes
// a leader; votesWithin how long the new one may take to vote.
const (
	removedWithin = time.Minute
	votesWithin   = 2 * time.Minute
)

// wipe kills a node for good: the others remove it, its data dir is deleted,
// and a new node joins in its place.
func wipe(ctx context.Context, w *world, _ planned, m *member) (func(context.Context) error, error) {
	if err := w.kill(m); err != nil && !errors.Is(err, rig.ErrEnded) {
		return nil, err
	}
	old := m.node
	err := rig.Await(ctx, m.name+" is removed", removedWithin, func(ctx context.Context) error {
		return w.through(ctx, m, func(ctx context.Context, other *rig.Node) error {
			_, err := other.CLI(ctx, "members", "remove", "--force", old.ID)
			return err
		})
	})
	if err != nil {
		return func(ctx context.Context) error { return w.revive(ctx, m, "start") }, err
	}
	if err := errors.Join(empty(old.Data()), w.fresh(m)); err != nil {
		return nil, err
	}
	w.logf("%s: %s is removed and its data dir gone", m.name, old.ID)
	return func(ctx context.Context) error {
		var verb []string
		if err := w.through(ctx, m, func(ctx context.Context, other *rig.Node) (err error) {
			verb, err = other.Invite(ctx)
			return err
		}); err != nil {
			return err
		}
		if err := w.revive(ctx, m, verb...); err != nil {
			return err
		}
		return w.votes(ctx, m)
	}, nil
}

// empty deletes what a folder holds.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(dir+"/"+e.Name()))
	}
	return err
}

// votes waits until the others take a new member for one that votes.
func (w *world) votes(ctx context.Context, m *member) error {
	return rig.Await(ctx, m.name+" votes", votesWithin, func(ctx context.Context) error {
		l, err := m.node.Members(ctx)
		if err != nil {
			return err
		}
		for _, one := range l.Members {
			if one.Node == m.node.ID && (one.Voter || len(w.members) < 3) {
				return nil
			}
		}
		return fmt.Errorf("%d members, %d voters", len(l.Members), l.Voters)
	})
}

// steps are how far a clock jumps, either way.
var steps = []time.Duration{2 * time.Second, 40 * time.Second, 10 * time.Minute, 3 * time.Hour, 26 * time.Hour}

// stepClock has a node's clock jump, and back again.
func stepClock(_ context.Context, w *world, f planned, m *member) (func(context.Context) error, error) {
	step := steps[f.chance(1, uint64(len(steps)))]
	if f.chance(2, 2) == 1 {
		step = -step
	}
	w.skewed(step)
	w.logf("%s: its clock steps by %s", m.name, step)
	return func(context.Context) error { return m.setClock(0) }, m.setClock(step)
}

// cutPower ends all processes at once, the servers' too, and starts everything
// again, the nodes sometimes before the servers.
func cutPower(ctx context.Context, w *world, f planned, _ *member) (func(context.Context) error, error) {
	for _, m := range w.members {
		m.retire()
	}
	var wg sync.WaitGroup
	errs := make([]error, len(w.members)+1)
	for i, m := range w.members {
		wg.Go(func() {
			if err := w.kill(m); !errors.Is(err, rig.ErrEnded) {
				errs[i] = err
			}
		})
	}
	wg.Go(func() { errs[len(w.members)] = w.servers.Kill() })
	wg.Wait()
	return func(ctx context.Context) error { return w.powerUp(ctx, f.chance(1, 2) == 1) }, errors.Join(errs...)
}

// powerUp starts the servers and all nodes, in no order or the servers first.
func (w *world) powerUp(ctx context.Context, together bool) error {
	servers := make(chan error, 1)
	go func() { servers <- errors.Join(w.servers.Postgres.Start(ctx), w.servers.S3.Start(ctx)) }()
	var err error
	if !together {
		err = <-servers
		servers <- nil
	}
	var wg sync.WaitGroup
	errs := make([]error, len(w.members))
	for i, m := range w.members {
		wg.Go(func() { errs[i] = w.revive(ctx, m, "start") })
	}
	wg.Wait()
	return errors.Join(err, <-servers, errors.Join(errs...))
}
