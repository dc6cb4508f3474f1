package raftmeta

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
)

const ttl = defaultLeaseTTL

func TestWithLeaseReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, testConfig(t))
		job := Job{Kind: JobPack, Range: mustRange(t, "3a/8")}
		failed := errors.New("failed")
		for _, want := range []error{nil, failed} {
			err := n.WithLease(t.Context(), job, func(ctx context.Context, l Lease) error {
				if got := n.View().Leases(); len(got) != 1 || got[0].Token != l.Token || l.Holder != n.cfg.Node {
					t.Errorf("leases: %+v", got)
				}
				wantErr(t, n.WithLease(ctx, job, nil), ErrClash)
				return want
			})
			wantErr(t, err, want)
			if got := n.View().Leases(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := n.WithLease(ctx, job, func(ctx context.Context, _ Lease) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		})
		wantErr(t, err, context.Canceled)
		if got := n.View().Leases(); len(got) != 0 {
			t.Errorf("left by a cancelled caller: %+v", got)
		}
	})
}

// TestLeaseIsRenewedWhileWorkGoesOn: work may take many times the TTL.
func TestLeaseIsRenewedWhileWorkGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, testConfig(t))
		err := n.WithLease(t.Context(), Job{Kind: JobMark, Source: "files"}, func(ctx context.Context, l Lease) error {
			if !pause(ctx, 10*ttl) {
				return context.Cause(ctx)
			}
			if !n.View().live(l.Token) {
				t.Error("not live any more")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestExpiryIsACommand: a lease that nobody renews ends by itself, in the
// log, and not before its TTL.
func TestExpiryIsACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, testConfig(t))
		granted := time.Now()
		l := n.grant(Job{Kind: JobPack, Range: mustRange(t, "3a/8")})
		applied := n.View().Applied()
		v := n.waitFor(func(v *View) bool { return !v.live(l.Token) })
		if took := time.Since(granted); took < ttl || took > ttl+time.Second {
			t.Errorf("expired after %s", took)
		}
		if v.Applied() <= applied || !v.Fenced(l.Token) {
			t.Errorf("applied %d, before %d", v.Applied(), applied)
		}
	})
}

// waitFor returns the first view that fits.
func (n *node) waitFor(fits func(*View) bool) *View {
	n.t.Helper()
	for {
		changed := n.Changed()
		if v := n.View(); fits(v) {
			return v
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Minute):
			n.t.Fatalf("no such view: %s", snapshotBytes(n.t, &n.View().state))
		}
	}
}

// TestHolderStopsBeforeItsLeaseCanBeGivenAway: when no leader answers, work's
// context ends a margin before the earliest moment at which the lease expires.
func TestHolderStopsBeforeItsLeaseCanBeGivenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, testConfig(t))
		job := Job{Kind: JobPack, Range: mustRange(t, "3a/8")}
		asked := time.Now()
		var held Lease
		err := n.WithLease(t.Context(), job, func(ctx context.Context, l Lease) error {
			held = l
			reign := n.leading.now()
			n.leading.set(nil) // nobody answers; the timers go on
			<-ctx.Done()
			if took := time.Since(asked); took < ttl-ttl/10 || took > ttl-ttl/10+time.Second {
				t.Errorf("stopped after %s", took)
			}
			if !n.View().live(l.Token) {
				t.Error("the lease had expired before its holder stopped")
			}
			wantErr(t, context.Cause(ctx), ErrStale)
			n.leading.set(reign)
			return ctx.Err()
		})
		wantErr(t, err, ErrStale)
		wantErr(t, err, context.Canceled)
		if n.View().live(held.Token) {
			t.Error("not released")
		}
	})
}

// TestHolderStopsWhenItsLeaseIsGone: work learns it at the next renewal.
func TestHolderStopsWhenItsLeaseIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, testConfig(t))
		asked := time.Now()
		err := n.WithLease(t.Context(), Job{Kind: JobCollect}, func(ctx context.Context, l Lease) error {
			n.end(l)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		wantErr(t, err, ErrStale)
		if took := time.Since(asked); took > ttl/3+time.Second {
			t.Errorf("stopped after %s", took)
		}
	})
}

func TestStalledHolderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, testConfig(t))
		job := Job{Kind: JobPack, Range: mustRange(t, "3a/8")}
		stalled := n.grant(job) // its process stands still: no renewal
		if err := n.BeginUpload(t.Context(), testUpload(stalled, packID(1))); err != nil {
			t.Fatal(err)
		}
		n.waitFor(func(v *View) bool { return v.Fenced(stalled.Token) })
		n.addPack("3a/8", packID(2)) // its successor
		_, err := n.AddPack(t.Context(), testPack(stalled, packID(1)))
		wantErr(t, err, ErrStale)
		if !n.View().Garbage(testUpload(stalled, packID(1))) {
			t.Error("its object is not garbage")
		}
	})
}

func TestRepeatedGrantIsOneLease(t *testing.T) {
	n := startNode(t, testConfig(t))
	c := &grantCommand{Job: Job{Kind: JobCollect}, Holder: n.cfg.Node, Request: "same"}
	first, err := n.propose(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.propose(t.Context(), c)
	if err != nil || second.(Lease).Token != first.(Lease).Token {
		t.Errorf("first %v, then %v, %v", first, second, err)
	}
}

// TestRestartReleasesItsOwnLeases: the lock file proves that the process which
// held them is dead.
func TestRestartReleasesItsOwnLeases(t *testing.T) {
	n := startNode(t, testConfig(t))
	l := n.grant(Job{Kind: JobPack, Range: mustRange(t, "3a/8")})
	if err := n.BeginUpload(t.Context(), testUpload(l, packID(1))); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if got := n.View().Leases(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	_, err := n.AddPack(t.Context(), testPack(l, packID(1)))
	wantErr(t, err, ErrStale)
	n.addPack("3a/8", packID(2))
}

func TestTimers(t *testing.T) {
	w := newWorld(t)
	a, b := w.leaseRange("1/4"), w.leaseRange("2/4")
	ts := newTimers(ttl, w.state)
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	sweep := func(now time.Time, over []desformat.Token, next time.Time) {
		t.Helper()
		gotOver, gotNext := ts.sweep(w.state(), now)
		if len(gotOver) != len(over) || len(over) > 0 && gotOver[0] != over[0] || !gotNext.Equal(next) {
			t.Errorf("at %s: over %v, next %s; want %v, %s", now, gotOver, gotNext, over, next)
		}
	}
	sweep(at(0), nil, at(30))
	if err := ts.renew("node-a", a.Token, at(10)); err != nil {
		t.Error(err)
	}
	sweep(at(29), nil, at(30))
	sweep(at(30), []desformat.Token{b.Token}, at(40))
	wantErr(t, ts.renew("node-a", b.Token, at(30)), ErrStale) // being expired
	w.release(b)
	sweep(at(30), nil, at(40))
	wantErr(t, ts.renew("node-a", b.Token, at(31)), ErrStale)
	w.release(a)
	sweep(at(100), nil, time.Time{})
	c := w.leaseRange("3/4")
	if err := ts.renew("node-a", c.Token, at(100)); err != nil { // before any sweep saw it
		t.Error(err)
	}
	sweep(at(129), nil, at(130))
}

func TestClusterConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.nodes[0]
		var wg sync.WaitGroup
		for i, r := range []string{"1/4", "2/4", "3/4", "4/4"} {
			wg.Go(func() { lead.addPack(r, packID(uint64(i))) })
		}
		wg.Wait()
		c.converge()
	})
}

// TestNewLeaderResetsAllTimers: a leader that dies just before a lease would
// have expired gives its holder a whole TTL of its successor.
func TestNewLeaderResetsAllTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		old := c.nodes[0]
		l := old.grant(Job{Kind: JobPack, Range: mustRange(t, "3a/8")})
		time.Sleep(ttl - time.Second) // virtual
		c.cut(0)
		next := c.leaderAmong(c.nodes[1:]...)
		elected := time.Now()
		if !next.View().live(l.Token) {
			t.Fatal("the lease was lost with its leader")
		}
		next.waitFor(func(v *View) bool { return !v.live(l.Token) })
		if took := time.Since(elected); took < ttl-time.Second || took > ttl+time.Second {
			t.Errorf("expired %s after the election", took)
		}
	})
}

// TestDeposedLeader: cut off from its quorum, a leader neither confirms nor
// grants nor renews, and work under its leases stops before its successor can
// give them away.
func TestDeposedLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		old := c.nodes[0]
		job := Job{Kind: JobPack, Range: mustRange(t, "3a/8")}
		var stopped time.Time
		var held Lease
		worked := make(chan error, 1)
		go func() {
			worked <- old.WithLease(context.Background(), job, func(ctx context.Context, l Lease) error {
				held = l
				<-ctx.Done()
				stopped = time.Now()
				return ctx.Err()
			})
		}()
		old.waitFor(func(v *View) bool { return len(v.Leases()) == 1 })
		c.cut(0)
		_, err := old.Confirm(t.Context())
		wantErr(t, err, ErrUnconfirmed)
		if err := old.Set(t.Context(), "k", []byte("lost"), 0); err == nil {
			t.Error("a setting was committed without a quorum")
		}
		next := c.leaderAmong(c.nodes[1:]...)
		next.waitFor(func(v *View) bool { return v.Fenced(held.Token) })
		fenced := time.Now()
		wantErr(t, <-worked, ErrStale)
		if !stopped.Before(fenced) {
			t.Errorf("work stopped at %s, its lease was given away at %s", stopped, fenced)
		}
	})
}

// TestDeposedLeaderRejoins: what it alone had written is cut off its log, and
// its log can be read afterwards.
func TestDeposedLeaderRejoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		old := c.nodes[0]
		old.addPack("3a/8", packID(1))
		c.cut(0)
		if err := old.Set(t.Context(), "k", []byte("lost"), 0); err == nil {
			t.Fatal("a setting was committed without a quorum")
		}
		next := c.leaderAmong(c.nodes[1:]...)
		if err := next.Set(t.Context(), "k", []byte("kept"), 0); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it reads the log that was cut the first time
			c.reopen(0)
			c.converge()
		}
		if v, _, _ := old.View().Setting("k"); string(v) != "kept" {
			t.Errorf("the setting is %q", v)
		}
	})
}
