package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
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
	defer c.close()
	if err := c.grow(ctx, 3); err != nil {
		return err
	}
	early := newFiles(t.seed, "early", count, small)
	if err := errors.Join(c.fill(ctx, c.nodes[0], early), c.caughtUp(ctx, c.nodes[0], c.nodes...)); err != nil {
		return err
	}
	leader, err := c.leader(ctx, c.nodes[0])
	if err != nil {
		return err
	}
	last := c.others(leader)[0]
	dead := c.others(last)
	for _, n := range dead {
		if err := n.kill(); err != nil {
			return err
		}
	}
	t.logf("only %s is left", last.name)

	late := newFiles(t.seed, "late", count/3, small)
	written := begin(ctx, func(ctx context.Context) error { return c.fill(ctx, last, late) })
	defer written.end()
	if err := t.withoutQuorum(ctx, last, early, without, written); err != nil {
		return err
	}

	back := time.Now()
	if err := errors.Join(dead[0].start("start"), dead[0].ready(ctx)); err != nil {
		return err
	}
	// Whoever asked for the archive run may have been told that there is no
	// quorum; the work itself waits and goes on, and nobody asks again.
	if err := c.packed(ctx, len(early)+len(late)); err != nil {
		return err
	}
	t.rep.figure("from the other node's start to the last row PACKED", "%.1fs", time.Since(back).Seconds())
	told := "waited"
	if err := written.wait(); err != nil {
		told = err.Error()
	}
	t.rep.figure("who asked for the archive run", "%s", told)
	err = await(ctx, "an unknown name is 404 again", time.Minute, func(ctx context.Context) error {
		if a := last.read(ctx, nobody(0)); a.status != http.StatusNotFound {
			return errors.New(a.String())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.caughtUp(ctx, last, last, dead[0]); err != nil {
		return err
	}
	return c.whole(ctx, append(early, late...), last, dead[0])
}

// nobody is a file that was never made.
func nobody(i int) *file { return &file{name: fmt.Sprintf("nobody/%04d.bin", i)} }

// withoutQuorum reads at the last node for a time, all archived files again
// and again and names that nobody has between. The write must not succeed
// meanwhile.
func (t *trial) withoutQuorum(ctx context.Context, last *node, files []*file, length time.Duration, written *task) error {
	for _, what := range []string{failedLast, falseMissing, otherMissing, earlyWrite} {
		t.rep.never(what)
	}
	var reads, missing int
	end := time.Now().Add(length)
	for i := 0; i == 0 || time.Now().Before(end); i++ {
		err := last.readAll(ctx, files, func(f *file, a answer) {
			if reads++; !a.right {
				t.rep.wrongly(failedLast, "%s: %s", f.name, a)
			}
		})
		if err != nil {
			return err
		}
		missing++
		one, cancel := context.WithTimeout(ctx, readWithin)
		a := last.read(one, nobody(i))
		cancel()
		switch {
		case a.status == http.StatusNotFound || a.status == http.StatusGone:
			t.rep.wrongly(falseMissing, "%s", a)
		case a.status != http.StatusServiceUnavailable || a.code != "unconfirmed":
			t.rep.wrongly(otherMissing, "%s", a)
		}
	}
	if written.ended() && written.err == nil {
		t.rep.wrongly(earlyWrite, "import and archive")
	}
	t.rep.figure("reads at the last node", "%d", reads)
	t.rep.figure("of unknown names", "%d", missing)
	return nil
}
