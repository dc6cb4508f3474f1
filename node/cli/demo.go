package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/api"
)

// demoReaders is the number of connections that read back.
const demoReaders = 8

func (a *app) demo() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Start a node, archive DIR, read every file back and compare",
		Long: `Starts a node on a free port with a data dir of its own in the temporary folder, imports DIR (by default the Go
toolchain's own source tree), archives it, waits until the node has verified its packs, and reads every file back over
HTTP, comparing it with the original byte for byte. DIR is only read. Prints a table of figures; the exit code is 1 when
any file is missing or different. Nothing is left behind unless --keep is given.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := demoFolder(cmd.Context(), args)
			if err != nil {
				return err
			}
			return a.runDemo(cmd.Context(), dir, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the node running and say how to try it")
	return cmd
}

// demoFolder returns the folder to archive, without links in its path.
func demoFolder(ctx context.Context, args []string) (string, error) {
	var dir string
	if len(args) == 1 {
		dir = args[0]
	} else {
		out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return "", usage("there is no Go toolchain to take its source tree; name a folder: desnode demo DIR")
		}
		dir = filepath.Join(strings.TrimSpace(string(out)), "src")
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", &usageError{err}
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return "", usage(dir + " is not a folder")
	}
	found, err := hasFile(dir)
	if err != nil {
		return "", err
	}
	if !found {
		return "", usage(dir + " has no file that could be archived")
	}
	return dir, nil
}

// runDemo runs the demo in a temporary folder, which it removes.
func (a *app) runDemo(ctx context.Context, dir string, keep bool) (err error) {
	tmp, err := os.MkdirTemp("", "desnode-demo-")
	if err != nil {
		return err
	}
	n, err := startChild(ctx, filepath.Join(tmp, "node.log"), "--data-dir", filepath.Join(tmp, "node"), "--http", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, n.stop(), os.RemoveAll(tmp))
		}
	}()
	c, err := newClient("http://" + n.addr)
	if err != nil {
		return err
	}
	defer c.close()
	d := demo{app: a, client: c, report: demoReport{Dir: dir}}
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("%w%s", err, n.logTail(err))
	}
	if err := a.print(d.report, d.report.write); err != nil {
		return err
	}
	if keep {
		kept = true
		d.sayHowToTry(a.stderr, n, tmp)
	}
	if !d.report.Identical {
		return fmt.Errorf("%w: not every file came back as it was", errFailed)
	}
	return nil
}

// demo is one run of the stages against a running node.
type demo struct {
	app    *app
	client *client
	report demoReport
	files  []demoFile
}

func (d *demo) run(ctx context.Context) error {
	if err := d.doImport(ctx); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if err := d.doArchive(ctx); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := d.awaitUpkeep(ctx); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := d.readBack(ctx, "read back", len(d.files)); err != nil {
		return err
	}
	return d.readBack(ctx, "read again", min(len(d.files), 20000))
}

func (d *demo) doImport(ctx context.Context) error {
	began := time.Now()
	e, err := runImport(ctx, d.client, api.ImportRequest{Dir: d.report.Dir}, d.app.progress("import"))
	if err != nil {
		return err
	}
	d.report.addStage("import", e.Files, e.Bytes, time.Since(began))
	d.report.Import = e
	d.files, err = listFiles(d.report.Dir)
	return err
}

func (d *demo) doArchive(ctx context.Context) error {
	before, err := d.status(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	e, err := runArchive(ctx, d.client, api.ArchiveRequest{}, d.app.progress("archive"))
	if err != nil {
		return err
	}
	d.report.addStage("archive", e.Packed, e.Bytes, time.Since(began))
	after, err := d.status(ctx)
	if err != nil {
		return err
	}
	d.report.Failed = e.Failed
	d.report.PutRequests = after.StoreCalls["put"] - before.StoreCalls["put"]
	d.report.HeadRequests = after.StoreCalls["head"] - before.StoreCalls["head"]
	d.report.Packs = after.Packs
	return nil
}

// Waiting for the node to verify its packs: reads back must not be mixed with
// the store requests of verification.
const (
	upkeepPatience = 2 * time.Minute
	upkeepPoll     = 50 * time.Millisecond
)

func (d *demo) awaitUpkeep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepPatience)
	defer cancel()
	began := time.Now()
	tick := time.NewTicker(upkeepPoll)
	defer tick.Stop()
	for {
		s, err := d.status(ctx)
		if err != nil {
			return err
		}
		if s.Packs.Damaged > 0 {
			return fmt.Errorf("%w: %s damaged", errFailed, count(s.Packs.Damaged, "pack"))
		}
		if s.Packs.Unacknowledged+s.Packs.Unverified == 0 {
			d.report.addStage("wait for verification", 0, 0, time.Since(began)) // most of it ran beside the archiving
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d packs not acknowledged and %d not verified: %w", s.Packs.Unacknowledged, s.Packs.Unverified, context.Cause(ctx))
		}
	}
}

func (d *demo) readBack(ctx context.Context, stage string, n int) error {
	before, err := d.status(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := compareAll(ctx, d.client, d.report.Dir, d.files[:n], d.app.progress(stage))
	if err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	d.report.addStage(stage, r.identical, r.bytes, time.Since(began))
	after, err := d.status(ctx)
	if err != nil {
		return err
	}
	gets := after.StoreCalls["get"] - before.StoreCalls["get"]
	d.report.addReads(stage, r, gets)
	return nil
}

func (d *demo) status(ctx context.Context) (api.Status, error) {
	return call[api.Status](ctx, d.client, http.MethodGet, api.PathStatus, nil)
}

func (d *demo) sayHowToTry(w io.Writer, n *child, tmp string) {
	name := "NAME"
	if len(d.files) > 0 {
		name = escapeName(d.files[len(d.files)/2].name)
	}
	_, _ = fmt.Fprintf(w, `
The node runs on as process %[1]d. Try:
  curl -i %[2]s/files/%[3]s
  curl -i -H 'Range: bytes=0-99' %[2]s/files/%[3]s
  curl -s %[2]s/metrics | grep des_
  DESNODE_ADDR=%[2]s %[4]s status
Stop it, and remove what it keeps:
  kill %[1]d; rm -r %[5]s
`, n.cmd.Process.Pid, d.client.base, name, os.Args[0], tmp)
}
