package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// What must not happen while there is no quorum.
const (
	failedLast   = "failed reads of archived files at the last node"
	falseMissing = "404 or 410 that nobody confirmed"
	otherMissing = "answers to unknown names other than 503 unconfirmed"
	earlyWrite   = "writes that succeeded without a quorum"
)

// runQuorum kills two of three nodes. The last one reads on and does not judge
// what is missing; a write waits until another node is back.
func runQuorum(ctx context.Context, t *trial) error {
	count, without := 1000, 30*time.Second
	if t.short {
		count, without = 300, 5*time.Second
	}
	c, err := newCluster(t, "cluster", smallPacks)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	early := rig.NewFiles(t.seed, "early", count, rig.Small)
	if err := errors.Join(c.Fill(ctx, c.Nodes[0], early), c.CaughtUp(ctx, c.Nodes[0], c.Nodes...)); err != nil {
		return err
	}
	leader, err := c.Leader(ctx, c.Nodes[0])
	if err != nil {
		return err
	}
	last := c.Others(leader)[0]
	dead := c.Others(last)
	for _, n := range dead {
		if err := n.Kill(); err != nil {
			return err
		}
	}
	t.logf("only %s is left", last.Name)

	late := rig.NewFiles(t.seed, "late", count/3, rig.Small)
	written := rig.Begin(ctx, func(ctx context.Context) error { return c.Fill(ctx, last, late) })
	defer written.End()
	if err := t.withoutQuorum(ctx, last, early, without, written); err != nil {
		return err
	}

	back := time.Now()
	if err := errors.Join(dead[0].Start("start"), dead[0].Ready(ctx)); err != nil {
		return err
	}
	// Whoever asked for the archive run may have been told that there is no
	// quorum; the work itself waits and goes on, and nobody asks again.
	if err := c.packed(ctx, len(early)+len(late)); err != nil {
		return err
	}
	t.rep.figure("from the other node's start to the last row PACKED", "%.1fs", time.Since(back).Seconds())
	told := "waited"
	if err := written.Wait(); err != nil {
		told = err.Error()
	}
	t.rep.figure("who asked for the archive run", "%s", told)
	err = rig.Await(ctx, "an unknown name is 404 again", time.Minute, func(ctx context.Context) error {
		if a := last.Read(ctx, nobody(0)); a.Status != http.StatusNotFound {
			return errors.New(a.String())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.CaughtUp(ctx, last, last, dead[0]); err != nil {
		return err
	}
	return c.whole(ctx, append(early, late...), last, dead[0])
}

// nobody is a file that was never made.
func nobody(i int) *rig.File { return &rig.File{Name: fmt.Sprintf("nobody/%04d.bin", i)} }

// withoutQuorum reads at the last node for a time, all archived files again
// and again and names that nobody has between. The write must not succeed
// meanwhile.
func (t *trial) withoutQuorum(ctx context.Context, last *rig.Node, files []*rig.File, length time.Duration, written *rig.Task) error {
	for _, what := range []string{failedLast, falseMissing, otherMissing, earlyWrite} {
		t.rep.never(what)
	}
	var reads, missing int
	end := time.Now().Add(length)
	for i := 0; i == 0 || time.Now().Before(end); i++ {
		err := last.ReadAll(ctx, files, func(f *rig.File, a rig.Answer) {
			if reads++; !a.Right {
				t.rep.wrongly(failedLast, "%s: %s", f.Name, a)
			}
		})
		if err != nil {
			return err
		}
		missing++
		one, cancel := context.WithTimeout(ctx, rig.ReadWithin)
		a := last.Read(one, nobody(i))
		cancel()
		switch {
		case a.Status == http.StatusNotFound || a.Status == http.StatusGone:
			t.rep.wrongly(falseMissing, "%s", a)
		case a.Status != http.StatusServiceUnavailable || a.Code != "unconfirmed":
			t.rep.wrongly(otherMissing, "%s", a)
		}
	}
	if written.Ended() && written.Err == nil {
		t.rep.wrongly(earlyWrite, "import and archive")
	}
	t.rep.figure("reads at the last node", "%d", reads)
	t.rep.figure("of unknown names", "%d", missing)
	return nil
}
