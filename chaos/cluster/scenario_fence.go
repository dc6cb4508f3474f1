package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/datavision/desnode/chaos/rig"
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
	defer c.Close()
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	files := rig.NewFiles(t.seed, "files", 100, rig.Always(4<<20))
	if err := c.Imported(ctx, c.Nodes[0], files); err != nil {
		return err
	}
	first := rig.Begin(ctx, func(ctx context.Context) error { return c.Archived(ctx, c.Nodes[0]) })
	defer first.End()
	holder, held, err := c.holder(ctx, stage)
	if err != nil {
		return err
	}
	if err := holder.Freeze(); err != nil {
		return err
	}
	rest := c.Others(holder)
	began := time.Now()
	t.logf("%s is frozen while %s range %s under lease %s", holder.Name, stage, held.Job.Range, held.Token)
	if packs, err := rest[0].Packs(ctx); err != nil || len(packs) > 0 {
		return fmt.Errorf("the holder was frozen too late: %d packs, %w", len(packs), err)
	}
	first.End() // it may have asked the frozen node
	second := rig.Begin(ctx, func(ctx context.Context) error { return c.Archived(ctx, rest[0]) })
	defer second.End()
	if err := c.packed(ctx, len(files)); err != nil {
		return err
	}
	t.rep.figure("until another node had packed the range, frozen while "+stage, "%.1fs", time.Since(began).Seconds())
	if err := second.Wait(); err != nil {
		return err
	}
	return t.thawed(ctx, c, holder, held, files)
}

// holder waits for a packing lease whose holder is at that stage.
func (c *cluster) holder(ctx context.Context, stage string) (holder *rig.Node, held rig.Lease, err error) {
	const every = 2 * time.Millisecond
	ask := c.Nodes[0]
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		leases, err := ask.Leases(ctx)
		if err != nil {
			return nil, rig.Lease{}, err
		}
		for _, l := range leases {
			if l.Job.Kind != "pack" {
				continue
			}
			if stage == "uploading" {
				announced, err := announced(ctx, ask, l.Token)
				if err != nil {
					return nil, rig.Lease{}, err
				}
				if !announced {
					continue
				}
			}
			for _, n := range c.Nodes {
				if n.ID == l.Holder {
					return n, l, nil
				}
			}
		}
		if err := rig.Pause(ctx, every); err != nil {
			return nil, rig.Lease{}, err
		}
	}
	return nil, rig.Lease{}, fmt.Errorf("%w: a packing lease", rig.ErrTimeout)
}

// announced reports whether an upload under that token has begun.
func announced(ctx context.Context, n *rig.Node, token string) (bool, error) {
	var s rig.Status
	if err := n.Get(ctx, "/cluster/status", &s); err != nil {
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
	return rig.Await(ctx, "all rows are PACKED", expiryWithin, func(ctx context.Context) error {
		states, err := c.states(ctx)
		if err == nil && states["PACKED"]+states["DELETED_SOURCE"] != count {
			err = fmt.Errorf("they are %v", states)
		}
		return err
	})
}

// thawed lets the holder go on, and looks for what it should have noticed.
func (t *trial) thawed(ctx context.Context, c *cluster, holder *rig.Node, held rig.Lease, files []*rig.File) error {
	if err := holder.Thaw(); err != nil {
		return err
	}
	err := rig.Await(ctx, "the holder's log names the lost lease", 30*time.Second, func(context.Context) error {
		found := false
		err := holder.ScanLog(func(_ rig.LogLine, raw []byte) {
			found = found || bytes.Contains(raw, []byte(held.Token)) && strings.Contains(string(raw), "lease is not live")
		})
		if err == nil && !found {
			err = rig.ErrNotLogged
		}
		return err
	})
	if errors.Is(err, rig.ErrNotLogged) {
		t.rep.wrongly(silentFenced, "%s, lease %s", holder.Name, held.Token)
	} else if err != nil {
		return err
	}
	if err := c.Settled(ctx, rig.SettleWithin, c.Nodes...); err != nil {
		return err
	}
	if err := c.CaughtUp(ctx, c.Others(holder)[0], c.Nodes...); err != nil {
		return err
	}
	packs, err := c.Others(holder)[0].Packs(ctx)
	if err != nil {
		return err
	}
	for _, p := range packs {
		if p.Token == held.Token {
			t.rep.wrongly(fencedPacks, "pack %s under lease %s of %s", p.ID, held.Token, holder.Name)
		}
	}
	return c.whole(ctx, files, c.Nodes...)
}
