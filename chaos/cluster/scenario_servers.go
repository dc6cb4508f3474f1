package main

import (
	"context"
	"errors"
	"fmt"
	"time"
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
	if c.servers, err = startServers(ctx, c.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.servers.stop()) }()
	defer c.close()
	c.env = c.servers.environ()
	c.own = fmt.Sprintf("store: {url: %q}\nsources: {files: {url: %q, roots: [%q]}}\n", c.servers.store(), c.servers.postgres.URL, c.src)
	founder, err := c.add()
	if err != nil {
		return err
	}
	if _, err := founder.run(ctx, "source", "init", "files", "--apply", "--config", founder.config()); err != nil {
		return err
	}
	if err := errors.Join(founder.start("start"), founder.ready(ctx)); err != nil {
		return err
	}
	if err := c.grow(ctx, 3); err != nil {
		return err
	}
	early := newFiles(t.seed, "early", count/6, small)
	if err := errors.Join(c.servers.list(ctx, c.src, early), c.archived(ctx, founder)); err != nil {
		return err
	}
	late := newFiles(t.seed, "late", count, small)
	rest, err := t.killPacking(ctx, c, early, late)
	if err != nil {
		return err
	}
	return c.whole(ctx, append(early, late...), rest...)
}

// killPacking kills a node that packs and waits until the others have packed
// everything. It returns those.
func (t *trial) killPacking(ctx context.Context, c *cluster, early, late []*file) (rest []*node, err error) {
	if err := c.servers.list(ctx, c.src, late); err != nil {
		return nil, err
	}
	first := begin(ctx, func(ctx context.Context) error { return c.archived(ctx, c.nodes[0]) })
	defer first.end()
	holder, held, err := c.holder(ctx, "building")
	if err != nil {
		return nil, err
	}
	if err := holder.kill(); err != nil {
		return nil, err
	}
	killed := time.Now()
	first.end() // it may have asked the node that is dead
	t.logf("%s is killed under lease %s of range %s", holder.name, held.Token, held.Job.Range)
	rest = c.others(holder)
	t.rep.never(failedBeside)
	work := begin(ctx, func(ctx context.Context) error {
		return errors.Join(c.archived(ctx, rest[0]), c.packed(ctx, len(early)+len(late)))
	})
	defer work.end()
	reads := 0
	for round := 0; !work.ended() || round == 0; round++ {
		for _, n := range rest {
			err := n.readAll(ctx, early, func(f *file, a answer) {
				if reads++; !a.right {
					t.rep.wrongly(failedBeside, "%s through %s: %s", f.name, n.name, a)
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	t.rep.figure("from the node's death to the last row PACKED", "%.1fs", time.Since(killed).Seconds())
	t.rep.figure("reads meanwhile", "%d", reads)
	return rest, errors.Join(work.wait(), c.caughtUp(ctx, rest[0], rest...))
}
