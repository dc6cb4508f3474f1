package raftmeta

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
)

// runUntilItEnds starts a node and returns what its Run ends with, or nil when
// it runs for a minute.
func (n *node) runUntilItEnds() error {
	n.t.Helper()
	n.run()
	select {
	case <-n.done:
	case <-time.After(time.Minute):
	}
	return n.stop()
}

// copyDir keeps a node's data dir as it is now. The node may run: what a backup
// tool finds is at worst torn, and here nothing is written meanwhile.
func copyDir(t *testing.T, dir string) (copied string) {
	t.Helper()
	copied = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return copied
}

// putBack replaces a stopped node's data dir by an older copy.
func (n *node) putBack(copied string) {
	n.t.Helper()
	if err := os.RemoveAll(n.cfg.Dir); err != nil {
		n.t.Fatal(err)
	}
	if err := os.CopyFS(n.cfg.Dir, os.DirFS(copied)); err != nil {
		n.t.Fatal(err)
	}
}

// agedCluster is three voters, packs that all of them have applied, and each
// data dir as it was before the last of them.
type agedCluster struct {
	*cluster
	old  map[*node]string
	lost desformat.PackID // in the state since the copies were made
}

func newAgedCluster(t *testing.T) *agedCluster {
	a := &agedCluster{cluster: startCluster(t, 3), old: map[*node]string{}, lost: packID(2)}
	lead := a.leaderAmong(a.nodes...)
	lead.addPack("00/8", packID(1))
	a.converge()
	for _, n := range a.nodes {
		a.old[n] = copyDir(t, n.cfg.Dir)
	}
	added := lead.addPack("01/8", a.lost)
	a.converge()
	for !lead.AppliedEverywhere(added.AddIndex) { // so originals may be deleted from now on
		time.Sleep(reportEvery)
	}
	return a
}

func (a *agedCluster) end(nodes ...*node) {
	a.t.Helper()
	for _, n := range nodes {
		if err := n.stop(); err != nil {
			a.t.Fatal(err)
		}
	}
}

// TestFollowerThatWentBackSaysSo: one voter of three lost what it had written.
// The others have it; that voter says what happened, and its log is whole again.
// A leader that was not there before knows it from the state, as far as deletions
// rely on it.
func TestFollowerThatWentBackSaysSo(t *testing.T) {
	for name, newLeader := range map[string]bool{"its leader": false, "another leader": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAgedCluster(t)
				lead := a.leaderAmong(a.nodes...)
				back := a.others(lead)[0]
				a.end(back)
				if newLeader {
					a.reopen(slices.Index(a.nodes, lead))
				}
				back.putBack(a.old[back])
				var said bytes.Buffer
				back.cfg.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))
				back.start()
				a.converge()
				time.Sleep(2 * reportEvery)
				if back.View().Pack(a.lost) == nil {
					t.Error("the pack is lost")
				}
				a.end(back)
				if n := strings.Count(said.String(), "went back in time"); n != 1 {
					t.Errorf("it says %d times that its log went back: %s", n, &said)
				}
			})
		})
	}
}

// TestMajorityThatWentBackEndsBeforeItReplacesWhatWasApplied: two of three
// voters have lost a committed pack and agree without it. The third keeps its
// log as it is; nothing diverges in silence.
func TestMajorityThatWentBackEndsBeforeItReplacesWhatWasApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgedCluster(t)
		kept := a.nodes[0]
		back := a.others(kept)
		a.end(a.nodes...)
		for _, n := range back {
			n.putBack(a.old[n])
			n.run()
		}
		a.leaderAmong(back...)
		wantErr(t, kept.runUntilItEnds(), ErrRolledBack)
		// Its leader was told what it lacks, and ended as well.
		var ended []error
		for _, n := range back {
			if err := n.stop(); err != nil {
				ended = append(ended, err)
			}
		}
		if len(ended) != 1 || !errors.Is(ended[0], ErrRolledBack) {
			t.Errorf("the voters that went back ended with %v", ended)
		}
		// What was committed is on the third one's disk.
		v, err := ReadState(kept.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if v.Pack(a.lost) == nil {
			t.Error("the last copy of the pack's entry was replaced")
		}
	})
}

// TestClusterThatIsRestartedHasNotGoneBack: whatever was on its way when the
// nodes ended, a log that is as it was is not taken for an older one.
func TestClusterThatIsRestartedHasNotGoneBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		a := newAgedCluster(t)
		for _, n := range a.nodes {
			n.cfg.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))
		}
		for round := range 5 {
			a.end(a.nodes...)
			for i := range a.nodes {
				a.nodes[(i+round)%3].run()
			}
			a.leaderAmong(a.nodes...).addPack([]string{"10/8", "11/8", "12/8", "13/8", "14/8"}[round], packID(uint64(10+round)))
			a.converge()
		}
		a.end(a.nodes...)
		if said.Len() > 0 {
			t.Error(said.String())
		}
	})
}

// TestAppliedEntriesAreNotCutOff: only what was not applied gives way to what a
// leader sends; what a snapshot holds may go from the front.
func TestAppliedEntriesAreNotCutOff(t *testing.T) {
	n := startNode(t, testConfig(t))
	n.addPack("00/8", packID(1))
	log := n.guard.logStore.(suffixGuard)
	var told error
	log.onCut = func(err error) { told = err }
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	applied := n.View().applied
	wantErr(t, log.DeleteRange(applied, last), ErrRolledBack)
	wantErr(t, told, ErrRolledBack)
	if after, err := log.LastIndex(); err != nil || after != last {
		t.Errorf("the log ends at %d, not at %d: %v", after, last, err)
	}
	log.applied = func() uint64 { return last - 1 }
	if err := log.DeleteRange(last, last); err != nil {
		t.Errorf("an entry that was not applied: %v", err)
	}
	if err := log.DeleteRange(1, 2); err != nil {
		t.Errorf("what a snapshot holds: %v", err)
	}
}
