package peers

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/ring"
)

func TestFormAndJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		for _, n := range nodes {
			if m, ok := n.meta.View().Member(nodes[2].Node()); !ok || m.Cluster != nodes[2].ClusterAddr() {
				t.Errorf("%s knows of the third: %+v", n.id, m)
			}
		}
		w.awaitVoters(3, nodes...)
	})
}

// TestFounderDiesAndAnotherIssues: any member lets nodes in and signs their
// certificates.
func TestFounderDiesAndAnotherIssues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		nodes[0].stop()
		w.awaitAll(nodes[1:]...)
		fourth := w.join(nodes[1])
		w.awaitAll(nodes[1], nodes[2], fourth)
	})
}

// TestRestartOfAllAtNewAddresses: nobody is where he was, and the cluster forms
// again by itself within half a minute.
func TestRestartOfAllAtNewAddresses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(w *world)
		outage time.Duration // of the store
	}{
		{name: "by the addresses in the store", change: func(*world) {}},
		{name: "by one seed that is right", change: func(w *world) {
			for _, n := range w.nodes {
				n.noStore = true
				n.seeds = []string{w.nodes[1].ip.String() + ":7947"}
			}
		}},
		{name: "after the store was away", change: func(*world) {}, outage: 20 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				nodes := w.clusterOf(3)
				w.awaitVoters(3, nodes...)
				for _, n := range nodes {
					n.stop()
				}
				time.Sleep(time.Minute) // virtual
				for i, n := range nodes {
					n.ip = w.host(100 + i)
				}
				tc.change(w)
				began := time.Now()
				w.store.set(func(s *memStore) { s.down = tc.outage > 0 })
				for _, n := range nodes {
					n.start()
				}
				time.Sleep(tc.outage) // virtual
				w.store.set(func(s *memStore) { s.down = false })
				w.awaitAllWithin(30*time.Second, nodes...)
				t.Logf("together again after %s", time.Since(began)-tc.outage)
			})
		})
	}
}

// TestOneMovesWhileOthersStay: it says hello where the others were.
func TestOneMovesWhileOthersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		nodes[2].stop()
		time.Sleep(5 * time.Minute) // virtual
		nodes[2].ip = w.host(77)
		nodes[2].start()
		w.awaitAllWithin(30*time.Second, nodes...)
	})
}

// TestOneIsBackElsewhereBeforeItIsMissed: gossip holds on to the old address for
// some seconds, whatever changes meanwhile; what the node told stands.
func TestOneIsBackElsewhereBeforeItIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		mover, stays := nodes[2], nodes[:2]
		mover.stop()
		mover.ip = w.host(77)
		mover.start()
		time.Sleep(time.Second) // virtual: it has greeted
		before := 0             // looks while gossip was behind
		for i := range 40 {
			for _, n := range stays {
				if m, ok := n.View().Member(ring.NodeID(mover.id)); ok && m.Meta.ClusterAddr != mover.ClusterAddr() {
					before++
				}
				if at, ok := n.resolve(mover.id); !ok || at != mover.ClusterAddr() {
					t.Fatalf("look %d: %s resolves it to %s", i, n.id, at)
				}
			}
			if err := stays[0].meta.Set(t.Context(), fmt.Sprint("busy", i), []byte("x"), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if before == 0 {
			t.Error("gossip was never behind: nothing was tested")
		}
		w.awaitAllWithin(30*time.Second, nodes...)
	})
}

// TestLostCountOfTheRendezvous: a node whose file of addresses is lost goes on
// counting where it was, and replaces nothing.
func TestLostCountOfTheRendezvous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		time.Sleep(time.Minute) // virtual: all have published
		n := nodes[2]
		old, err := n.fetch(t.Context(), n.id, 1)
		if err != nil {
			t.Fatal(err)
		}
		n.stop()
		if err := os.Remove(filepath.Join(n.peersDir(), addressesFile)); err != nil {
			t.Fatal(err)
		}
		n.ip, n.seeds = w.host(77), []string{nodes[0].ClusterAddr()}
		n.start()
		w.awaitAllWithin(30*time.Second, nodes...)
		time.Sleep(time.Minute) // virtual
		if first, err := n.fetch(t.Context(), n.id, 1); err != nil || first != old {
			t.Errorf("the first object: %+v, %v; was %+v", first, err, old)
		}
		if second, err := n.fetch(t.Context(), n.id, 2); err != nil || second.Cluster != n.ClusterAddr() {
			t.Errorf("the second object: %+v, %v", second, err)
		}
	})
}

// TestPartitionLongerThanGossipsMemory heals by itself.
func TestPartitionLongerThanGossipsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		nodes := w.clusterOf(3)
		w.awaitVoters(3, nodes...)
		w.cutOff(nodes[2])
		time.Sleep(10 * time.Minute) // virtual
		if len(nodes[0].View().Members()) != 2 || len(nodes[2].View().Members()) != 1 {
			t.Errorf("cut: %d and %d members", len(nodes[0].View().Members()), len(nodes[2].View().Members()))
		}
		w.heal()
		w.awaitAllWithin(time.Minute, nodes...)
	})
}

// TestRequestsOfTheRendezvous: a cluster of one makes none, others one PUT a
// node and place, and nothing is read while nodes are found otherwise.
func TestRequestsOfTheRendezvous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.form()
		time.Sleep(5 * time.Minute) // virtual
		if puts, gets := w.store.counts(); puts+gets > 0 {
			t.Errorf("a cluster of one: %d PUT, %d GET", puts, gets)
		}
		w.join(first)
		w.join(first)
		w.awaitAll(w.nodes...)
		time.Sleep(5 * time.Minute) // virtual
		// Each looks once whether an earlier life of its own left something.
		puts, gets := w.store.counts()
		if puts != 3 || gets != 3 {
			t.Errorf("three nodes: %d PUT, %d GET", puts, gets)
		}
		for _, n := range w.nodes {
			n.stop()
			n.start()
		}
		w.awaitAll(w.nodes...)
		time.Sleep(5 * time.Minute) // virtual
		if again, _ := w.store.counts(); again != puts {
			t.Errorf("restarted where they were: %d PUT more", again-puts)
		}
		w.awaitVoters(3, w.nodes...)
		w.nodes[2].stop()
		w.awaitAll(w.nodes[:2]...)
		_, gets = w.store.counts()
		time.Sleep(10 * time.Minute) // virtual
		if puts, more := w.store.counts(); puts != 3 || more != gets {
			t.Errorf("one of three is down for ten minutes: %d PUT and %d GET more", puts-3, more-gets)
		}
	})
}

// TestNewestInTheStore finds the last of any number of places in few requests.
func TestNewestInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := w.form()
		for want := range uint64(70) {
			at, got, err := n.newest(t.Context(), n.id, 0)
			if err != nil || got != want || want > 0 && at.Since != int64(want) {
				t.Fatalf("%d objects: found %d, %+v, %v", want, got, at, err)
			}
			if _, again, err := n.newest(t.Context(), n.id, want); err != nil || again != want {
				t.Fatalf("from %d: %d, %v", want, again, err)
			}
			at = place{Node: n.id, Since: int64(want + 1), Cluster: "10.0.0.1:1", Gossip: "10.0.0.1:2"}
			if err := n.publishAs(t.Context(), at, want); err != nil {
				t.Fatal(err)
			}
		}
		w.store.set(func(s *memStore) { s.gets = 0 })
		if _, _, err := n.newest(t.Context(), n.id, 0); err != nil {
			t.Fatal(err)
		}
		if _, gets := w.store.counts(); gets > 14 {
			t.Errorf("%d requests for 70 objects", gets)
		}
		// Of objects that are gone or another's nothing is believed.
		other := rendezvousKey(n.id, 1)
		w.store.set(func(s *memStore) { s.objects[other] = s.objects[rendezvousKey(n.id, 2)] })
		if _, err := n.fetch(t.Context(), n.id, 1); err == nil {
			t.Error("an object under another's key is believed")
		}
		w.store.set(func(s *memStore) { s.objects = map[string][]byte{} })
		if _, got, err := n.newest(t.Context(), n.id, 70); err != nil || got != 0 {
			t.Errorf("nothing is left: %d, %v", got, err)
		}
	})
}

// TestStrangerIsNotBelieved: what a node says of another's place is only taken
// when it is newer than what that one said, and it cannot speak in its name.
func TestStrangerIsNotBelieved(t *testing.T) {
	b := newBook(nil)
	b.self = place{Node: "00000000-0000-4000-8000-000000000001"}
	at := func(since int64, host string) place {
		ip := netip.MustParseAddr(host)
		return place{Node: "00000000-0000-4000-8000-000000000002", Since: since, Cluster: ip.String() + ":1", Gossip: ip.String() + ":2"}
	}
	if !b.told(at(5, "10.0.0.5")) || b.heard(at(4, "10.0.0.4")) || b.heard(at(5, "10.0.0.6")) || !b.heard(at(6, "10.0.0.7")) || !b.told(at(5, "10.0.0.5")) {
		t.Error("who is believed:", b.places())
	}
	if b.heard(place{Node: b.self.Node, Since: 99, Cluster: "10.0.0.9:1", Gossip: "10.0.0.9:2"}) {
		t.Error("another says where this node is")
	}
}
