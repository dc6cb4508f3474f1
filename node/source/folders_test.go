package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tree makes files (content by path), and folders for paths that end in "/".
func tree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for path, content := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(full, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		overwrite(t, full, content)
	}
}

func overwrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func roots(list ...string) *Folders { return NewFolders(func() []string { return list }) }

func readAll(t *testing.T, f Originals, path string) (string, error) {
	t.Helper()
	o, err := f.Open(t.Context(), path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(o)
	return string(b), errors.Join(err, o.Close())
}

func TestOpenPaths(t *testing.T) {
	root, second, outside := t.TempDir(), t.TempDir(), t.TempDir()
	tree(t, root, map[string]string{"a": "A", "dir/b": "B", "dir/sub/c": "C", "empty": "", "odd \xff\n name": "O"})
	tree(t, second, map[string]string{"d": "D"})
	tree(t, outside, map[string]string{"secret": "S"})
	link(t, "a", filepath.Join(root, "inner"))
	link(t, "sub", filepath.Join(root, "dir/to-sub"))
	link(t, "nothing", filepath.Join(root, "dangling"))
	link(t, filepath.Join(outside, "secret"), filepath.Join(root, "absolute"))
	link(t, filepath.Join(root, "a"), filepath.Join(root, "absolute-inner"))
	link(t, "../"+filepath.Base(outside)+"/secret", filepath.Join(root, "up"))
	link(t, outside, filepath.Join(root, "folder-out"))
	link(t, "loop", filepath.Join(root, "loop"))
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(root, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()

	one, two := roots(root), roots(root, second+"/")
	nested := roots(root, root+"/dir")
	other := errors.New("any error that says nothing about the file")
	for _, c := range []struct {
		name    string
		files   *Folders
		path    string
		content string
		err     error
	}{
		{"absolute", one, root + "/a", "A", nil},
		{"absolute, deep", one, root + "/dir/sub/c", "C", nil},
		{"relative to the one root", one, "dir/b", "B", nil},
		{"relative, unclean", one, "./dir//b", "B", nil},
		{"empty file", one, "empty", "", nil},
		{"odd bytes", one, "odd \xff\n name", "O", nil},
		{"second of two roots", two, second + "/d", "D", nil},
		{"relative below two roots", two, "a", "", ErrOutside},
		{"root inside a root", nested, root + "/dir/b", "B", nil},
		{"link inside", one, "inner", "A", nil},
		{"linked folder inside", one, "dir/to-sub/c", "C", nil},
		{"no path", one, "", "", ErrOutside},
		{"NUL", one, "a\x00", "", ErrOutside},
		{"up", one, "../" + filepath.Base(outside) + "/secret", "", ErrOutside},
		{"up and back", one, root + "/dir/../a", "", ErrOutside},
		{"up, absolute", one, root + "/../" + filepath.Base(outside) + "/secret", "", ErrOutside},
		{"another folder", one, outside + "/secret", "", ErrOutside},
		{"a folder whose name begins alike", roots(root + "/di"), root + "/dir/b", "", ErrOutside},
		{"absolute link out", one, "absolute", "", ErrOutside},
		{"absolute link that leads in", one, "absolute-inner", "", ErrOutside},
		{"relative link out", one, "up", "", ErrOutside},
		{"linked folder out", one, "folder-out/secret", "", ErrOutside},
		{"no roots", roots(), root + "/a", "", ErrOutside},
		{"missing file", one, "nothing", "", ErrNoFile},
		{"missing folder", one, "no/such/folder", "", ErrNoFile},
		{"dangling link", one, "dangling", "", ErrNoFile},
		{"folder", one, "dir", "", ErrNotRegular},
		{"the root itself", one, ".", "", ErrNotRegular},
		{"pipe", one, "pipe", "", ErrNotRegular},
		{"socket", one, "socket", "", ErrNotRegular},
		{"below a file", one, "a/b", "", other},
		{"loop", one, "loop", "", other},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readAll(t, c.files, c.path)
			if errors.Is(c.err, other) {
				if err == nil || errors.Is(err, ErrNoFile) || errors.Is(err, ErrNotRegular) || errors.Is(err, ErrChanged) {
					t.Errorf("%v, want %v", err, c.err)
				}
				return
			}
			if got != c.content || !errors.Is(err, c.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, c.content, c.err)
			}
		})
	}
}

// A disk that is not there must not look like the absence of its files: rows
// would fail, and deletions be taken for done.
func TestMissingRootIsNotMissingFile(t *testing.T) {
	for _, c := range []struct {
		name string
		root func(t *testing.T) string
	}{
		{"no folder", func(t *testing.T) string { return filepath.Join(t.TempDir(), "nothing") }},
		{"an empty mount point", func(t *testing.T) string { return t.TempDir() }},
		{"a file", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "file")
			overwrite(t, path, "x")
			return path
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := c.root(t)
			f := roots(root)
			_, errOpen := f.Open(t.Context(), root+"/dir/a")
			_, errHidden := f.OpenHidden(t.Context(), root+"/dir/a")
			for what, err := range map[string]error{
				"open": errOpen, "open hidden": errHidden, "hide": f.Hide(t.Context(), root+"/dir/a"),
				"put back": putBack(t, f, root+"/dir/a"), "remove": f.Remove(t.Context(), root+"/dir/a", Info{}),
			} {
				if err == nil || errors.Is(err, ErrNoFile) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v, want an error that says nothing about the file", what, err)
				}
			}
		})
	}
}

func TestRootReplacedWhileRunning(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "root")
	tree(t, root, map[string]string{"a": "old"})
	f := roots(root)
	if got, err := readAll(t, f, "a"); err != nil || got != "old" {
		t.Fatal(got, err)
	}
	if err := os.Rename(root, filepath.Join(base, "away")); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(t, f, "a"); err == nil || errors.Is(err, ErrNoFile) {
		t.Errorf("below a root that was moved away: %v", err)
	}
	tree(t, root, map[string]string{"a": "new"})
	if got, err := readAll(t, f, "a"); err != nil || got != "new" {
		t.Errorf("below the root's successor: %q, %v", got, err)
	}
}

func TestInfo(t *testing.T) {
	root := t.TempDir()
	tree(t, root, map[string]string{"a": "0123456789"})
	at := time.Date(2024, 2, 29, 1, 2, 3, 456789012, time.UTC)
	if err := os.Chtimes(filepath.Join(root, "a"), at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(root, "a"), filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	info := func(path string) Info {
		o, err := roots(root).Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = o.Close() }()
		return o.Info()
	}
	a, b := info("a"), info("b")
	if a != b {
		t.Errorf("two links of one file: %+v and %+v", a, b)
	}
	if a.Size != 10 || !a.ModTime.Equal(at) || a.ModTime.Location() != time.UTC || a.Links != 2 || a.FileID == "" {
		t.Errorf("%+v", a)
	}
	var walked []File
	if err := Walk(t.Context(), root, func(f File) error { walked = append(walked, f); return nil }, nil); err != nil {
		t.Fatal(err)
	}
	if len(walked) != 2 || walked[0].FileID != a.FileID || !walked[0].ModTime.Equal(at) || walked[0].Size != 10 {
		t.Errorf("walk says %+v, open %+v", walked, a)
	}
}

// fileChange is something that happens to a file of changedContent at path.
type fileChange struct {
	name   string
	change func(t *testing.T, path string)
	want   error
}

const changedContent = "0123456789abcdef"

func fileChanges(old time.Time) []fileChange {
	const content = changedContent
	return []fileChange{
		{"nothing", func(*testing.T, string) {}, nil},
		{"neighbours", func(t *testing.T, path string) { overwrite(t, path+"2", "x") }, nil},
		{"truncated", func(t *testing.T, path string) {
			if err := os.Truncate(path, 5); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"emptied", func(t *testing.T, path string) { overwrite(t, path, "") }, ErrChanged},
		{"extended", func(t *testing.T, path string) { overwrite(t, path, content+"!") }, ErrChanged},
		{"rewritten at the same size", func(t *testing.T, path string) { overwrite(t, path, strings.ToUpper(content)) }, ErrChanged},
		{"rewritten, its mtime kept", func(t *testing.T, path string) {
			overwrite(t, path, strings.ToUpper(content))
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"rewritten with the same bytes", func(t *testing.T, path string) { overwrite(t, path, content) }, ErrChanged},
		{"touched", func(t *testing.T, path string) {
			if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"replaced", func(t *testing.T, path string) {
			overwrite(t, path+".new", content)
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"replaced, the old one kept elsewhere", func(t *testing.T, path string) {
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, content)
		}, ErrChanged},
		{"removed", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
		{"its folder replaced", func(t *testing.T, path string) {
			dir := filepath.Dir(path)
			if err := os.Rename(dir, dir+"2"); err != nil {
				t.Fatal(err)
			}
			tree(t, dir, map[string]string{"a": content})
		}, ErrChanged},
		{"linked once more", func(t *testing.T, path string) {
			if err := os.Link(path, path+".link"); err != nil {
				t.Fatal(err)
			}
		}, ErrChanged},
	}
}

// Whoever reads to the end has read one version of the file, whatever happens
// to it between opening and end.
func TestFileChangedWhileItIsRead(t *testing.T) {
	const content = changedContent
	old := time.Now().Add(-time.Hour)
	for _, c := range fileChanges(old) {
		for at, read := range map[string]int{"start": 0, "middle": 7, "end": len(content)} {
			t.Run(c.name+" at the "+at, func(t *testing.T) {
				root := t.TempDir()
				path := filepath.Join(root, "dir/a")
				tree(t, root, map[string]string{"dir/a": content})
				if err := os.Chtimes(path, old, old); err != nil {
					t.Fatal(err)
				}
				o, err := roots(root).Open(t.Context(), path)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = o.Close() }()
				head := make([]byte, read)
				if _, err := io.ReadFull(o, head); err != nil {
					t.Fatal(err)
				}
				c.change(t, path)
				rest, err := io.ReadAll(o)
				if !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if err == nil && string(head)+string(rest) != content {
					t.Errorf("read %q without an error", string(head)+string(rest))
				}
				if len(head)+len(rest) > len(content) {
					t.Errorf("%d bytes of a file of %d", len(head)+len(rest), len(content))
				}
			})
		}
	}
}

// Two changes within a tick of the kernel's clock leave one ctime. A file
// changed just now is looked at until its ctime is older than that.
func TestFreshFileIsLeftToSettle(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "a")
	for range 20 {
		overwrite(t, path, "one version")
		o, err := roots(root).Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, path, "one VERSION")
		if _, err := io.ReadAll(o); !errors.Is(err, ErrChanged) {
			t.Errorf("a change just after the opening: %v, want ErrChanged", err)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
	overwrite(t, path, "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := roots(root).Open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("under a cancelled context: %v", err)
	}
}

func TestSeek(t *testing.T) {
	root := t.TempDir()
	tree(t, root, map[string]string{"a": "0123456789"})
	o, err := roots(root).Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.Close() }()
	for _, c := range []struct {
		offset int64
		whence int
		want   string
	}{
		{0, io.SeekStart, "0123456789"},
		{4, io.SeekStart, "456789"},
		{-3, io.SeekEnd, "789"},
		{-2, io.SeekCurrent, "89"},
		{10, io.SeekStart, ""},
		{20, io.SeekStart, ""},
		{0, io.SeekStart, "0123456789"},
	} {
		if _, err := o.Seek(c.offset, c.whence); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(o); err != nil || string(b) != c.want {
			t.Errorf("from %d (%d): %q, %v; want %q", c.offset, c.whence, b, err, c.want)
		}
	}
	if _, err := o.Seek(-1, io.SeekStart); err == nil {
		t.Error("a place before the start was taken")
	}
	if _, err := o.Seek(0, 7); err == nil {
		t.Error("whence 7 was taken")
	}
}

func TestSame(t *testing.T) {
	base := t.TempDir()
	root, twin := filepath.Join(base, "root"), filepath.Join(base, "twin")
	tree(t, base, map[string]string{"root/dir/sub/a": "A", "elsewhere/a": "A", "linked/": ""})
	link(t, root, twin)
	link(t, filepath.Join(root, "dir"), filepath.Join(base, "linked/dir"))
	a := root + "/dir/sub/a"
	for _, c := range []struct {
		name  string
		roots []string
		path  string
		want  []string
	}{
		{"its own root", []string{root}, a, []string{a, "dir/sub/a"}},
		{"relative", []string{root}, "dir/sub/a", []string{a, "dir/sub/a"}},
		{"two roots, no relative form", []string{root, base + "/elsewhere"}, a, []string{a}},
		{"nested roots", []string{root, root + "/dir"}, a, []string{a}},
		{"a root above", []string{base}, a, []string{a, "root/dir/sub/a"}},
		{"a root that is a link", []string{twin}, a, []string{twin + "/dir/sub/a", "dir/sub/a"}},
		{"seen through a link", []string{root}, twin + "/dir/sub/a", []string{a, "dir/sub/a"}},
		{"seen through a link in the middle", []string{root}, base + "/linked/dir/sub/a", []string{a, "dir/sub/a"}},
		{"a root of nothing in common", []string{base + "/elsewhere"}, a, nil},
		{"a root that does not exist", []string{base + "/nothing", root}, a, []string{a}},
		{"no roots", nil, a, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := roots(c.roots...).Same(t.Context(), c.path)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	t.Run("what can't be looked at is an error", func(t *testing.T) {
		loop := filepath.Join(base, "loop")
		link(t, loop, loop)
		if got, err := roots(loop).Same(t.Context(), a); err == nil {
			t.Errorf("a root that may lead anywhere: %q", got)
		}
		if got, err := roots(root).Same(t.Context(), base+"/nothing/a"); err == nil {
			t.Errorf("a missing folder: %q", got)
		}
	})
}

func TestWalk(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	tree(t, root, map[string]string{
		"a": "1", "dir/b": "22", "dir/sub/c": "333", "bad \xff name": "4", "empty folder/": "", ".hidden": "5",
		"dir/" + quarantineName("q"): "quarantined",
	})
	tree(t, outside, map[string]string{"x": "x"})
	link(t, "a", filepath.Join(root, "link"))
	link(t, outside, filepath.Join(root, "linked folder"))
	if err := syscall.Mkfifo(filepath.Join(root, "dir/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	byLink := filepath.Join(t.TempDir(), "root")
	link(t, root, byLink)
	for _, dir := range []string{root, byLink, root + "/"} {
		var found, skipped []string
		err := Walk(t.Context(), dir, func(f File) error {
			if f.Path != filepath.Join(dir, f.Name) || f.FileID == "" || f.ModTime.IsZero() {
				t.Errorf("%+v", f)
			}
			found = append(found, f.Name)
			return nil
		}, func(path, reason string) {
			skipped = append(skipped, strings.TrimPrefix(path, filepath.Clean(dir))+": "+reason)
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(found)
		slices.Sort(skipped)
		if want := []string{".hidden", "a", "bad \xff name", "dir/b", "dir/sub/c"}; !slices.Equal(found, want) {
			t.Errorf("%s: found %q, want %q", dir, found, want)
		}
		if want := []string{"/dir/pipe: special file", "/link: symbolic link", "/linked folder: symbolic link"}; !slices.Equal(skipped, want) {
			t.Errorf("%s: skipped %q, want %q", dir, skipped, want)
		}
	}
}

func TestWalkEnds(t *testing.T) {
	root := t.TempDir()
	tree(t, root, map[string]string{"a": "", "b": "", "c/d": ""})
	enough := errors.New("enough")
	calls := 0
	none := func(path, reason string) { t.Errorf("skipped %s: %s", path, reason) }
	err := Walk(t.Context(), root, func(File) error { calls++; return enough }, none)
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = Walk(ctx, root, func(File) error { cancel(); return nil }, none)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := Walk(t.Context(), root+"/nothing", nil, none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if err := Walk(t.Context(), root+"/a", nil, none); err == nil {
		t.Error("a file was walked")
	}
}

// A folder that vanishes, or turns into a link, is told to skipped; nothing
// behind the link is registered.
func TestWalkOfFolderThatTurnsIntoLink(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	tree(t, root, map[string]string{"a": "", "dir/b": "", "gone/c": ""})
	tree(t, outside, map[string]string{"secret": ""})
	var found, skipped []string
	err := Walk(t.Context(), root, func(f File) error {
		if f.Name == "a" { // before the folders are entered
			if err := errors.Join(os.RemoveAll(root+"/dir"), os.RemoveAll(root+"/gone")); err != nil {
				t.Fatal(err)
			}
			link(t, outside, root+"/dir")
		}
		found = append(found, f.Name)
		return nil
	}, func(path, _ string) { skipped = append(skipped, filepath.Base(path)) })
	if err != nil || !slices.Equal(found, []string{"a"}) || !slices.Equal(skipped, []string{"dir", "gone"}) {
		t.Errorf("found %q, skipped %q, %v", found, skipped, err)
	}
}
