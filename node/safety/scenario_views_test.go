package safety

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// What one node believes is older than what is: its view of the manifest, and
// the clock by which it began.

// An upload may take longer than a day. Its lease lives, so nobody collects what
// it has announced, wherever it stands when the collector comes.
func TestSlowUploadIsNotCollected(t *testing.T) {
	for _, at := range []string{"meta.begin-upload", "spool.Read", "store.Put", "store.Head", "meta.add-pack", "source.Acknowledge"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, effects(), nil)
				twoFiles(w)
				came := false
				w.events[at] = func() {
					came = true
					w.pass(25 * time.Hour)
					if err := w.node.keeper.Once(w.node.ctx); err != nil { // the same process keeps packs meanwhile
						t.Errorf("keep: %v", err)
					}
				}
				w.live(12, w.archived)
				w.wantEnd()
				w.wantTidy()
				w.stop()
				if said := w.judge.end(); len(said) > 0 || !came {
					t.Errorf("came %v:\n%s", came, join(said))
				}
			})
		})
	}
}

// A node that has not heard of a pack yet does not say that its files are not
// there: not while their rows lead to it, and not when the source system has
// deleted the rows.
func TestNodeBehindDoesNotSayNotFound(t *testing.T) {
	for _, rows := range []string{"rows are there", "rows are gone"} {
		t.Run(rows, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, effects(), nil)
				twoFiles(w)
				w.start()
				before := w.node.meta.View().Applied()
				o := w.otherNode()
				o.live(12, o.archived)
				o.stop()
				if rows == "rows are gone" {
					w.rows.mu.Lock()
					clear(w.rows.byID)
					w.rows.mu.Unlock()
				}
				if w.node.meta.View().Applied() != before {
					t.Fatal("the node is not behind")
				}
				for _, e := range w.ledger {
					if got, err := w.node.read(e.name); err != nil || !bytes.Equal(got, e.now()) {
						t.Errorf("%s is %q, %v; want %q", e.name, got, err, e.now())
					}
				}
				w.stop()
				if said := w.judge.end(); len(said) > 0 {
					t.Error(join(said))
				}
			})
		})
	}
}
