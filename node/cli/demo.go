package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/config"
)

const (
	// demoReaders is the number of connections that read back.
	demoReaders = 8
	// demoNodes is the number of nodes in the beginning.
	demoNodes = 3
	// demoPacks is about how many packs the files are cut into, so that each
	// node gets some to pack.
	demoPacks = 12
	// demoCached is the part of the content that fits into a node's cache: nodes
	// that held all of it would not miss the one that dies.
	demoCached = 4
)

func (a *app) demo() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Run a cluster on this machine, archive DIR, read every file back and compare, kill a node meanwhile",
		Long: `Runs three nodes in processes of their own on free ports of this machine, with a folder store and a SQLite source in the
temporary folder that they share. Imports DIR (by default the Go toolchain's own source tree), archives it, waits until
the nodes have verified the packs, and reads every file back over HTTP through each node, comparing it with the original
byte for byte. DIR is only read.

Then it reads files at a steady rate through all nodes, and compares them, while the leader is killed (SIGKILL), a fourth
node joins in its place, and the next leader leaves. Last it reads every file back through the newest node.

Prints tables of figures; the exit code is 1 when any file is missing or different, or any read failed but those that the
killed node had begun to answer. Takes about 40 seconds for some thousand files. Nothing is left behind unless --keep is
given.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := demoFolder(cmd.Context(), args)
			if err != nil {
				return err
			}
			return a.runDemo(cmd.Context(), dir, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the nodes running and say how to try them")
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

// demo is one run of the stages on a cluster of its own.
type demo struct {
	app     *app
	cluster demoCluster
	report  demoReport
	files   []demoFile
}

// runDemo runs the demo in a temporary folder, which it removes.
func (a *app) runDemo(ctx context.Context, dir string, keep bool) (err error) {
	d := demo{app: a, report: demoReport{Dir: dir}}
	if d.files, err = listFiles(dir); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "desnode-demo-")
	if err != nil {
		return err
	}
	total := totalSize(d.files)
	d.cluster = demoCluster{
		dir: tmp, outlives: keep,
		packSize: config.Size(min(max(total/demoPacks, int64(64*config.KiB)), int64(256*config.MiB))),
		cache:    config.Size(max(total/demoCached, int64(config.MiB))),
	}
	d.report.CacheBytes = int64(d.cluster.cache)
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, d.cluster.remove())
		}
	}()
	began := time.Now()
	if err := d.run(ctx); err != nil {
		return fmt.Errorf("%w%s", err, d.cluster.lastWords(ctx, err))
	}
	d.report.Seconds = time.Since(began).Seconds()
	if err := a.print(d.report, d.report.write); err != nil {
		return err
	}
	if keep {
		kept = true
		d.sayHowToTry(a.stderr)
	}
	return d.report.verdict()
}

// totalSize returns the size of all files together.
func totalSize(files []demoFile) (total int64) {
	for _, f := range files {
		total += f.size
	}
	return total
}

// run goes through the stages.
func (d *demo) run(ctx context.Context) error {
	for _, stage := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"start the nodes", d.startNodes},
		{"import", d.doImport},
		{"archive", d.doArchive},
		{"verify", d.awaitUpkeep},
		{"read back", d.readThroughAll},
		{"read again", d.readHot},
		{"read under load", d.underLoad},
		{"read back", d.readThroughNewest},
	} {
		if err := stage.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	d.report.addNodes(d.cluster.nodes)
	var err error
	d.report.Members, err = d.cluster.membersAtRest(ctx)
	return err
}

func (d *demo) sayHowToTry(w io.Writer) {
	name := "NAME"
	if len(d.files) > 0 {
		name = escapeName(d.files[len(d.files)/2].name)
	}
	var pids []string
	for _, n := range d.cluster.living() {
		_, _ = fmt.Fprintf(w, "\nThe node %s runs on as process %d.", n.name, n.proc.cmd.Process.Pid)
		pids = append(pids, fmt.Sprint(n.proc.cmd.Process.Pid))
	}
	_, _ = fmt.Fprintf(w, ` Try:
  curl -i %[1]s/files/%[2]s
  curl -i -H 'Range: bytes=0-99' %[1]s/files/%[2]s
  curl -s %[1]s/metrics | grep des_
  DESNODE_ADDR=%[1]s %[3]s members
Stop them, and remove what they keep:
  kill %[4]s; rm -r %[5]s
`, d.cluster.living()[0].base, name, os.Args[0], strings.Join(pids, " "), d.cluster.dir)
}
