package raftmeta

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// deaf makes the calls of one node to others unanswered; raft's own traffic
// goes on, so raft sees nothing of it.
func (c *cluster) deaf(node NodeID, to ...*node) {
	c.wires.set(func(w *wires) {
		w.lose = func(from, target NodeID, _ []byte) bool {
			for _, n := range to {
				if from == node && n.cfg.Node == target {
					return true
				}
			}
			return false
		}
	})
}

// TestConfirmationAsksAMajorityAfterwards: that raft's heartbeats were answered
// is not enough, for they may have been sent before.
func TestConfirmationAsksAMajorityAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		others := c.others(lead)
		index, err := lead.readIndex(t.Context(), lead.leading.now().term)
		if err != nil || index == 0 {
			t.Fatal(index, err)
		}
		c.deaf(lead.cfg.Node, others[0])
		if _, err := lead.Confirm(t.Context()); err != nil {
			t.Errorf("with a majority: %v", err)
		}
		c.deaf(lead.cfg.Node, others...)
		_, err = lead.Confirm(t.Context())
		wantErr(t, err, ErrUnconfirmed)
		_, err = others[0].Confirm(t.Context())
		wantErr(t, err, ErrUnconfirmed)
		if lead.leading.now() == nil {
			t.Error("raft has noticed; nothing was tested")
		}
		c.deaf(lead.cfg.Node)
		if _, err := others[0].Confirm(t.Context()); err != nil {
			t.Errorf("mended: %v", err)
		}
	})
}

// TestRenewalAsksAMajority: a leader that cannot know whether it still leads
// renews nothing, not even for itself.
func TestRenewalAsksAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		for _, holder := range []*node{lead, c.others(lead)[0]} {
			var lost time.Duration
			err := holder.WithLease(t.Context(), Job{Kind: JobCollect}, func(ctx context.Context, _ Lease) error {
				c.deaf(lead.cfg.Node, c.others(lead)...)
				began := time.Now()
				<-ctx.Done()
				lost = time.Since(began)
				c.deaf(lead.cfg.Node)
				return context.Cause(ctx)
			})
			wantErr(t, err, ErrStale)
			if lost < ttl/2 || lost > ttl-ttl/10 {
				t.Errorf("%s stopped after %s", holder.cfg.Node, lost)
			}
		}
	})
}

// TestTermOfAnotherReignDoesNotConfirm: neither the deposed leader's, nor the
// one of a node that was deposed and elected again.
func TestTermOfAnotherReignDoesNotConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		first := lead.leading.now()
		next := c.others(lead)[0]
		move := func(from, to *node) {
			t.Helper()
			f := from.raft.LeadershipTransferToServer(raft.ServerID(to.cfg.Node), raft.ServerAddress(to.cfg.Node))
			if err := f.Error(); err != nil {
				t.Fatal(err)
			}
			c.leaderAmong(to)
		}
		move(lead, next)
		_, err := lead.readIndex(t.Context(), first.term)
		wantErr(t, err, errMoved)
		wantErr(t, next.askOthers(t.Context(), []NodeID{lead.cfg.Node}, 1, first.term), errMoved)
		if err := next.askOthers(t.Context(), []NodeID{lead.cfg.Node}, 1, next.leading.now().term); err != nil {
			t.Error(err)
		}
		move(next, lead)
		_, err = lead.readIndex(t.Context(), first.term)
		wantErr(t, err, errMoved)
		_, err = first.rounds.join(t.Context())
		wantErr(t, err, errMoved)
		// What the first reign would have ended is not ended by the second.
		l := lead.grant(Job{Kind: JobCollect})
		data, err := encodeInTerm(lead.cfg.Node, first.term, &releaseCommand{l.Token})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = lead.apply(t.Context(), data)
		wantErr(t, err, ErrNotLeader)
		if !lead.View().live(l.Token) {
			t.Error("the lease is gone")
		}
	})
}

// TestMinorityNeitherConfirmsNorRenews: a leader and another node on the small
// side of five. Work under their leases ends before the large side gives them
// away, and all is one again when the wires are mended.
func TestMinorityNeitherConfirmsNorRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 5)
		lead := c.leaderAmong(c.nodes...)
		small := []*node{lead, c.others(lead)[0]}
		large := c.others(small...)
		jobs := []Job{{Kind: JobCollect}, {Kind: JobMark, Source: "files"}}
		stopped := make([]time.Time, 2)
		var group sync.WaitGroup
		for i, n := range small {
			group.Go(func() {
				err := n.WithLease(context.Background(), jobs[i], func(ctx context.Context, _ Lease) error {
					<-ctx.Done()
					stopped[i] = time.Now()
					return context.Cause(ctx)
				})
				wantErr(t, err, ErrStale)
			})
		}
		lead.waitFor(func(v *View) bool { return len(v.Leases()) == 2 })
		time.Sleep(ttl / 2) // virtual: they have been renewed
		c.separate(small, large, true)
		for _, n := range small {
			_, err := n.Confirm(t.Context())
			wantErr(t, err, ErrUnconfirmed)
			if err := n.Set(t.Context(), "k", []byte("lost"), 0); err == nil {
				t.Error("the small side commits")
			}
		}
		next := c.leaderAmong(large...)
		given := make([]time.Time, 2)
		for i, job := range jobs {
			for given[i].IsZero() {
				err := next.WithLease(t.Context(), job, func(context.Context, Lease) error {
					given[i] = time.Now()
					return nil
				})
				if err != nil && !errors.Is(err, ErrClash) {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond) // virtual
			}
		}
		for i := range jobs {
			if stopped[i].IsZero() || !stopped[i].Before(given[i]) {
				t.Errorf("%s: stopped at %s, given away at %s", jobs[i], stopped[i], given[i])
			}
		}
		if err := next.Set(t.Context(), "k", []byte("kept"), 0); err != nil {
			t.Fatal(err)
		}
		c.heal()
		group.Wait()
		c.converge()
		for _, n := range c.nodes {
			v, err := n.Confirm(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got, _, _ := v.Setting("k"); string(got) != "kept" {
				t.Errorf("%s has %q", n.cfg.Node, got)
			}
		}
	})
}

// TestConfirmationsOfAFollowerShareOneCall: and those of all nodes one round.
func TestConfirmationsOfAFollowerShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		confirms, terms := 0, 0
		c.wires.set(func(w *wires) {
			w.delay = func(_, _ NodeID, data []byte) time.Duration {
				switch opOf(t, data) {
				case opConfirm:
					confirms++
				case opTerm:
					terms++
				}
				return 100 * time.Millisecond
			}
		})
		var group sync.WaitGroup
		for _, n := range c.nodes {
			for range 100 {
				group.Go(func() {
					if _, err := n.Confirm(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		group.Wait()
		// A follower's first call serves the first to arrive, its second all
		// others; the leader's rounds ask two voters each.
		c.wires.set(func(*wires) {
			if confirms > 4 || terms > 2*6 {
				t.Errorf("%d calls and %d questions", confirms, terms)
			}
		})
		_ = lead
	})
}

// TestOneVoterAsksNobody: however many others there are.
func TestOneVoterAsksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		for range 10 {
			if _, err := c.nodes[0].Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.wires.set(func(w *wires) {
			if w.calls != 0 {
				t.Errorf("%d calls", w.calls)
			}
		})
	})
}

// TestAloneLeadsAtOnce: with the election times of a cluster.
func TestAloneLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1)
		for range 2 {
			began := time.Now()
			c.nodes[0].restart()
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("ready after %s", took)
			}
		}
		c.grow(3)
		began := time.Now()
		lead := c.leaderAmong(c.nodes...)
		terms := lead.raft.CurrentTerm()
		c.reopen(2) // not alone any more: it must not disturb
		if lead.raft.CurrentTerm() != terms || time.Since(began) > 5*time.Second {
			t.Errorf("term %d after %d, %s", lead.raft.CurrentTerm(), terms, time.Since(began))
		}
	})
}

// TestLeaderHandsOver: its successor leads before anybody could have missed it.
func TestLeaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		for range 3 {
			lead := c.leaderAmong(c.nodes...)
			began := time.Now()
			if err := lead.stop(); err != nil {
				t.Fatal(err)
			}
			next := c.leaderAmong(c.others(lead)...)
			if err := next.Set(t.Context(), "k"+string(lead.cfg.Node), []byte("v"), 0); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took >= defaultElection {
				t.Errorf("%s took over after %s", next.cfg.Node, took)
			}
			lead.start()
		}
		c.converge()
	})
}

// TestRestartOfAll: one after the other, and all at once.
func TestRestartOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		c.nodes[1].addPack("3a/8", packID(1))
		for i := range c.nodes {
			c.reopen(i)
		}
		c.nodes[2].addPack("3b/8", packID(2))
		for _, n := range c.nodes {
			if err := n.stop(); err != nil {
				t.Error(err)
			}
		}
		for _, n := range c.nodes {
			n.run()
		}
		for _, n := range c.nodes {
			if err := n.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			v := n.View()
			if v.Pack(packID(1)) == nil || v.Pack(packID(2)) == nil {
				t.Errorf("%s is ready without a pack", n.cfg.Node)
			}
		}
		c.converge()
	})
}

// TestRestartedFollowerReleasesItsLeases: before it asks for its first one.
func TestRestartedFollowerReleasesItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		n := c.others(c.leaderAmong(c.nodes...))[0]
		old := n.grant(Job{Kind: JobCollect})
		n.restart()
		began := time.Now()
		err := n.WithLease(t.Context(), Job{Kind: JobCollect}, func(ctx context.Context, l Lease) error {
			if l.Token == old.Token || !n.View().Fenced(old.Token) {
				t.Errorf("the lease of the dead process is %+v", old)
			}
			return n.WithLease(ctx, Job{Kind: JobMark, Source: "files"}, func(context.Context, Lease) error {
				if got := n.View().Leases(); len(got) != 2 {
					t.Errorf("leases: %+v", got)
				}
				return nil
			})
		})
		if err != nil || time.Since(began) > 5*time.Second { // the leader finds it again first; a TTL is far longer
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// everywhere is what each node says of an index.
func (c *cluster) everywhere(index uint64) (all, any bool) {
	all = true
	for _, n := range c.nodes {
		yes := n.AppliedEverywhere(index)
		all, any = all && yes, any || yes
	}
	return all, any
}

// TestAppliedEverywhereIsKnownEverywhere: soon after all have applied it, never
// before, and without those who were removed.
func TestAppliedEverywhereIsKnownEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		p := c.others(lead)[0].addPack("3a/8", packID(1))
		time.Sleep(3 * reportPause) // virtual
		if all, _ := c.everywhere(p.AddIndex); !all {
			t.Errorf("not known: %+v", lead.View().Members())
		}
		behind := c.others(lead)[1]
		c.separate([]*node{behind}, c.nodes, true)
		p = lead.addPack("3b/8", packID(2))
		time.Sleep(time.Minute) // virtual
		if _, any := c.everywhere(p.AddIndex); any {
			t.Error("known before all have applied it")
		}
		c.heal()
		time.Sleep(10 * time.Second) // virtual
		if all, _ := c.everywhere(p.AddIndex); !all {
			t.Errorf("not known after mending: %+v", lead.View().Members())
		}
		c.separate([]*node{behind}, c.nodes, true)
		lead = c.leaderAmong(c.others(behind)...)
		p = lead.addPack("3c/8", packID(3))
		if err := lead.RemoveMember(t.Context(), behind.cfg.Node); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // virtual
		for _, n := range c.others(behind) {
			if !n.AppliedEverywhere(p.AddIndex) {
				t.Errorf("%s waits for who was removed", n.cfg.Node)
			}
		}
	})
}

// TestReportsCauseNoWriting: only a pack does, and once.
func TestReportsCauseNoWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		quiet := func() uint64 {
			t.Helper()
			time.Sleep(10 * time.Second) // virtual: what is due is written
			before := lead.raft.LastIndex()
			time.Sleep(time.Hour) // virtual
			if after := lead.raft.LastIndex(); after != before {
				t.Errorf("%d entries were written while nothing happened", after-before)
			}
			return before
		}
		began := quiet()
		for i := range 10 {
			if err := lead.Set(t.Context(), string(rune('a'+i)), []byte("v"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if now := quiet(); now != began+10 {
			t.Errorf("ten settings are %d entries", now-began)
		}
		if got := lead.reports(); len(got) != 2 {
			t.Errorf("reports: %+v", got)
		}
		for id, r := range lead.reports() {
			if age := time.Since(r.At); age > 2*reportEvery || r.Term != lead.raft.CurrentTerm() || r.LastIndex != lead.raft.LastIndex() {
				t.Errorf("%s, %s ago: %+v", id, age, r)
			}
		}
		lead.addPack("3a/8", packID(1))
		if now, written := quiet(), lead.View().Pack(packID(1)).AddIndex; now > written+3 { // its release, and up to two reports
			t.Errorf("a pack added at %d is recorded up to %d", written, now)
		}
	})
}

// TestNodeOutOfTouch: a node that is cut off stops saying that it is in touch
// with its leader an election's time later, whomever it still names; one that
// hears again says so.
func TestNodeOutOfTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		other := c.others(lead)[0]
		time.Sleep(time.Second) // virtual
		if !lead.InTouch() || !other.InTouch() {
			t.Fatalf("the leader is in touch: %v, a follower: %v", lead.InTouch(), other.InTouch())
		}
		c.cut(slices.Index(c.nodes, other))
		named := false
		for end := time.Now().Add(2 * other.cfg.election()); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if time.Since(other.raft.LastContact()) > other.cfg.election() {
				named = named || other.Leader() != ""
				if other.InTouch() {
					t.Fatal("in touch with a leader that it has not heard for an election's time")
				}
			}
		}
		if !named {
			t.Error("it named no leader at any such moment, so this proves nothing")
		}
		c.heal()
		c.leaderAmong(c.nodes...)
		for range 1000 {
			if other.InTouch() {
				return
			}
			time.Sleep(10 * time.Millisecond) // virtual
		}
		t.Error("never in touch again")
	})
}
