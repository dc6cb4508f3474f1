package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/datavision/desnode/node/config"
)

// Bounds below which doctor warns, and one below which it fails.
const (
	enoughFiles = 4096
	enoughSpace = 1 << 30  // bytes
	startSpace  = 32 << 20 // bytes in the data dir; a new node takes 9 MiB at once, most of it for the Raft log
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, untold, warn or fail
	Detail string `json:"detail"`
	// Means says what follows, Set what to change; both may be empty.
	Means string `json:"means,omitempty"`
	Set   string `json:"set,omitempty"`
}

// The results.
const (
	resultOK     = "ok"
	resultUntold = "untold" // could not be found out; nothing speaks against it
	resultWarn   = "warn"
	resultFail   = "fail"
)

// plain is a finding whose detail says it all.
func plain(check, result, detail string) finding {
	return finding{Check: check, Result: result, Detail: detail}
}

// doctorLimit bounds all questions to servers.
const doctorLimit = 5 * time.Minute

func (a *app) doctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether a node could run on this machine as configured",
		Long: `Checks the configuration, the data dir, the store, the sources, the ports and the machine's limits, as the node's
work needs them. It creates nothing that stays. A bucket is probed with a few dozen small objects below probe/, which are
removed again; --read-only leaves that out. A Postgres source is asked as each role, and all that is tried is rolled back.

Results: ok; untold, what the server or the credentials do not tell; warn, what works at a price; fail, what does not
work or puts files at risk. Exit code 1 when a check fails; warnings and what is untold leave it at 0.`,
		Args: cobra.NoArgs,
	}
	flags := addNodeFlags(cmd)
	readOnly := cmd.Flags().Bool("read-only", false, "write nothing into the bucket")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.load()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), doctorLimit)
		defer cancel()
		findings := examine(ctx, c, *readOnly)
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		err = a.print(findings, func(w io.Writer) error { return writeFindings(w, findings) })
		if slices.ContainsFunc(findings, func(f finding) bool { return f.Result == resultFail }) {
			return errors.Join(err, fmt.Errorf("%w: a node could not run well like this", errFailed))
		}
		return err
	}
	return cmd
}

// writeFindings prints a line for each finding, then what those that are not
// ok mean.
func writeFindings(w io.Writer, findings []finding) error {
	t := newTable(w)
	for _, f := range findings {
		t.row(f.Result, f.Check, printable(f.Detail))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Result == resultOK || f.Means == "" && f.Set == "" {
			continue
		}
		text := fmt.Sprintf("\n%s %s: %s\n", f.Result, f.Check, printable(f.Detail))
		if f.Means != "" {
			text += "  means: " + printable(f.Means) + "\n"
		}
		if f.Set != "" {
			text += "  set:   " + printable(f.Set) + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// examine makes every check.
func examine(ctx context.Context, c config.Config, readOnly bool) []finding {
	findings := []finding{
		plain("configuration", resultOK, "valid"),
		folder("data dir", c.DataDir),
		localDisk("data dir's file system", c.DataDir),
		space("data dir's free space", c.DataDir, c.Archive.PackSize, startSpace),
	}
	if c.Store.S3() {
		findings = append(findings, bucketStore(ctx, c, readOnly)...)
	} else if path, err := c.Store.Path(); err == nil {
		findings = append(findings, folder("store", path), space("store's free space", path, c.Archive.PackSize, 0))
	}
	if c.HasDefaultStore() {
		findings = append(findings, plain("store", resultWarn, "packs are kept inside the data dir; set store.url to a folder of its own before originals are deleted"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
		findings = append(findings, sourceFindings(ctx, name, c)...)
	}
	return append(findings, port(ctx, "http", c.HTTP),
		ports(ctx, "cluster", c.ClusterAddr()), ports(ctx, "gossip", c.GossipAddr()), announced(c), udpBuffer(), openFiles())
}

// existing returns path, or the nearest folder above it that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// folder checks that path is a folder, or could become one, and can be written.
func folder(check, path string) finding {
	at := existing(path)
	if fi, err := os.Stat(at); err != nil || !fi.IsDir() {
		return plain(check, resultFail, at+" is not a folder")
	}
	f, err := os.CreateTemp(at, ".desnode-doctor-*")
	if err != nil {
		return plain(check, resultFail, fmt.Sprintf("%s cannot be written: %v", at, err))
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return plain(check, resultFail, err.Error())
	}
	if at != path {
		return plain(check, resultOK, path+" can be created")
	}
	return plain(check, resultOK, path+" can be written")
}

func readable(check, path string) finding {
	d, err := os.Open(path)
	if err != nil {
		return plain(check, resultFail, err.Error())
	}
	defer d.Close()
	if _, err := d.ReadDir(1); err != nil && !errors.Is(err, io.EOF) {
		return plain(check, resultFail, err.Error())
	}
	return plain(check, resultOK, path+" can be read")
}

// space fails when less than least bytes are free at path, and warns when less
// than four packs, or 1 GiB, are.
func space(check, path string, pack config.Size, least int64) finding {
	free, err := freeSpace(existing(path))
	if err != nil {
		return plain(check, resultWarn, err.Error())
	}
	return judgeSpace(check, free, least, max(4*int64(pack), enoughSpace))
}

func judgeSpace(check string, free, least, enough int64) finding {
	detail := formatBytes(free) + " free"
	switch {
	case free < least:
		return plain(check, resultFail, detail+", a node needs "+formatBytes(least)+" to start")
	case free < enough:
		return plain(check, resultWarn, detail+", less than "+formatBytes(enough))
	}
	return plain(check, resultOK, detail)
}

// localDisk fails on network file systems, on which SQLite's and bbolt's locks
// do not hold.
func localDisk(check, path string) finding {
	kind, network, err := fileSystem(existing(path))
	switch {
	case err != nil:
		return plain(check, resultWarn, err.Error())
	case network:
		return plain(check, resultFail, kind+" is a network file system; databases need a local one")
	}
	return plain(check, resultOK, kind)
}

func openFiles() finding {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return plain("open files", resultWarn, err.Error())
	}
	detail := fmt.Sprintf("up to %d", limit.Max)
	if limit.Max < enoughFiles {
		return plain("open files", resultWarn, fmt.Sprintf("%s; raise the limit to %d or more", detail, enoughFiles))
	}
	return plain("open files", resultOK, detail)
}

// freeSpace returns the bytes that this user may still write at path.
func freeSpace(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // narrower on other platforms
}
