package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/datavision/desnode/chaos/rig"
	"github.com/datavision/desnode/chaos/rig/rigtest"
)

// syncer is a node that flushes a file again and again, and leaves another
// beside it whenever that fails.
const syncer = `#!/bin/sh
d=$(dirname "$0")
while [ -e "$d/go" ]; do dd if=/dev/zero of="$d/synced" bs=1 count=1 conv=fsync 2>/dev/null || : >"$d/failed"; done
`

// exists waits until a file is there, or is not.
func exists(t *testing.T, path string, want bool) {
	t.Helper()
	err := rig.Await(t.Context(), path, 10*time.Second, func(context.Context) error {
		_, err := os.Lstat(path)
		switch {
		case err == nil && !want:
			return errors.New("it is there")
		case errors.Is(err, fs.ErrNotExist) && !want:
			return nil
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSyncsFailAndWorkAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out strace")
	}
	if rigtest.RanAsRoot(t) { // others may be forbidden to trace
		return
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "syncer")
	if err := os.WriteFile(bin, []byte(syncer), 0o700); err != nil {
		t.Fatal(err)
	}
	goOn := filepath.Join(dir, "go")
	n, err := rig.NewNode(bin, dir, "n1", nil)
	if err := errors.Join(err, os.WriteFile(goOn, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := n.Start("start"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Remove(goOn); err != nil {
			t.Error(err)
		}
		<-n.Ended()
	}()
	w := &world{dir: dir, logf: t.Logf}
	if err := needsTracing(w); err != nil {
		t.Fatal(err)
	}
	exists(t, filepath.Join(dir, "synced"), true)
	exists(t, filepath.Join(dir, "failed"), false)
	inject := tampered("fsync,fdatasync", "fsync,fdatasync:error=EIO")
	heal, err := inject(t.Context(), w, planned{}, &member{name: "n1", node: n})
	if err != nil {
		t.Fatal(err)
	}
	exists(t, filepath.Join(dir, "failed"), true)
	if err := heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := func() {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, "synced")); err != nil {
			t.Fatal(err)
		}
		exists(t, filepath.Join(dir, "synced"), true)
	}
	again() // one that failed may have been under way
	if err := os.Remove(filepath.Join(dir, "failed")); err != nil {
		t.Fatal(err)
	}
	again()
	again()
	exists(t, filepath.Join(dir, "failed"), false)
}

func TestDiskIsFullAndIsNot(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out mounts")
	}
	if rigtest.RanAsRoot(t) {
		return
	}
	dir := t.TempDir()
	m := &member{name: "n1", disk: 4 << 20}
	if err := m.replace("/bin/true", dir, "", nil); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.unmount(); err != nil {
			t.Error(err)
		}
	}()
	file := filepath.Join(m.node.Data(), "file")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	// What ends under it is started again: here nothing ever runs.
	w := &world{dir: dir, logf: t.Logf, wrong: map[string][]string{}}
	heal, err := fillDisk(t.Context(), w, planned{}, m)
	if err != nil {
		t.Fatal(err)
	}
	more := filepath.Join(m.node.Data(), "more")
	if err := os.WriteFile(more, []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	// What a node gives up is taken too.
	if err := errors.Join(os.Remove(file), os.Remove(more)); err != nil {
		t.Fatal(err)
	}
	err = rig.Await(t.Context(), "the disk is full again", 10*time.Second, func(context.Context) error {
		if err := os.WriteFile(more, make([]byte, 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(errors.New("it is not"), err, os.Remove(more))
		}
		return os.Remove(more)
	})
	if err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the node is not waited for
	if err := heal(ctx); err == nil {
		t.Error("a node that does not start is back")
	}
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Errorf("healed: %v", err)
	}
}
