package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// formBar is how long a cluster may take to form again after all its nodes
// have started, at addresses that none of the others knows.
const formBar = 30 * time.Second

// runRestart stops the whole cluster and starts it on other ports, once by
// SIGTERM and once by SIGKILL.
func runRestart(ctx context.Context, t *trial) error {
	count := 1000
	if t.short {
		count = 200
	}
	c, err := newCluster(t, "cluster", smallPacks)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	files := rig.NewFiles(t.seed, "first", count, rig.Small)
	if err := c.Fill(ctx, c.Nodes[0], files); err != nil {
		return err
	}
	for _, by := range []struct {
		name string
		end  func(n *rig.Node) error
	}{
		{"SIGTERM", func(n *rig.Node) error { return n.Stop(ctx) }},
		{"SIGKILL", (*rig.Node).Kill},
	} {
		if err := t.elsewhere(ctx, c, by.name, by.end); err != nil {
			return fmt.Errorf("after %s: %w", by.name, err)
		}
		more := rig.NewFiles(t.seed, "after-"+by.name, count/2, rig.Small)
		if err := c.Fill(ctx, c.Nodes[2], more); err != nil {
			return fmt.Errorf("after %s: %w", by.name, err)
		}
		files = append(files, more...)
		if err := c.CaughtUp(ctx, c.Nodes[2], c.Nodes...); err != nil {
			return err
		}
	}
	return c.whole(ctx, files, c.Nodes...)
}

// elsewhere ends all nodes at once and starts them on other ports.
func (t *trial) elsewhere(ctx context.Context, c *cluster, how string, end func(*rig.Node) error) error {
	before, err := c.Nodes[0].Members(ctx)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, m := range before.Members {
		used[m.Cluster], used[m.Gossip] = true, true
	}
	ended := make(chan error, len(c.Nodes))
	for _, n := range c.Nodes {
		go func() { ended <- end(n) }()
	}
	for range c.Nodes {
		err = errors.Join(err, <-ended)
	}
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := n.Start("start"); err != nil {
			return err
		}
	}
	began := time.Now()
	for _, n := range c.Nodes {
		if err := n.Ready(ctx); err != nil {
			return err
		}
	}
	if err := c.Settled(ctx, 2*formBar, c.Nodes...); err != nil {
		return err
	}
	took := time.Since(began)
	t.rep.hold(took <= formBar, "all nodes ended by "+how+", started on other ports: whole again after", "<= 30 s", "%.1fs", took.Seconds())
	after, err := c.Nodes[0].Members(ctx)
	if err != nil {
		return err
	}
	moved := 0
	for _, m := range after.Members {
		if !used[m.Cluster] && !used[m.Gossip] {
			moved++
		}
	}
	t.rep.hold(moved == len(c.Nodes), "nodes that are elsewhere after "+how, "all", "%d of %d", moved, len(c.Nodes))
	return nil
}
