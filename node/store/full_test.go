package store

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// fullDiskDir tells the test binary, run again in a mount namespace of its
// own, where to mount its small disk.
const fullDiskDir = "DESNODE_TEST_FULL_DISK"

func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(fullDiskDir); dir != "" {
		onFullDisk(t, dir)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullDiskDir+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 { // a user may mount in a user namespace
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFullDisk") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func onFullDisk(t *testing.T, dir string) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	f := newFolder(t, dir)
	put(t, f, "kept", "x")
	const size = 2 << 20
	_, err := f.Put(t.Context(), "packs/0-0/big", strings.NewReader(strings.Repeat("x", size)), size)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk that holds the store folder "+dir+" is full") {
		t.Errorf("put on a full disk: %v", err)
	}
	if left := tempFiles(t, dir); len(left) > 0 {
		t.Errorf("left in tmp: %q", left)
	}
	if _, err := f.Head(t.Context(), "packs/0-0/big", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("head of what did not fit: %v, want ErrNotFound", err)
	}
	put(t, f, "small", strings.Repeat("x", 1<<19)) // the room was given back
}
