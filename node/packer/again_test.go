package packer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// deleted brings a PACKED row to DELETED_SOURCE and its file out of the world.
func (w *world) deleted(name string) {
	w.t.Helper()
	table := w.tables["files"]
	row := w.row(name)
	if ok, err := table.Claim(w.t.Context(), row, "1-1"); err != nil || !ok {
		w.t.Fatalf("claim: %v, %v", ok, err)
	}
	if ok, err := table.Deleted(w.t.Context(), row, "1-1", w.now()); err != nil || !ok {
		w.t.Fatalf("deleted: %v, %v", ok, err)
	}
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// Size and time alone make a file the archived one only while no other file
// can have come in its place.
func TestAFileThatCameAfterADeletionIsComparedByContent(t *testing.T) {
	const old = "the archived content"
	for _, c := range []struct {
		name, content string // "": gone again before it was packed
		packed        bool
	}{
		{"other bytes of the same size and time", "THE ARCHIVED CONTENT", true},
		{"the same file put back", old, false},
		{"gone again", "", false},
	} {
		for _, smallFile := range []int64{1 << 10, 1} { // read whole, and streamed
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t)
				path := filepath.Join(w.dir, "a")
				put := func(content string) {
					w.write("a", []byte(content))
					if err := os.Chtimes(path, epoch, epoch); err != nil {
						t.Fatal(err)
					}
				}
				put(old)
				w.register("files", "a", "a")
				p := w.packer(func(cfg *Config) { cfg.SmallFile = smallFile })
				w.drain(p)
				w.write("neighbour", nil) // an empty root would look like an unmounted one
				first := w.row("a").Pack
				w.deleted("a")

				put(c.content + old[len(c.content):])
				w.register("files", "a", "a")
				if row := w.row("a"); row.State != source.Marked || row.Version != 2 {
					t.Fatalf("the registered row is %s, version %d", row.State, row.Version)
				}
				want := c.content
				if c.content == "" {
					want = old
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
				w.drain(p)
				row := w.row("a")
				if row.State != source.Packed || (row.Pack != first) != c.packed {
					t.Errorf("row is %s in pack %s, first packed in %s; want a new pack: %v", row.State, row.Pack, first, c.packed)
				}
				if b, _ := w.read("a"); string(b) != want {
					t.Errorf("served is %q, want %q", b, want)
				}
			})
		}
	}
}

// A root that is empty may be the mount point of a missing disk: only one that
// is known for having been emptied says that its file is gone.
func TestARowOfAnEmptiedRootIsAcknowledgedAgain(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known: %v", known), func(t *testing.T) {
			w := newWorld(t)
			w.write("a", []byte("content"))
			w.register("files", "a", "a")
			p := w.packer(func(cfg *Config) { cfg.Emptied = func(id string) bool { return known && id != "" } })
			w.drain(p)
			first := w.row("a").Pack
			listed, err := os.Lstat(filepath.Join(w.dir, "a"))
			if err != nil {
				t.Fatal(err)
			}
			w.deleted("a")
			w.mark("files", source.File{Name: "a", Path: filepath.Join(w.dir, "a"), Size: listed.Size(), ModTime: listed.ModTime()})
			if row := w.row("a"); row.State != source.Marked || row.Version != 2 {
				t.Fatalf("row is %s, version %d", row.State, row.Version)
			}
			// What was never archived is left alone, whatever the root.
			w.mark("files", source.File{Name: "new", Path: filepath.Join(w.dir, "new"), Size: 3, ModTime: epoch})
			res, err := p.Once(t.Context(), true)
			if !errors.Is(err, ErrLeft) || res.Failed != 0 {
				t.Errorf("%+v, %v", res, err)
			}
			want := source.Marked
			if known {
				want = source.Packed
			}
			if row := w.row("a"); row.State != want || known && row.Pack != first {
				t.Errorf("row is %s in pack %s, want %s in %s", row.State, row.Pack, want, first)
			}
			if row := w.row("new"); row.State != source.Marked || row.Attempts != 0 {
				t.Errorf("the new row is %s after %d attempts", row.State, row.Attempts)
			}
		})
	}
}

func TestAMissingRootStopsNoOtherRootOfItsSource(t *testing.T) {
	w := newWorld(t)
	away := filepath.Join(t.TempDir(), "unmounted")
	w.sources[0].Files = source.NewFolders(func() []string { return []string{w.dir, away} })
	var lost []source.File
	for i := range 300 {
		name := desformat.PackID{byte(i), byte(i >> 8), 1}.String()
		lost = append(lost, source.File{Name: name, Path: filepath.Join(away, name), Size: 1, ModTime: time.Unix(1, 0)})
	}
	w.mark("files", lost...)
	files := w.add(50, small)
	res, err := w.packer().Once(t.Context(), true)
	if !errors.Is(err, ErrLeft) || res.Rows != 50 || res.Left != 300 || res.Failed != 0 {
		t.Fatalf("%+v, %v; want the 50 rows of the root that is there packed", res, err)
	}
	for name := range files {
		if row := w.row(name); row.State != source.Packed {
			t.Errorf("%s is %s", name, row.State)
		}
	}
}
