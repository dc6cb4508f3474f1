package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
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
	files := newFiles(t.seed, "files", plan.files, always(plan.size))
	took := map[int][]time.Duration{}
	rounds := table{Title: "time of `desnode archive`, in the order of the runs", Head: []string{"nodes", "seconds", "files a second", "packs"}}
	for round := range plan.rounds {
		for _, nodes := range []int{1, 3} {
			d, packs, err := t.packOnce(ctx, fmt.Sprintf("round-%d-of-%d", round+1, nodes), nodes, files)
			if err != nil {
				return err
			}
			took[nodes] = append(took[nodes], d)
			rounds.Rows = append(rounds.Rows, []string{
				fmt.Sprint(nodes), fmt.Sprintf("%.2f", d.Seconds()),
				fmt.Sprintf("%.0f", float64(len(files))/d.Seconds()), fmt.Sprint(packs),
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

// packOnce archives the files with a new cluster and removes it.
func (t *trial) packOnce(ctx context.Context, name string, nodes int, files []*file) (took time.Duration, packs int, err error) {
	c, err := newCluster(t, name, mediumPacks)
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		c.close()
		err = errors.Join(err, os.RemoveAll(c.src), os.RemoveAll(c.store))
	}()
	if err := c.grow(ctx, nodes); err != nil {
		return 0, 0, err
	}
	if err := c.imported(ctx, c.nodes[0], files); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := c.archived(ctx, c.nodes[0]); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	list, err := c.nodes[0].acknowledged(ctx, c.patience)
	if err != nil {
		return 0, 0, err
	}
	if err := c.checkRows(ctx, files, list); err != nil {
		return 0, 0, err
	}
	t.rep.never(notOnce)
	return took, len(list), c.checkRecords(ctx, files, list)
}
