package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Network is some hosts on one bridge, which itself has no address: they reach
// one another and nothing else.
type Network struct {
	bridge string
	Hosts  []*Host
}

// networks numbers those of this process.
var networks atomic.Int32

// NewNetwork makes count hosts. Their names carry this process's number. It
// needs root's rights over the network (CAP_NET_ADMIN, CAP_SYS_ADMIN).
func NewNetwork(ctx context.Context, count int) (_ *Network, err error) {
	tag := fmt.Sprintf("%d%c", os.Getpid(), 'a'+(networks.Add(1)-1)%26)
	w := &Network{bridge: "desb" + tag}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make networks of our own (that takes root): %w", err), w.Close())
		}
	}()
	if err := ip(ctx, "link", "add", w.bridge, "type", "bridge"); err != nil {
		return nil, err
	}
	if err := ip(ctx, "link", "set", w.bridge, "up"); err != nil {
		return nil, err
	}
	for i := range count {
		h := &Host{ns: fmt.Sprintf("desnode-%s-%d", tag, i+1), addr: fmt.Sprintf("10.83.0.%d", i+1), link: fmt.Sprintf("des%s%d", tag, i+1)}
		if err := ip(ctx, "netns", "add", h.ns); err != nil {
			return nil, err
		}
		w.Hosts = append(w.Hosts, h)
		for _, args := range [][]string{
			{"link", "add", h.link, "type", "veth", "peer", "name", "eth0", "netns", h.ns},
			{"link", "set", h.link, "master", w.bridge, "up"},
			{"-n", h.ns, "link", "set", "lo", "up"},
			{"-n", h.ns, "addr", "add", h.addr + "/24", "dev", "eth0"},
			{"-n", h.ns, "link", "set", "eth0", "up"},
		} {
			if err := ip(ctx, args...); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

// Cut takes the host's cable out of the bridge.
func (h *Host) Cut(ctx context.Context) error { return ip(ctx, "link", "set", h.link, "down") }

// Heal puts the cable back.
func (h *Host) Heal(ctx context.Context) error { return ip(ctx, "link", "set", h.link, "up") }

// Close removes the hosts and the bridge. Their processes must be gone.
func (w *Network) Close() (err error) {
	ctx := context.Background() // it is done whatever ended
	for _, h := range w.Hosts {
		// The kernel would take the cable away with the host, but later.
		err = errors.Join(err, unlink(ctx, h.link), ip(ctx, "netns", "del", h.ns))
	}
	return errors.Join(err, unlink(ctx, w.bridge))
}

// unlink removes an interface, when it is there.
func unlink(ctx context.Context, name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return nil //nolint:nilerr // it was never made
	}
	return ip(ctx, "link", "del", name)
}

// ipProgram finds iproute2's ip, which is not on every user's path.
func ipProgram() string {
	if program, err := exec.LookPath("ip"); err == nil {
		return program
	}
	return "/usr/sbin/ip"
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, ipProgram(), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, cut(out))
	}
	return nil
}

// inside is a command line that runs in the host. `ip netns exec` becomes the
// program, so that the process started is the program itself.
func (h *Host) inside(program []string) []string {
	return append([]string{ipProgram(), "netns", "exec", h.ns}, program...)
}

// Listen opens a port inside the host, for programs there to connect to. Who
// accepts stays outside: a way in that no cut cable takes away.
func (h *Host) Listen(ctx context.Context, addr string) (l net.Listener, err error) {
	enterErr := h.enter(func() { l, err = new(net.ListenConfig).Listen(ctx, "tcp", addr) })
	return l, errors.Join(err, enterErr)
}

// dial opens a connection from inside the host.
func (h *Host) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	enterErr := h.enter(func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) })
	return conn, errors.Join(err, enterErr)
}

// enter does something inside the host: a socket belongs to the namespace of
// the thread that makes it.
func (h *Host) enter(do func()) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var back bool
		if back, err = h.enterHere(do); back {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
	}()
	<-done
	return err
}

// enterHere takes the calling thread into the host for as long as do takes, and
// reports whether it is back.
func (h *Host) enterHere(do func()) (back bool, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, err
	}
	defer own.Close()
	theirs, err := os.Open(filepath.Join("/run/netns", h.ns))
	if err != nil {
		return true, err
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("enter %s: %w", h.ns, err)
	}
	do()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		return false, fmt.Errorf("leave %s: %w", h.ns, err)
	}
	return true, nil
}
