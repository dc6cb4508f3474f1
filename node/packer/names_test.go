package packer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/source"
)

func TestOneNameInTwoSources(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.write("one", []byte("first"))
	w.write("two", []byte("second"))
	w.register("a", "name", "one")
	w.register("b", "name", "two")
	p := w.packer()
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 1 || res.Failed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	refused := func() {
		t.Helper()
		row, err := w.tables["b"].ByName(t.Context(), "name")
		if err != nil || row.State != source.Failed || row.ErrorCode != source.CodeDuplicateName {
			t.Errorf("the second row is %s, %s, %v", row.State, row.ErrorCode, err)
		}
		if b, h := w.read("name"); string(b) != "first" || h.Source != "a" {
			t.Errorf("the name serves %q of source %s", b, h.Source)
		}
	}
	refused()
	// And again when the first lives already.
	if n, err := w.tables["b"].Retry(t.Context(), source.Selection{}, epoch); err != nil || n != 1 {
		t.Fatalf("retried %d, %v", n, err)
	}
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 0 || res.Failed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	refused()
}

func TestSecondRowOfANameIsPackedWhenTheFirstCannotBe(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.write("one", []byte("first"))
	w.write("two", []byte("second"))
	w.register("a", "name", "one")
	w.register("b", "name", "two")
	if err := os.Remove(filepath.Join(w.dir, "one")); err != nil {
		t.Fatal(err)
	}
	p := w.packer()
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 1 || res.Failed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if b, _ := w.read("name"); string(b) != "second" {
		t.Errorf("the name serves %q", b)
	}
}

// A restored database lists as MARKED, or again as ACTIVE, what lives in packs
// already, and originals that may be deleted.
func TestRestoredDatabaseIsNotPackedTwice(t *testing.T) {
	w := newWorld(t)
	files := w.add(1200, small)
	w.drain(w.packer())
	before := len(w.packs)

	restored, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: filepath.Join(t.TempDir(), "old.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = restored.Close() })
	// The same rows under the same ids, in a database that knows of no pack.
	for _, batch := range rowsByID(t, w.tables["files"]) {
		if _, err := restored.Register(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	w.tables["files"] = restored
	w.sources[0].Rows = &faultyRows{restored, w}
	w.mark("files")
	for name := range files {
		if strings.HasPrefix(name, "dir1/") {
			if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := w.packer()
	res, err := p.Once(t.Context(), true)
	if err != nil || res.Again != 1200 || res.Rows+res.Failed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if len(w.packs) != before {
		t.Errorf("%d packs, were %d", len(w.packs), before)
	}
	w.check(files)
}

func rowsByID(t *testing.T, table source.Table) [][]source.File {
	t.Helper()
	var batches [][]source.File
	for id := 1; ; id++ {
		row, err := table.ByID(t.Context(), fmt.Sprint(id))
		if errors.Is(err, source.ErrNotFound) {
			return batches
		}
		if err != nil {
			t.Fatal(err)
		}
		if (id-1)%source.MaxBatch == 0 {
			batches = append(batches, nil)
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], source.File{Name: row.Name, Path: row.Path, Size: row.Size, ModTime: row.ModTime})
	}
}

func TestChangedFileIsPackedAsANewerVersion(t *testing.T) {
	w := newWorld(t)
	files := w.add(3, small)
	p := w.packer()
	w.drain(p)
	_, before := w.read("dir1/file-1.txt")
	w.write("dir1/file-1.txt", []byte("changed"))
	w.register("files", "dir1/file-1.txt", "dir1/file-1.txt")
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 1 || res.Again != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	got, after := w.read("dir1/file-1.txt")
	if string(got) != "changed" || after.Version != before.Version+1 || after.Seq.Compare(before.Seq) <= 0 {
		t.Errorf("reads %q, version %d after %d, seq %s after %s", got, after.Version, before.Version, after.Seq, before.Seq)
	}
	files["dir1/file-1.txt"] = got
	for name := range files {
		if row := w.row(name); row.State != source.Packed {
			t.Errorf("%s is %s", name, row.State)
		}
	}
}
