package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/bench"
	"github.com/datavision/desnode/node/source"
)

func (a *app) benchArchive() *cobra.Command {
	var flags benchFlags
	var every int64
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Archive made-up files and print the figures",
		Long: `Lists made-up files in a source, runs a node until all of them are PACKED and every pack is verified, reads every
thousandth back over HTTP and compares it, and restarts the node. Prints the speed, the requests made of the store, the
statements made of the database and the memory used. Exit code 1 unless every file is archived once and what was read
back is identical.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.newBenchRun(flags)
			if err != nil {
				return err
			}
			return errors.Join(r.measureArchive(cmd.Context(), max(1, every)), r.clean(cmd.Context()))
		},
	}
	flags.add(cmd, 100_000)
	cmd.Flags().Int64Var(&every, "check-every", 1000, "read back every n-th file")
	return cmd
}

// measureArchive runs the stages and prints the report.
func (r *benchRun) measureArchive(ctx context.Context, every int64) error {
	report := r.newReport()
	err := r.archiveStages(ctx, &report, every)
	if err != nil {
		return err
	}
	if err := r.app.print(report, report.write); err != nil {
		return err
	}
	if !report.OK {
		return fmt.Errorf("%w: not every file was archived once and read back identical", errFailed)
	}
	return nil
}

func (r *benchRun) archiveStages(ctx context.Context, report *benchReport, every int64) (err error) {
	took, err := r.seed(ctx)
	if err != nil {
		return err
	}
	report.Insert = stageOf(r.files.Count, 0, took)
	debug.FreeOSMemory() // what listing the files took is not the node's
	report.PeakSinceStart = bench.ResetPeak() != nil

	n, err := r.startNode(ctx)
	if err != nil {
		return err
	}
	err = r.archive(ctx, n, report)
	if err == nil {
		report.ReadBack, err = r.readBack(ctx, n, every)
	}
	if err = errors.Join(err, n.close()); err != nil {
		return err
	}
	if err := r.restart(ctx, report); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	report.judge(r.files)
	return nil
}

// archive waits until everything is PACKED and verified, and notes the figures.
func (r *benchRun) archive(ctx context.Context, n *benchNode, report *benchReport) error {
	memory := watchMemory()
	defer func() {
		memory.end()
		report.PeakGo, report.PeakHeap = memory.total.Load(), memory.heap.Load()
	}()
	began := time.Now()
	last, err := runArchive(ctx, n.client, api.ArchiveRequest{}, r.app.progress("archive"))
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	took := time.Since(began)
	packed, err := n.figures(ctx)
	if err != nil {
		return err
	}
	report.noteRequests(packed)
	states, err := n.countedSince(ctx, began.Add(took))
	if err != nil {
		return fmt.Errorf("count the rows: %w", err)
	}
	// The node marks from the moment it is ready, a little before the run was
	// asked for: its own count of the rows is what is divided.
	report.Packed, report.Failed = states[string(source.Packed)].Rows, states[string(source.Failed)].Rows
	report.Bytes = states[string(source.Packed)].Bytes
	report.Archive = stageOf(report.Packed, report.Bytes, took)
	report.Failed = max(report.Failed, last.Failed)

	if err := n.awaitVerified(ctx); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	report.Verified = time.Since(began).Seconds()
	verified, err := n.figures(ctx)
	if err != nil {
		return err
	}
	report.Packs = verified.status.Packs
	report.RequestsVerified = verified.status.StoreCalls
	report.PeakMemory, err = bench.PeakMemory()
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return err
}

// readBack reads every n-th file and compares it.
func (r *benchRun) readBack(ctx context.Context, n *benchNode, every int64) (c benchCompared, err error) {
	p := r.app.progress("read back")
	defer p.done()
	for i := int64(0); i < r.files.Count; i += every {
		bytes, err := bench.Fetch(ctx, n.http, n.base, r.files, i)
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		if err == nil {
			c.Identical++
			c.Bytes += bytes
		} else if c.Wrong++; c.First == "" {
			c.First = err.Error()
		}
		p.update(c.Bytes, 0, c.Identical)
	}
	return c, nil
}

// restart opens the node again and reads one file.
func (r *benchRun) restart(ctx context.Context, report *benchReport) (err error) {
	n, err := r.startNode(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	report.Restart.Ready = n.ready.Seconds()
	began := time.Now()
	_, err = bench.Fetch(ctx, n.http, n.base, r.files, r.files.Count/2)
	report.Restart.FirstAnswer = time.Since(began).Seconds()
	return err
}
