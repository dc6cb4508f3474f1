package safety

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
)

// The state of the cluster's only voter is put back from a copy, days older than
// the rows, the objects and the originals: the manifest has forgotten packs whose
// originals are gone. Nobody can tell that from within. What the node does then
// must lose nothing: a rebuild must still find every pack.

// somewhere reports whether the file's content is somewhere: at its path, under its
// quarantine name, or in an object of the store.
func (w *world) somewhere(e *entry) bool {
	open, hidden, _, _ := w.files.content(e.path)
	if bytes.Equal(open, e.now()) || bytes.Equal(hidden, e.now()) {
		return true
	}
	return slices.ContainsFunc(w.store.Keys(), func(key string) bool { return bytes.Contains(w.store.Bytes(key), e.now()) })
}

// goOn archives two files, has the state put back to what it was after so many
// effects, and lets the node work on for weeks.
func goOn(t *testing.T, after int) (moments int) {
	t.Helper()
	w := newWorld(t, effects(), nil)
	var old atomic.Pointer[raftmeta.Journal]
	old.Store(w.journal.Copy())
	var count atomic.Int64 // a row's file may be opened while another one's is read
	usual := w.gate.boundary
	w.gate.boundary = func(e effect, wrote bool) {
		usual(e, wrote)
		if count.Add(1) == int64(after) {
			old.Store(w.journal.Copy())
		}
	}
	twoFiles(w)
	w.live(12, w.archived)
	w.stop()

	moments = int(count.Load())
	w.journal = old.Load()
	w.gate.boundary = func(effect, bool) {
		for _, e := range w.ledger {
			if !w.somewhere(e) {
				w.judge.Errorf("%s is lost", e.name)
			}
		}
	}
	w.add("c", "content of c, which nobody archived before")
	for range 30 {
		w.rounds(1)
		w.rest()
		w.pass(17 * time.Hour)
	}
	w.wantHonest()
	w.stop()
	if said := w.judge.end(); len(said) > 0 {
		t.Errorf("put back to after effect %d:\n%s", after, join(said))
	}
	return moments
}

// wantHonest: each file is served as it is; or, when the manifest has forgotten
// it, an error says that it can't be, and never that it is not there.
func (w *world) wantHonest() {
	for _, e := range w.ledger {
		got, err := w.node.read(e.name)
		switch {
		case err == nil && !bytes.Equal(got, e.now()):
			w.judge.Errorf("%s is served as %q", e.name, got)
		case errors.Is(err, retriever.ErrNotFound) || errors.Is(err, retriever.ErrGone):
			w.judge.Errorf("%s is said to be %v", e.name, err)
		case err != nil && e.name == "c":
			w.judge.Errorf("c, which is new: %v; %s", err, w.describe())
		}
	}
}

func TestRolledBackManifestCollectsNoPack(t *testing.T) {
	total := 0
	synctest.Test(t, func(t *testing.T) { total = goOn(t, 0) })
	var failed atomic.Int64
	inParallel(t, total, &failed, func(t *testing.T, i int) {
		goOn(t, i+1)
		if t.Failed() {
			failed.Add(1)
		}
	})
	t.Logf("put back to %d moments", total)
	if total < 20 {
		t.Errorf("%d moments: the archive had more effects", total)
	}
}
