package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// deleting has originals deleted as soon as that is safe.
const deleting = "archive: {min_age: 0s, pack_size: 4MiB, max_wait: 1s, delete_source: true, delete_grace: 0s}\n"

// What must not happen while a node is cut off.
const (
	cutReads     = "failed reads of archived files at the node that is cut off"
	cutMissing   = "404 or 410 by the node that is cut off"
	earlyDeleted = "originals deleted before the node that is cut off knew the pack"
)

// healBar is how long nodes may take to see one another again.
const healBar = time.Minute

// partition is the scenario's cluster: three hosts, each with a node.
type partition struct {
	*cluster
	early []*rig.File // archived and deleted before
	lost  int         // names that nobody has, asked for so far
	some  int         // of the files that the node cut off may not know, asked for at a time
}

// runPartition cuts the leader off for longer than gossip remembers, lets the
// others archive meanwhile, and heals. Then it cuts another node off, which
// the others remove, so that they delete originals it has never heard of.
func runPartition(ctx context.Context, t *trial) (err error) {
	count, length, some := 600, 75*time.Second, 20
	if t.short {
		count, length, some = 150, 8*time.Second, 7 // each may take its five seconds to be refused
	}
	w, err := rig.NewNetwork(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	c, err := newCluster(t, "cluster", deleting)
	if err != nil {
		return err
	}
	c.Hosts = w.Hosts
	c.Common += c.Own // who deletes originals must say where the packs are
	c.Own = ""
	defer c.Close()
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	p := &partition{cluster: c, early: rig.NewFiles(t.seed, "early", count, rig.Small), some: some}
	if err := errors.Join(c.Fill(ctx, c.Nodes[0], p.early), c.deleted(ctx, p.early)); err != nil {
		return err
	}
	for _, what := range []string{cutReads, cutMissing, earlyDeleted} {
		t.rep.never(what)
	}
	late := rig.NewFiles(t.seed, "late", count/3, rig.Small)
	first, err := p.cutAndHeal(ctx, late, length)
	if err != nil {
		return err
	}
	if err := c.whole(ctx, append(p.early, late...), c.Nodes...); err != nil {
		return err
	}
	return p.cutAndRemove(ctx, first, rig.NewFiles(t.seed, "never", count/3, rig.Small))
}

// deleted waits until no original is left.
func (c *cluster) deleted(ctx context.Context, files []*rig.File) error {
	return rig.Await(ctx, "the originals are deleted", 2*time.Minute, func(context.Context) error {
		left, err := rig.Originals(c.Src, files)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d are left", left)
		}
		return err
	})
}

// cutAndHeal cuts the leader off for a time in which the others archive, and
// returns it.
func (p *partition) cutAndHeal(ctx context.Context, late []*rig.File, length time.Duration) (leader *rig.Node, err error) {
	if leader, err = p.Leader(ctx, p.Nodes[0]); err != nil {
		return nil, err
	}
	if err := leader.Host.Cut(ctx); err != nil {
		return nil, err
	}
	end := time.Now().Add(length)
	p.t.logf("%s, the leader, is cut off for %s", leader.Name, length)
	other := p.Others(leader)[0]
	work := rig.Begin(ctx, func(ctx context.Context) error { return p.Fill(ctx, other, late) })
	defer work.End()
	for time.Now().Before(end) {
		if err := p.askCutOff(ctx, leader, late); err != nil {
			return nil, err
		}
		left, err := rig.Originals(p.Src, late)
		if err != nil {
			return nil, err
		}
		if work.Ended() && left < len(late) {
			p.t.rep.wrongly(earlyDeleted, "%d of %d", len(late)-left, len(late))
		}
	}
	ended := work.Ended()
	p.t.rep.hold(ended && work.Err == nil, "the others archive meanwhile", "they do", "ended %t: %v", ended, work.Err)
	if !p.t.short { // the nodes need some seconds to be sure
		if err := p.apart(ctx, leader, other); err != nil {
			return nil, err
		}
	}
	if err := leader.Host.Heal(ctx); err != nil {
		return nil, err
	}
	healed := time.Now()
	if err := p.converged(ctx); err != nil {
		return nil, err
	}
	took := time.Since(healed)
	p.t.rep.hold(took <= healBar, "all nodes see one another again, with the same ring, after", "<= 60 s", "%.1fs", took.Seconds())
	if err := errors.Join(work.Wait(), p.deleted(ctx, late)); err != nil {
		return nil, err
	}
	p.t.rep.figure("from healing to the last deletion that waited for it", "%.1fs", time.Since(healed).Seconds())
	return leader, p.CaughtUp(ctx, other, p.Nodes...)
}

// apart shows that the cable was out: neither side takes the other for alive,
// and the one that is alone has no leader.
func (p *partition) apart(ctx context.Context, cutOff, other *rig.Node) error {
	there, err := other.Members(ctx)
	if err != nil {
		return err
	}
	here, err := cutOff.Members(ctx)
	if err != nil {
		return err
	}
	seen := 0
	for _, m := range there.Members {
		if m.Node == cutOff.ID && m.Alive {
			seen++
		}
	}
	for _, m := range here.Members {
		if m.Node != cutOff.ID && m.Alive {
			seen++
		}
	}
	p.t.rep.hold(seen == 0 && !here.Quorum, "nodes that believe one alive on the other side at the end", "0, no quorum", "%d, quorum %t", seen, here.Quorum)
	return nil
}

// askCutOff asks the node that is cut off once for each archived file, for
// those that it may never have heard of, and for one that nobody has.
func (p *partition) askCutOff(ctx context.Context, n *rig.Node, late []*rig.File) error {
	err := n.ReadAll(ctx, p.early, func(f *rig.File, a rig.Answer) {
		if !a.Right {
			p.t.rep.wrongly(cutReads, "%s: %s", f.Name, a)
		}
	})
	if err != nil {
		return err
	}
	p.lost++
	return n.ReadAll(ctx, append([]*rig.File{nobody(p.lost)}, late[:min(len(late), p.some)]...), func(f *rig.File, a rig.Answer) {
		if a.Status == http.StatusNotFound || a.Status == http.StatusGone || a.Wrong() {
			p.t.rep.wrongly(cutMissing, "%s: %s", f.Name, a)
		}
	})
}

// converged waits until all nodes see all others and share a ring.
func (p *partition) converged(ctx context.Context) error {
	return rig.Await(ctx, "the nodes see one another", 3*healBar, func(ctx context.Context) error {
		var digest string
		for _, n := range p.Nodes {
			l, err := n.Members(ctx)
			if err != nil {
				return err
			}
			if err := l.Lacks(p.Nodes); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			var r rig.RingInfo
			if err := n.Get(ctx, "/cluster/ring", &r); err != nil {
				return err
			}
			if digest != "" && r.Digest != digest {
				return fmt.Errorf("%s has another ring", n.Name)
			}
			digest = r.Digest
		}
		return nil
	})
}

// cutAndRemove cuts a node off, another than the first, and removes it. The others then archive files
// and delete their originals: the node has never heard of those, and must not
// say that they are missing.
func (p *partition) cutAndRemove(ctx context.Context, first *rig.Node, never []*rig.File) error {
	leader, err := p.Leader(ctx, p.Nodes[0])
	if err != nil {
		return err
	}
	cutOff := p.Others(leader, first)[0]
	if err := cutOff.Host.Cut(ctx); err != nil {
		return err
	}
	p.t.logf("%s is cut off and removed", cutOff.Name)
	if _, err := leader.CLI(ctx, "members", "remove", "--force", cutOff.ID); err != nil {
		return err
	}
	if err := errors.Join(p.Fill(ctx, leader, never), p.deleted(ctx, never)); err != nil {
		return err
	}
	return p.askCutOff(ctx, cutOff, never)
}
