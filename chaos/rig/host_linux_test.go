package rig

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/datavision/desnode/chaos/rig/rigtest"
)

// reached says how host h finds the other: a port that nobody listens on is
// refused by a machine that is there, and not answered by one that is not.
func reached(ctx context.Context, h, other *Host) error {
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
	if rigtest.RanAsRoot(t) {
		return
	}
	w, err := NewNetwork(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	one, two := w.Hosts[0], w.Hosts[1]
	steps := []struct {
		name string
		do   func(context.Context) error
		from *Host
		to   *Host
		want bool // it is reached
	}{
		{"new", nil, one, two, true},
		{"the way back", nil, two, one, true},
		{"itself", nil, one, one, true},
		{"cut", two.Cut, one, two, false},
		{"cut, itself", nil, two, two, true},
		{"cut, the way back", nil, two, one, false},
		{"healed", two.Heal, one, two, true},
		{"deaf", func(ctx context.Context) error { return two.Filter(ctx, []*Host{one}, In) }, one, two, false},
		{"deaf, the way back", nil, two, one, false},
		{"dumb", func(ctx context.Context) error { return two.Filter(ctx, []*Host{one}, Out) }, one, two, false},
		{"dumb, the way back", nil, two, one, false},
		{"dumb, itself", nil, two, two, true},
		{"neither", two.Unfilter, one, two, true},
		{"of others", func(ctx context.Context) error { return two.Filter(ctx, []*Host{two}, In, Out) }, one, two, true},
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
		err := Await(t.Context(), "it is reached", 10*time.Second, func(ctx context.Context) error { return reached(ctx, s.from, s.to) })
		if err != nil {
			t.Errorf("%s: %s does not reach %s: %v", s.name, s.from.ns, s.to.ns, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.Hosts {
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
