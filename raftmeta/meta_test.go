package raftmeta

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

func TestRestartResumes(t *testing.T) {
	n := startNode(t, testConfig(t))
	n.addPack("3a/8", packID(1))
	if err := n.AckPack(context.Background(), packID(1), []uint32{7, 3, 3}); err != nil {
		t.Fatal(err)
	}
	before := n.View()
	n.restart()
	p := n.View().Pack(packID(1))
	if p == nil || !p.Acknowledged || len(p.Dead) != 2 || !p.IsDead(3) || !p.IsDead(7) || p.IsDead(4) {
		t.Fatalf("after the restart: %+v", p)
	}
	if n.View().Cluster() != n.cfg.Cluster || n.View().ShardBits() != 10 || n.View().Generation() != 1 {
		t.Errorf("after the restart: %+v", n.View())
	}
	if n.View().Applied() < before.Applied() {
		t.Errorf("applied %d, before %d", n.View().Applied(), before.Applied())
	}
	if got := n.View().Covering(desformat.NameHash{0x3a}, nil); len(got) != 1 || got[0].ID != packID(1) {
		t.Errorf("covering: %v", got)
	}
}

// TestLifeOfAPack goes through the API as the parts of a node do.
func TestLifeOfAPack(t *testing.T) {
	ctx := t.Context()
	n := startNode(t, testConfig(t))
	var lost Upload
	err := n.WithLease(ctx, Job{Kind: JobPack, Range: mustRange(t, "3a/8")}, func(ctx context.Context, l Lease) error {
		lost = testUpload(l, packID(1))
		return n.BeginUpload(ctx, lost)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !n.View().Garbage(lost) || len(n.View().Uploads()) != 1 {
		t.Errorf("uploads: %+v", n.View().Uploads())
	}
	if err := n.ForgetUpload(ctx, lost.Key); err != nil {
		t.Fatal(err)
	}
	p := n.addPack("3a/8", packID(2))
	if p.AddIndex == 0 || p.AddIndex != p.ModIndex || !n.AppliedEverywhere(p.AddIndex) || n.AppliedEverywhere(p.AddIndex+100) {
		t.Errorf("added as %+v", p)
	}
	wantErr(t, n.WithLease(ctx, Job{Kind: JobPack}, nil), ErrUnacknowledged)
	err = n.WithLease(ctx, packsJob(JobAck, p.ID), func(ctx context.Context, _ Lease) error {
		wantErr(t, n.AckPack(t.Context(), p.ID, nil), ErrClash) // another, outside the lease
		return n.AckPack(ctx, p.ID, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := p.Copies[0]
	seen.VerifiedAt, seen.VerifiedBy = time.Now(), n.cfg.Node
	if err := n.VerifyPack(ctx, p.ID, p.Copies[0], seen); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.RecordRebuild(ctx), n.RecordRebuild(ctx)); err != nil {
		t.Fatal(err)
	}
	v := n.View()
	got := v.Overlapping(mustRange(t, "3/4"))
	if len(got) != 1 || !got[0].Acknowledged || got[0].Copies[0].VerifiedBy != n.cfg.Node || !got[0].Copies[0].VerifiedAt.Equal(seen.VerifiedAt) {
		t.Errorf("overlapping: %+v", got)
	}
	all := 0
	for q := range v.Packs() {
		if q != got[0] {
			t.Errorf("the manifest has %+v", q)
		}
		all++
	}
	if all != 1 || !v.RebuildDone(1) || v.RebuildDone(2) || n.Leader() != n.cfg.Node {
		t.Errorf("%d packs, leader %q", all, n.Leader())
	}
}

func TestDirIsLocked(t *testing.T) {
	cfg := testConfig(t)
	first, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), cfg)
	wantErr(t, err, ErrLocked)
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, first.Run(t.Context()), ErrClosed)
	wantErr(t, first.Ready(t.Context()), ErrClosed)
	wantErr(t, first.Set(t.Context(), "k", nil, 0), ErrClosed)
	again, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestDirOfAnother(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"node":       {func(c *Config) { c.Node = "node-b" }, ErrOtherNode},
		"cluster":    {func(c *Config) { c.Cluster[0]++ }, ErrOtherCluster},
		"shards":     {func(c *Config) { c.ShardBits = 12 }, ErrOtherCluster},
		"generation": {func(c *Config) { c.Generation = 2 }, ErrOtherCluster},
		"same":       {func(c *Config) { c.Generation, c.ShardBits = 1, 10 }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, testConfig(t))
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			cfg := n.cfg
			tc.change(&cfg)
			m, err := Open(t.Context(), cfg)
			if err == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				ran := make(chan error, 1)
				go func() { ran <- m.Run(ctx) }()
				ready := m.Ready(ctx)
				if tc.want == nil {
					cancel()
				}
				err = errors.Join(ready, <-ran)
			}
			wantErr(t, err, tc.want)
		})
	}
}

func TestConfigIsHeldAgainstItsRules(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no dir":            func(c *Config) { c.Dir = "" },
		"no node":           func(c *Config) { c.Node = "" },
		"no cluster":        func(c *Config) { c.Cluster = desformat.ClusterID{} },
		"few shards":        func(c *Config) { c.ShardBits = 3 },
		"many shards":       func(c *Config) { c.ShardBits = 17 },
		"negative time":     func(c *Config) { c.LeaseTTL = -1 },
		"join whom alone":   func(c *Config) { c.Join = true },
		"another's address": func(c *Config) { _, c.Transport = raft.NewInmemTransport("node-b") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			change(&cfg)
			_, err := Open(t.Context(), cfg)
			wantErr(t, err, ErrInvalid)
		})
	}
}

func TestSnapshotCompactsTheLog(t *testing.T) {
	n := startNode(t, testConfig(t))
	n.addPack("3a/8", packID(1))
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if err := n.AckPack(t.Context(), packID(1), []uint32{4}); err != nil {
		t.Fatal(err)
	}
	want := snapshotBytes(t, &n.View().state)
	n.restart()
	if got := snapshotBytes(t, &n.View().state); !bytes.Equal(got, want) {
		t.Errorf("after the restart\n%s\nnot\n%s", got, want)
	}
	if _, err := n.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLostSnapshotIsNoticed: a log whose beginning went into a snapshot that
// can't be read any more must not be replayed without it.
func TestLostSnapshotIsNoticed(t *testing.T) {
	n := startNode(t, testConfig(t))
	n.addPack("3a/8", packID(1))
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	last, err := n.guard.LastIndex()
	if err == nil {
		err = n.guard.DeleteRange(1, last-1)
	}
	if err := errors.Join(err, n.stop()); err != nil {
		t.Fatal(err)
	}
	states, err := filepath.Glob(filepath.Join(n.cfg.Dir, "snapshots", "*", "state.bin"))
	if err != nil || len(states) != 1 {
		t.Fatal(states, err)
	}
	run := func() error {
		m, err := Open(t.Context(), n.cfg)
		if err != nil {
			return err
		}
		return m.Run(t.Context())
	}
	if err := os.Truncate(states[0], 40); err != nil {
		t.Fatal(err)
	}
	wantErr(t, run(), ErrStorage)
	if err := os.RemoveAll(filepath.Dir(states[0])); err != nil {
		t.Fatal(err)
	}
	wantErr(t, run(), ErrStorage)
}

// TestUnknownCommandEndsRun: also after each restart, and the log stays.
func TestUnknownCommandEndsRun(t *testing.T) {
	n := startNode(t, testConfig(t))
	before := n.View()
	_, _, err := n.apply(t.Context(), []byte(`{"v":3,"kind":"set","body":{}}`))
	wantErr(t, err, ErrUnknownCommand)
	<-n.done
	wantErr(t, n.stop(), ErrUnknownCommand)
	if n.View() != before {
		t.Error("the view has moved")
	}
	wantErr(t, n.Ready(t.Context()), ErrUnknownCommand)
	m, err := Open(t.Context(), n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, m.Run(t.Context()), ErrUnknownCommand)
}

func TestChangedFollowsTheView(t *testing.T) {
	n := startNode(t, testConfig(t))
	changed := n.Changed()
	select {
	case <-changed:
		t.Fatal("closed before anything changed")
	default:
	}
	if err := n.Set(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	<-changed
	if v, _, _ := n.View().Setting("k"); string(v) != "v" {
		t.Errorf("the view has %q", v)
	}
}

// TestConfirmationsShareOneQuestion: it serves all that arrived before it
// began, and none that arrived later.
func TestConfirmationsShareOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfirmer()
		var asked atomic.Uint64
		hold := make(chan struct{})
		ask := func(context.Context) (uint64, error) {
			n := asked.Add(1)
			<-hold
			return n, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		go c.run(ctx, ask)
		got := make(chan uint64, 200)
		join := func(n int) {
			for range n {
				go func() {
					index, err := c.join(t.Context())
					if err != nil {
						t.Error(err)
					}
					got <- index
				}()
			}
			synctest.Wait()
		}
		join(1)   // begins the first question
		join(100) // share the second
		hold <- struct{}{}
		synctest.Wait()
		join(50) // share the third
		close(hold)
		counts := map[uint64]int{}
		for range 151 {
			counts[<-got]++
		}
		if counts[1] != 1 || counts[2] != 100 || counts[3] != 50 || asked.Load() != 3 {
			t.Errorf("served by question: %v", counts)
		}
		cancel()
		synctest.Wait()
		_, err := c.join(t.Context()) // nobody asks any more
		wantErr(t, err, errMoved)
		gone, stop := context.WithCancel(t.Context())
		stop()
		_, err = newConfirmer().join(gone)
		wantErr(t, err, context.Canceled)
	})
}

// TestConfirmSeesWhatWasCommitted: raft's own entries at the end of the log
// are not waited for, commands are.
func TestConfirmSeesWhatWasCommitted(t *testing.T) {
	n := startNode(t, testConfig(t))
	for i := range 20 {
		if i%5 == 0 {
			if err := n.raft.Barrier(0).Error(); err != nil {
				t.Fatal(err)
			}
		}
		_, at, _ := n.View().Setting("k")
		if err := n.Set(t.Context(), "k", []byte{byte(i)}, at); err != nil {
			t.Fatal(err)
		}
		v, err := n.Confirm(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := v.Setting("k"); got[0] != byte(i) {
			t.Fatalf("confirmed view has %d, want %d", got[0], i)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.Confirm(ctx)
	wantErr(t, err, ErrUnconfirmed)
}

func TestConfirmWaitsForTheStateMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(nil)
		got := make(chan *View, 1)
		go func() {
			v, err := m.wait(t.Context(), 5)
			if err != nil {
				t.Error(err)
			}
			got <- v
		}()
		for _, applied := range []uint64{3, 4, 7} {
			synctest.Wait()
			if len(got) != 0 {
				t.Fatalf("answered before entry 5 was applied")
			}
			m.publish(state{applied: applied})
		}
		if v := <-got; v.Applied() != 7 {
			t.Errorf("applied %d", v.Applied())
		}
	})
}

func BenchmarkCommand(b *testing.B) {
	cfg := Config{Dir: b.TempDir(), Node: "node-a", Cluster: desformat.ClusterID{1}}
	m, err := Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	if err := m.Ready(ctx); err != nil {
		b.Fatal(err)
	}
	b.Run("set", func(b *testing.B) {
		for b.Loop() {
			_, at, _ := m.View().Setting("k")
			if err := m.Set(ctx, "k", []byte("v"), at); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("confirm", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Confirm(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
