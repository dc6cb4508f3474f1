package rebuild

import (
	"os"
	"testing"
)

// What the packs alone tell: the same manifest, and the same files under the
// same names.
func TestRebuildFromPacksAlone(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(60, "a")...)
	w.archive()
	w.write(1, names(20, "b")...)
	w.write(2, names(10, "a")...) // changed since
	w.archive()
	want, states := w.snapshot(), w.states()
	if len(want) < 4 {
		t.Fatalf("only %d packs", len(want))
	}

	w.claim("node-2", nil)
	p := w.rebuild(nil)
	w.wantSnapshot(want)
	w.wantStates(states)
	if p.Adopted != len(want) || p.Read != len(want) || p.Acknowledged != len(want) || p.ToAcknowledge != len(want) || p.Left != 0 || len(p.Odd) > 0 || p.Phase != PhaseDone {
		t.Errorf("progress %+v, of %d packs", p, len(want))
	}
	for i, n := range names(60, "a") {
		version := 1
		if i < 10 {
			version = 2
		}
		w.wantServed(n, version)
	}
	w.wantServed("b/file-007.txt", 1)
	w.wantServed("nobody has written this", 0)
}

// Rows that have lost all that desnode wrote to them get it back, and originals
// that were deleted are known to be.
func TestRowsAreWrittenBack(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(40, "gone")...)
	w.archive()
	w.deleteOriginals()
	if _, err := os.Stat(w.path("gone/file-000.txt")); !os.IsNotExist(err) {
		t.Fatalf("an original was not deleted: %v", err)
	}
	w.write(1, names(30, "here")...)
	w.archive()
	w.write(2, names(10, "here")...)
	w.archive()
	want, states := w.snapshot(), w.states()

	w.newRows("lost.db")
	for _, n := range w.order {
		version := 1
		for _, changed := range names(10, "here") {
			if n == changed {
				version = 2
			}
		}
		w.register(version, n)
	}
	w.claim("node-2", nil)
	p := w.rebuild(func(c *Config) { c.Source = true })
	w.wantSnapshot(want)
	w.wantStates(states)
	if p.RowsRestored != 70 || p.RowsNewer != 10 || p.RowsMissing+p.RowsRefused != 0 {
		t.Errorf("progress %+v", p)
	}
}
