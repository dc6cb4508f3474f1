package gossip

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/ring"
)

// TestSockets: two nodes over UDP and TCP find each other, and one sees the
// other leave.
func TestSockets(t *testing.T) {
	var seeds []string
	var nodes []*Gossip
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 2)
	for i := range 2 {
		c := (&world{t: t, dir: t.TempDir(), log: &lines{}}).config(i + 1)
		c.Bind, c.Advertise = "127.0.0.1:0", []string{"", "localhost"}[i]
		known := seeds
		c.Seeds = func() []string { return known }
		g, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, g)
		go func() { ended <- g.Run(ctx) }()
		self := until(ctx, t, g, func(v *View) bool { _, ok := v.Member(c.ID); return ok })
		m, _ := self.Member(c.ID)
		seeds = []string{fmt.Sprintf("localhost:%d", m.Addr.Port())}
	}
	for _, g := range nodes {
		until(ctx, t, g, func(v *View) bool { return len(v.Members()) == 2 })
	}
	if err := nodes[1].Leave(ctx); err != nil {
		t.Error(err)
	}
	until(ctx, t, nodes[0], func(v *View) bool { return len(v.Members()) == 1 })
	cancel()
	for range nodes {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := nodes[0].Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
}

// until waits for a view of which ok says yes.
func until(ctx context.Context, t *testing.T, g *Gossip, ok func(*View) bool) *View {
	t.Helper()
	for {
		changed := g.Changed()
		if v := g.View(); ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("members %v", g.View().Members())
		}
	}
}

func TestSocketsCannotBeHad(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct{ name, bind, advertise string }{
		{"taken", taken.Addr().String(), ""},
		{"no ip", "nowhere.invalid:0", ""},
		{"unknown host to advertise", "127.0.0.1:0", "nowhere.invalid"},
		{"no port to advertise", "127.0.0.1:0", "127.0.0.1:x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := (&world{t: t, dir: t.TempDir(), log: &lines{}}).config(1)
			c.Bind, c.Advertise = tc.bind, tc.advertise
			g, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Run(t.Context()); err == nil {
				t.Error("it runs")
			}
		})
	}
}

func BenchmarkView(b *testing.B) {
	c := Config{ID: idOf(1), Cluster: "test", Peers: filepath.Join(b.TempDir(), "peers")}
	keys, err := NewKeyRing(keyOf(1))
	if err != nil {
		b.Fatal(err)
	}
	c.Keys = keys
	g, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if g.View().Ring.Owner(7) != ring.NodeID("") {
			b.Fatal("an owner of nothing")
		}
	}
}
