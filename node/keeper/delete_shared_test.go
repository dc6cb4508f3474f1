package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/datavision/desnode/node/source"
)

func TestSharedFileIsNeverDeleted(t *testing.T) {
	for _, tc := range []struct {
		name  string
		share func(w *world)
	}{
		{"a hard link", func(w *world) {
			w.check(os.Link(w.path("sub/a"), filepath.Join(w.dir, "elsewhere")))
		}},
		{"a second source with the same root", func(w *world) { w.second(w.root, "sub/a") }},
		{"a second source with a root inside", func(w *world) { w.second(filepath.Join(w.root, "sub"), "a") }},
		{"a second source with a root around", func(w *world) { w.second(w.dir, "originals/sub/a") }},
		{"a second source behind a link to the root", func(w *world) {
			link := filepath.Join(w.dir, "link")
			w.check(os.Symlink(w.root, link))
			w.second(link, "sub/a")
		}},
		{"a second source that knows no file id", func(w *world) { w.secondWithoutFileID("sub/a") }},
		{"a linked folder in one source", func(w *world) {
			w.check(os.Symlink("sub", w.path("alias")))
			w.registerIn(w.rows, w.root, "alias/a")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("sub/a", "b")
			tc.share(w)
			w.faults.reset()
			w.once(nil)
			w.wantFile(w.path("sub/a"), "content of sub/a")
			w.wantRow("sub/a", source.Packed, source.CodeShared)
			w.wantRow("b", source.DeletedSource, "")
			if n := count(w.faults.calls, "files.Hide"); n != 1 {
				t.Errorf("%d files were hidden, want b alone", n)
			}
		})
	}
}

// second adds a source whose one row reaches a file of the first.
func (w *world) second(root, name string) {
	w.t.Helper()
	s, rows := w.newSource("other", root)
	w.registerIn(rows, root, name)
	w.more = append(w.more, s)
}

// secondWithoutFileID adds a source whose row reaches the file by path alone.
func (w *world) secondWithoutFileID(name string) {
	w.t.Helper()
	s, rows := w.newSource("other", w.dir)
	fi, err := os.Stat(w.path(name))
	w.check(err)
	_, err = rows.Register(w.t.Context(), []source.File{{Name: name, Path: w.path(name), Size: fi.Size(), ModTime: fi.ModTime()}})
	w.check(err)
	w.more = append(w.more, s)
}

func count(calls []string, op string) (n int) {
	for _, c := range calls {
		if c == op {
			n++
		}
	}
	return n
}

func TestSourceThatCannotTellStopsDeletion(t *testing.T) {
	for _, op := range []string{"rows.Sharing", "files.Same"} {
		t.Run(op, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			w.faults.on = func(o string) error {
				if o == op {
					return errInjected
				}
				return nil
			}
			if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, errInjected) {
				t.Errorf("Once = %v", err)
			}
			w.wantFile(w.path("a"), "content of a")
			w.wantRow("a", source.Packed, "")
		})
	}
}
