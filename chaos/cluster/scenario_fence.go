package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// largePacks hold all files of a scenario in one pack, which takes a moment.
const largePacks = "archive: {min_age: 0s, pack_size: 512MiB, max_wait: 1s}\n"

// What must not happen when a holder outlives its lease.
const (
	fencedPacks  = "packs that a holder committed after its lease had expired"
	silentFenced = "holders whose log does not say that the lease was lost"
)

// expiryWithin bounds the expiry of a lease (30 s after its last renewal, or
// after another leader was elected) and the packing of its range anew.
const expiryWithin = 3 * time.Minute

// runFence freezes the holder of a packing lease, once while it builds and
// once while it uploads, lets another node pack the range when the lease has
// expired, and lets the holder go on.
func runFence(ctx context.Context, t *trial) error {
	t.rep.never(fencedPacks)
	t.rep.never(silentFenced)
	for _, stage := range []string{"building", "uploading"} {
		if err := t.fence(ctx, stage); err != nil {
			return fmt.Errorf("while %s: %w", stage, err)
		}
	}
	return nil
}

func (t *trial) fence(ctx context.Context, stage string) error {
	c, err := newCluster(t, stage, largePacks)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.grow(ctx, 3); err != nil {
		return err
	}
	files := newFiles(t.seed, "files", 100, always(4<<20))
	if err := c.imported(ctx, c.nodes[0], files); err != nil {
		return err
	}
	first := begin(ctx, func(ctx context.Context) error { return c.archived(ctx, c.nodes[0]) })
	defer first.end()
	holder, held, err := c.holder(ctx, stage)
	if err != nil {
		return err
	}
	if err := holder.freeze(); err != nil {
		return err
	}
	rest := c.others(holder)
	began := time.Now()
	t.logf("%s is frozen while %s range %s under lease %s", holder.name, stage, held.Job.Range, held.Token)
	if packs, err := rest[0].packs(ctx); err != nil || len(packs) > 0 {
		return fmt.Errorf("the holder was frozen too late: %d packs, %w", len(packs), err)
	}
	first.end() // it may have asked the frozen node
	second := begin(ctx, func(ctx context.Context) error { return c.archived(ctx, rest[0]) })
	defer second.end()
	if err := c.packed(ctx, len(files)); err != nil {
		return err
	}
	t.rep.figure("until another node had packed the range, frozen while "+stage, "%.1fs", time.Since(began).Seconds())
	if err := second.wait(); err != nil {
		return err
	}
	return t.thawed(ctx, c, holder, held, files)
}

// holder waits for a packing lease whose holder is at that stage.
func (c *cluster) holder(ctx context.Context, stage string) (holder *node, held lease, err error) {
	const every = 2 * time.Millisecond
	ask := c.nodes[0]
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		leases, err := ask.leases(ctx)
		if err != nil {
			return nil, lease{}, err
		}
		for _, l := range leases {
			if l.Job.Kind != "pack" {
				continue
			}
			if stage == "uploading" {
				announced, err := ask.announced(ctx, l.Token)
				if err != nil {
					return nil, lease{}, err
				}
				if !announced {
					continue
				}
			}
			for _, n := range c.nodes {
				if n.id == l.Holder {
					return n, l, nil
				}
			}
		}
		if err := pause(ctx, every); err != nil {
			return nil, lease{}, err
		}
	}
	return nil, lease{}, fmt.Errorf("%w: a packing lease", errTimeout)
}

// announced reports whether an upload under that token has begun.
func (n *node) announced(ctx context.Context, token string) (bool, error) {
	var s status
	if err := n.get(ctx, "/cluster/status", &s); err != nil {
		return false, err
	}
	for _, u := range s.Uploads {
		if u.Token == token {
			return true, nil
		}
	}
	return false, nil
}

// packed waits until that many rows are PACKED.
func (c *cluster) packed(ctx context.Context, count int) error {
	return await(ctx, "all rows are PACKED", expiryWithin, func(ctx context.Context) error {
		states, err := c.states(ctx)
		if err == nil && states["PACKED"]+states["DELETED_SOURCE"] != count {
			err = fmt.Errorf("they are %v", states)
		}
		return err
	})
}

// thawed lets the holder go on, and looks for what it should have noticed.
func (t *trial) thawed(ctx context.Context, c *cluster, holder *node, held lease, files []*file) error {
	if err := holder.thaw(); err != nil {
		return err
	}
	err := await(ctx, "the holder's log names the lost lease", 30*time.Second, func(context.Context) error {
		found := false
		err := holder.scanLog(func(_ logLine, raw []byte) {
			found = found || bytes.Contains(raw, []byte(held.Token)) && strings.Contains(string(raw), "lease is not live")
		})
		if err == nil && !found {
			err = errNotLogged
		}
		return err
	})
	if errors.Is(err, errNotLogged) {
		t.rep.wrongly(silentFenced, "%s, lease %s", holder.name, held.Token)
	} else if err != nil {
		return err
	}
	if err := c.settled(ctx, settleWithin, c.nodes...); err != nil {
		return err
	}
	if err := c.caughtUp(ctx, c.others(holder)[0], c.nodes...); err != nil {
		return err
	}
	packs, err := c.others(holder)[0].packs(ctx)
	if err != nil {
		return err
	}
	for _, p := range packs {
		if p.Token == held.Token {
			t.rep.wrongly(fencedPacks, "pack %s under lease %s of %s", p.ID, held.Token, holder.name)
		}
	}
	return c.whole(ctx, files, c.nodes...)
}
