package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// packPlan is the measure of scenario pack.
type packPlan struct {
	files  int
	size   int64
	rounds int
}

func (t *trial) packPlan() packPlan {
	if t.short {
		return packPlan{files: 1500, size: 8 << 10, rounds: 1}
	}
	return packPlan{files: 24000, size: 16 << 10, rounds: 3}
}

// mediumPacks make about 24 packs of the files of scenario pack, in full.
const mediumPacks = "archive: {min_age: 0s, pack_size: 16MiB, max_wait: 1h}\n"

// runPack archives the same files with one node and with three, in turn, all
// nodes on this machine's cores.
func runPack(ctx context.Context, t *trial) error {
	plan := t.packPlan()
	files := rig.NewFiles(t.seed, "files", plan.files, rig.Always(plan.size))
	took := map[int][]time.Duration{}
	rounds := table{
		Title: "time of `desnode archive`, in the order of the runs",
		Head:  []string{"nodes", "seconds", "files a second", "packs", "CPU seconds of all nodes, start to end"},
	}
	for round := range plan.rounds {
		for _, nodes := range []int{1, 3} {
			once, err := t.packOnce(ctx, fmt.Sprintf("round-%d-of-%d", round+1, nodes), nodes, files)
			if err != nil {
				return err
			}
			took[nodes] = append(took[nodes], once.took)
			rounds.Rows = append(rounds.Rows, []string{
				fmt.Sprint(nodes), fmt.Sprintf("%.2f", once.took.Seconds()),
				fmt.Sprintf("%.0f", float64(len(files))/once.took.Seconds()), fmt.Sprint(once.packs),
				fmt.Sprintf("%.1f", once.cpu.Seconds()),
			})
		}
	}
	one, three := median(took[1]), median(took[3])
	t.rep.Tables = append(t.rep.Tables, rounds)
	t.rep.figure("files", "%d of %d bytes", plan.files, plan.size)
	got := fmt.Sprintf("%.2f of one node's (%.2fs, %.2fs)", one.Seconds()/three.Seconds(), one.Seconds(), three.Seconds())
	if t.short { // a run of a second says nothing about speed
		t.rep.figure("throughput of three nodes", "%s", got)
		return nil
	}
	t.rep.hold(three <= one, "throughput of three nodes, medians", ">= 1", "%s", got)
	return nil
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// packed is one run of scenario pack.
type packed struct {
	took  time.Duration
	packs int
	cpu   time.Duration // of all nodes, importing and joining included
}

// packOnce archives the files with a new cluster and removes it.
func (t *trial) packOnce(ctx context.Context, name string, nodes int, files []*rig.File) (once packed, err error) {
	c, err := newCluster(t, name, mediumPacks)
	if err != nil {
		return packed{}, err
	}
	defer func() {
		c.Close()
		for _, n := range c.Nodes {
			once.cpu += n.CPU()
		}
		err = errors.Join(err, os.RemoveAll(c.Src), os.RemoveAll(c.Store))
	}()
	if err := c.Grow(ctx, nodes); err != nil {
		return packed{}, err
	}
	if err := c.Imported(ctx, c.Nodes[0], files); err != nil {
		return packed{}, err
	}
	began := time.Now()
	if err := c.Archived(ctx, c.Nodes[0]); err != nil {
		return packed{}, err
	}
	once.took = time.Since(began)
	list, err := acknowledged(ctx, c.Nodes[0], c.patience)
	if err != nil {
		return packed{}, err
	}
	once.packs = len(list)
	t.rep.never(notOnce)
	return once, errors.Join(c.checkRows(ctx, files, list), c.checkRecords(ctx, files, list))
}
