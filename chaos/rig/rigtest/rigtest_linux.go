// Package rigtest lets tests use what takes root's rights, on machines where
// they are run by somebody else.
package rigtest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// envAsRoot is set for a test that runs again as root of a user namespace.
const envAsRoot = "DESNODE_CHAOS_AS_ROOT"

// RanAsRoot runs the test again where it may make networks, when it may not
// here: as root of a user namespace with a network of its own. It reports
// whether it did; then the caller returns.
func RanAsRoot(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		if os.Getenv(envAsRoot) != "" {
			// `ip netns` keeps its names below /run, which is not ours to write.
			up := exec.CommandContext(t.Context(), "sh", "-c", "PATH=$PATH:/usr/sbin ip link set lo up")
			if err := errors.Join(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""), up.Run()); err != nil {
				t.Fatal(err)
			}
		}
		return false
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), envAsRoot+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("as root of a user namespace: %v", err)
	}
	return true
}
