package gossip

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/datavision/desnode/ring"
)

func TestFormingAndJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.start(1, addrAt(1))
		w.within(time.Second, []*node{first}, first)
		changed := first.Changed()
		nodes := []*node{first, w.start(2, addrAt(2)), w.start(3, addrAt(3))}
		w.within(10*time.Second, nodes, nodes...)
		select {
		case <-changed:
		default:
			t.Error("Changed did not tell")
		}
		if got := first.View().Ring.Owners(0, 3); len(got) != 2 {
			t.Errorf("owners %v, want an owner and a fallback", got)
		}
		if m, ok := first.View().Member(idOf(3)); !ok || m.Meta.HTTPAddr != "10.0.0.3:8080" || m.Meta.RingFormat != ring.Format {
			t.Errorf("member 3 is %+v", m)
		}
		if _, ok := first.View().Member(idOf(9)); ok {
			t.Error("a member that is not there")
		}
		// The digests of the ring are told once it stands.
		w.pass(10 * time.Second)
		for _, n := range nodes {
			v := n.View()
			for _, m := range v.Members() {
				if m.Meta.Digest != v.Ring.Digest() {
					t.Errorf("%s is known with the digest %s, the ring has %s", m.ID, m.Meta.Digest, v.Ring.Digest())
				}
			}
			if n.metric("des_ring_mismatched_members") != 0 || n.metric("des_gossip_members") != 3 {
				t.Error("metrics of members and mismatch")
			}
		}
		if first.metric("des_ring_changes_total") < 2 || first.metric("des_ring_moved_shards_total") < 1024 {
			t.Error("churn is not counted")
		}
		if first.HealthScore() != 0 {
			t.Errorf("health score %d of a healthy node", first.HealthScore())
		}
	})
}

func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		start := time.Now()
		if err := nodes[2].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.within(time.Second, nodes[:2], nodes[:2]...)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("leaving took %v, as long as a death", took)
		}
		if _, ok := nodes[2].View().Member(nodes[2].id); ok {
			t.Error("who left is a member of its own ring")
		}
		// It lives on, drains, and nobody takes it back, for longer than gossip
		// remembers it.
		w.pass(2 * time.Minute)
		w.within(0, nodes[:2], nodes[:2]...)
		if err := nodes[2].Leave(t.Context()); err != nil {
			t.Errorf("leaving again: %v", err)
		}
		nodes[2].stop()
		if err := nodes[2].Leave(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("leaving after the end: %v, want ErrClosed", err)
		}
		back := w.start(3, addrAt(3))
		nodes[2] = back
		w.within(10*time.Second, nodes, nodes...)
	})
}

func TestLeaveAndStopRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(2)
		w.within(10*time.Second, nodes, nodes...)
		left := make(chan error, 1)
		go func() { left <- nodes[1].Leave(t.Context()) }()
		nodes[1].stop()
		if err := <-left; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("leave: %v", err)
		}
	})
}

func TestLeavingAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := w.start(1, addrAt(1))
		w.within(time.Second, []*node{n}, n)
		if err := n.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.within(time.Second, []*node{n})
		if n.View().Ring.Owner(0) != "" {
			t.Error("an empty ring has an owner")
		}
	})
}

func TestDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		fallbacks := map[uint32]ring.NodeID{}
		before := nodes[0].View().Ring
		for shard := range before.Shards() {
			if o := before.Owners(shard, 2); o[0] == nodes[2].id {
				fallbacks[shard] = o[1]
			}
		}
		nodes[2].stop()
		w.within(30*time.Second, nodes[:2], nodes[:2]...)
		for shard, id := range fallbacks {
			if got := nodes[0].View().Ring.Owner(shard); got != id {
				t.Errorf("shard %d went to %s, the fallback was %s", shard, got, id)
			}
		}
		// A restart at the same address with an older incarnation and other metadata.
		nodes[2] = w.start(3, addrAt(3), func(c *Config) { c.Meta.ClusterAddr = "10.0.0.3:9999" })
		w.within(35*time.Second, nodes, nodes...)
	})
}

// TestPartition: two halves forget each other and find each other again.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(5)
		w.within(10*time.Second, nodes, nodes...)
		low := func(a netip.AddrPort) bool { return a.Addr().As4()[3] <= 2 }
		w.net.Cut(func(a, b netip.AddrPort) bool { return low(a) != low(b) })
		w.within(time.Minute, nodes[:2], nodes[:2]...)
		w.within(time.Minute, nodes[2:], nodes[2:]...)
		w.pass(10 * time.Minute) // gossip itself remembers the dead for 30 s
		w.net.Cut(nil)
		w.within(45*time.Second, nodes, nodes...)
	})
}

// TestRestartOfAllElsewhere: every node comes back at another address, and
// knows one of the new ones.
func TestRestartOfAllElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		for _, n := range nodes {
			n.stop()
		}
		for i := range nodes {
			nodes[i] = w.start(i+1, addrAt(100+i), func(c *Config) {
				c.Seeds = func() []string { return []string{addrAt(100).String()} }
			})
		}
		w.within(30*time.Second, nodes, nodes...)
	})
}

// TestRestartAtSavedAddresses: without seeds, the file of peers is enough.
func TestRestartAtSavedAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		for _, n := range nodes {
			n.stop()
		}
		for i := range nodes {
			nodes[i] = w.start(i+1, addrAt(i+1), func(c *Config) { c.Seeds = nil })
		}
		w.within(10*time.Second, nodes, nodes...)
	})
}

// TestRestartElsewhereAtOnce: a node returns at a new address before anybody
// has noticed that it was away.
func TestRestartElsewhereAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		nodes[2].stop()
		nodes[2] = w.start(3, addrAt(103), func(c *Config) { c.Meta.ClusterAddr = "10.0.0.103:7947" })
		w.within(30*time.Second, nodes, nodes...)
		if nodes[0].metric("des_gossip_conflicts_total") == 0 {
			t.Error("the conflict is not counted")
		}
	})
}

func TestRemovedNodesAreInNoRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		for _, n := range nodes[:2] {
			n.SetRemoved([]ring.NodeID{nodes[2].id})
		}
		synctest.Wait()
		w.within(0, nodes[:2], nodes[:2]...)
		w.pass(2 * time.Minute) // it gossips on
		w.within(0, nodes[:2], nodes[:2]...)
		nodes[2].stop()
		w.pass(2 * time.Minute)
		again := w.start(3, addrAt(3))
		w.pass(2 * time.Minute)
		w.within(0, nodes[:2], nodes[:2]...)
		if nodes[0].metric("des_gossip_refused_total", reasonRemoved) == 0 || !w.log.has("removed from the cluster") {
			t.Error("the refusal is not told")
		}
		again.stop()
		b, err := os.ReadFile(nodes[0].cfg.Peers)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := decodePeers(b); err != nil || len(p) != 1 {
			t.Errorf("saved peers %v, %v; want the one that is not removed", p, err)
		}
	})
}

// TestStrangersAreRefused: who has no key, another key, another cluster's label,
// another ring format or no proper id is no member of anything, and it is told.
func TestStrangersAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		reason string
	}{
		{"another key", func(c *Config) { c.Keys, _ = NewKeyRing(keyOf(9)) }, reasonKey},
		{"no key", func(c *Config) { c.Keys = &KeyRing{} }, reasonKey},
		{"another cluster", func(c *Config) { c.Cluster = "other" }, reasonLabel},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				nodes := w.startN(2)
				w.within(10*time.Second, nodes, nodes...)
				stranger := w.start(3, addrAt(3), tc.change)
				w.pass(2 * time.Minute)
				w.within(0, nodes, nodes...)
				w.within(0, []*node{stranger}, stranger)
				if nodes[0].metric("des_gossip_refused_total", tc.reason) == 0 || !w.log.has("gossip refused") {
					t.Error("the refusal is not told")
				}
			})
		})
	}
}

// oddNode is a memberlist node with the key and the label, and metadata that is
// not ours.
type oddNode struct {
	memberlist.Delegate
	meta []byte
}

func (o oddNode) NodeMeta(int) []byte             { return o.meta }
func (o oddNode) LocalState(bool) []byte          { return nil }
func (o oddNode) MergeRemoteState([]byte, bool)   {}
func (o oddNode) GetBroadcasts(int, int) [][]byte { return nil }
func (o oddNode) NotifyMsg([]byte)                {}

// TestOddNodesAreRefused: what has the key but speaks of itself in another way
// is no member.
func TestOddNodesAreRefused(t *testing.T) {
	good, err := Meta{RingFormat: ring.Format, Zone: "z"}.encode()
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, to byte) []byte {
		b := slices.Clone(good)
		b[at] = to
		return b
	}
	for _, tc := range []struct {
		name   string
		node   string
		meta   []byte
		reason string
	}{
		{"ring format", string(idOf(3)), changed(1, ring.Format+1), reasonFormat},
		{"metadata version", string(idOf(3)), changed(0, metaVersion+1), reasonMeta},
		{"damaged metadata", string(idOf(3)), changed(metaHeader+1, 0), reasonMeta},
		{"no metadata", string(idOf(3)), nil, reasonMeta},
		{"no id", "node3", good, reasonName},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				nodes := w.startN(2)
				w.within(10*time.Second, nodes, nodes...)
				c := memberlist.DefaultLANConfig()
				c.Name, c.Label, c.Keyring = tc.node, "test", mustKeys(t, keyOf(1)).lib
				c.Transport, c.Delegate, c.LogOutput = w.net.Listen(addrAt(3)), oddNode{meta: tc.meta}, w.log
				odd, err := memberlist.Create(c)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = odd.Shutdown() })
				if _, err := odd.Join([]string{addrAt(1).String()}); err != nil {
					t.Fatal(err)
				}
				w.pass(time.Minute)
				w.within(0, nodes, nodes...)
				if nodes[0].metric("des_gossip_refused_total", tc.reason) == 0 || !w.log.has("reason="+tc.reason) {
					t.Error("the refusal is not told")
				}
			})
		})
	}
}

// TestMismatch: a node that computes another ring is counted and told.
func TestMismatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := []*node{
			w.start(1, addrAt(1)),
			w.start(2, addrAt(2)),
			w.start(3, addrAt(3), func(c *Config) { c.Ring.Vnodes = 100 }),
		}
		w.pass(2 * time.Minute)
		for i, want := range [][]ring.NodeID{{idOf(3)}, {idOf(3)}, {idOf(1), idOf(2)}} {
			slices.Sort(want)
			if got := nodes[i].View().Mismatched(); !slices.Equal(got, want) {
				t.Errorf("node %d: mismatched %v, want %v", i+1, got, want)
			}
			if got := nodes[i].metric("des_ring_mismatched_members"); got != float64(len(want)) {
				t.Errorf("node %d counts %v", i+1, got)
			}
		}
		if !w.log.has("members compute another ring") {
			t.Error("the mismatch is not told")
		}
	})
}

// TestDamagedPeersFile: the node starts, says so, and writes a good one.
func TestDamagedPeersFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := os.WriteFile(w.config(2).Peers, []byte("damage"), 0o600); err != nil {
			t.Fatal(err)
		}
		nodes := w.startN(2)
		w.within(10*time.Second, nodes, nodes...)
		if nodes[1].metric("des_gossip_peers_file_errors_total") != 1 || !w.log.has("peers of earlier are not known") {
			t.Error("the damage is not told")
		}
		nodes[1].stop()
		if p, err := readPeers(nodes[1].cfg.Peers); err != nil || p[idOf(1)] != addrAt(1) {
			t.Errorf("peers %v, %v", p, err)
		}
	})
}

// TestStaleMeta: metadata of an earlier life, arriving late, changes nothing.
func TestStaleMeta(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		// Node 3 restarts so fast that nobody notices; its first words carry a
		// lower incarnation than its earlier life had, and other addresses.
		nodes[2].stop()
		nodes[2] = w.start(3, addrAt(3), func(c *Config) { c.Meta.ClusterAddr = "10.0.0.3:1234" })
		w.within(5*time.Second, nodes, nodes...)
		// Node 2 sleeps through the next restart and tells of the life before.
		lonely := func(a, b netip.AddrPort) bool { return a == addrAt(2) || b == addrAt(2) }
		w.net.Cut(lonely)
		nodes[2].stop()
		nodes[2] = w.start(3, addrAt(3), func(c *Config) { c.Meta.ClusterAddr = "10.0.0.3:5678" })
		w.within(5*time.Second, []*node{nodes[0]}, nodes[0], nodes[1], nodes[2])
		w.net.Cut(nil)
		w.within(time.Minute, nodes, nodes...)
		w.pass(2 * time.Minute)
		w.within(0, nodes, nodes...)
	})
}

func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.startN(3)
		w.within(10*time.Second, nodes, nodes...)
		for _, step := range []struct {
			name string
			do   func(*KeyRing) error
		}{
			{"add", func(k *KeyRing) error { return k.Add(keyOf(2)) }},
			{"use", func(k *KeyRing) error { return k.Use(keyOf(2)) }},
			{"remove", func(k *KeyRing) error { return k.Remove(keyOf(1)) }},
		} {
			for _, n := range nodes {
				if err := step.do(n.keys); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				w.pass(20 * time.Second) // half of the nodes are a step ahead
			}
			w.within(0, nodes, nodes...)
		}
		if got := nodes[0].metric("des_gossip_refused_total", reasonKey); got != 0 {
			t.Errorf("%v messages were refused during the rotation", got)
		}
		old := w.start(4, addrAt(4))
		w.pass(time.Minute)
		w.within(0, nodes, nodes...)
		if nodes[0].metric("des_gossip_refused_total", reasonKey) == 0 {
			t.Error("the old key opens the door")
		}
		old.stop()
		late := w.start(4, addrAt(4), func(c *Config) { c.Keys = mustKeys(t, keyOf(2)) })
		nodes = append(nodes, late)
		w.within(10*time.Second, nodes, nodes...)
	})
}
