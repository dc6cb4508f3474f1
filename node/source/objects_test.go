package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/objectstest"
)

func inBucket(t *testing.T, kind objectstest.Kind) (source.Originals, *objectstest.Bucket) {
	t.Helper()
	b := objectstest.New(t, kind)
	return originals(t, b, "/data => s3://b"), b
}

func TestObjectCostsThreeRequests(t *testing.T) {
	f, b := inBucket(t, objectstest.Plain)
	b.Put("a", "content", longAgo)
	b.Put("empty", "", longAgo)
	if got, err := content(t, f, "/data/a"); err != nil || got != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := content(t, f, "/data/empty"); err != nil || got != "" {
		t.Fatalf("%q, %v", got, err)
	}
	want := []string{"Head a", "Get a", "Head a", "Head empty", "Head empty"}
	if got := b.Requests(); !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func TestBytesInABucketNobodyAskedForAreNotFetched(t *testing.T) {
	f, b := inBucket(t, objectstest.Plain)
	b.Put("a", "content", longAgo)
	o, err := f.Open(t.Context(), "/data/a")
	must(t, err)
	must(t, o.Close())
	if got := b.Requests(); !slices.Equal(got, []string{"Head a"}) {
		t.Errorf("requests %q", got)
	}
}

// Whatever the store answers beside the two errors of its contract says
// nothing about the object: it is its root's.
func TestTroubleOfABucketIsItsRoots(t *testing.T) {
	unreachable := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	for _, c := range []struct {
		name string
		err  error
		code string // "": the root's
	}{
		{"refused connection", unreachable, ""},
		{"a packet filter", fmt.Errorf("dial: %w", syscall.EACCES), ""},
		{"no such bucket", errors.New("NoSuchBucket"), ""},
		{"time limit of its own", context.DeadlineExceeded, ""},
		{"file system error that looks like absence", fs.ErrNotExist, ""},
		{"denied", fmt.Errorf("AccessDenied: %w", fs.ErrPermission), source.CodeReadError},
		{"no such object", fmt.Errorf("404: %w", source.ErrNoFile), source.CodeNoFile},
		{"changed", fmt.Errorf("412: %w", source.ErrChanged), source.CodeChanged},
	} {
		for _, op := range []string{"Head", "Get"} {
			t.Run(c.name+"/"+op, func(t *testing.T) {
				f, b := inBucket(t, objectstest.Plain)
				b.Put("a", "content", longAgo)
				b.Before = func(o, _ string) error {
					if o == op {
						return c.err
					}
					return nil
				}
				_, err := content(t, f, "/data/a")
				want := c.code
				if op == "Get" && want == source.CodeNoFile {
					want = source.CodeChanged // it was there at the opening
				}
				if err == nil || source.FileFault(err) != want {
					t.Fatalf("%v is %q, want %q", err, source.FileFault(err), want)
				}
				var root *source.RootError
				if errors.As(err, &root) != (c.code == "") {
					t.Fatalf("error %v", err)
				}
				if root != nil && (!root.Holds("/data/b") || root.Holds("/other/b") || root.Root != "s3://b/") {
					t.Errorf("root %q holds /data/b: %v, /other/b: %v", root.Root, root.Holds("/data/b"), root.Holds("/other/b"))
				}
			})
		}
	}
}

func TestBucketThatCannotBeOpenedIsARootsTrouble(t *testing.T) {
	roots := parse(t, "/data => s3://b", "/mnt")
	f := source.NewOriginals(func() []source.Root { return roots },
		func(name string) (source.Objects, error) { return nil, errors.New("no credentials for " + name) })
	_, err := f.Open(t.Context(), "/data/a")
	var root *source.RootError
	if !errors.As(err, &root) || !strings.Contains(err.Error(), "no credentials for b") || !root.Holds("/data/x") || root.Holds("/mnt/x") {
		t.Errorf("open: %v", err)
	}
	if id, err := f.FileID(t.Context(), "/data/a"); err != nil || id != "s3:b/a" {
		t.Errorf("its id needs no request: %q, %v", id, err)
	}
}

// A stream that is not what its description promised is never a whole file.
func TestObjectStreamThatLies(t *testing.T) {
	for _, c := range []struct {
		name string
		body func(io.Reader) io.Reader
		want error // nil: the root's
	}{
		{"ends early", func(r io.Reader) io.Reader { return io.LimitReader(r, 3) }, source.ErrChanged},
		{"cut", func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, 3), iotest.ErrReader(io.ErrUnexpectedEOF))
		}, source.ErrChanged},
		{"goes on", func(r io.Reader) io.Reader { return io.MultiReader(r, strings.NewReader("!")) }, source.ErrChanged},
		{"fails", func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, 3), iotest.ErrReader(syscall.ECONNRESET))
		}, nil},
		{"fails behind the end", func(r io.Reader) io.Reader { return io.MultiReader(r, iotest.ErrReader(syscall.ECONNRESET)) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, b := inBucket(t, objectstest.Plain)
			b.Put("a", "content", longAgo)
			b.Body = func(_ string, body io.ReadCloser) io.ReadCloser { return io.NopCloser(c.body(body)) }
			got, err := content(t, f, "/data/a")
			var root *source.RootError
			if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &root) {
				t.Errorf("read %q, %v", got, err)
			}
			if !strings.HasPrefix("content", got) {
				t.Errorf("read %q", got)
			}
		})
	}
}

// A store that denies one object, and still gives the one that was read before,
// means that object: its row fails. One that denies all is the root's trouble.
func TestDeniedObjectIsToldFromADeniedBucket(t *testing.T) {
	for _, op := range []string{"Head", "Get"} {
		t.Run(op, func(t *testing.T) {
			f, b := inBucket(t, objectstest.Plain)
			for _, key := range []string{"a", "b", "good"} {
				b.Put(key, "content", longAgo)
			}
			b.Before = func(asked, key string) error {
				if asked == op && key != "good" {
					return fmt.Errorf("403: %w", source.ErrDenied)
				}
				return nil
			}
			var root *source.RootError
			if _, err := content(t, f, "/data/a"); !errors.As(err, &root) {
				t.Errorf("before anything was read: %v, want the root's error", err)
			}
			if _, err := content(t, f, "/data/good"); err != nil {
				t.Fatal(err)
			}
			if _, err := content(t, f, "/data/a"); source.FileFault(err) != source.CodeReadError {
				t.Errorf("alone denied: %v, want the file's own failure", err)
			}
			b.Before = func(string, string) error { return fmt.Errorf("403: %w", source.ErrDenied) }
			for _, path := range []string{"/data/a", "/data/b", "/data/good"} {
				if _, err := content(t, f, path); !errors.As(err, &root) || source.FileFault(err) != "" {
					t.Errorf("%s, all denied: %v, want the root's error", path, err)
				}
			}
		})
	}
}

func TestContextOfOpenEndsTheReading(t *testing.T) {
	f, b := inBucket(t, objectstest.Plain)
	b.Put("a", "content", longAgo)
	ctx, cancel := context.WithCancel(t.Context())
	o, err := f.Open(ctx, "/data/a")
	must(t, err)
	if _, err := io.ReadFull(o, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(o); !errors.Is(err, context.Canceled) || source.FileFault(err) != "" {
		t.Errorf("read: %v, want the context's end", err)
	}
	must(t, o.Close())
}

func TestSeekAsksForTheSameVersion(t *testing.T) {
	f, b := inBucket(t, objectstest.Versioned)
	b.Put("a", "old content", longAgo)
	o, err := f.Open(t.Context(), "/data/a")
	must(t, err)
	if _, err := io.ReadFull(o, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	b.Put("a", "new content", longAgo)
	_, err = o.Seek(0, io.SeekStart)
	must(t, err)
	buf := make([]byte, 11)
	if _, err := io.ReadFull(o, buf); err != nil || string(buf) != "old content" {
		t.Errorf("read %q, %v", buf, err)
	}
	if _, err := o.Read(buf); !errors.Is(err, source.ErrChanged) {
		t.Errorf("the end: %v, want ErrChanged", err)
	}
	must(t, o.Close())
}

func TestObjectRemovedByVersionOnly(t *testing.T) {
	for _, c := range []struct {
		name string
		kind objectstest.Kind
	}{{"plain", objectstest.Plain}, {"versioned", objectstest.Versioned}} {
		t.Run(c.name, func(t *testing.T) {
			f, b := inBucket(t, c.kind)
			b.Put("a", "old content", longAgo)
			o, err := f.OpenHidden(t.Context(), "/data/a")
			must(t, err)
			must(t, o.Close())
			b.Put("a", "new content", longAgo)
			err = f.Remove(t.Context(), "/data/a", o.Info())
			if c.kind == objectstest.Plain && !errors.Is(err, source.ErrChanged) || c.kind == objectstest.Versioned && err != nil {
				t.Errorf("remove: %v", err)
			}
			if got, ok := b.Content("a"); !ok || got != "new content" {
				t.Errorf("at the key: %q, %v", got, ok)
			}
			if err := f.Remove(t.Context(), "/data/a", source.Info{FileID: "s3:b/a"}); !errors.Is(err, source.ErrChanged) {
				t.Errorf("remove without a version: %v", err)
			}
		})
	}
}

func TestCarelessStoreDeletesNothing(t *testing.T) {
	f, b := inBucket(t, objectstest.Careless)
	b.Put("a", "content", longAgo)
	o, err := f.OpenHidden(t.Context(), "/data/a")
	must(t, err)
	must(t, o.Close())
	if err := f.Remove(t.Context(), "/data/a", o.Info()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("remove: %v, want ErrUnsupported", err)
	}
	if _, ok := b.Content("a"); !ok {
		t.Error("the object is gone")
	}
}

func TestVersionGone(t *testing.T) {
	type versions interface {
		VersionGone(ctx context.Context, path, version string) (bool, error)
	}
	f, b := inBucket(t, objectstest.Versioned)
	first := b.Put("a", "first", longAgo)
	second := b.Put("a", "second", longAgo)
	must(t, b.Delete(t.Context(), "a", second.Version))
	v := f.(versions)
	for _, c := range []struct {
		path, version string
		want          bool
	}{{"/data/a", first.Version, false}, {"/data/a", second.Version, true}, {"/data/b", "v", true}, {"/data/a", "", false}} {
		if got, err := v.VersionGone(t.Context(), c.path, c.version); err != nil || got != c.want {
			t.Errorf("%s of %s gone: %v, %v; want %v", c.version, c.path, got, err, c.want)
		}
	}
	b.Before = func(string, string) error { return errors.New("503") }
	if gone, err := v.VersionGone(t.Context(), "/data/a", second.Version); err == nil || gone {
		t.Errorf("of a store in trouble: %v, %v", gone, err)
	}
}

func TestTimesOfObjects(t *testing.T) {
	object := source.Info{ModTime: longAgo.Truncate(time.Second), TimeUnit: time.Second}
	file := source.Info{ModTime: longAgo}
	for _, c := range []struct {
		name   string
		info   source.Info
		listed time.Time
		unit   time.Duration
		want   bool
	}{
		{"object, cut to the second", object, longAgo, time.Microsecond, false},
		{"object, column rounds up", object, longAgo.Round(time.Second), time.Second, false},
		{"object, two seconds", object, longAgo.Truncate(time.Second).Add(2 * time.Second), time.Second, true},
		{"object, earlier", object, longAgo.Add(-2 * time.Second), time.Nanosecond, true},
		{"file, exact", file, longAgo, 0, false},
		{"file, a nanosecond", file, longAgo.Add(1), 0, true},
		{"file, column of seconds", file, longAgo.Truncate(time.Second), time.Second, false},
		{"file, a whole second", file, longAgo.Add(time.Second), time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.info.Modified(c.listed, c.unit); got != c.want {
				t.Errorf("modified: %v, want %v", got, c.want)
			}
		})
	}
}

// Two rows that reach one object through two prefixes, in one source or in
// two, are seen to share it.
func TestSameObjectThroughTwoPrefixes(t *testing.T) {
	a := originals(t, nil, "/data => s3://b/pre", "/all => s3://b", "/data/local => /mnt/local", "/other => s3://c")
	want := []string{"s3:b/pre/x", "s3://b/pre/x", "/data/x", "/all/pre/x"}
	for _, path := range []string{"/data/x", "/all/pre/x", "s3:b/pre/x"} {
		if got, err := a.Same(t.Context(), path); err != nil || !slices.Equal(got, want) {
			t.Errorf("same as %s: %q, %v; want %q", path, got, err, want)
		}
		if id, err := a.FileID(t.Context(), path); path[0] == '/' && (err != nil || id != "s3:b/pre/x") {
			t.Errorf("id of %s: %s, %v", path, id, err)
		}
	}
	// /data/local/y is another file: the longer prefix leads it to a folder.
	if got, err := a.Same(t.Context(), "/all/pre/local/y"); err != nil || slices.Contains(got, "/data/local/y") {
		t.Errorf("same as /all/pre/local/y: %q, %v", got, err)
	}
	b := originals(t, nil, "s3://b/pre")
	for _, place := range []string{"s3:b/pre/x"} {
		if got, err := b.Same(t.Context(), place); err != nil || !slices.Contains(got, "s3://b/pre/x") || !slices.Contains(got, "x") {
			t.Errorf("another source: %q, %v", got, err)
		}
	}
	if id, err := originals(t, nil, "/mnt").FileID(t.Context(), "s3://b/pre/x"); err != nil || id != "s3:b/pre/x" {
		t.Errorf("id beside all roots: %q, %v", id, err)
	}
}

// /data is one folder to one source and another to the next: a place, not a
// word, tells the next which file is meant.
func TestSameFileOfAnotherSource(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	must(t, errors.Join(write(shared+"/x", "shared"), write(own+"/x", "own")))
	a := originals(t, nil, "/data => "+shared)
	b := originals(t, nil, "/data => "+own, "/shared => "+shared)
	same, err := a.Same(t.Context(), "/data/x")
	must(t, err)
	if !source.IsPlace(same[0]) || same[0] != "file:"+shared+"/x" {
		t.Fatalf("places first: %q", same)
	}
	there, err := b.Same(t.Context(), same[0])
	must(t, err)
	if !slices.Contains(there, "/shared/x") || slices.Contains(there, "/data/x") {
		t.Errorf("in the other source: %q", there)
	}
	plain, err := source.NewFolders(func() []string { return []string{shared} }).Same(t.Context(), same[0])
	if err != nil || !slices.Contains(plain, shared+"/x") {
		t.Errorf("in plain folders: %q, %v", plain, err)
	}
}
