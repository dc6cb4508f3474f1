package safety

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// A node may stand still at any moment: its machine is suspended, its disk or
// the network takes a command and answers much later. Its leases run out
// meanwhile, another node does its work, and then it goes on in the middle of a
// step, with all it believed before. What arrives late must change nothing that
// is safe: acknowledgements, PUTs of keys that were collected, deletions.

// standstill is what happens while a node stands still.
type standstill struct {
	name   string
	days   int  // how long: after one an announced key is collected
	change bool // its customer replaces a file before the other node comes
	after  bool // and again when the other one is done
}

func standstills() []standstill {
	return []standstill{
		{name: "an hour"},
		{name: "an hour, a file changes before", change: true},
		{name: "an hour, a file changes after", after: true},
		{name: "three days", days: 3},
		{name: "a week, a file changes before and after", days: 7, change: true, after: true},
	}
}

// otherNode is another node of the cluster, on the same rows, files, objects
// and manifest, with a disk of its own.
func (w *world) otherNode() *world {
	o := newWorld(w.judge.TB, w.gate.known, nil)
	o.judge, o.rows, o.files, o.store, o.uploads, o.journal = w.judge, w.rows, w.files, w.store, w.uploads, w.journal
	o.ledger, o.catalog, o.keep = w.ledger, w.catalog, w.keep
	o.serial.Store(1000 + w.serial.Load()) // its packs' ids are others
	o.ticks.Store(w.ticks.Load())
	return o
}

// takeOver has another node do all the work while this one stands still, for so
// many days.
func (w *world) takeOver(s standstill) {
	if s.change {
		w.change("b", "b, changed before another node came")
	}
	o := w.otherNode()
	for range 6 { // it need not finish: what stands half done may be for the one that stands still
		o.rounds(1)
		o.rest()
	}
	for range s.days {
		o.pass(25 * time.Hour)
		o.rounds(1)
		o.rest()
	}
	o.stop()
	w.ticks.Store(o.ticks.Load())
	if s.after {
		w.change("b", "b, changed while its node stood still, and longer")
	}
}

// rounds runs the node, whatever comes of it.
func (w *world) rounds(n int) {
	for range n {
		if w.node == nil {
			w.start()
		}
		if w.node != nil {
			w.node.round()
		}
	}
}

// standStill makes the node stand still after its n-th effect of the run. From
// then on its own view of the manifest is not the newest; the checks' is. late
// names the packs that it has committed by a lease which it had before.
func (w *world) standStill(n int, s standstill) (at *effect, late func() []string) {
	at = &effect{}
	var fenced []desformat.Token
	known := map[desformat.PackID]bool{}
	usual := w.gate.boundary
	var seen atomic.Int64
	var newest atomic.Pointer[raftmeta.Local]
	w.gate.boundary = func(e effect, wrote bool) {
		if m := newest.Load(); m != nil {
			if err := m.CatchUp(); err != nil {
				w.judge.Errorf("catch up: %v", err)
			}
		}
		usual(e, wrote)
		if seen.Add(1) != int64(n) {
			return
		}
		*at = e
		for _, l := range w.view().Leases() {
			fenced = append(fenced, l.Token)
		}
		w.takeOver(s)
		m, err := raftmeta.OpenLocal(raftmeta.LocalConfig{Node: "checker", Cluster: theCluster, Journal: w.journal})
		if err != nil {
			w.judge.Errorf("read the manifest: %v", err)
			return
		}
		for p := range m.View().Packs() {
			known[p.ID] = true
		}
		w.meta = m
		newest.Store(m)
	}
	return at, func() (packs []string) {
		for p := range w.view().Packs() {
			if !known[p.ID] && slices.Contains(fenced, p.Token) {
				packs = append(packs, p.ID.String())
			}
		}
		return packs
	}
}

func twoFiles(w *world) {
	w.add("a", "content of a")
	w.add("b", "content of b")
	w.files.write(theRoot+"/keep", []byte("of nobody"), w.now())
}

// TestLateNodeChangesNothingThatIsSafe: a node stands still after each of its
// effects in turn, and goes on when another has done its work.
func TestLateNodeChangesNothingThatIsSafe(t *testing.T) {
	var passed atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, effects(), nil)
		usual := w.gate.boundary
		w.gate.boundary = func(e effect, wrote bool) { passed.Add(1); usual(e, wrote) }
		twoFiles(w)
		w.live(12, w.archived)
		w.stop()
		if failed := w.judge.end(); len(failed) > 0 {
			t.Fatal(join(failed))
		}
	})
	kinds, count := standstills(), int(passed.Load())
	var failed atomic.Int64
	inParallel(t, count*len(kinds), &failed, func(t *testing.T, i int) {
		n, kind := i/len(kinds)+1, kinds[i%len(kinds)]
		w := newWorld(t, effects(), nil)
		twoFiles(w)
		at, late := w.standStill(n, kind)
		w.live(16, w.archived)
		w.pass(25 * time.Hour)
		w.rounds(2)
		for range 2 { // what came late spends its own time in quarantine
			w.pass(8 * 24 * time.Hour)
			w.rounds(2)
		}
		if err := w.node.meta.CatchUp(); err != nil { // as its log does by itself
			t.Error(err)
		}
		w.meta = w.node.meta
		w.wantEnd()
		w.wantTidy()
		if packs := late(); len(packs) > 0 {
			w.judge.Errorf("packs %v were committed by a lease that had ended", packs)
		}
		w.stop()
		if said := w.judge.end(); len(said) > 0 {
			failed.Add(1)
			t.Errorf("stood still after effect %d, %s, for %s:\n%s", n, *at, kind.name, join(said))
		}
	})
	t.Logf("%d standstills", count*len(kinds))
}
