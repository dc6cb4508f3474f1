package source

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
	for range 2 {
		if err := f.Remove(t.Context(), path); err != nil {
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
	if err := f.PutBack(t.Context(), path); !errors.Is(err, ErrNoFile) {
		t.Errorf("put back of what is gone: %v, want ErrNoFile", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context(), path); err != nil {
		t.Errorf("remove below a folder that is gone: %v", err)
	}
}

func TestPutBack(t *testing.T) {
	f, path, dir := quarantined(t)
	if err := f.Hide(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.PutBack(t.Context(), path); err != nil {
			t.Fatal(err)
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
	if err := f.PutBack(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("put back over a new file: %v, want fs.ErrExist", err)
	}
	wantFiles(t, dir, "a", "q(a)")
	if got, err := readHidden(t, f, path); err != nil || got != "content" {
		t.Errorf("the hidden: %q, %v", got, err)
	}
	if err := f.Remove(t.Context(), path); err != nil {
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
			"put back": f.PutBack(t.Context(), root+"/file"), "remove": f.Remove(t.Context(), root+"/file"),
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
			"put back": f.PutBack(t.Context(), path), "remove": f.Remove(t.Context(), path),
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
