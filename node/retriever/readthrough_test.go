package retriever

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

func TestAFileNotYetPackedIsServedFromItsSource(t *testing.T) {
	for _, state := range []source.State{source.Active, source.Marked, source.Failed} {
		t.Run(string(state), func(t *testing.T) {
			w := newWorld(t)
			w.rows.set(row("a", state))
			w.files.content["/a"] = []byte("original")
			r := w.retriever()
			f, err := r.Open(t.Context(), "a", Query{Want: WantPart})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Record != nil || f.Row.ID != idOf("a") || f.Shard != desformat.HashName("a").Shard(10) {
				t.Errorf("record %v, row %q, shard %d", f.Record, f.Row.ID, f.Shard)
			}
			if info := f.Original.Info(); f.Size() != 8 || info.Size != 8 || !info.ModTime.Equal(epoch) {
				t.Errorf("size %d, info %+v: a weak validator needs size and time", f.Size(), info)
			}
			if _, whole := f.Content(); whole {
				t.Error("content in memory: an original is never kept")
			}
			if got, err := contentOf(t.Context(), &f); err != nil || got != "original" {
				t.Errorf("%q, %v", got, err)
			}
			if w.manifest.confirmed() == 0 {
				t.Error("served from its source without asking for what is newly packed")
			}
			if s := r.Stats(); s.Records != 0 {
				t.Errorf("%d records cached of an original", s.Records)
			}
			if row := (source.Row{}); f.Row.Source == row.Source {
				t.Error("the row does not name its source")
			}
		})
	}
}

// Whoever reads to the clean end has read one version: a file that changes
// meanwhile ends in an error.
func TestAFileThatChangesWhileItStreamsEndsInAnError(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(path string) error
	}{
		{"rewritten at the same length", func(path string) error { return os.WriteFile(path, []byte(long("new", 100_000)), 0o600) }},
		{"cut", func(path string) error { return os.Truncate(path, 50_000) }},
		{"grown", func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		}},
		{"replaced", func(path string) error {
			next := path + ".next"
			if err := os.WriteFile(next, []byte(long("new", 100_000)), 0o600); err != nil {
				return err
			}
			return os.Rename(next, path)
		}},
		{"removed", os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, path := realSource(t, "a", long("old", 100_000))
			f, err := w.retriever().Open(t.Context(), "a", Query{})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			body, err := f.Open(t.Context(), 0, f.Size())
			if err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 10_000)
			if _, err := io.ReadFull(body, first); err != nil || string(first) != long("old", 10_000) {
				t.Fatalf("first bytes: %v, or wrong", err)
			}
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, body)
			if !errors.Is(err, source.ErrChanged) {
				t.Errorf("the end is %v, want %v", err, source.ErrChanged)
			}
			wantOnly(t, err, ErrUnavailable)
		})
	}
}

// realSource makes the world's source a database and a folder with one file,
// and returns the file's path.
func realSource(t *testing.T, name, content string) (*world, string) {
	t.Helper()
	w := newWorld(t)
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	rows, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: filepath.Join(t.TempDir(), "files.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	file := source.File{Name: name, Path: path, Size: int64(len(content)), ModTime: epoch}
	if _, err := rows.Register(t.Context(), []source.File{file}); err != nil {
		t.Fatal(err)
	}
	w.sources = []Source{{Name: "files", Rows: rows, Files: source.NewFolders(func() []string { return []string{dir} })}}
	return w, path
}

func TestARealSourceIsReadThrough(t *testing.T) {
	w, path := realSource(t, "a", "original")
	r := w.retriever()
	wantRead(t, r, "a", "original")
	wantError(t, r, "b", ErrNotFound)
	found, err := w.sources[0].Rows.ByName(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.OpenID(t.Context(), "files", found.ID, Query{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := contentOf(t.Context(), &f); err != nil || got != "original" {
		t.Errorf("by id: %q, %v", got, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantError(t, r, "a", ErrUnavailable) // the row is there, so the name is
	w.manifest.confirming(withoutQuorum)
	wantError(t, r, "a", ErrUnconfirmed)
}

// Between the question to the manifest and the one to the source the file was
// packed.
func TestARowPackedWhileReadingThroughIsServedFromItsPack(t *testing.T) {
	for _, state := range []source.State{source.Packed, source.DeletedSource} {
		t.Run(string(state), func(t *testing.T) {
			w := newWorld(t)
			p := w.pack(version{name: "a", seq: 1, content: "packed"})
			w.rows.before(func(context.Context) error {
				w.manifest.set(p)
				w.rows.set(row("a", state))
				return nil
			})
			r := w.retriever()
			wantRead(t, r, "a", "packed")
			if n := w.rows.questions(); n != 1 {
				t.Errorf("%d questions to the source, want 1", n)
			}
			if n := count(r.metrics.lostRecords); n != 0 {
				t.Errorf("%d lost records counted", n)
			}
		})
	}
}

// The original is opened after its row was read: by then it may have been
// packed and deleted. The look-up is repeated once.
func TestAFileThatVanishesBetweenLookUpAndOpenIsLookedUpOnceMore(t *testing.T) {
	vanished := func(w *world) { w.files.err = fmt.Errorf("open: %w", source.ErrNoFile) }
	for _, c := range []struct {
		name      string
		meanwhile func(w *world) // when the row was read, before the first open
		content   string
		err       error
		questions int
	}{
		{"packed", func(w *world) {
			vanished(w)
			w.manifest.set(w.pack(version{name: "a", seq: 1, content: "packed"}))
		}, "packed", nil, 1},
		{"moved", func(w *world) {
			moved := row("a", source.Active)
			moved.Path = "/moved"
			delete(w.files.content, "/a")
			w.files.content["/moved"] = []byte("moved")
			w.rows.set(moved)
		}, "moved", nil, 2},
		{"row gone with it", func(w *world) {
			vanished(w)
			w.rows.set()
		}, "", ErrNotFound, 2},
		{"for good", vanished, "", ErrUnavailable, 2},
		{"replaced while it was opened", func(w *world) {
			w.files.err = source.ErrChanged
		}, "", ErrUnavailable, 2},
		{"its folder cannot be read", func(w *world) { w.files.err = errInjected }, "", ErrUnavailable, 1},
		{"it leads out of the roots", func(w *world) { w.files.err = source.ErrOutside }, "", ErrUnavailable, 1},
	} {
		for _, by := range []string{"name", "id"} {
			t.Run(c.name+", by "+by, func(t *testing.T) {
				w := newWorld(t)
				w.rows.set(row("a", source.Marked))
				w.files.content["/a"] = []byte("original")
				w.files.before = func() { c.meanwhile(w) }
				r := w.retriever()
				var f File
				var err error
				if by == "name" {
					f, err = r.Open(t.Context(), "a", Query{})
				} else {
					f, err = r.OpenID(t.Context(), "", idOf("a"), Query{})
				}
				if c.err != nil {
					wantOnly(t, err, c.err)
				} else {
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					if got, err := contentOf(t.Context(), &f); err != nil || got != c.content {
						t.Errorf("%q, %v, want %q", got, err, c.content)
					}
				}
				want := c.questions
				if by == "id" && c.name == "packed" {
					want = 2 // its row comes first in each round
				}
				if n := w.rows.questions(); n != want {
					t.Errorf("%d questions to the source, want %d", n, want)
				}
			})
		}
	}
}

// The contract: a changed file is served as last archived until it is packed
// again.
func TestAReactivatedFileIsServedInItsLastArchivedVersion(t *testing.T) {
	for _, state := range []source.State{source.Active, source.Marked} {
		for _, behind := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, node behind %v", state, behind), func(t *testing.T) {
				w := newWorld(t)
				changed := row("a", state)
				changed.DesName, changed.Version = "a", 1
				w.rows.set(changed)
				w.files.content["/a"] = []byte("changed")
				p := w.pack(version{name: "a", seq: 1, content: "archived"})
				if behind {
					w.manifest.confirming(func(context.Context) (fakeView, error) { return fakeView{p}, nil })
				} else {
					w.manifest.set(p)
				}
				r := w.retriever()
				wantRead(t, r, "a", "archived")
				f, err := w.retriever().OpenID(t.Context(), "", idOf("a"), Query{})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if got, err := contentOf(t.Context(), &f); err != nil || got != "archived" {
					t.Errorf("by id: %q, %v", got, err)
				}
				if w.files.opens != 0 {
					t.Errorf("the changed file was opened %d times", w.files.opens)
				}
			})
		}
	}
}

// A row says that its file is archived, and the confirmed manifest knows no
// record of it. Whatever has gone wrong, the name is not "not found".
func TestAnArchivedRowWithoutARecordIsNeverNotFound(t *testing.T) {
	for _, c := range []struct {
		state    source.State
		original bool
		err      error
	}{
		{source.Packed, true, nil},
		{source.Packed, false, ErrUnavailable},
		{source.DeletedSource, true, ErrUnavailable},
		{source.DeletedSource, false, ErrUnavailable},
	} {
		for _, by := range []string{"name", "id"} {
			t.Run(fmt.Sprintf("%s, original there %v, by %s", c.state, c.original, by), func(t *testing.T) {
				w := newWorld(t)
				w.rows.set(row("a", c.state))
				if c.original {
					w.files.content["/a"] = []byte("original")
				}
				r := w.retriever()
				var f File
				var err error
				if by == "name" {
					f, err = r.Open(t.Context(), "a", Query{})
				} else {
					f, err = r.OpenID(t.Context(), "", idOf("a"), Query{})
				}
				if c.err != nil {
					wantOnly(t, err, c.err)
				} else if err != nil {
					t.Fatal(err)
				} else {
					defer f.Close()
					if got, err := contentOf(t.Context(), &f); err != nil || got != "original" {
						t.Errorf("%q, %v", got, err)
					}
				}
				if n := count(r.metrics.lostRecords); n == 0 {
					t.Error("the loss was not counted")
				}
			})
		}
	}
}

func TestSourcesAreAskedInTheirOrder(t *testing.T) {
	w := newWorld(t)
	second, files := &fakeRows{}, &fakeFiles{content: map[string][]byte{"/a": []byte("second")}}
	second.set(row("a", source.Active), row("b", source.Active))
	files.content["/b"] = []byte("second")
	w.sources = append(w.sources, Source{Name: "second", Rows: second, Files: files})
	w.rows.set(row("a", source.Active))
	w.files.content["/a"] = []byte("first")
	r := w.retriever()
	wantRead(t, r, "a", "first")
	wantRead(t, r, "b", "second")
	w.rows.fail(errInjected)
	wantRead(t, r, "b", "second") // who has it need not wait for the one that is down
}
