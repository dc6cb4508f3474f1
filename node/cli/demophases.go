package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
)

const (
	steadyTime  = 3 * time.Second // of load on a cluster to which nothing happens
	settledTime = 2 * time.Second // of load after a change is known to all
	departure   = time.Minute     // until a node that leaves has ended
)

// phase is a piece of what happens to the cluster while it is read.
type phase struct {
	name string
	do   func(ctx context.Context, load *demoLoad) error
}

// underLoad lets nodes die, come and go while files are read through all of
// them.
func (d *demo) underLoad(ctx context.Context) (err error) {
	began := time.Now()
	if err := d.cluster.await(ctx, demoNodes); err != nil { // without it a death would cost the quorum
		return err
	}
	d.report.addStage(fmt.Sprintf("wait until %d nodes vote", demoNodes), 0, 0, time.Since(began))
	load, err := newDemoLoad(d.report.Dir, d.files)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	for _, n := range d.cluster.living() {
		if err := load.add(ctx, n); err != nil {
			return err
		}
	}
	leader, err := d.cluster.leader(ctx)
	if err != nil {
		return err
	}
	for _, p := range []phase{
		{"nothing happens", func(ctx context.Context, _ *demoLoad) error { return sleep(ctx, steadyTime) }},
		{leader.name + ", the leader, is killed", func(ctx context.Context, load *demoLoad) error { return d.killNode(ctx, load, leader) }},
		{"a fourth node joins", d.joinFourth},
		{"the leader leaves", d.leaderLeaves},
	} {
		if err := d.runPhase(ctx, load, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// runPhase runs one phase and adds to the report what the reads during it came
// to.
func (d *demo) runPhase(ctx context.Context, load *demoLoad, p phase) error {
	progress := d.app.progress(p.name)
	defer progress.done()
	before, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := p.do(ctx, load); err != nil {
		return err
	}
	took := time.Since(began)
	var reads int64
	for _, n := range load.nodes {
		reads += d.report.addLoad(p.name, n.node.name, n.take())
	}
	d.report.addStage(p.name, reads, 0, took)
	after, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	d.report.addRoutes(p.name, after.routesSince(before))
	return nil
}

// killNode kills a node and waits until the others know and go on.
func (d *demo) killNode(ctx context.Context, load *demoLoad, n *demoNode) error {
	load.of(n).expectDeath()
	if err := n.proc.kill(); err != nil {
		return err
	}
	n.end = endKilled
	if err := d.cluster.await(ctx, 0); err != nil {
		return err
	}
	return sleep(ctx, settledTime)
}

// joinFourth removes the dead member, as its operator would, and lets a new node
// take its place.
func (d *demo) joinFourth(ctx context.Context, load *demoLoad) error {
	by := d.cluster.living()[0]
	for _, n := range d.cluster.nodes {
		if n.end == "" {
			continue
		}
		if _, err := call[api.MemberList](ctx, by.client, http.MethodPost, api.PathRemoveMember, api.RemoveMemberRequest{Node: n.id}); err != nil {
			return err
		}
	}
	if err := d.cluster.join(ctx, 1); err != nil {
		return err
	}
	if err := d.cluster.await(ctx, 0); err != nil {
		return err
	}
	newest := d.cluster.nodes[len(d.cluster.nodes)-1]
	if err := load.add(ctx, newest); err != nil {
		return err
	}
	return sleep(ctx, settledTime)
}

// leaderLeaves lets the leader leave in order.
func (d *demo) leaderLeaves(ctx context.Context, load *demoLoad) error {
	n, err := d.cluster.leader(ctx)
	if err != nil {
		return err
	}
	group, leaving := errgroup.WithContext(ctx)
	group.Go(func() error {
		load.of(n).drain(leaving)
		return nil
	})
	group.Go(func() error {
		n.proc.told = true
		_, err := call[api.Left](leaving, n.client, http.MethodPost, api.PathLeave, api.LeaveRequest{})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := n.proc.awaitExit(departure); err != nil {
		return err
	}
	if n.proc.result != nil {
		return fmt.Errorf("%w: %s ended with %w", errFailed, n.name, n.proc.result)
	}
	n.end = endLeft
	if err := d.cluster.await(ctx, 0); err != nil {
		return err
	}
	return sleep(ctx, settledTime)
}

// sleep returns after a while.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
