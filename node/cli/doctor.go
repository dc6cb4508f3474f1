package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

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
	Result string `json:"result"` // ok, warn or fail
	Detail string `json:"detail"`
}

// The results.
const (
	resultOK   = "ok"
	resultWarn = "warn"
	resultFail = "fail"
)

func (a *app) doctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether a node could run on this machine as configured",
		Long: `Checks the configuration, the data dir, the store, the sources, the port and the machine's limits. It creates
nothing that stays. Exit code 1 when a check fails; warnings leave it at 0.`,
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.load()
		if err != nil {
			return err
		}
		findings := examine(cmd.Context(), c)
		err = a.print(findings, func(w io.Writer) error {
			t := newTable(w)
			for _, f := range findings {
				t.row(f.Result, f.Check, f.Detail)
			}
			return t.flush()
		})
		if slices.ContainsFunc(findings, func(f finding) bool { return f.Result == resultFail }) {
			return errors.Join(err, fmt.Errorf("%w: a node could not run like this", errFailed))
		}
		return err
	}
	return cmd
}

// examine makes every check.
func examine(ctx context.Context, c config.Config) []finding {
	findings := []finding{
		{"configuration", resultOK, "valid"},
		folder("data dir", c.DataDir),
		localDisk("data dir's file system", c.DataDir),
		space("data dir's free space", c.DataDir, c.Archive.PackSize, startSpace),
	}
	if path, err := c.Store.Path(); err == nil {
		findings = append(findings, folder("store", path), space("store's free space", path, c.Archive.PackSize, 0))
	}
	if c.HasDefaultStore() {
		findings = append(findings, finding{"store", resultWarn, "packs are kept inside the data dir; set store.url to a folder of its own before originals are deleted"})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
		s, check := c.Sources[name], fmt.Sprintf("source %q: ", name)
		if path, err := s.Path(); err == nil {
			findings = append(findings, folder(check+"database", filepath.Dir(path)), localDisk(check+"database's file system", filepath.Dir(path)))
		}
		for _, root := range s.Roots {
			findings = append(findings, readable(check+"root", root))
		}
	}
	return append(findings, port(ctx, c.HTTP), openFiles())
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
		return finding{check, resultFail, at + " is not a folder"}
	}
	f, err := os.CreateTemp(at, ".desnode-doctor-*")
	if err != nil {
		return finding{check, resultFail, fmt.Sprintf("%s cannot be written: %v", at, err)}
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return finding{check, resultFail, err.Error()}
	}
	if at != path {
		return finding{check, resultOK, path + " can be created"}
	}
	return finding{check, resultOK, path + " can be written"}
}

func readable(check, path string) finding {
	d, err := os.Open(path)
	if err != nil {
		return finding{check, resultFail, err.Error()}
	}
	defer d.Close()
	if _, err := d.ReadDir(1); err != nil && !errors.Is(err, io.EOF) {
		return finding{check, resultFail, err.Error()}
	}
	return finding{check, resultOK, path + " can be read"}
}

// space fails when less than least bytes are free at path, and warns when less
// than four packs, or 1 GiB, are.
func space(check, path string, pack config.Size, least int64) finding {
	free, err := freeSpace(existing(path))
	if err != nil {
		return finding{check, resultWarn, err.Error()}
	}
	return judgeSpace(check, free, least, max(4*int64(pack), enoughSpace))
}

func judgeSpace(check string, free, least, enough int64) finding {
	detail := formatBytes(free) + " free"
	switch {
	case free < least:
		return finding{check, resultFail, detail + ", a node needs " + formatBytes(least) + " to start"}
	case free < enough:
		return finding{check, resultWarn, detail + ", less than " + formatBytes(enough)}
	}
	return finding{check, resultOK, detail}
}

// localDisk fails on network file systems, on which SQLite's and bbolt's locks
// do not hold.
func localDisk(check, path string) finding {
	kind, network, err := fileSystem(existing(path))
	switch {
	case err != nil:
		return finding{check, resultWarn, err.Error()}
	case network:
		return finding{check, resultFail, kind + " is a network file system; databases need a local one"}
	}
	return finding{check, resultOK, kind}
}

// port checks that the address is free.
func port(ctx context.Context, addr string) finding {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return finding{"http", resultFail, addr + " is in use by another process"}
	}
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		return finding{"http", resultFail, err.Error()}
	}
	return finding{"http", resultOK, addr + " is free"}
}

func openFiles() finding {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return finding{"open files", resultWarn, err.Error()}
	}
	detail := fmt.Sprintf("up to %d", limit.Max)
	if limit.Max < enoughFiles {
		return finding{"open files", resultWarn, fmt.Sprintf("%s; raise the limit to %d or more", detail, enoughFiles)}
	}
	return finding{"open files", resultOK, detail}
}

// freeSpace returns the bytes that this user may still write at path.
func freeSpace(path string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // narrower on other platforms
}
