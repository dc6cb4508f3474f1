package safety

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

// An upload was announced and made, and its node died before the commit. What it
// holds was packed again since. The object is moved to quarantine after a day
// and deleted after a week; its open multipart upload is aborted; and one that
// goes on after the move is caught as well.
func TestCrashPointCollect(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.keep = true
			w.add("a", "content of a")
			w.events["store.Put"] = func() { w.node.kill() }
			w.live(6, w.archived)
			w.pass(25 * time.Hour)
			garbage := w.view().Uploads()[0].Key
			content := w.store.Bytes(garbage)
			w.uploads.open = []store.Upload{{Key: garbage, ID: "cut"}}
			w.events["store.Move"] = func() { w.put(garbage, content) }
		},
		run: func(w *world) {
			w.live(8, func() bool { return len(w.view().Uploads()) == 0 })
			tidy := func() bool { return len(w.objects("")) == 1 }
			for weeks := 0; weeks < 6 && !w.until(2, tidy); weeks++ {
				w.pass(8 * 24 * time.Hour)
			}
			w.wantEnd()
			w.wantTidy()
			if len(w.uploads.open) > 0 {
				w.judge.Errorf("at the end: open uploads %v", w.uploads.open)
			}
		},
		least: 9887,
	}.all(t)
}

// The database is restored to a state before the archive: its rows are ACTIVE,
// and one of the originals is gone. Both live in packs, and are acknowledged
// again instead of packed twice.
func TestCrashPointAgain(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.add("a", "content of a")
			w.files.write(theRoot+"/keep", []byte("of nobody"), w.now())
			w.live(6, w.archived)
			w.stop()
			w.keep = true
			w.add("b", "content of b")
			w.live(6, func() bool { return w.row(w.ledger["b"]).State == source.Packed && len(w.view().Leases()) == 0 })
			w.forgetRows()
		},
		run: func(w *world) {
			w.live(12, w.archived)
			w.wantEnd()
		},
		least: 1461,
	}.all(t)
}

// Deletion is switched off while an original is hidden, as far as a life after
// that is concerned: it is deleted or stands at its path, and is never forgotten
// under its quarantine name. Only the audit log knows of it.
func TestCrashPointDeletionOff(t *testing.T) {
	scenario{
		prepare: func(w *world) {
			w.keep = true
			w.add("a", "content of a")
			w.files.write(theRoot+"/keep", []byte("of nobody"), w.now())
			w.live(6, w.archived)
			w.keep = false
			w.events["files.Hide"] = func() { w.keep = true }
		},
		run: func(w *world) {
			w.live(12, func() bool {
				e := w.ledger["a"]
				at, _, isOpen, isHidden := w.files.content(e.path)
				gone := w.row(e).State == source.DeletedSource
				// Removed, and cut before its row was told: the claim says by whom.
				removed := !isOpen && w.row(e).Claim != ""
				return !isHidden && (gone || w.keep && (removed || bytes.Equal(at, e.now())))
			})
			w.wantEnd()
		},
		least: 3119,
	}.all(t)
}

// objects returns the keys that begin with prefix.
func (w *world) objects(prefix string) []string {
	var keys []string
	for _, key := range w.store.Keys() {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}

// put is an upload that ends late.
func (w *world) put(key string, content []byte) {
	if _, err := w.store.Put(w.judge.Context(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		w.judge.Errorf("late put: %v", err)
	}
}

// forgetRows takes all that desnode wrote from the rows: the database is as it
// was before.
func (w *world) forgetRows() {
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	for id, r := range w.rows.byID {
		w.rows.byID[id] = &row{id: r.id, eligible: true, Row: source.Row{
			Source: r.Source, ID: r.ID, Name: r.Name, Path: r.Path, Size: r.Size, ModTime: r.ModTime, State: source.Active,
		}}
	}
}
