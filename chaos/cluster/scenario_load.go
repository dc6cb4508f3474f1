package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// smallPacks make many packs of few files, and let any file be archived.
const smallPacks = "archive: {min_age: 0s, pack_size: 4MiB, max_wait: 1s}\n"

// loadPlan is the measure of scenario load.
type loadPlan struct {
	files, large     int
	rate             int
	length           time.Duration
	killAt, freezeAt time.Duration
}

func (t *trial) loadPlan() loadPlan {
	if t.short {
		return loadPlan{files: 500, large: 5, rate: 500, length: 12 * time.Second, killAt: 3 * time.Second, freezeAt: 7 * time.Second}
	}
	return loadPlan{files: 3000, large: 20, rate: 500, length: time.Minute, killAt: 20 * time.Second, freezeAt: 40 * time.Second}
}

// What must not happen under load.
const (
	failedReads = "failed reads at living nodes"
	wrongReads  = "reads with wrong bytes"
	unsentReads = "reads that were not sent"
)

// p99Bar is the bar for the worst second after a node's death.
const p99Bar = time.Second

// runLoad reads from three nodes at a constant rate, kills the leader under
// way, and later freezes another: the last one stands without a quorum.
func runLoad(ctx context.Context, t *trial) error {
	plan := t.loadPlan()
	c, err := newCluster(t, "cluster", smallPacks)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	files := rig.NewFiles(t.seed, "files", plan.files, func(i int, rnd *rand.Rand) int64 {
		if i < plan.large {
			return 2 << 20
		}
		return rig.Small(i, rnd)
	})
	if err := c.Fill(ctx, c.Nodes[0], files); err != nil {
		return err
	}
	if err := c.CaughtUp(ctx, c.Nodes[0], c.Nodes...); err != nil {
		return err
	}
	killed, err := c.Leader(ctx, c.Nodes[0])
	if err != nil {
		return err
	}
	frozen := c.Others(killed)[0]
	t.rep.never(failedReads)
	t.rep.never(wrongReads)
	t.rep.never(unsentReads)
	l := newLoad(ctx, files, plan.rate, t.seed, c.Nodes...)
	t.logf("%d reads a second for %s; %s, the leader, is killed after %s, %s frozen after %s", plan.rate, plan.length, killed.Name, plan.killAt, frozen.Name, plan.freezeAt)
	err = l.run(ctx, plan.length,
		event{plan.killAt, func() error { l.retire(killed); return killed.Kill() }},
		event{plan.freezeAt, func() error { l.retire(frozen); return frozen.Freeze() }})
	t.judgeLoad(plan, l)
	return err
}

// judgeLoad holds what became of the reads against the bars.
func (t *trial) judgeLoad(plan loadPlan, l *load) {
	let := map[*rig.Node]int{}
	var good int
	for _, s := range l.samples {
		switch s.outcome {
		case failedRead:
			t.rep.wrongly(failedReads, "at %.2fs: %s", s.at.Seconds(), s.note)
		case wrongRead:
			t.rep.wrongly(wrongReads, "at %.2fs: %s", s.at.Seconds(), s.note)
		case unsentRead:
			t.rep.wrongly(unsentReads, "at %.2fs", s.at.Seconds())
		case letRead:
			let[s.node]++
		case goodRead:
			good++
		}
	}
	t.rep.figure("good reads", "%d of %d", good, len(l.samples))
	for n, count := range let {
		t.rep.figure("under way to "+n.Name+" in its last moment", "%d", count)
	}
	phases := table{Title: "latency, from the moment each read was due", Head: []string{"phase", "reads", "p50", "p99", "max"}}
	for _, p := range []struct {
		name     string
		from, to time.Duration
	}{
		{"three nodes", 0, plan.killAt},
		{"one killed", plan.killAt, plan.freezeAt},
		{"another frozen", plan.freezeAt, plan.length},
	} {
		phases.Rows = append(phases.Rows, l.between(p.from, p.to).row(p.name))
		if p.from == 0 {
			continue
		}
		worst := l.worstSecond(p.from, p.to)
		if t.short { // other tests take the machine's time
			t.rep.figure("p99 of the worst second, "+p.name, "%s", ms(worst.p99))
		} else {
			t.rep.hold(worst.count > 0 && worst.p99 < p99Bar, fmt.Sprintf("p99 of the worst second, %s", p.name), "< 1 s", "%s", ms(worst.p99))
		}
	}
	t.rep.Tables = append(t.rep.Tables, phases, l.perSecond("by second", plan.length))
}
