package keeper

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// rollBack archives files with a backup of the state taken between upload and
// commit, does what happens then, and goes on with the backup.
func (w *world) rollBack(build func() *raftmeta.Pack, then func()) {
	w.t.Helper()
	backup := filepath.Join(w.dir, "backup")
	w.uploaded = func() { w.check(os.CopyFS(backup, os.DirFS(filepath.Join(w.dir, "raft")))) }
	build()
	w.uploaded = nil
	then()
	w.startMetaIn("backup")
	if n := len(slices.Collect(w.meta.View().Packs())); n != 0 || len(w.meta.View().Uploads()) != 1 {
		w.t.Fatalf("the restored state knows %d packs and %d uploads", n, len(w.meta.View().Uploads()))
	}
}

// A state that was rolled back takes a committed pack for garbage. It may hold
// the only copy of files.
func TestPackThatARolledBackStateForgotIsKept(t *testing.T) {
	w := newWorld(t)
	w.register("a", "b")
	w.rollBack(w.archive, func() { w.once(nil) }) // the originals are deleted
	w.wantRow("a", source.DeletedSource, "")
	keys := w.keys()
	for _, d := range []time.Duration{0, 25 * time.Hour, 8 * 24 * time.Hour, 30 * 24 * time.Hour} {
		w.clock.advance(d)
		w.once(nil)
		w.wantKeys(keys...)
	}
	if err := w.keeper(nil).Problem(); err == nil || !strings.Contains(err.Error(), keys[0]) {
		t.Errorf("problem = %v, want the kept object", err)
	}
}

func TestGarbageWhoseFilesAreElsewhereGoes(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(w *world) *raftmeta.Pack
		then  func(w *world)
	}{
		{"the originals are still there, their rows MARKED", (*world).pack, func(*world) {}},
		{"a later pack holds them", (*world).archive, func(w *world) { // the rows were packed again
			w.touchAll("a", "b")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.noDelete = true
			w.register("a", "b")
			w.rollBack(func() *raftmeta.Pack { return c.build(w) }, func() {})
			c.then(w)
			garbage := w.meta.View().Uploads()[0].Key
			w.clock.advance(25 * time.Hour)
			w.once(nil)
			if slices.Contains(w.keys(), garbage) {
				t.Errorf("objects = %q: not quarantined", w.keys())
			}
			w.clock.advance(8 * 24 * time.Hour)
			w.once(nil)
			if got := strings.Join(w.keys(), " "); strings.Contains(got, "quarantine/") {
				t.Errorf("objects = %q: not deleted", got)
			}
			if err := w.keeper(nil).Problem(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Rows that say they are packed there are never packed again; and a footer that
// was damaged does not make a pack worthless.
func TestPackThatRowsStillNameIsKept(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		w := newWorld(t)
		w.noDelete = true
		w.register("a", "b")
		w.rollBack(w.archive, func() {})
		key := w.meta.View().Uploads()[0].Key
		if damaged {
			path := filepath.Join(w.dir, "store", filepath.FromSlash(key))
			b, err := os.ReadFile(path)
			w.check(err)
			b[len(b)-20] ^= 1
			w.check(os.WriteFile(path, b, 0o600))
		}
		for range 3 {
			w.clock.advance(10 * 24 * time.Hour)
			w.once(nil)
			w.wantKeys(key)
		}
	}
}

// touchAll gives files new contents and archives them.
func (w *world) touchAll(names ...string) {
	w.t.Helper()
	for _, n := range names {
		w.write(w.path(n), "new content of "+n)
	}
	w.registerIn(w.rows, w.root, names...)
	w.archive()
}

// What was kept goes once its files are safe, after a whole quarantine.
func TestKeptGarbageGoesWhenItsFilesAreSafe(t *testing.T) {
	w := newWorld(t)
	w.noDelete = true
	w.register("a", "b")
	w.rollBack(w.pack, func() {})
	key := w.meta.View().Uploads()[0].Key
	content, err := os.ReadFile(w.path("a"))
	w.check(err)
	fi, err := os.Stat(w.path("a"))
	w.check(err)
	w.check(os.Remove(w.path("a")))
	w.clock.advance(10 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys(key)
	w.write(w.path("a"), string(content))
	w.check(os.Chtimes(w.path("a"), fi.ModTime(), fi.ModTime()))
	w.once(nil)
	w.wantKeys(key) // not looked at before a day is over
	w.clock.advance(25 * time.Hour)
	w.once(nil)
	if got := w.keys(); len(got) != 1 || !strings.HasPrefix(got[0], "quarantine/2026-03-1") {
		t.Errorf("objects = %q, want it in a fresh quarantine", got)
	}
	w.clock.advance(6 * 24 * time.Hour)
	w.once(nil)
	if got := w.keys(); len(got) != 1 {
		t.Errorf("objects = %q, want it still in quarantine", got)
	}
	w.clock.advance(2 * 24 * time.Hour)
	w.once(nil)
	w.wantKeys()
}

func TestPackOfAnUnknownSourceIsAProblem(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	p := w.pack()
	k := w.keeper(func(c *Config) { c.Sources = nil })
	if err := k.Once(t.Context()); err == nil {
		t.Fatal("a pack was acknowledged without its source")
	}
	if err := k.Problem(); err == nil || !strings.Contains(err.Error(), `"files"`) || !strings.Contains(err.Error(), p.ID.String()) {
		t.Errorf("problem = %v, want the source and the pack", err)
	}
	w.check(w.meta.WithLease(t.Context(), raftmeta.Job{Kind: raftmeta.JobAck, Packs: []desformat.PackID{p.ID}},
		func(ctx context.Context, _ raftmeta.Lease) error { return w.keeper(nil).Acknowledge(ctx, p) }))
	if err := k.Problem(); err != nil {
		t.Errorf("problem = %v, though another node has acknowledged the pack", err)
	}
}
