package safety

import "testing"

// A set of two files is marked, packed, acknowledged, verified and deleted. The
// source system takes one back between the commit of its pack and the
// acknowledgement: its record is dead.
func TestCrashPointArchive(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.add("a", "content of a")
			w.add("b", "content of b")
			w.files.write(theRoot+"/keep", []byte("of nobody"), w.now())
			w.events["meta.add-pack"] = func() { w.withdraw("b") }
		},
		run: func(w *world) {
			w.live(12, w.archived)
			w.wantEnd()
		},
		least: 13111,
	}.all(t)
}

// A file changes between the commit of its pack and the acknowledgement: its
// record is dead, and it is archived again. Originals are kept. What comes
// before the commit is the same as above, so that faults begin with it.
func TestCrashPointChanged(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.keep = true
			w.add("a", "content of a")
			w.add("b", "content of b")
			w.events["meta.add-pack"] = func() {
				w.change("b", "b, changed by its customer")
				w.gate.stand(false)
			}
		},
		begins: true,
		run: func(w *world) {
			w.live(12, w.archived)
			w.wantEnd()
		},
		least: 7250,
	}.all(t)
}
