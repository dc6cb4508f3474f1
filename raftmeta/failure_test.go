package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

var errDisk = errors.New("no space left on device")

// failingLog is a log whose writes and reads fail as a test says.
type failingLog struct {
	logStore

	mu     sync.Mutex // guards the fields below
	write  func(*raft.Log) failure
	hang   chan struct{} // not nil: writes of entries wait until it is closed
	term   bool
	read   uint64 // the index that can't be read
	failed int
}

// failure is how a write of a log entry goes wrong.
type failure int

const (
	fine failure = iota
	notPersisted
	persistedButErrored
)

func (f *failingLog) set(change func(*failingLog)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *failingLog) failures() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *failingLog) StoreLogs(logs []*raft.Log) error {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	worst := fine
	for _, l := range logs {
		if f.write != nil {
			worst = max(worst, f.write(l))
		}
	}
	if worst == notPersisted {
		f.failed++
		return errDisk
	}
	err := f.logStore.StoreLogs(logs)
	if worst == persistedButErrored {
		f.failed++
		return errors.Join(errDisk, err)
	}
	return err
}

func (f *failingLog) SetUint64(key []byte, v uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.term {
		f.failed++
		return errDisk
	}
	return f.logStore.SetUint64(key, v)
}

func (f *failingLog) GetLog(index uint64, l *raft.Log) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if index == f.read {
		f.failed++
		return errDisk
	}
	return f.logStore.GetLog(index, l)
}

// startFailing runs a node on a log that fails on command.
func startFailing(t *testing.T) (*node, *failingLog) {
	t.Helper()
	log := &failingLog{}
	n := &node{t: t, cfg: testConfig(t)}
	n.wrap = func(inner logStore) logStore {
		log.set(func(f *failingLog) { f.logStore = inner })
		return log
	}
	n.start()
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return n, log
}

// TestFullDiskIsSurvived: commands say so at once, the node goes on when there
// is room again, and what it had applied before is there all the time.
func TestFullDiskIsSurvived(t *testing.T) {
	for name, fill := range map[string]func(*failingLog){
		"log":          func(f *failingLog) { f.write = func(*raft.Log) failure { return notPersisted } },
		"log and term": func(f *failingLog) { f.write, f.term = func(*raft.Log) failure { return notPersisted }, true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, log := startFailing(t)
				n.addPack("3a/8", packID(1))
				log.set(fill)
				began := time.Now()
				for range 3 {
					err := n.Set(t.Context(), "k", []byte("v"), 0)
					wantErr(t, err, ErrStorage)
					wantErr(t, err, errDisk)
					time.Sleep(time.Minute) // virtual
				}
				if took := time.Since(began); took > 4*time.Minute {
					t.Errorf("commands took %s to fail", took)
				}
				if tries := log.failures(); tries > 400 {
					t.Errorf("%d writes tried in 3 minutes", tries)
				}
				if n.View().Pack(packID(1)) == nil {
					t.Error("the view is gone")
				}
				log.set(func(f *failingLog) { f.write, f.term = nil, false })
				time.Sleep(3 * writePause) // virtual
				if err := n.Set(t.Context(), "k", []byte("v"), 0); err != nil {
					t.Error(err)
				}
				n.restart()
				if v, _, _ := n.View().Setting("k"); string(v) != "v" || n.View().Pack(packID(1)) == nil {
					t.Errorf("after the restart: %q", v)
				}
			})
		})
	}
}

func TestNodeStopsWhileTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, log := startFailing(t)
		log.set(func(f *failingLog) { f.write, f.term = func(*raft.Log) failure { return notPersisted }, true })
		wantErr(t, n.Set(t.Context(), "k", []byte("v"), 0), ErrStorage)
		time.Sleep(time.Minute) // virtual: raft is stuck at its term by now
		began := time.Now()
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*shutdownGrace {
			t.Errorf("took %s to stop", took)
		}
		wantErr(t, n.Set(t.Context(), "k", []byte("v"), 0), ErrClosed)
	})
}

// TestStalledDiskOfTheLeader: a leader whose disk neither writes nor fails is
// replaced, stays out of elections, and follows when the disk answers again.
func TestStalledDiskOfTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &failingLog{}
		c := startCluster(t, 1)
		c.nodes[0].wrap = func(inner logStore) logStore {
			log.set(func(f *failingLog) { f.logStore = inner })
			return log
		}
		c.nodes[0].restart()
		c.grow(3)
		old := c.leaderAmong(c.nodes...)
		if old != c.nodes[0] {
			t.Fatalf("%s leads", old.cfg.Node)
		}
		hang := make(chan struct{})
		log.set(func(f *failingLog) { f.hang = hang })
		began := time.Now()
		if err := old.Set(t.Context(), "k", []byte("stuck"), 0); err == nil {
			t.Error("a command was committed by a leader that cannot write")
		}
		next := c.leaderAmong(c.others(old)...)
		if took := time.Since(began); took > writeLimit+5*defaultElection {
			t.Errorf("replaced after %s", took)
		}
		if err := next.Set(t.Context(), "k", []byte("new"), 0); err != nil {
			t.Fatal(err)
		}
		reigns := next.leading.now()
		time.Sleep(time.Minute) // virtual
		if next.leading.now() != reigns || old.leading.now() != nil {
			t.Error("the stalled node has disturbed its successor")
		}
		if _, err := old.Confirm(t.Context()); err == nil {
			t.Error("the stalled node confirms")
		}
		log.set(func(f *failingLog) { f.hang = nil })
		close(hang)
		c.converge()
		if err := old.Set(t.Context(), "after", []byte("v"), 0); err != nil {
			t.Error(err)
		}
		if v, _, _ := old.View().Setting("k"); string(v) != "new" {
			t.Errorf("the setting is %q", v)
		}
	})
}

// TestStalledDiskDoesNotHoldRun: and a dir that may yet be written is not let go.
func TestStalledDiskDoesNotHoldRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, log := startFailing(t)
		hang := make(chan struct{})
		log.set(func(f *failingLog) { f.hang = hang })
		if err := n.Set(t.Context(), "k", []byte("v"), 0); err == nil {
			t.Error("a command was committed without a disk")
		}
		time.Sleep(time.Minute) // virtual
		wantErr(t, n.Set(t.Context(), "k", []byte("v"), 0), ErrStorage)
		began := time.Now()
		wantErr(t, n.stop(), ErrStorage)
		if took := time.Since(began); took > 2*writeLimit {
			t.Errorf("took %s to stop", took)
		}
		_, err := Open(t.Context(), n.cfg)
		wantErr(t, err, ErrLocked)
		close(hang)
		synctest.Wait()
		if err := n.storage.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFullDiskAtTheFirstStart(t *testing.T) {
	log := &failingLog{term: true}
	m, err := open(testConfig(t), func(inner logStore) logStore {
		log.logStore = inner
		return log
	})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	wantErr(t, err, ErrStorage)
	wantErr(t, err, errDisk)
}

// TestUnreadableLogEndsRun: raft would end the process.
func TestUnreadableLogEndsRun(t *testing.T) {
	n := startNode(t, testConfig(t))
	n.addPack("3a/8", packID(1))
	bad := n.View().Pack(packID(1)).AddIndex
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	m, err := open(n.cfg, func(inner logStore) logStore { return &failingLog{logStore: inner, read: bad} })
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context())
	wantErr(t, err, ErrStorage)
	wantErr(t, err, errDisk)
}

// TestCommitOfAPackSurvivesEveryFailure: each step of committing a pack × the
// ways its log entry can fail. Whoever did it repeats it, in the same process
// or in the next, and the pack is there once, its upload forgotten.
func TestCommitOfAPackSurvivesEveryFailure(t *testing.T) {
	steps := []string{kindGrant, kindBeginUpload, kindAddPack, kindAckPack, kindRelease}
	failures := map[string]failure{"not persisted": notPersisted, "persisted but errored": persistedButErrored}
	for _, step := range steps {
		for name, how := range failures {
			for _, crash := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, crash=%v", step, name, crash), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { commitThrough(t, step, how, crash) })
				})
			}
		}
	}
}

func commitThrough(t *testing.T, step string, how failure, crash bool) {
	n, log := startFailing(t)
	log.set(func(f *failingLog) {
		f.write = func(l *raft.Log) failure {
			if l.Type == raft.LogCommand && strings.Contains(string(l.Data), `"kind":"`+step+`"`) {
				return how
			}
			return fine
		}
	})
	err := n.commitOnce(t.Context(), packID(1))
	if step != kindRelease { // a release that fails is left to the expiry
		wantErr(t, err, ErrStorage)
	}
	if log.failures() == 0 {
		t.Fatalf("%s was never written", step)
	}
	log.set(func(f *failingLog) { f.write = nil })
	if crash {
		n.restart()
	} else {
		time.Sleep(2 * ttl) // virtual: the disk has room, and orphaned leases expire
	}
	id := packID(1)
	if p := n.View().Pack(id); p == nil {
		id = packID(2) // a builder never takes up another's object
		if err := n.commitOnce(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	} else if err := n.AckPack(t.Context(), id, []uint32{3}); err != nil {
		t.Fatal(err)
	}
	v := n.View()
	if got := v.Covering(hashAt(0x3a000000), nil); len(got) != 1 || got[0].ID != id || !got[0].Acknowledged || !got[0].IsDead(3) {
		t.Errorf("covering: %+v", got)
	}
	if got := v.Leases(); len(got) != 0 {
		t.Errorf("leases left: %+v", got)
	}
	for _, u := range v.Uploads() {
		if u.Pack == id || !v.Garbage(u) {
			t.Errorf("upload left that is no garbage: %+v", u)
		}
	}
	if _, err := n.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	want := snapshotBytes(t, &v.state)
	n.restart()
	if got := snapshotBytes(t, &n.View().state); string(got) != string(want) {
		t.Errorf("after another restart\n%s\nnot\n%s", got, want)
	}
}

// commitOnce does what a packer does, without trying again.
func (n *node) commitOnce(ctx context.Context, id [16]byte) error {
	return n.WithLease(ctx, Job{Kind: JobPack, Range: mustRange(n.t, "3a/8")}, func(ctx context.Context, l Lease) error {
		if err := n.BeginUpload(ctx, testUpload(l, id)); err != nil {
			return err
		}
		if _, err := n.AddPack(ctx, testPack(l, id)); err != nil {
			return err
		}
		return n.AckPack(ctx, id, []uint32{3})
	})
}
