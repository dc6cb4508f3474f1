package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

func (a *app) archive() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Archive all that is eligible now and wait until it is packed",
		Long: `Marks and packs every eligible file now, whatever archive.max_wait says, and waits until all of them are PACKED.
The exit code is 0 only if none FAILED; 'desnode failed' lists those, 'desnode retry' tries them again.
The node archives by itself as well: this command only makes it happen at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.close()
			last, err := runArchive(cmd.Context(), c, api.ArchiveRequest{DryRun: dryRun}, a.progress("archive"))
			if err != nil {
				return err
			}
			if err := a.print(last, func(w io.Writer) error { return writeArchive(w, last) }); err != nil {
				return err
			}
			if last.Failed > 0 {
				return fmt.Errorf("%w: %s could not be archived; see 'desnode failed'", errFailed, count(last.Failed, "file"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be archived, and what would stay behind and why")
	return cmd
}

// runArchive archives and returns the last event that has figures.
func runArchive(ctx context.Context, c *client, req api.ArchiveRequest, p *progress) (api.ArchiveEvent, error) {
	var last api.ArchiveEvent
	err := stream(ctx, c, api.PathArchive, req, func(e api.ArchiveEvent) error {
		if alone := (api.ArchiveEvent{End: e.End}); e == alone {
			last.End = e.End
			return nil // it has no figures
		}
		last = e
		p.update(e.Bytes, e.TotalBytes, e.Packed)
		return nil
	})
	p.done()
	return last, err
}

func writeArchive(w io.Writer, e api.ArchiveEvent) error {
	if e.DryRun == nil {
		_, err := fmt.Fprintf(w, "%s, %s archived in %s; %s failed\n", count(e.Packed, "file"), formatBytes(e.Bytes),
			count(e.Packs, "pack"), formatCount(e.Failed))
		return err
	}
	return writeDryRun(w, e.DryRun)
}

func writeDryRun(w io.Writer, d *api.DryRun) error {
	t := newTable(w)
	t.row("WOULD", "SOURCE", "FILES", "BYTES", "OLDEST", "NEWEST")
	tally := func(would, source string, y api.Tally) {
		t.row(would, source, formatCount(y.Rows), formatBytes(y.Bytes), formatTime(y.Oldest), formatTime(y.Newest))
	}
	tally("be archived", "all", d.Eligible)
	for _, r := range d.Rest {
		tally("stay: "+printable(r.Reason), printable(r.Source), r.Tally)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(d.Failures) > 0 {
		if _, err := io.WriteString(w, "\nFailures by code, whatever the state; 'desnode failed' lists them:\n"); err != nil {
			return err
		}
		if err := writeCodes(w, d.Failures); err != nil {
			return err
		}
	}
	if len(d.Pauses) == 0 {
		return nil
	}
	held := newTable(w)
	held.row()
	for _, p := range d.Pauses {
		writePause(held, p)
	}
	return held.flush()
}
