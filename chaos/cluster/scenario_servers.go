package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

const failedBeside = "failed reads at the others while they finish the work"

// runServers archives from Postgres to S3 with three nodes, kills one that
// holds a packing lease, and has the others finish.
func runServers(ctx context.Context, t *trial) (err error) {
	count := 6000
	if t.short {
		count = 900
	}
	c, err := newCluster(t, "cluster", smallPacks)
	if err != nil {
		return err
	}
	if c.Servers, err = rig.StartServers(ctx, c.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Servers.Stop()) }()
	defer c.Close()
	c.Env = c.Servers.Environ()
	c.Own = fmt.Sprintf("store: {url: %q}\nsources: {files: {url: %q, roots: [%q]}}\n", c.Servers.Store(), c.Servers.Postgres.URL, c.Src)
	founder, err := c.Add()
	if err != nil {
		return err
	}
	if _, err := founder.Run(ctx, "source", "init", "files", "--apply", "--config", founder.Config()); err != nil {
		return err
	}
	if err := errors.Join(founder.Start("start"), founder.Ready(ctx)); err != nil {
		return err
	}
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	early := rig.NewFiles(t.seed, "early", count/6, rig.Small)
	if err := errors.Join(c.Servers.List(ctx, c.Src, early), c.Archived(ctx, founder)); err != nil {
		return err
	}
	late := rig.NewFiles(t.seed, "late", count, rig.Small)
	rest, err := t.killPacking(ctx, c, early, late)
	if err != nil {
		return err
	}
	return c.whole(ctx, append(early, late...), rest...)
}

// killPacking kills a node that packs and waits until the others have packed
// everything. It returns those.
func (t *trial) killPacking(ctx context.Context, c *cluster, early, late []*rig.File) (rest []*rig.Node, err error) {
	if err := c.Servers.List(ctx, c.Src, late); err != nil {
		return nil, err
	}
	first := rig.Begin(ctx, func(ctx context.Context) error { return c.Archived(ctx, c.Nodes[0]) })
	defer first.End()
	holder, held, err := c.holder(ctx, "building")
	if err != nil {
		return nil, err
	}
	if err := holder.Kill(); err != nil {
		return nil, err
	}
	killed := time.Now()
	first.End() // it may have asked the node that is dead
	t.logf("%s is killed under lease %s of range %s", holder.Name, held.Token, held.Job.Range)
	rest = c.Others(holder)
	t.rep.never(failedBeside)
	work := rig.Begin(ctx, func(ctx context.Context) error {
		return errors.Join(c.Archived(ctx, rest[0]), c.packed(ctx, len(early)+len(late)))
	})
	defer work.End()
	reads := 0
	for round := 0; !work.Ended() || round == 0; round++ {
		for _, n := range rest {
			err := n.ReadAll(ctx, early, func(f *rig.File, a rig.Answer) {
				if reads++; !a.Right {
					t.rep.wrongly(failedBeside, "%s through %s: %s", f.Name, n.Name, a)
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	t.rep.figure("from the node's death to the last row PACKED", "%.1fs", time.Since(killed).Seconds())
	t.rep.figure("reads meanwhile", "%d", reads)
	return rest, errors.Join(work.Wait(), c.CaughtUp(ctx, rest[0], rest...))
}
