package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
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
	defer c.close()
	if err := c.grow(ctx, 3); err != nil {
		return err
	}
	files := newFiles(t.seed, "first", count, small)
	if err := errors.Join(c.fill(ctx, c.nodes[0], files), c.caughtUp(ctx, c.nodes[0], c.nodes...)); err != nil {
		return err
	}
	founder, second := c.nodes[0], c.nodes[1]
	if t.short { // else the others wait half a minute for a lease of the dead
		if err := c.idle(ctx, founder); err != nil {
			return err
		}
	}
	if err := founder.kill(); err != nil {
		return err
	}
	began := time.Now()
	if err := await(ctx, "the others have a leader", time.Minute, func(ctx context.Context) error {
		l, err := second.members(ctx)
		if err == nil && (l.Leader == "" || l.Leader == founder.id || !l.Quorum) {
			err = errors.New("none yet")
		}
		return err
	}); err != nil {
		return err
	}
	t.rep.figure("from the founder's death to another leader, as another node sees it", "%.1fs", time.Since(began).Seconds())
	fourth, err := c.join(ctx, second)
	if err != nil {
		return err
	}
	rest := c.others(founder)
	if err := c.settled(ctx, settleWithin, rest...); err != nil {
		return err
	}
	t.rep.hold(true, "a node joins after the founder's death", "it does", "%s by a token of %s", fourth.name, second.name)
	more := newFiles(t.seed, "second", count/2, small)
	if err := c.fill(ctx, fourth, more); err != nil {
		return err
	}
	// As long as gossip believes it alive, it is not removed.
	if err := await(ctx, "the founder is removed", time.Minute, func(ctx context.Context) error {
		_, err := second.cli(ctx, "members", "remove", founder.id)
		return err
	}); err != nil {
		return err
	}
	if err := t.returns(ctx, founder, rest, watch); err != nil {
		return err
	}
	if err := c.caughtUp(ctx, fourth, rest...); err != nil {
		return err
	}
	return c.whole(ctx, append(files, more...), rest...)
}

// idle waits until a node holds no lease.
func (c *cluster) idle(ctx context.Context, n *node) error {
	return await(ctx, n.name+" holds no lease", time.Minute, func(ctx context.Context) error {
		leases, err := n.leases(ctx)
		for _, l := range leases {
			if l.Holder == n.id {
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
func (t *trial) returns(ctx context.Context, removed *node, rest []*node, watch time.Duration) error {
	t.rep.never(removedReturned)
	err := await(ctx, "all know of the removal", time.Minute, func(ctx context.Context) error {
		for _, n := range rest {
			l, err := n.members(ctx)
			if err == nil && !slices.Contains(l.Removed, removed.id) {
				err = fmt.Errorf("%s does not", n.name)
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
	if err := removed.start("start"); err != nil {
		return err
	}
	began := time.Now()
	ended := time.Duration(0)
	for time.Since(began) < endsWithin && (ended == 0 || time.Since(began) < ended+watch) {
		if ended == 0 && !removed.running() {
			ended = time.Since(began)
		}
		for _, n := range rest {
			l, err := n.members(ctx)
			if err != nil {
				return err
			}
			for _, m := range l.Members {
				if m.Node == removed.id && m.Alive {
					t.rep.wrongly(removedReturned, "%s lists it: %+v", n.name, m)
				}
			}
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	said := false
	err = removed.scanLog(func(_ logLine, raw []byte) {
		said = said || strings.Contains(string(raw), "removed from the cluster")
	})
	t.rep.hold(ended > 0, "the removed node ends by itself", "within 30 s", "%t, after %.1fs", ended > 0, ended.Seconds())
	t.rep.hold(said, "its log says why", "it does", "%t", said)
	return err
}
