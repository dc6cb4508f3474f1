package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/node/api"
)

// startNodes starts the first node and lets the others join.
func (d *demo) startNodes(ctx context.Context) error {
	began := time.Now()
	if err := d.cluster.form(ctx); err != nil {
		return err
	}
	if err := d.cluster.join(ctx, demoNodes-1); err != nil {
		return err
	}
	if err := d.cluster.await(ctx, 0); err != nil {
		return err
	}
	d.report.addStage(fmt.Sprintf("start %d nodes", demoNodes), 0, 0, time.Since(began))
	return nil
}

// doImport asks the first node; doArchive asks another one.
func (d *demo) doImport(ctx context.Context) error {
	began := time.Now()
	e, err := runImport(ctx, d.cluster.nodes[0].client, api.ImportRequest{Dir: d.report.Dir}, d.app.progress("import"))
	if err != nil {
		return err
	}
	d.report.addStage("import", e.Files, e.Bytes, time.Since(began))
	d.report.Import = e
	return nil
}

func (d *demo) doArchive(ctx context.Context) error {
	before, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	e, err := runArchive(ctx, d.cluster.nodes[1].client, api.ArchiveRequest{}, d.app.progress("archive"))
	if err != nil {
		return err
	}
	d.report.addStage("archive", e.Packed, e.Bytes, time.Since(began))
	after, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	d.report.Failed = e.Failed
	d.report.PutRequests = after.store["put"] - before.store["put"]
	d.report.HeadRequests = after.store["head"] - before.store["head"]
	return nil
}

// awaitUpkeep waits for the nodes to verify the packs: reads back must not be
// mixed with the store requests of verification.
func (d *demo) awaitUpkeep(ctx context.Context) error {
	began := time.Now()
	err := await(ctx, "packs are not verified", func(ctx context.Context) (string, error) {
		for _, n := range d.cluster.living() {
			s, err := n.status(ctx)
			if err != nil {
				return "", err
			}
			d.report.Packs = s.Packs
			if s.Packs.Damaged > 0 {
				return "", fmt.Errorf("%w: %s damaged", errFailed, count(s.Packs.Damaged, "pack"))
			}
			if s.Packs.Unacknowledged+s.Packs.Unverified > 0 {
				return fmt.Sprintf("%d not acknowledged, %d not verified, says %s", s.Packs.Unacknowledged, s.Packs.Unverified, n.name), nil
			}
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	d.report.addStage("wait for verification", 0, 0, time.Since(began)) // most of it ran beside the archiving
	f, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	for _, n := range d.cluster.nodes {
		of := func(series string) int64 { return int64(f.nodes[n][series]) }
		d.report.Work = append(d.report.Work, demoWork{
			Node: n.name, Packs: of("des_packer_packs_total"), Files: of("des_packer_rows_total"), Bytes: of("des_packer_bytes_total"),
			Verified: of("des_keeper_verified_packs_total"),
		})
	}
	return nil
}

// readThroughAll reads every file back through each node.
func (d *demo) readThroughAll(ctx context.Context) error {
	for _, n := range d.cluster.living() {
		if err := d.readThrough(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// readThroughNewest reads every file back through the node that came last.
func (d *demo) readThroughNewest(ctx context.Context) error {
	living := d.cluster.living()
	return d.readThrough(ctx, living[len(living)-1])
}

func (d *demo) readThrough(ctx context.Context, n *demoNode) error {
	return d.readMeasured(ctx, n, "read back through "+n.name, d.files, d.report.addReads)
}

const (
	hotFiles = 1000 // that are read again, at most
	heatings = 4    // reads of a file before it counts as hot: a cache that is full takes in what is asked for often
)

// readHot reads some files until they are in memory, and then once more.
func (d *demo) readHot(ctx context.Context) error {
	var some []demoFile
	size := int64(0)
	for _, f := range d.files {
		if size+f.size <= int64(d.cluster.cache)/8 && len(some) < hotFiles {
			some, size = append(some, f), size+f.size
		}
	}
	if len(some) == 0 {
		return nil // all are too large to be kept in memory
	}
	living := d.cluster.living()
	n := living[len(living)-1]
	if err := d.readMeasured(ctx, n, "make some hot", slices.Repeat(some, heatings), d.report.addSome); err != nil {
		return err
	}
	return d.readMeasured(ctx, n, "read hot files", some, d.report.addSome)
}

// readMeasured reads files back through a node and adds to the report what was
// found, what it asked of the store, and how it was routed.
func (d *demo) readMeasured(ctx context.Context, n *demoNode, stage string, files []demoFile, add func(stage string, c comparison, gets int64)) error {
	before, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	c, err := compareAll(ctx, n.client, d.report.Dir, files, d.app.progress(stage))
	if err != nil {
		return err
	}
	d.report.addStage(stage, c.identical, c.bytes, time.Since(began))
	after, err := d.cluster.figures(ctx)
	if err != nil {
		return err
	}
	add(stage, c, after.store["get"]-before.store["get"])
	d.report.addRoutes(stage, after.routesSince(before))
	return nil
}
