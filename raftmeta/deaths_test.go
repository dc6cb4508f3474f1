package raftmeta

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestFounderDies: nothing hangs on the node that formed the cluster. Others
// take its vote, and nodes go on to join.
func TestFounderDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startHangingUp(t, 4, nil)
		founder := c.nodes[0]
		if err := founder.PutToken(t.Context(), JoinToken{ID: "t", Verifier: []byte("v"), Expires: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		if err := founder.stop(); err != nil {
			t.Fatal(err)
		}
		c.nodes = c.nodes[1:]
		time.Sleep(2 * failedAfter) // virtual
		c.awaitVoters(3, c.nodes...)
		for i, n := range c.nodes {
			id := NodeID(fmt.Sprintf("new-%d", i))
			if err := n.Redeem(t.Context(), "t", Member{ID: id}, time.Now()); err != nil {
				t.Errorf("asked %s: %v", n.cfg.Node, err)
			}
			if m, ok := n.View().Member(id); !ok || m.Joined == 0 {
				t.Errorf("asked %s: member %+v", n.cfg.Node, m)
			}
		}
	})
}

// TestRandomDeathsNeverCostTheQuorum: whoever dies and returns, no change of the
// voters takes a majority away that was alive before it; and when all are back,
// there are as many voters as there should be, and they write.
func TestRandomDeathsNeverCostTheQuorum(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	changes := 0
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { changes += liveAndDie(t, uint64(seed)) })
		})
	}
	if changes < seeds {
		t.Errorf("%d changes of the voters under %d seeds: the test proves nothing", changes, seeds)
	}
}

// liveAndDie returns how often the voters changed while nodes died.
func liveAndDie(t *testing.T, seed uint64) (changes int) {
	rng := rand.New(rand.NewPCG(seed, 4)) // the same story for the same seed
	size := 4 + 2*int(seed%2)
	c := startClusterOf(t, 1, nil)
	c.join(size - 1)
	c.awaitVoters(wantedVoters(size), c.nodes...)
	up := map[NodeID]bool{}
	for _, n := range c.nodes {
		up[n.cfg.Node] = true
	}
	seen := voters(c.leaderAmong(c.nodes...).raft)
	alive := func(ids []NodeID) bool {
		n := 0
		for _, id := range ids {
			if up[id] {
				n++
			}
		}
		return n > len(ids)/2
	}
	look := func() {
		for _, n := range c.nodes {
			if !up[n.cfg.Node] || n.leading.now() == nil {
				continue
			}
			now := voters(n.raft)
			if slices.Equal(now, seen) {
				return
			}
			if alive(seen) && !alive(now) {
				t.Fatalf("voters %v became %v, of which these live: %v", seen, now, up)
			}
			changes++
			seen = now
			return
		}
	}
	for range 25 {
		i := rng.IntN(len(c.nodes))
		id := c.nodes[i].cfg.Node
		up[id] = !up[id]
		c.heal()
		for j, n := range c.nodes {
			if !up[n.cfg.Node] {
				c.cut(j)
			}
		}
		for range 20 * (1 + rng.IntN(40)) {
			time.Sleep(50 * time.Millisecond) // virtual
			look()
		}
	}
	clear(up)
	c.heal()
	time.Sleep(time.Minute) // virtual
	c.awaitVoters(wantedVoters(size), c.nodes...)
	if err := c.nodes[0].Set(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Error(err)
	}
	return changes
}
