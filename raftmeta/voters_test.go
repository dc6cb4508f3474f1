package raftmeta

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// drawRollCall draws a moment in which the living voters are a majority.
func drawRollCall(t *rapid.T) *rollCall {
	c := &rollCall{self: "n00", alive: map[NodeID]bool{"n00": true}, ready: map[NodeID]bool{}, failed: map[NodeID]bool{}}
	for i := range rapid.IntRange(1, 9).Draw(t, "nodes") {
		id := NodeID(fmt.Sprintf("n%02d", i))
		if i == 0 || rapid.IntRange(0, 9).Draw(t, "member") > 0 {
			c.members = append(c.members, Member{ID: id, Zone: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone"), Leaving: rapid.IntRange(0, 9).Draw(t, "leaving") == 0})
		}
		if i == 0 || rapid.IntRange(0, 4).Draw(t, "server") > 0 {
			c.servers = append(c.servers, rollServer{id, i == 0 || rapid.Bool().Draw(t, "voter")})
		}
		if i > 0 {
			switch rapid.IntRange(0, 3).Draw(t, "health") {
			case 0:
				c.failed[id] = true
			case 1:
				c.alive[id] = true
			case 2:
				c.alive[id], c.ready[id] = true, true
			}
		}
	}
	return c
}

// apply makes a change as Raft would.
func (c *rollCall) apply(s step) {
	i := slices.IndexFunc(c.servers, func(r rollServer) bool { return r.id == s.node })
	switch s.do {
	case stepAdd:
		c.servers = append(c.servers, rollServer{id: s.node})
	case stepRemove:
		c.servers = slices.Delete(c.servers, i, i+1)
	case stepPromote, stepDemote:
		c.servers[i].voter = s.do == stepPromote
	}
}

// TestNoChangeLosesTheQuorum: whatever a leader sees, none of its changes takes
// the majority from the living voters, and the changes come to an end.
func TestNoChangeLosesTheQuorum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawRollCall(t)
		if !c.majority(c.voters()) {
			return // no change can be committed
		}
		for range 40 {
			s := c.next()
			if s.do == stepNone {
				return
			}
			if s.do == stepHand {
				if !slices.Contains(c.voters(), s.node) || !c.ready[s.node] || !c.stays(s.node) {
					t.Fatalf("leadership goes to %s: %+v", s.node, c)
				}
				return
			}
			if s.node == c.self && s.do != stepAdd {
				t.Fatalf("the leader changes itself: %v", s)
			}
			c.apply(s)
			if !c.majority(c.voters()) {
				t.Fatalf("after %v the living are no majority: %+v", s, c)
			}
		}
		t.Fatalf("no end of changes: %+v", c)
	})
}

// TestVotersOfHealthyClusters: 1, 3 or 5, spread over the zones.
func TestVotersOfHealthyClusters(t *testing.T) {
	for members, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 6: 5, 9: 5} {
		c := &rollCall{self: "n00", alive: map[NodeID]bool{}, ready: map[NodeID]bool{}, failed: map[NodeID]bool{}}
		for i := range members {
			id := NodeID(fmt.Sprintf("n%02d", i))
			c.members = append(c.members, Member{ID: id, Zone: []string{"a", "a", "b", "c"}[i%4]})
			c.servers = append(c.servers, rollServer{id, i == 0})
			c.alive[id], c.ready[id] = true, i > 0
		}
		for s := c.next(); s.do != stepNone; s = c.next() {
			c.apply(s)
		}
		voters := c.voters()
		if len(voters) != want {
			t.Errorf("%d members: voters %v", members, voters)
		}
		if members == 4 && slices.Contains(voters, "n01") {
			t.Errorf("zone a has two voters, zones b and c are there: %v", voters)
		}
	}
}

// join adds nodes as joiners come: by a command alone.
func (c *cluster) join(n int) {
	c.t.Helper()
	for range n {
		cfg := testConfig(c.t)
		cfg.Node = NodeID("node-" + string(rune('a'+len(c.nodes))))
		cfg.Join = true
		if c.cfg != nil {
			c.cfg(&cfg)
		}
		if err := c.leaderAmong(c.nodes...).PutMember(c.t.Context(), Member{ID: cfg.Node}); err != nil {
			c.t.Fatal(err)
		}
		node := &node{t: c.t, cfg: cfg, wires: c.wires}
		node.start()
		c.t.Cleanup(func() {
			if err := node.stop(); err != nil {
				c.t.Errorf("run: %v", err)
			}
		})
		c.nodes = append(c.nodes, node)
	}
}

// awaitVoters waits until the leader among the nodes has these many voters, all
// of them among the nodes.
func (c *cluster) awaitVoters(want int, nodes ...*node) {
	c.t.Helper()
	var got []NodeID
	for range 1200 {
		got = voters(c.leaderAmong(nodes...).raft)
		among := !slices.ContainsFunc(got, func(id NodeID) bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool { return n.cfg.Node == id })
		})
		if len(got) == want && among {
			return
		}
		time.Sleep(100 * time.Millisecond) // virtual
	}
	c.t.Fatalf("voters %v, want %d", got, want)
}

func TestVotersFollowTheMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		for _, want := range []struct{ members, voters int }{{2, 1}, {3, 3}, {5, 5}, {6, 5}} {
			c.join(want.members - len(c.nodes))
			time.Sleep(2 * stableFor) // virtual
			c.awaitVoters(want.voters, c.nodes...)
		}
		c.converge()
	})
}

// TestJoinerDoesNotVoteAtOnce: one that just arrived could take the quorum away.
func TestJoinerDoesNotVoteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		c.join(2)
		time.Sleep(stableFor / 2) // virtual
		if got := voters(c.nodes[0].raft); len(got) != 1 {
			t.Errorf("voters %v after %s", got, stableFor/2)
		}
		c.awaitVoters(3, c.nodes...)
	})
}

func TestFailedVoterIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		c.join(3)
		c.awaitVoters(3, c.nodes...)
		time.Sleep(2 * stableFor) // virtual
		lead := c.leaderAmong(c.nodes...)
		i := slices.IndexFunc(c.nodes, func(n *node) bool { return n != lead && slices.Contains(voters(lead.raft), n.cfg.Node) })
		dead := c.nodes[i]
		c.cut(i)
		time.Sleep(failedAfter + 5*time.Second) // virtual
		c.awaitVoters(3, c.others(dead)...)
		c.heal()
		time.Sleep(time.Minute) // virtual
		c.converge()
		c.awaitVoters(3, c.others(dead)...) // who replaced it stays
	})
}

// TestNothingIsChangedWithoutAQuorum: when two of three are gone, the last one
// waits; when one returns, all goes on with the same voters.
func TestNothingIsChangedWithoutAQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		c.join(2)
		c.awaitVoters(3, c.nodes...)
		c.cut(0)
		c.cut(1)
		time.Sleep(5 * time.Minute) // virtual
		if got := voters(c.nodes[2].raft); len(got) != 3 {
			t.Errorf("voters %v", got)
		}
		c.heal()
		c.awaitVoters(3, c.nodes...)
		if err := c.nodes[1].Set(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestDeadMemberIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startClusterOf(t, 1, func(cfg *Config) { cfg.DeadAfter = 10 * time.Minute })
		c.join(2)
		c.awaitVoters(3, c.nodes...)
		lead := c.leaderAmong(c.nodes...)
		dead := c.others(lead)[0]
		c.cut(slices.Index(c.nodes, dead))
		time.Sleep(9 * time.Minute) // virtual
		if lead.View().Removed(dead.cfg.Node) {
			t.Error("removed too early")
		}
		time.Sleep(3 * time.Minute) // virtual
		lead = c.leaderAmong(c.others(dead)...)
		if !lead.View().Removed(dead.cfg.Node) {
			t.Fatal("it is still a member")
		}
		c.awaitVoters(1, c.others(dead)...) // of two members
		c.heal()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := dead.Set(ctx, "k", []byte("v"), 0); err == nil {
			t.Error("the removed node writes")
		}
	})
}

func TestLeaving(t *testing.T) {
	for _, tc := range []struct {
		name    string
		nodes   int
		leader  bool
		voters  int // left
		settled bool
	}{
		{"the leader of three", 3, true, 1, true},
		{"a follower of three", 3, false, 1, true},
		{"the only voter of two", 2, true, 1, true},
		{"the one of two that does not vote", 2, false, 1, true},
		{"the leader of five", 5, true, 3, true},
		{"at once after the other has joined", 2, true, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startCluster(t, 1)
				c.join(tc.nodes - 1)
				if tc.settled {
					c.awaitVoters(wantedVoters(tc.nodes), c.nodes...)
					time.Sleep(2 * stableFor) // virtual
				}
				leaver := c.leaderAmong(c.nodes...)
				if !tc.leader {
					leaver = c.others(leaver)[0]
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := leaver.Leave(ctx); err != nil {
					t.Fatal(err)
				}
				if err := leaver.stop(); err != nil {
					t.Fatal(err)
				}
				rest := c.others(leaver)
				c.awaitVoters(tc.voters, rest...)
				for _, n := range rest {
					if err := n.Set(t.Context(), "by/"+string(n.cfg.Node), []byte("v"), 0); err != nil {
						t.Error(err)
					}
					n.waitFor(func(v *View) bool { return v.Removed(leaver.cfg.Node) })
				}
			})
		})
	}
}

// TestLeavingWaitsForTheOthers: the only voter does not go while nobody can take
// over, and stays what it was.
func TestLeavingWaitsForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		wantErr(t, c.nodes[0].Leave(t.Context()), ErrLastMember)
		c.join(1)
		c.cut(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wantErr(t, c.nodes[0].Leave(ctx), ErrVoteNeeded)
		m, member := c.nodes[0].View().Member(c.nodes[0].cfg.Node)
		if !member || m.Leaving {
			t.Errorf("member %v: %+v", member, m)
		}
		if err := c.nodes[0].Set(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Error(err)
		}
		c.heal()
	})
}

// TestVoterThatIsNeededIsNotRemoved: nobody would speak to it any more, and the
// others would be no majority.
func TestVoterThatIsNeededIsNotRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		c.join(2)
		c.awaitVoters(3, c.nodes...)
		lead := c.leaderAmong(c.nodes...)
		others := c.others(lead)
		c.cut(slices.Index(c.nodes, others[0]))
		time.Sleep(2 * aliveWithin) // virtual
		wantErr(t, lead.RemoveMember(t.Context(), others[1].cfg.Node), ErrVoteNeeded)
		if err := lead.RemoveMember(t.Context(), others[0].cfg.Node); err != nil {
			t.Error("the dead one:", err)
		}
		c.heal()
	})
}
