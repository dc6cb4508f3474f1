package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// The bars of a read through a node that does not own the file, in times of
// the owner's p50 for 16 KiB.
const (
	hopBar  = 4.0
	keptBar = 1.2
)

// hopSize is one size of scenario hop.
type hopSize struct {
	name  string
	bytes int64
	files int // about a third of them belong to the owner that is measured
	bars  bool
}

func (t *trial) hopSizes() []hopSize {
	if t.short {
		return []hopSize{{"1 KiB", 1 << 10, 150, false}, {"16 KiB", 16 << 10, 150, true}, {"1 MiB", 1 << 20, 15, false}}
	}
	return []hopSize{{"1 KiB", 1 << 10, 6000, false}, {"16 KiB", 16 << 10, 6000, true}, {"1 MiB", 1 << 20, 240, false}}
}

// What must not happen while hops are measured.
const (
	hopWrong = "reads that were not answered right"
	hopRoute = "reads that did not go the way they were measured for"
)

// runHop reads, one after the other, files that their owner keeps in memory:
// through the owner, then for the first time through another node, then
// through that node again.
func runHop(ctx context.Context, t *trial) error {
	c, err := newCluster(t, "cluster", "archive: {min_age: 0s, pack_size: 256MiB, max_wait: 1h}\n")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Grow(ctx, 3); err != nil {
		return err
	}
	t.rep.never(hopWrong)
	t.rep.never(hopRoute)
	out := table{
		Title: "latency at concurrency 1, hot at the owner",
		Head:  []string{"size", "files", "owner p50", "p99", "through another, first time: p50", "p99", "times the owner's", "again: p50", "p99", "times the owner's"},
	}
	for i, size := range t.hopSizes() {
		files := rig.NewFiles(t.seed, fmt.Sprintf("size-%d", i), size.files, rig.Always(size.bytes))
		if err := c.Fill(ctx, c.Nodes[0], files); err != nil {
			return err
		}
		if err := c.CaughtUp(ctx, c.Nodes[0], c.Nodes...); err != nil {
			return err
		}
		row, err := t.hops(ctx, c, size, files)
		if err != nil {
			return err
		}
		out.Rows = append(out.Rows, row)
	}
	t.rep.Tables = append(t.rep.Tables, out)
	return nil
}

// hops measures one size.
func (t *trial) hops(ctx context.Context, c *cluster, size hopSize, files []*rig.File) (row []string, err error) {
	owner, through := c.Nodes[0], c.Nodes[1]
	var owned []*rig.File
	for _, f := range files {
		l, err := through.Locate(ctx, f.Name)
		if err != nil {
			return nil, err
		}
		if l.Owner == owner.ID {
			owned = append(owned, f)
		}
	}
	if len(owned) == 0 {
		return nil, fmt.Errorf("%s owns none of %d files", owner.Name, len(files))
	}
	for range 2 { // the second read finds the record in memory
		for _, f := range owned {
			t.timed(ctx, owner, f)
		}
	}
	before, err := routes(ctx, through)
	if err != nil {
		return nil, err
	}
	// In blocks, so that what else the machine does falls on all three alike.
	const block = 25
	var direct, hop, again []time.Duration
	for rest := owned; len(rest) > 0; {
		some := rest[:min(block, len(rest))]
		rest = rest[len(some):]
		for _, pass := range []struct {
			n   *rig.Node
			out *[]time.Duration
		}{{owner, &direct}, {through, &hop}, {through, &again}} {
			for _, f := range some {
				*pass.out = append(*pass.out, t.timed(ctx, pass.n, f))
			}
		}
	}
	after, err := routes(ctx, through)
	if err != nil {
		return nil, err
	}
	t.judgeRoutes(size, len(owned), before, after)
	d, h, a := quantilesOf(direct), quantilesOf(hop), quantilesOf(again)
	hopTimes, againTimes := times(h.p50, d.p50), times(a.p50, d.p50)
	if size.bars && !t.short {
		t.rep.hold(hopTimes <= hopBar, size.name+" through another node, in times of the owner's p50", "<= 4", "%.2f", hopTimes)
		t.rep.hold(againTimes <= keptBar, size.name+" through another node that keeps it", "<= 1.2", "%.2f", againTimes)
	}
	return []string{
		size.name, fmt.Sprint(len(owned)), ms(d.p50), ms(d.p99),
		ms(h.p50), ms(h.p99), fmt.Sprintf("%.2f", hopTimes),
		ms(a.p50), ms(a.p99), fmt.Sprintf("%.2f", againTimes),
	}, ctx.Err()
}

func times(a, b time.Duration) float64 { return float64(a) / float64(b) }

// timed reads one file and returns how long it took.
func (t *trial) timed(ctx context.Context, n *rig.Node, f *rig.File) time.Duration {
	began := time.Now()
	a := n.Read(ctx, f)
	took := time.Since(began)
	if !a.Right {
		t.rep.wrongly(hopWrong, "%s through %s: %s", f.Name, n.Name, a)
	}
	return took
}

// judgeRoutes holds the ways that the reads went, as the node counts them,
// against those that were meant: the first read of each file asks its owner,
// the second nobody.
func (t *trial) judgeRoutes(size hopSize, files int, before, after map[string]int) {
	asked := after["owner"] - before["owner"] + after["hedge"] - before["hedge"]
	kept := after["hot"] - before["hot"]
	went := map[string]int{}
	for route, n := range after {
		if n -= before[route]; n != 0 {
			went[route] = n
		}
	}
	for range max(0, files-asked) + max(0, files-kept) {
		t.rep.wrongly(hopRoute, "%s: %d files, each read twice, went %v", size.name, files, went)
	}
}

// routes returns how many reads went which way, by the node's own metrics.
func routes(ctx context.Context, n *rig.Node) (map[string]int, error) {
	const family = `des_router_routes_total{route="`
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Base+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	routes := map[string]int{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), family)
		if !ok {
			continue
		}
		route, value, _ := strings.Cut(rest, `"} `)
		count, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %q: %w", n.Name, lines.Text(), err)
		}
		routes[route] = int(count)
	}
	return routes, lines.Err()
}
