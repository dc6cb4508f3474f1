package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// files lists the base names in a folder, quarantine names as "q(base)".
func filesIn(t *testing.T, dir string, bases ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		for _, b := range bases {
			if name == quarantineName(b) {
				name = "q(" + b + ")"
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := filesIn(t, dir, "a"); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func readHidden(t *testing.T, f *Folders, path string) (string, error) {
	t.Helper()
	o, err := f.OpenHidden(t.Context(), path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(o)
	return string(b), errors.Join(err, o.Close())
}

func judge(t *testing.T, f *Folders, path string) Info {
	t.Helper()
	o, err := f.OpenHidden(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return o.Info()
}

func putBack(t *testing.T, f *Folders, path string) error {
	t.Helper()
	_, err := f.PutBack(t.Context(), path)
	return err
}

func quarantined(t *testing.T) (f *Folders, path, dir string) {
	t.Helper()
	root := t.TempDir()
	tree(t, root, map[string]string{"dir/a": "content", "other": ""})
	return roots(root), root + "/dir/a", root + "/dir"
}

func TestHideAndRemove(t *testing.T) {
	f, path, dir := quarantined(t)
	for range 2 {
		if err := f.Hide(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, dir, "q(a)")
	}
	if _, err := f.Open(t.Context(), path); !errors.Is(err, ErrNoFile) {
		t.Errorf("open of the hidden: %v, want ErrNoFile", err)
	}
	if got, err := readHidden(t, f, path); err != nil || got != "content" {
		t.Errorf("the hidden: %q, %v", got, err)
	}
	judged := judge(t, f, path)
	for range 2 {
		if err := f.Remove(t.Context(), path, judged); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, dir)
	}
	if _, err := f.OpenHidden(t.Context(), path); !errors.Is(err, ErrNoFile) {
		t.Errorf("open of the removed: %v, want ErrNoFile", err)
	}
	if err := f.Hide(t.Context(), path); !errors.Is(err, ErrNoFile) {
		t.Errorf("hide of what is gone: %v, want ErrNoFile", err)
	}
	if _, err := f.PutBack(t.Context(), path); !errors.Is(err, ErrNoFile) {
		t.Errorf("put back of what is gone: %v, want ErrNoFile", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context(), path, judged); err != nil {
		t.Errorf("remove below a folder that is gone: %v", err)
	}
}

func TestPutBack(t *testing.T) {
	f, path, dir := quarantined(t)
	if err := f.Hide(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if at, err := f.PutBack(t.Context(), path); err != nil || at != path {
			t.Fatalf("%s, %v", at, err)
		}
		wantFiles(t, dir, "a")
	}
	if got, err := readAll(t, f, path); err != nil || got != "content" {
		t.Errorf("the file put back: %q, %v", got, err)
	}
}

// A new file at the path of a quarantined one is never overwritten, hidden or
// removed.
func TestNewFileBesideTheQuarantined(t *testing.T) {
	f, path, dir := quarantined(t)
	if err := f.Hide(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, "new")
	if err := f.Hide(t.Context(), path); err != nil {
		t.Errorf("hide beside an earlier one: %v", err)
	}
	wantFiles(t, dir, "a", "q(a)")
	if got, err := readHidden(t, f, path); err != nil || got != "content" {
		t.Errorf("the hidden: %q, %v", got, err)
	}
	if err := f.Remove(t.Context(), path, judge(t, f, path)); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "a")
	if got, err := readAll(t, f, path); err != nil || got != "new" {
		t.Errorf("the new file: %q, %v", got, err)
	}
}

func TestOnlyRegularFilesAreHidden(t *testing.T) {
	root := t.TempDir()
	tree(t, root, map[string]string{"file": "x", "folder/": ""})
	link(t, "file", root+"/link")
	f := roots(root)
	for _, name := range []string{"link", "folder"} {
		if err := f.Hide(t.Context(), root+"/"+name); !errors.Is(err, ErrNotRegular) {
			t.Errorf("hide of a %s: %v, want ErrNotRegular", name, err)
		}
		// Nor is what stands at a quarantine name trusted to be a file.
		if err := os.Rename(root+"/"+name, root+"/"+quarantineName("file")); err != nil {
			t.Fatal(err)
		}
		_, errOpen := f.OpenHidden(t.Context(), root+"/file")
		for what, err := range map[string]error{
			"hide": f.Hide(t.Context(), root+"/file"), "open hidden": errOpen,
			"put back": putBack(t, f, root+"/file"), "remove": f.Remove(t.Context(), root+"/file", Info{}),
		} {
			if !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s with a %s at the quarantine name: %v, want ErrNotRegular", what, name, err)
			}
		}
		if err := os.Rename(root+"/"+quarantineName("file"), root+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if got := filesIn(t, root); !slices.Equal(got, []string{"file", "folder", "link"}) {
		t.Errorf("the folder holds %q", got)
	}
}

func TestQuarantineStaysBelowTheRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	tree(t, root, map[string]string{"x": ""})
	tree(t, outside, map[string]string{"a": "kept"})
	link(t, outside, root+"/out")
	f := roots(root)
	for _, path := range []string{root + "/out/a", outside + "/a", root + "/../" + filepath.Base(outside) + "/a", "../a"} {
		_, errOpen := f.OpenHidden(t.Context(), path)
		for what, err := range map[string]error{
			"hide": f.Hide(t.Context(), path), "open hidden": errOpen,
			"put back": putBack(t, f, path), "remove": f.Remove(t.Context(), path, Info{}),
		} {
			if !errors.Is(err, ErrOutside) {
				t.Errorf("%s %s: %v, want ErrOutside", what, path, err)
			}
		}
	}
	wantFiles(t, outside, "a")
}

func TestQuarantineNames(t *testing.T) {
	long := strings.Repeat("ą", 127) + "x" // 255 bytes, the most a name may have
	root := t.TempDir()
	tree(t, root, map[string]string{long: "content"})
	f := roots(root)
	if err := f.Hide(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if got := filesIn(t, root, long); !slices.Equal(got, []string{"q(" + long + ")"}) {
		t.Errorf("the folder holds %q", got)
	}
	if got, want := quarantineName("a"), ".desnode-quarantine-ca978112ca1bbdca"; got != want {
		t.Errorf("quarantine name %s, want %s: files hidden by an earlier version would be lost sight of", got, want)
	}
}

// A file whose path another has taken becomes a file that imports see.
func TestPutBackBesideANewFile(t *testing.T) {
	f, path, dir := quarantined(t)
	for n, want := range []string{"a.desnode-kept-1", "a.desnode-kept-2"} {
		overwrite(t, path, fmt.Sprintf("content %d", n))
		if err := f.Hide(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		overwrite(t, path, "new")
		at, err := f.PutBack(t.Context(), path)
		if err != nil || at != dir+"/"+want {
			t.Fatalf("put back at %s, %v; want %s", at, err, want)
		}
		if got, err := readAll(t, f, at); err != nil || got != fmt.Sprintf("content %d", n) {
			t.Errorf("the kept file: %q, %v", got, err)
		}
	}
	wantFiles(t, dir, "a", "a.desnode-kept-1", "a.desnode-kept-2")
	var seen []string
	err := Walk(t.Context(), dir, func(f File) error { seen = append(seen, f.Name); return nil }, func(string, string) {})
	if want := filesIn(t, dir); err != nil || !slices.Equal(seen, want) {
		t.Errorf("an import sees %q, %v; want %q", seen, err, want)
	}
}

func TestKeptNames(t *testing.T) {
	for _, c := range []struct {
		name, base, want string
	}{
		{"short", "a.txt", "a.txt.desnode-kept-7"},
		{"longest", strings.Repeat("x", 255), strings.Repeat("x", 240) + ".desnode-kept-7"},
		{"cut between characters", strings.Repeat("ą", 127) + "x", strings.Repeat("ą", 120) + ".desnode-kept-7"},
		{"not through one", "x" + strings.Repeat("ą", 127), "x" + strings.Repeat("ą", 119) + ".desnode-kept-7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := keptName(c.base, 7); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// The last look before the unlink: what is removed is what was judged.
func TestRemoveOnlyWhatWasJudged(t *testing.T) {
	write := func(t *testing.T, hidden string) *os.File {
		t.Helper()
		w, err := os.OpenFile(hidden, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close() }) // may be closed already
		return w
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, hidden string)
		want error
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"open for writing", func(t *testing.T, hidden string) { write(t, hidden) }, ErrInUse},
		{"mapped for writing", func(t *testing.T, hidden string) {
			w, err := os.OpenFile(hidden, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			m, err := unix.Mmap(int(w.Fd()), 0, 1, unix.PROT_WRITE, unix.MAP_SHARED)
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Munmap(m); err != nil {
					t.Error(err)
				}
			})
		}, ErrInUse},
		{"written", func(t *testing.T, hidden string) {
			w := write(t, hidden)
			_, err := w.WriteString("more")
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"linked", func(t *testing.T, hidden string) {
			if err := os.Link(hidden, hidden+"2"); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"replaced", func(t *testing.T, hidden string) {
			overwrite(t, hidden+"2", "content")
			if err := os.Rename(hidden+"2", hidden); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, path, dir := quarantined(t)
			if err := f.Hide(t.Context(), path); err != nil {
				t.Fatal(err)
			}
			judged := judge(t, f, path)
			hidden := filepath.Join(dir, quarantineName("a"))
			c.do(t, hidden)
			if err := f.Remove(t.Context(), path, judged); !errors.Is(err, c.want) {
				t.Errorf("remove = %v, want %v", err, c.want)
			}
			if _, err := os.Stat(hidden); (err == nil) != (c.want != nil) {
				t.Errorf("after remove: %v", err)
			}
		})
	}
}

func TestFileOpenForWritingIsNotHidden(t *testing.T) {
	f, path, dir := quarantined(t)
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Hide(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("hide of a file open for writing: %v, want ErrInUse", err)
	}
	wantFiles(t, dir, "a")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Hide(t.Context(), path); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, "q(a)")
}

// An empty root says which folder it is: whoever knows that folder knows that
// its disk is not missing.
func TestEmptyRootSaysWhichItIs(t *testing.T) {
	root := t.TempDir()
	tree(t, root, map[string]string{"a": ""})
	f := roots(root)
	want, err := f.RootID(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(root + "/a"); err != nil {
		t.Fatal(err)
	}
	_, errOpen := f.Open(t.Context(), "a")
	_, errID := f.FileID(t.Context(), "a")
	for what, err := range map[string]error{"open": errOpen, "file id": errID} {
		var empty *RootError
		if !errors.As(err, &empty) || empty.EmptyID != want || errors.Is(err, ErrNoFile) {
			t.Errorf("%s: %v, want an empty root %s", what, err, want)
		}
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	var missing *RootError
	if _, err := f.RootID(t.Context(), "a"); !errors.As(err, &missing) || missing.EmptyID != "" {
		t.Errorf("root id of a missing root: %v", err)
	}
}

func TestFileIDFollowsLinksAnywhere(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	tree(t, root, map[string]string{"dir/a": "A"})
	tree(t, outside, map[string]string{"b": "B"})
	link(t, "dir", root+"/inner")
	link(t, outside, root+"/out")
	link(t, "loop", root+"/loop")
	f := roots(root)
	id := func(path string) string {
		o, err := roots(filepath.Dir(path)).Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		return o.Info().FileID
	}
	a, b := id(root+"/dir/a"), id(outside+"/b")
	for _, c := range []struct {
		name, path, want string
		err              error
	}{
		{"plain", "dir/a", a, nil},
		{"absolute", root + "/dir/a", a, nil},
		{"behind a link", "inner/a", a, nil},
		{"behind a link out", "out/b", b, nil},
		{"beside all roots", outside + "/b", b, nil},
		{"nothing", "dir/x", "", ErrNoFile},
		{"below a file", "dir/a/x", "", ErrNoFile},
		{"loop", "loop", "", ErrNoFile},
		{"nothing beside all roots", outside + "/x", "", ErrOutside},
		{"up", "../x", "", ErrOutside},
		{"NUL", "/a\x00", "", ErrOutside},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := f.FileID(t.Context(), c.path); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s, %v; want %s, %v", got, err, c.want, c.err)
			}
		})
	}
}
