package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

const removedReturned = "times a removed node was taken for alive"

// runFounder kills the node that formed the cluster for good. The others admit
// a new one, archive, remove the founder, and refuse it when it returns.
func runFounder(ctx context.Context, t *trial) error {
	count, watch := 1000, 10*time.Second
	if t.short {
		count, watch = 200, time.Second
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
	if err := errors.Join(c.Fill(ctx, c.Nodes[0], files), c.CaughtUp(ctx, c.Nodes[0], c.Nodes...)); err != nil {
		return err
	}
	founder, second := c.Nodes[0], c.Nodes[1]
	if t.short { // else the others wait half a minute for a lease of the dead
		if err := c.idle(ctx, founder); err != nil {
			return err
		}
	}
	if err := founder.Kill(); err != nil {
		return err
	}
	began := time.Now()
	if err := rig.Await(ctx, "the others have a leader", time.Minute, func(ctx context.Context) error {
		l, err := second.Members(ctx)
		if err == nil && (l.Leader == "" || l.Leader == founder.ID || !l.Quorum) {
			err = errors.New("none yet")
		}
		return err
	}); err != nil {
		return err
	}
	t.rep.figure("from the founder's death to another leader, as another node sees it", "%.1fs", time.Since(began).Seconds())
	fourth, err := c.Join(ctx, second)
	if err != nil {
		return err
	}
	rest := c.Others(founder)
	if err := c.Settled(ctx, rig.SettleWithin, rest...); err != nil {
		return err
	}
	t.rep.hold(true, "a node joins after the founder's death", "it does", "%s by a token of %s", fourth.Name, second.Name)
	more := rig.NewFiles(t.seed, "second", count/2, rig.Small)
	if err := c.Fill(ctx, fourth, more); err != nil {
		return err
	}
	// As long as gossip believes it alive, it is not removed.
	if err := rig.Await(ctx, "the founder is removed", time.Minute, func(ctx context.Context) error {
		_, err := second.CLI(ctx, "members", "remove", founder.ID)
		return err
	}); err != nil {
		return err
	}
	if err := t.returns(ctx, founder, rest, watch); err != nil {
		return err
	}
	if err := c.CaughtUp(ctx, fourth, rest...); err != nil {
		return err
	}
	return c.whole(ctx, append(files, more...), rest...)
}

// idle waits until a node holds no lease.
func (c *cluster) idle(ctx context.Context, n *rig.Node) error {
	return rig.Await(ctx, n.Name+" holds no lease", time.Minute, func(ctx context.Context) error {
		leases, err := n.Leases(ctx)
		for _, l := range leases {
			if l.Holder == n.ID {
				err = fmt.Errorf("%s for %s", l.Token, l.Job.Kind)
			}
		}
		return err
	})
}

// endsWithin is how long a removed node may take to learn from the others that
// it is one, and to end.
const endsWithin = 30 * time.Second

// returns starts a node that was removed and watches what the others make of
// it until it ends, and for a time after.
func (t *trial) returns(ctx context.Context, removed *rig.Node, rest []*rig.Node, watch time.Duration) error {
	t.rep.never(removedReturned)
	err := rig.Await(ctx, "all know of the removal", time.Minute, func(ctx context.Context) error {
		for _, n := range rest {
			l, err := n.Members(ctx)
			if err == nil && !slices.Contains(l.Removed, removed.ID) {
				err = fmt.Errorf("%s does not", n.Name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := removed.Start("start"); err != nil {
		return err
	}
	began := time.Now()
	ended := time.Duration(0)
	for time.Since(began) < endsWithin && (ended == 0 || time.Since(began) < ended+watch) {
		if ended == 0 && !removed.Running() {
			ended = time.Since(began)
		}
		for _, n := range rest {
			l, err := n.Members(ctx)
			if err != nil {
				return err
			}
			for _, m := range l.Members {
				if m.Node == removed.ID && m.Alive {
					t.rep.wrongly(removedReturned, "%s lists it: %+v", n.Name, m)
				}
			}
		}
		if err := rig.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	said := false
	err = removed.ScanLog(func(_ rig.LogLine, raw []byte) {
		said = said || strings.Contains(string(raw), "removed from the cluster")
	})
	t.rep.hold(ended > 0, "the removed node ends by itself", "within 30 s", "%t, after %.1fs", ended > 0, ended.Seconds())
	t.rep.hold(said, "its log says why", "it does", "%t", said)
	return err
}
