package raftmeta

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// hangUp makes the wires behave as the network between nodes does: as soon as
// a node's view says that another was removed, it does not speak to it any more.
// It goes on until ctx ends.
func (c *cluster) hangUp(ctx context.Context, nodes []*node) {
	for pause(ctx, 10*time.Millisecond) {
		for _, n := range nodes {
			for _, id := range n.View().RemovedIDs() {
				if id != n.cfg.Node {
					c.wires.cutOneWay(n.cfg.Node, id, true)
					c.wires.cutOneWay(id, n.cfg.Node, true)
				}
			}
		}
	}
}

// startHangingUp is a settled cluster of n members whose nodes hang up on those
// that were removed.
func startHangingUp(t *testing.T, n int, cfg func(*Config)) *cluster {
	t.Helper()
	c := startClusterOf(t, 1, cfg)
	c.join(n - 1)
	c.awaitVoters(wantedVoters(n), c.nodes...)
	time.Sleep(2 * stableFor) // virtual
	ctx, cancel := context.WithCancel(t.Context())
	done, nodes := make(chan struct{}), slices.Clone(c.nodes)
	go func() {
		defer close(done)
		c.hangUp(ctx, nodes)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return c
}

// TestRemovingOneAfterTheOtherKeepsTheQuorum: nobody speaks to a removed node,
// so each has to lose its vote before it is removed, not after.
func TestRemovingOneAfterTheOtherKeepsTheQuorum(t *testing.T) {
	for _, members := range []int{3, 5} {
		synctest.Test(t, func(t *testing.T) {
			c := startHangingUp(t, members, nil)
			lead := c.leaderAmong(c.nodes...)
			left := []*node{lead}
			for _, n := range c.others(lead) {
				if err := lead.RemoveMember(t.Context(), n.cfg.Node); err != nil {
					t.Fatal(err)
				}
			}
			c.awaitVoters(1, left...)
			if err := lead.Set(t.Context(), "k", []byte("v"), 0); err != nil {
				t.Errorf("of %d members one is left: %v", members, err)
			}
		})
	}
}

// TestRemovingAllAtOnceKeepsTheQuorum: as before, by impatient operators, each
// at another node.
func TestRemovingAllAtOnceKeepsTheQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startHangingUp(t, 5, nil)
		lead := c.leaderAmong(c.nodes...)
		others := c.others(lead)
		done := make(chan error, len(others))
		for i, n := range others[:3] {
			by := others[(i+1)%3]
			go func() { done <- by.RemoveMember(t.Context(), n.cfg.Node) }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Log(err) // who was removed itself may not see the end
			}
		}
		rest := []*node{lead, others[3]}
		c.awaitVoters(1, rest...)
		for _, n := range rest {
			if err := n.Set(t.Context(), "by/"+string(n.cfg.Node), []byte("v"), 0); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestLeaderIsRemoved: by another node, and without a pause for anybody.
func TestLeaderIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startHangingUp(t, 3, nil)
		lead := c.leaderAmong(c.nodes...)
		rest := c.others(lead)
		if err := rest[0].RemoveMember(t.Context(), lead.cfg.Node); err != nil {
			t.Fatal(err)
		}
		c.awaitVoters(1, rest...)
		for _, n := range rest {
			if err := n.Set(t.Context(), "by/"+string(n.cfg.Node), []byte("v"), 0); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestLeavingThoughTheOthersHangUp: the one that leaves may never see that it
// was removed.
func TestLeavingThoughTheOthersHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startHangingUp(t, 5, nil)
		for len(c.nodes) > 1 {
			leaver := c.leaderAmong(c.nodes...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := leaver.Leave(ctx); err != nil {
				t.Fatalf("%d nodes: %v", len(c.nodes), err)
			}
			cancel()
			if err := leaver.stop(); err != nil {
				t.Fatal(err)
			}
			c.nodes = c.others(leaver)
		}
		if err := c.nodes[0].Set(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Error(err)
		}
		wantErr(t, c.nodes[0].Leave(t.Context()), ErrLastMember)
	})
}

// TestDeadOneOfTwoIsRemoved: the one that is left is the only voter, and half
// of the members.
func TestDeadOneOfTwoIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startHangingUp(t, 2, func(cfg *Config) { cfg.DeadAfter = 10 * time.Minute })
		lead := c.leaderAmong(c.nodes...)
		dead := c.others(lead)[0]
		if err := dead.stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Minute) // virtual
		if v := lead.View(); !v.Removed(dead.cfg.Node) {
			t.Errorf("members %+v", v.Members())
		}
	})
}

// TestMostAreNotTakenForDead: a leader that hears of few members has trouble of
// its own, and gives nobody up.
func TestMostAreNotTakenForDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startClusterOf(t, 1, func(cfg *Config) { cfg.DeadAfter = 10 * time.Minute })
		c.join(6)
		c.awaitVoters(5, c.nodes...)
		lead := c.leaderAmong(c.nodes...)
		who := voters(lead.raft)
		var dead []*node
		for _, n := range c.others(lead) {
			if len(dead) < 2 && slices.Contains(who, n.cfg.Node) || !slices.Contains(who, n.cfg.Node) {
				dead = append(dead, n)
			}
		}
		for _, n := range dead {
			c.cut(slices.Index(c.nodes, n))
		}
		time.Sleep(3 * time.Hour) // virtual
		if got := c.leaderAmong(c.others(dead...)...).View().RemovedIDs(); len(got) != 0 {
			t.Errorf("removed %v, with %d of 7 alive", got, 7-len(dead))
		}
		c.heal()
	})
}

// TestVotersThereWouldBeAreAskedFirst: who died a moment ago still looks alive,
// and a majority with it is none.
func TestVotersThereWouldBeAreAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		time.Sleep(2 * reportEvery) // virtual
		lead := c.leaderAmong(c.nodes...)
		others := c.others(lead)
		h := &hearing{began: time.Now(), heard: map[NodeID]time.Time{}, steady: map[NodeID]time.Time{}}
		call := lead.rollCall(h, time.Now())
		c.cut(slices.Index(c.nodes, others[0]))
		s := step{stepDemote, others[1].cfg.Node}
		if !call.safeWithout(s.node) {
			t.Fatal("the dead one does not look alive: the test proves nothing")
		}
		if err := lead.take(t.Context(), call, s); err == nil {
			t.Error("demoted")
		}
		if got := voters(lead.raft); len(got) != 3 {
			t.Errorf("voters %v", got)
		}
		c.heal()
	})
}

// small is a call of nodes that are all members and servers; the first one
// leads, and so many of the first vote.
func small(nodes, votes int) *rollCall {
	c := &rollCall{self: "n00", alive: map[NodeID]bool{}, ready: map[NodeID]bool{}, failed: map[NodeID]bool{}}
	for i := range nodes {
		id := NodeID(fmt.Sprintf("n%02d", i))
		c.members = append(c.members, Member{ID: id})
		c.servers = append(c.servers, rollServer{id, i < votes})
		c.alive[id], c.ready[id] = true, true
	}
	return c
}

func (c *rollCall) kill(id NodeID) *rollCall {
	c.alive[id], c.ready[id], c.failed[id] = false, false, true
	return c
}

func (c *rollCall) leave(i int) *rollCall {
	c.members[i].Leaving = true
	return c
}

// busy makes a node one that is alive and lacks too much of the log.
func (c *rollCall) busy(id NodeID) *rollCall {
	c.ready[id] = false
	return c
}

// TestWhatIsDoneAndWaitedFor: each a moment, the change it asks for, and
// whether a person is told that it cannot be made.
func TestWhatIsDoneAndWaitedFor(t *testing.T) {
	for _, tc := range []struct {
		name  string
		call  *rollCall
		want  step
		waits bool
	}{
		{"all is well", small(4, 3), step{}, false},
		{"one would make two", small(3, 1).busy("n02"), step{}, true},
		{"two make three", small(3, 1), step{stepPromote, "n01"}, false},
		{"the third", small(3, 2), step{stepPromote, "n02"}, false},
		{"the third is on its way", small(3, 2).busy("n02"), step{}, true},
		{"the third is gone", small(3, 2).kill("n02"), step{stepDemote, "n01"}, false},
		{"of four the fifth is gone", small(5, 4).kill("n04"), step{stepDemote, "n01"}, false},
		{"a failed voter, and nobody in its place", small(3, 3).kill("n02"), step{}, true},
		{"a failed voter, and another is ready", small(4, 3).kill("n02"), step{stepDemote, "n02"}, false},
		{"after that", small(4, 2).kill("n02").busy("n02"), step{stepPromote, "n03"}, false},
		{"too many", small(4, 4), step{stepDemote, "n01"}, false},
		{"too many, one of them failed", small(4, 4).kill("n01"), step{stepDemote, "n01"}, false},
		{"a voter leaves, and another is ready", small(4, 3).leave(1), step{stepPromote, "n03"}, false},
		{"a voter leaves", small(3, 3).leave(1), step{stepDemote, "n01"}, false},
		{"a voter leaves that is needed until the failed one is demoted", small(3, 3).leave(1).kill("n02"), step{stepDemote, "n02"}, false},
		{"a voter leaves that is needed", small(4, 3).leave(1).kill("n02").kill("n03"), step{}, true},
		{"the leader leaves", small(3, 3).leave(0), step{stepHand, "n01"}, false},
		{"the only voter leaves", small(2, 1).leave(0), step{stepPromote, "n01"}, false},
		{"the only voter leaves, and nobody is ready", small(2, 1).leave(0).kill("n01"), step{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.call.next()
			if got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
			if waits := tc.call.waits(got); (waits != "") != tc.waits {
				t.Errorf("waits: %q", waits)
			}
		})
	}
}
