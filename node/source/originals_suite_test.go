package source_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/objectstest"
)

// files are originals of one kind, as the suite sees them.
type files struct {
	source.Originals
	path   func(name string) string // how a row spells the file
	put    func(name, content string)
	remove func(name string)
	bucket *objectstest.Bucket // nil: local
}

var longAgo = time.Date(2024, 2, 3, 4, 5, 6, 700_000_000, time.UTC)

func parse(t *testing.T, specs ...string) []source.Root {
	t.Helper()
	var roots []source.Root
	for _, s := range specs {
		r, err := source.ParseRoot(s)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, r)
	}
	return roots
}

// originals returns those below roots; all buckets are b.
func originals(t *testing.T, b *objectstest.Bucket, specs ...string) source.Originals {
	t.Helper()
	roots := parse(t, specs...)
	return source.NewOriginals(func() []source.Root { return roots },
		func(string) (source.Objects, error) { return b, nil })
}

// kinds are all ways in which a file can be an original.
func kinds() map[string]func(*testing.T) files {
	local := func(spec, word string) func(*testing.T) files {
		return func(t *testing.T) files {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			f := files{
				Originals: originals(t, nil, strings.ReplaceAll(spec, "DIR", dir), "/other => s3://b"),
				path: func(name string) string {
					if strings.HasPrefix(word, `\`) {
						name = strings.ReplaceAll(name, "/", `\`)
					}
					return strings.ReplaceAll(word, "DIR", dir) + name
				},
				put: func(name, content string) {
					must(t, errors.Join(mkdir(filepath.Dir(at(name))), write(at(name)+".new", content),
						os.Rename(at(name)+".new", at(name)), os.Chtimes(at(name), longAgo, longAgo)))
				},
				remove: func(name string) { must(t, os.Remove(at(name))) },
			}
			f.put("never/empty", "a root with files is mounted")
			return f
		}
	}
	bucket := func(kind objectstest.Kind, spec, word string) func(*testing.T) files {
		return func(t *testing.T) files {
			b := objectstest.New(t, kind)
			return files{
				Originals: originals(t, b, spec, "/other => /nowhere"), bucket: b,
				path: func(name string) string { return word + name },
				put:  func(name, content string) { b.Put("pre/"+name, content, longAgo) },
				remove: func(name string) {
					for {
						info, err := b.Head(t.Context(), "pre/"+name)
						if errors.Is(err, source.ErrNoFile) {
							return
						}
						must(t, errors.Join(err, b.Delete(t.Context(), "pre/"+name, info.Version)))
					}
				},
			}
		}
	}
	return map[string]func(*testing.T) files{
		"folder":           local("DIR", "DIR/"),
		"mapped folder":    local("/data => DIR", "/data/"),
		"share":            local(`\\server\share => DIR`, `\\server\share\`),
		"bucket":           bucket(objectstest.Plain, "s3://b/pre", "s3://b/pre/"),
		"mapped bucket":    bucket(objectstest.Plain, "/data => s3://b/pre", "/data/"),
		"versioned bucket": bucket(objectstest.Versioned, "/data => s3://b/pre", "/data/"),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, f source.Originals, path string) (string, error) {
	t.Helper()
	o, err := f.Open(t.Context(), path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(o)
	return string(b), errors.Join(err, o.Close())
}

// What all originals have in common, wherever they stand.
func TestOriginals(t *testing.T) {
	for kind, open := range kinds() {
		for _, c := range []struct {
			name string
			test func(*testing.T, files)
		}{
			{"read", suiteRead},
			{"seek", suiteSeek},
			{"what is not there", suiteMissing},
			{"paths that lead out", suiteOutside},
			{"replaced before reading", suiteReplacedBefore},
			{"replaced before the end", suiteReplacedAtTheEnd},
			{"removed while it is read", suiteRemoved},
			{"identity", suiteIdentity},
			{"deletion", suiteDeletion},
			{"deletion of what was replaced", suiteDeletionOfAnother},
			{"put back", suitePutBack},
		} {
			t.Run(kind+"/"+c.name, func(t *testing.T) { c.test(t, open(t)) })
		}
	}
}

func suiteRead(t *testing.T, f files) {
	for name, text := range map[string]string{"a": "content", "dir/sub/b c": "more", "empty": ""} {
		f.put(name, text)
		o, err := f.Open(t.Context(), f.path(name))
		must(t, err)
		info := o.Info()
		if info.Size != int64(len(text)) || info.Links != 1 || info.FileID == "" || info.Modified(longAgo, 0) {
			t.Errorf("%s: %+v", name, info)
		}
		if info.Modified(longAgo.Add(-3*time.Second), time.Second) != true {
			t.Errorf("%s: three seconds are no difference", name)
		}
		must(t, iotest.TestReader(o, []byte(text)))
		must(t, o.Close())
	}
}

func suiteSeek(t *testing.T, f files) {
	f.put("a", "0123456789")
	o, err := f.Open(t.Context(), f.path("a"))
	must(t, err)
	for _, c := range []struct {
		offset int64
		whence int
		want   string
	}{{3, io.SeekStart, "34"}, {2, io.SeekCurrent, "78"}, {-3, io.SeekEnd, "78"}, {0, io.SeekStart, "01"}, {0, io.SeekCurrent, "23"}} {
		_, err := o.Seek(c.offset, c.whence)
		must(t, err)
		got := make([]byte, 2)
		if _, err := io.ReadFull(o, got); err != nil || string(got) != c.want {
			t.Errorf("seek %d, %d: read %q, %v; want %q", c.offset, c.whence, got, err, c.want)
		}
	}
	for _, to := range []struct {
		offset int64
		whence int
	}{{-1, io.SeekStart}, {-11, io.SeekEnd}, {0, 7}} {
		if _, err := o.Seek(to.offset, to.whence); err == nil {
			t.Errorf("seek %+v: no error", to)
		}
	}
	must(t, o.Close())
}

func suiteMissing(t *testing.T, f files) {
	f.put("a", "content")
	for _, name := range []string{"b", "no/such/folder", "a/below"} {
		_, err := f.Open(t.Context(), f.path(name))
		if name == "a/below" && f.bucket == nil { // the kernel says "not a folder"
			if source.FileFault(err) == "" {
				t.Errorf("open %s: %v, which says nothing about the file", name, err)
			}
			continue
		}
		if !errors.Is(err, source.ErrNoFile) || source.FileFault(err) != source.CodeNoFile {
			t.Errorf("open %s: %v, want ErrNoFile", name, err)
		}
	}
	if _, err := f.OpenHidden(t.Context(), f.path("b")); !errors.Is(err, source.ErrNoFile) {
		t.Errorf("open the hidden: %v, want ErrNoFile", err)
	}
	if err := f.Remove(t.Context(), f.path("b"), source.Info{FileID: "s3:b/pre/b", Version: "v"}); err != nil {
		t.Errorf("remove of what is gone: %v", err)
	}
}

func suiteOutside(t *testing.T, f files) {
	for _, path := range []string{"", "relative", "/etc/passwd", f.path("../x"), f.path("a/../../x"), f.path("a/../b"), f.path("a\x00"), "s3://other/pre/a", "/data", `\\server\sharex\a`} {
		_, errOpen := f.Open(t.Context(), path)
		_, errHidden := f.OpenHidden(t.Context(), path)
		_, errBack := f.PutBack(t.Context(), path)
		_, errRoot := f.RootID(t.Context(), path)
		for i, err := range []error{errOpen, errHidden, errBack, errRoot, f.Hide(t.Context(), path), f.Remove(t.Context(), path, source.Info{})} {
			if !errors.Is(err, source.ErrOutside) {
				t.Errorf("%q, call %d: %v, want ErrOutside", path, i, err)
			}
		}
	}
	if f.bucket != nil && len(f.bucket.Requests()) > 0 {
		t.Errorf("requests: %q", f.bucket.Requests())
	}
}

func suiteReplacedBefore(t *testing.T, f files) {
	f.put("a", "old content")
	o, err := f.Open(t.Context(), f.path("a"))
	must(t, err)
	f.put("a", "new content")
	got, err := io.ReadAll(o)
	if !errors.Is(err, source.ErrChanged) || strings.Contains(string(got), "new") {
		t.Errorf("read %q, %v; want no new byte and ErrChanged", got, err)
	}
	must(t, o.Close())
}

func suiteReplacedAtTheEnd(t *testing.T, f files) {
	f.put("a", "old content")
	o, err := f.Open(t.Context(), f.path("a"))
	must(t, err)
	buf := make([]byte, len("old content"))
	_, err = io.ReadFull(o, buf)
	must(t, err)
	f.put("a", "new content")
	if n, err := o.Read(make([]byte, 1)); n != 0 || !errors.Is(err, source.ErrChanged) {
		t.Errorf("the end: %d, %v; want ErrChanged", n, err)
	}
	must(t, o.Close())
}

func suiteRemoved(t *testing.T, f files) {
	f.put("a", "content")
	o, err := f.Open(t.Context(), f.path("a"))
	must(t, err)
	f.remove("a")
	if _, err := io.ReadAll(o); !errors.Is(err, source.ErrChanged) {
		t.Errorf("read: %v, want ErrChanged", err)
	}
	must(t, o.Close())
}

func suiteIdentity(t *testing.T, f files) {
	f.put("a", "content")
	f.put("b", "content")
	o, err := f.Open(t.Context(), f.path("a"))
	must(t, err)
	must(t, o.Close())
	a, err := f.FileID(t.Context(), f.path("a"))
	must(t, err)
	b, err := f.FileID(t.Context(), f.path("b"))
	must(t, err)
	if a != o.Info().FileID || a == b {
		t.Errorf("ids %s of a, %s of b, %s of the open file", a, b, o.Info().FileID)
	}
	same, err := f.Same(t.Context(), f.path("a"))
	must(t, err)
	if !slices.Contains(same, f.path("a")) || !source.IsPlace(same[0]) || slices.Contains(same, f.path("b")) {
		t.Errorf("same as %s: %q", f.path("a"), same)
	}
	again, err := f.Same(t.Context(), same[0])
	must(t, err)
	if !slices.Equal(again, same) {
		t.Errorf("same as the place: %q, as the path: %q", again, same)
	}
	root, err := f.RootID(t.Context(), f.path("a"))
	must(t, err)
	if other, err := f.RootID(t.Context(), f.path("dir/c")); err != nil || other != root || root == "" {
		t.Errorf("roots %q and %q, %v", root, other, err)
	}
}

func judged(t *testing.T, f files, name string) source.Info {
	t.Helper()
	o, err := f.OpenHidden(t.Context(), f.path(name))
	must(t, err)
	_, err = io.ReadAll(o)
	must(t, errors.Join(err, o.Close()))
	return o.Info()
}

func suiteDeletion(t *testing.T, f files) {
	f.put("dir/a", "content")
	f.put("dir/b", "stays")
	path := f.path("dir/a")
	for range 2 {
		must(t, f.Hide(t.Context(), path))
	}
	info := judged(t, f, "dir/a")
	for range 2 {
		must(t, f.Remove(t.Context(), path, info))
	}
	if _, err := f.Open(t.Context(), path); !errors.Is(err, source.ErrNoFile) {
		t.Errorf("open of the removed: %v", err)
	}
	if _, err := f.OpenHidden(t.Context(), path); !errors.Is(err, source.ErrNoFile) {
		t.Errorf("open the hidden, removed: %v", err)
	}
	if got, err := content(t, f, f.path("dir/b")); err != nil || got != "stays" {
		t.Errorf("its neighbour: %q, %v", got, err)
	}
}

func suiteDeletionOfAnother(t *testing.T, f files) {
	f.put("a", "content")
	f.put("b", "another")
	must(t, f.Hide(t.Context(), f.path("a")))
	must(t, f.Hide(t.Context(), f.path("b")))
	info := judged(t, f, "a")
	if err := f.Remove(t.Context(), f.path("b"), info); !errors.Is(err, source.ErrChanged) {
		t.Errorf("remove b as judged of a: %v, want ErrChanged", err)
	}
	_, err := f.PutBack(t.Context(), f.path("b"))
	must(t, err)
	if got, err := content(t, f, f.path("b")); err != nil || got != "another" {
		t.Errorf("b: %q, %v", got, err)
	}
}

func suitePutBack(t *testing.T, f files) {
	f.put("dir/a", "content")
	must(t, f.Hide(t.Context(), f.path("dir/a")))
	for range 2 {
		at, err := f.PutBack(t.Context(), f.path("dir/a"))
		if err != nil || at != f.path("dir/a") {
			t.Fatalf("put back at %q, %v", at, err)
		}
	}
	if got, err := content(t, f, f.path("dir/a")); err != nil || got != "content" {
		t.Errorf("after: %q, %v", got, err)
	}
	if f.bucket != nil {
		return // nothing can take its place: it never left it
	}
	must(t, f.Hide(t.Context(), f.path("dir/a")))
	f.put("dir/a", "newer")
	at, err := f.PutBack(t.Context(), f.path("dir/a"))
	if err != nil || at != f.path("dir/a.desnode-kept-1") {
		t.Fatalf("put back beside the newer at %q, %v", at, err)
	}
	if got, err := content(t, f, at); err != nil || got != "content" {
		t.Errorf("the kept: %q, %v", got, err)
	}
}

func ExampleParseRoot() {
	for _, s := range []string{`\\archive\docs => /mnt/docs`, "/srv/scans => s3://scans/2024"} {
		r, err := source.ParseRoot(s)
		fmt.Println(r, err)
	}
	// Output:
	// \\archive\docs => /mnt/docs <nil>
	// /srv/scans => s3://scans/2024/ <nil>
}
