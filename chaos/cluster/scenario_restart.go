package main

import (
	"context"
	"errors"
	"fmt"
	"time"
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
	defer c.close()
	if err := c.grow(ctx, 3); err != nil {
		return err
	}
	files := newFiles(t.seed, "first", count, small)
	if err := c.fill(ctx, c.nodes[0], files); err != nil {
		return err
	}
	for _, by := range []struct {
		name string
		end  func(n *node) error
	}{
		{"SIGTERM", func(n *node) error { return n.stop(ctx) }},
		{"SIGKILL", (*node).kill},
	} {
		if err := t.elsewhere(ctx, c, by.name, by.end); err != nil {
			return fmt.Errorf("after %s: %w", by.name, err)
		}
		more := newFiles(t.seed, "after-"+by.name, count/2, small)
		if err := c.fill(ctx, c.nodes[2], more); err != nil {
			return fmt.Errorf("after %s: %w", by.name, err)
		}
		files = append(files, more...)
		if err := c.caughtUp(ctx, c.nodes[2], c.nodes...); err != nil {
			return err
		}
	}
	return c.whole(ctx, files, c.nodes...)
}

// elsewhere ends all nodes at once and starts them on other ports.
func (t *trial) elsewhere(ctx context.Context, c *cluster, how string, end func(*node) error) error {
	before, err := c.nodes[0].members(ctx)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, m := range before.Members {
		used[m.Cluster], used[m.Gossip] = true, true
	}
	ended := make(chan error, len(c.nodes))
	for _, n := range c.nodes {
		go func() { ended <- end(n) }()
	}
	for range c.nodes {
		err = errors.Join(err, <-ended)
	}
	if err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := n.start("start"); err != nil {
			return err
		}
	}
	began := time.Now()
	for _, n := range c.nodes {
		if err := n.ready(ctx); err != nil {
			return err
		}
	}
	if err := c.settled(ctx, 2*formBar, c.nodes...); err != nil {
		return err
	}
	took := time.Since(began)
	t.rep.hold(took <= formBar, "all nodes ended by "+how+", started on other ports: whole again after", "<= 30 s", "%.1fs", took.Seconds())
	after, err := c.nodes[0].members(ctx)
	if err != nil {
		return err
	}
	moved := 0
	for _, m := range after.Members {
		if !used[m.Cluster] && !used[m.Gossip] {
			moved++
		}
	}
	t.rep.hold(moved == len(c.nodes), "nodes that are elsewhere after "+how, "all", "%d of %d", moved, len(c.nodes))
	return nil
}
