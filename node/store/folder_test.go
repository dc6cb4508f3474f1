package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newFolder(t *testing.T, path string) *Folder {
	t.Helper()
	f, err := OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func put(t *testing.T, s Store, key, content string) Object {
	t.Helper()
	o, err := s.Put(t.Context(), key, strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func tempFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, tmpDir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestOpenRemovesOldTemporaries(t *testing.T) {
	dir := t.TempDir()
	newFolder(t, dir)
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": 23 * time.Hour, "new": 0} {
		path := filepath.Join(dir, tmpDir, name)
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := openFolder(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if got := fmt.Sprint(tempFiles(t, dir)); got != "[new young]" {
		t.Errorf("left in tmp: %s", got)
	}
}

func TestTemporariesAreNoObjects(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	if err := os.WriteFile(filepath.Join(dir, tmpDir, "x"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Head(t.Context(), "tmp/x", ""); !errors.Is(err, ErrBadKey) {
		t.Errorf("head of a temporary: %v, want ErrBadKey", err)
	}
	if _, err := f.Put(t.Context(), "tmp", strings.NewReader(""), 0); !errors.Is(err, ErrBadKey) {
		t.Errorf("put at tmp: %v, want ErrBadKey", err)
	}
	for _, prefix := range []string{"", "t", "tmp", "tmp/"} {
		err := f.List(t.Context(), prefix, "", func(o Object) error { return errors.New(o.Key) })
		if err != nil {
			t.Errorf("list %q shows %v", prefix, err)
		}
	}
	put(t, f, "tmpfile", "x") // only the folder's own name is kept back
}

func TestPutLeavesNoTemporary(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	put(t, f, "k", "x")
	if _, err := f.Put(t.Context(), "k", strings.NewReader("y"), 1); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	if _, err := f.Put(t.Context(), "l", strings.NewReader("y"), 2); err == nil {
		t.Fatal("a short body was put")
	}
	if left := tempFiles(t, dir); len(left) > 0 {
		t.Errorf("left in tmp: %q", left)
	}
}

// A Move cut between link and unlink leaves both names.
func TestMoveGoesOnAfterCut(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	put(t, f, "a/from", "content")
	if err := os.Mkdir(filepath.Join(dir, "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a/from"), filepath.Join(dir, "b/to")); err != nil {
		t.Fatal(err)
	}
	if err := f.Move(t.Context(), "a/from", "b/to"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Head(t.Context(), "a/from", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old name: %v, want ErrNotFound", err)
	}
	if o, err := f.Head(t.Context(), "b/to", ""); err != nil || o.Size != 7 {
		t.Errorf("the new name: %+v, %v", o, err)
	}
}

// Two keys that are one folder entry must not be taken for a Move that was cut.
func TestMoveAlongLinkedFolderKeepsTheObject(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	put(t, f, "a/x", "content")
	if err := os.Symlink("a", filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := f.Move(t.Context(), "a/x", "b/x"); err == nil {
		t.Error("moving an entry onto itself by another name succeeded")
	}
	if _, err := f.Head(t.Context(), "a/x", ""); err != nil {
		t.Errorf("the object: %v", err)
	}
}

func TestLinksDoNotLeadOut(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	f := newFolder(t, dir)
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"dir": outside, "file": filepath.Join(outside, "secret")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Get(t.Context(), "dir/secret", "", 0, -1); err == nil {
		t.Error("get followed a linked folder out of the store")
	}
	if _, err := f.Get(t.Context(), "file", "", 0, -1); err == nil {
		t.Error("get followed a link out of the store")
	}
	if _, err := f.Put(t.Context(), "dir/new", strings.NewReader("x"), 1); err == nil {
		t.Error("put followed a linked folder out of the store")
	}
	if _, err := os.Stat(filepath.Join(outside, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("outside the store: %v", err)
	}
}

func TestPipeIsNoObject(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(t.Context(), "pipe", "", 0, -1); !errors.Is(err, ErrNotFound) {
		t.Errorf("get: %v, want ErrNotFound", err)
	}
	if _, err := f.Put(t.Context(), "pipe", strings.NewReader("x"), 1); !errors.Is(err, ErrExists) {
		t.Errorf("put: %v, want ErrExists", err)
	}
}

// A store folder that is gone answers nothing: least of all that objects are
// missing.
func TestRemovedFolderIsNotMissingObjects(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove func(t *testing.T, dir string)
	}{
		{"removed", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"replaced", func(t *testing.T, dir string) {
			if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			f := newFolder(t, dir)
			put(t, f, "k", "x")
			c.remove(t, dir)
			_, errHead := f.Head(t.Context(), "k", "")
			_, errGet := f.Get(t.Context(), "k", "", 0, -1)
			for what, err := range map[string]error{
				"head": errHead, "get": errGet, "move": f.Move(t.Context(), "k", "l"),
				"delete": f.Delete(t.Context(), "k"),
				"list":   f.List(t.Context(), "", "", func(Object) error { return nil }),
			} {
				if err == nil || errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %v, want an error other than ErrNotFound", what, err)
				}
			}
		})
	}
}

func TestFolderRemovedBelowStoreIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	put(t, f, "a/b/one", "x")
	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Put(t.Context(), "a/b/two", strings.NewReader("x"), 1); err == nil {
		return // noticed at once, as well
	}
	put(t, f, "a/b/two", "x")
}

func TestVersionSurvivesCopy(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	o := put(t, f, "packs/0-0/x", "content")
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", dir, copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	g := newFolder(t, copied)
	if _, err := g.Head(t.Context(), "packs/0-0/x", o.Version); err != nil {
		t.Errorf("the version in the copy: %v", err)
	}
}

func TestStreamOfFileThatShrinks(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir)
	put(t, f, "k", "0123456789")
	r, err := f.Get(t.Context(), "k", "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := os.Truncate(filepath.Join(dir, "k"), 4); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v; want io.ErrUnexpectedEOF", b, err)
	}
}

func TestOpenURL(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		url, want string // want: part of the error; "" for none
	}{
		{"file://" + dir + "/a", ""},
		{"file://localhost" + dir + "/b%20c", ""},
		{"gs://bucket/prefix", `scheme "gs" is not supported`},
		{dir, `scheme "" is not supported`},
		{"file://relative/path", "want the form file:///absolute/folder"},
		{"file:relative", "want the form file:///absolute/folder"},
		{"file://" + dir + "?x=1", "want the form file:///absolute/folder"},
		{"file://%zz", "invalid"},
		{"file:///dev/null/x", "not a directory"},
	} {
		s, err := Open(t.Context(), c.url)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.url, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		f, ok := s.(*Folder)
		if !ok {
			t.Fatalf("%s: %T", c.url, s)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "b c")); err != nil {
		t.Error(err)
	}
}
