package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reached says how host h finds the other: a port that nobody listens on is
// refused by a machine that is there, and not answered by one that is not.
func reached(ctx context.Context, h, other *host) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := h.dial(ctx, "tcp", other.addr+":9")
	if err == nil {
		return errors.Join(errors.New("somebody listens"), conn.Close())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

func TestHostsAreCutAndHealed(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out network namespaces")
	}
	if ranAsRoot(t) {
		return
	}
	w, err := newNetwork(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	one, two := w.hosts[0], w.hosts[1]
	steps := []struct {
		name string
		do   func(context.Context) error
		from *host
		to   *host
		want bool // it is reached
	}{
		{"new", nil, one, two, true},
		{"the way back", nil, two, one, true},
		{"itself", nil, one, one, true},
		{"cut", two.cut, one, two, false},
		{"cut, itself", nil, two, two, true},
		{"cut, the way back", nil, two, one, false},
		{"healed", two.heal, one, two, true},
	}
	for _, s := range steps {
		if s.do != nil {
			if err := s.do(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !s.want {
			if reached(t.Context(), s.from, s.to) == nil {
				t.Errorf("%s: %s reaches %s", s.name, s.from.ns, s.to.ns)
			}
			continue
		}
		err := await(t.Context(), "it is reached", 10*time.Second, func(ctx context.Context) error { return reached(ctx, s.from, s.to) })
		if err != nil {
			t.Errorf("%s: %s does not reach %s: %v", s.name, s.from.ns, s.to.ns, err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.hosts {
		if _, err := os.Stat(filepath.Join("/run/netns", h.ns)); err == nil {
			t.Errorf("%s is left", h.ns)
		}
		if _, err := net.InterfaceByName(h.link); err == nil {
			t.Errorf("%s is left", h.link)
		}
	}
	if _, err := net.InterfaceByName(w.bridge); err == nil {
		t.Errorf("%s is left", w.bridge)
	}
}

// envAsRoot is set for a test that runs again as root of a user namespace.
const envAsRoot = "DESNODE_CHAOS_AS_ROOT"

// ranAsRoot runs the test again where it may make networks, when it may not
// here: as root of a user namespace with a network of its own. It reports
// whether it did.
func ranAsRoot(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		if os.Getenv(envAsRoot) != "" {
			// `ip netns` keeps its names below /run, which is not ours to write.
			if err := errors.Join(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""), ip(t.Context(), "link", "set", "lo", "up")); err != nil {
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
