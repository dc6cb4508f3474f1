package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/objectstest"
)

var uploaded = time.Date(2025, 5, 6, 7, 8, 9, 876_543_210, time.UTC)

// inBucket makes the originals of the first source objects below /data and
// /all, which lead to the same keys, and files below the world's root.
func (w *world) inBucket(kind objectstest.Kind) *objectstest.Bucket {
	w.t.Helper()
	b := objectstest.New(w.t, kind)
	roots := []source.Root{source.FolderRoot(w.root)}
	for _, s := range []string{"/data => s3://b", "/all => s3://b"} {
		r, err := source.ParseRoot(s)
		w.check(err)
		roots = append(roots, r)
	}
	files := source.NewOriginals(func() []source.Root { return roots }, func(string) (source.Objects, error) { return b, nil })
	w.src.Files = faultyFiles{files, w.faults}
	return b
}

// object puts an object and marks the row that lists it below prefix.
func (w *world) object(b *objectstest.Bucket, prefix, key string) {
	w.t.Helper()
	content := "content of " + key
	b.Put(key, content, uploaded)
	w.listed(prefix, key, int64(len(content)), uploaded)
}

func (w *world) listed(prefix, key string, size int64, modified time.Time) {
	w.t.Helper()
	_, err := w.rows.Register(w.t.Context(), []source.File{{
		Name: strings.TrimPrefix(prefix, "/") + "/" + key, Path: prefix + "/" + key, Size: size, ModTime: modified,
	}})
	w.check(err)
	w.mark(w.rows)
}

func (w *world) wantObject(b *objectstest.Bucket, key, content string) {
	w.t.Helper()
	if got, ok := b.Content(key); got != content || ok != (content != "") {
		w.t.Errorf("object %s holds %q, %v; want %q", key, got, ok, content)
	}
}

func TestObjectIsDeletedOnceProven(t *testing.T) {
	for _, kind := range []objectstest.Kind{objectstest.Plain, objectstest.Versioned} {
		w := newWorld(t)
		b := w.inBucket(kind)
		w.object(b, "/data", "scans/a")
		w.register("local")
		w.archive()
		w.once(nil)
		w.wantRow("data/scans/a", source.DeletedSource, "")
		w.wantRow("local", source.DeletedSource, "")
		w.wantObject(b, "scans/a", "")
		w.wantFile(w.path("local"), "")
		w.wantNoIntents()
		lines := readLines(t, filepath.Join(w.dir, "data", auditName))
		i := slices.IndexFunc(lines, func(r auditRecord) bool { return r.Event == auditDeleted && r.Path == "/data/scans/a" })
		if i < 0 || lines[i].Version == "" || lines[i].FileID != "s3:b/scans/a" {
			t.Errorf("the audit log: %+v", lines)
		}
	}
}

// Every step of a deletion on S3 × every way to fail: the content is at its
// key or in a verified pack at each moment, and the deletion comes to its end.
// The versioned bucket holds an older version, which the deletion uncovers.
func TestObjectDeletionSurvivesEveryFault(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  objectstest.Kind
		older string
	}{{"plain", objectstest.Plain, ""}, {"versioned", objectstest.Versioned, ""}, {"versioned, older version", objectstest.Versioned, "older"}} {
		t.Run(c.name, func(t *testing.T) {
			failureTable(t,
				func(w *world) {
					w.bucket = w.inBucket(c.kind)
					if c.older != "" {
						w.bucket.Put("a", c.older, uploaded.Add(-time.Hour))
					}
					w.object(w.bucket, "/data", "a")
					w.archive()
				},
				tryOnce,
				func(w *world) {
					if got, _ := w.bucket.Content("a"); got != "content of a" {
						w.wantSafe("data/a", "content of a")
					}
				},
				func(w *world) {
					w.wantObject(w.bucket, "a", c.older)
					w.wantRow("data/a", source.DeletedSource, "")
					w.wantNoIntents()
				})
		})
	}
}

func TestObjectThatIsNotWhatWasArchivedStays(t *testing.T) {
	for _, c := range []struct {
		name     string
		content  string
		modified time.Time
	}{
		{"other bytes, same size and time", "CONTENT of a", uploaded},
		{"longer", "content of a, and more", uploaded},
		{"written again later", "content of a", uploaded.Add(time.Minute)},
	} {
		for _, kind := range []objectstest.Kind{objectstest.Plain, objectstest.Versioned} {
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t)
				b := w.inBucket(kind)
				w.object(b, "/data", "a")
				w.archive()
				b.Put("a", c.content, c.modified)
				w.once(nil)
				w.wantObject(b, "a", c.content)
				w.wantRow("data/a", source.Packed, source.CodeDiffers)
				w.wantNoIntents()
				if slices.ContainsFunc(b.Requests(), func(r string) bool { return strings.HasPrefix(r, "Delete") }) {
					t.Errorf("requests %q", b.Requests())
				}
			})
		}
	}
}

// The object is replaced after it was judged, right before it is deleted.
func TestObjectReplacedBeforeItsDeletionStays(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  objectstest.Kind
		state source.State
		code  string
	}{
		{"plain", objectstest.Plain, source.Packed, source.CodeDiffers},
		{"versioned", objectstest.Versioned, source.DeletedSource, ""}, // that very version, and no other
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.inBucket(c.kind)
			w.object(b, "/data", "a")
			w.archive()
			b.Before = func(op, key string) error {
				if op == "Delete" {
					b.Put(key, "the customer's next", uploaded.Add(time.Hour))
				}
				return nil
			}
			w.once(nil)
			w.wantObject(b, "a", "the customer's next")
			w.wantRow("data/a", c.state, c.code)
			w.wantNoIntents()
		})
	}
}

// A deletion that was cut, and then the customer's own new object: it is no
// deletion of ours that the judged version is gone.
func TestObjectReplacedAfterACutDeletionStays(t *testing.T) {
	for _, kind := range []objectstest.Kind{objectstest.Plain, objectstest.Versioned} {
		w := newWorld(t)
		b := w.inBucket(kind)
		w.object(b, "/data", "a")
		w.archive()
		w.faults.on = func(op string) error {
			if op == "files.Remove" {
				return errInjected
			}
			return nil
		}
		if err := w.keeper(nil).Once(t.Context()); !errors.Is(err, errInjected) {
			t.Fatalf("Once = %v", err)
		}
		w.faults.reset()
		b.Put("a", "the customer's next", uploaded.Add(time.Hour))
		w.once(nil)
		w.wantObject(b, "a", "the customer's next")
		w.wantRow("data/a", source.Packed, source.CodeDiffers)
		w.wantNoIntents()
	}
}

// A store that can't delete one version and no other deletes nothing: its rows
// say why, and are not looked at again; the others go on.
func TestCarelessStoreKeepsItsObjects(t *testing.T) {
	w := newWorld(t)
	b := w.inBucket(objectstest.Careless)
	for i := range maxRowErrors + 1 {
		w.object(b, "/data", fmt.Sprintf("%02d", i))
	}
	w.register("local")
	w.archive()
	w.once(nil)
	w.wantRow("local", source.DeletedSource, "")
	for i := range maxRowErrors + 1 {
		key := fmt.Sprintf("%02d", i)
		w.wantRow("data/"+key, source.Packed, source.CodeUndeletable)
		w.wantObject(b, key, "content of "+key)
	}
	if r := w.row("data/00"); r.Claim != "" || !strings.Contains(r.ErrorText, "one version and no other") {
		t.Errorf("row: claim %q, %s", r.Claim, r.ErrorText)
	}
	w.wantNoIntents()
	asked := len(b.Requests())
	w.once(nil)
	if n := len(b.Requests()); n != asked {
		t.Errorf("%d further requests", n-asked)
	}
}

func TestSharedObjectIsNeverDeleted(t *testing.T) {
	for _, c := range []struct {
		name  string
		share func(w *world, b *objectstest.Bucket)
	}{
		{"through another prefix", func(w *world, _ *objectstest.Bucket) { w.listed("/all", "a", 12, uploaded) }},
		{"a source of its own, other words", func(w *world, b *objectstest.Bucket) {
			s, rows := w.newSource("other")
			r, err := source.ParseRoot("scans => s3://b")
			w.check(err)
			s.Files = source.NewOriginals(func() []source.Root { return []source.Root{r} }, func(string) (source.Objects, error) { return b, nil })
			w.more = append(w.more, s)
			_, err = rows.Register(w.t.Context(), []source.File{{Name: "other/a", Path: "scans/a", Size: 12, ModTime: uploaded}})
			w.check(err)
			w.mark(rows)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.inBucket(objectstest.Plain)
			w.object(b, "/data", "a")
			c.share(w, b)
			w.archive()
			w.once(nil)
			w.wantRow("data/a", source.Packed, source.CodeShared)
			w.wantObject(b, "a", "content of a")
			w.wantNoIntents()
		})
	}
}

// /data of one source and /data of another lead to two buckets: no file is
// shared.
func TestSameWordsOfTwoSourcesShareNothing(t *testing.T) {
	w := newWorld(t)
	b := w.inBucket(objectstest.Plain)
	w.object(b, "/data", "a")
	elsewhere := objectstest.New(t, objectstest.Plain)
	elsewhere.Put("a", "another one", uploaded)
	s, rows := w.newSource("other")
	r, err := source.ParseRoot("/data => s3://elsewhere")
	w.check(err)
	s.Files = source.NewOriginals(func() []source.Root { return []source.Root{r} }, func(string) (source.Objects, error) { return elsewhere, nil })
	w.more = append(w.more, s)
	_, err = rows.Register(t.Context(), []source.File{{Name: "other/a", Path: "/data/a", Size: 11, ModTime: uploaded}})
	w.check(err)
	w.mark(rows)
	w.archive()
	w.once(nil)
	w.wantRow("data/a", source.DeletedSource, "")
	if r := w.rowIn(rows, "other/a"); r.State != source.DeletedSource {
		t.Errorf("the other row is %s %q (%s)", r.State, r.ErrorCode, r.ErrorText)
	}
	w.wantObject(b, "a", "")
	w.wantObject(elsewhere, "a", "")
}

// A bucket in trouble says nothing about its objects, and stops no other root.
func TestBucketInTroubleStopsNoOtherRoot(t *testing.T) {
	w := newWorld(t)
	b := w.inBucket(objectstest.Plain)
	for i := range 3 * maxRowErrors {
		w.object(b, "/data", fmt.Sprintf("%02d", i))
	}
	w.register("local")
	w.archive()
	before := len(b.Requests())
	b.Before = func(string, string) error { return errors.New("503 SlowDown") }
	err := w.keeper(nil).Once(t.Context())
	var root *source.RootError
	if !errors.As(err, &root) || root.Root != "s3://b/" {
		t.Errorf("Once = %v", err)
	}
	w.wantRow("local", source.DeletedSource, "")
	w.wantRow("data/00", source.Packed, "")
	if n := len(b.Requests()) - before; n > maxRowErrors+1 { // the worker has one more in hand
		t.Errorf("%d requests of a bucket in trouble", n)
	}
	b.Before = nil
	w.once(nil)
	for i := range 3 * maxRowErrors {
		w.wantRow(fmt.Sprintf("data/%02d", i), source.DeletedSource, "")
	}
	w.wantNoIntents()
}

// Originals that can't be read are let go of, each with its code: they hold up
// neither the rest of their pack nor the passes to come.
func TestUnreadableOriginalsStarveNoOthers(t *testing.T) {
	for _, c := range []struct {
		name string
		op   string
		err  error
	}{
		{"denied at the opening", "Head", fmt.Errorf("AccessDenied: %w", fs.ErrPermission)},
		{"denied while it is read", "Get", fmt.Errorf("InvalidObjectState: %w", fs.ErrPermission)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.inBucket(objectstest.Plain)
			for i := range maxRowErrors + 1 {
				w.object(b, "/data", fmt.Sprintf("bad/%02d", i))
			}
			w.object(b, "/data", "good")
			w.archive()
			b.Before = func(op, key string) error {
				if op == c.op && strings.HasPrefix(key, "bad/") {
					return c.err
				}
				return nil
			}
			w.once(nil)
			w.wantRow("data/good", source.DeletedSource, "")
			for i := range maxRowErrors + 1 {
				w.wantRow(fmt.Sprintf("data/bad/%02d", i), source.Packed, source.CodeReadError)
			}
			w.wantNoIntents()
			asked := len(b.Requests())
			w.once(nil)
			if n := len(b.Requests()); n != asked {
				t.Errorf("%d further requests", n-asked)
			}
		})
	}
}

// A bad sector of one file is that file's; it stands at its path again.
func TestOriginalWithABadSectorStays(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b")
	w.src.Files = badSector{Originals: w.src.Files, path: w.path("a")}
	w.once(nil)
	w.wantRow("a", source.Packed, source.CodeReadError)
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("b", source.DeletedSource, "")
	w.wantNoIntents()
}

// So many, one after the other, are the disk's: the pass ends and says so.
func TestUnreadableOriginalsInARowEndThePass(t *testing.T) {
	w := newWorld(t)
	b := w.inBucket(objectstest.Plain)
	for i := range 2 * maxUnfit {
		w.object(b, "/data", fmt.Sprintf("%03d", i))
	}
	w.archive()
	before := len(b.Requests())
	b.Before = func(string, string) error { return fmt.Errorf("AccessDenied: %w", fs.ErrPermission) }
	if err := w.keeper(nil).Once(t.Context()); err == nil || !strings.Contains(err.Error(), "one after the other") {
		t.Errorf("Once = %v", err)
	}
	if n := len(b.Requests()) - before; n < maxUnfit || n > maxUnfit+1 {
		t.Errorf("%d requests, want %d", n, maxUnfit)
	}
}

// badSector fails to read one file to its end.
type badSector struct {
	source.Originals
	path string
}

func (b badSector) OpenHidden(ctx context.Context, path string) (source.Original, error) {
	o, err := b.Originals.OpenHidden(ctx, path)
	if err == nil && path == b.path {
		o = unreadable{o}
	}
	return o, err
}

type unreadable struct{ source.Original }

func (u unreadable) Read([]byte) (int, error) {
	return 0, &os.PathError{Op: "read", Path: "a", Err: syscall.EIO}
}

// A root that deletions have emptied is no missing disk: a row that a restored
// database lists as PACKED finds its original gone, and is not tried for ever.
func TestRowOfAnEmptiedRootComesToAnEnd(t *testing.T) {
	for _, emptied := range []bool{true, false} {
		t.Run(fmt.Sprintf("emptied by deletions: %v", emptied), func(t *testing.T) {
			w := newWorld(t)
			if emptied {
				w.archived("a")
				w.once(nil)
				w.wantRow("a", source.DeletedSource, "")
			}
			w.register("b")
			w.archive()
			w.check(os.Remove(w.path("b")))
			err := w.keeper(nil).Once(t.Context())
			if (err == nil) != emptied {
				t.Errorf("Once = %v", err)
			}
			want := ""
			if emptied {
				want = source.CodeNoFile
			}
			w.wantRow("b", source.Packed, want)
		})
	}
}

// A pack that a rolled-back state forgot goes once its files are known to stand
// in their bucket, whose times are cut to the second; with another object in
// the place of one it is kept.
func TestGarbageWhoseOriginalsAreObjects(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		t.Run(fmt.Sprintf("replaced: %v", replaced), func(t *testing.T) {
			w := newWorld(t)
			w.noDelete = true
			b := w.inBucket(objectstest.Plain)
			w.object(b, "/data", "a")
			w.rollBack(w.pack, func() {})
			key := w.meta.View().Uploads()[0].Key
			if replaced {
				b.Put("a", "CONTENT of a", uploaded.Add(time.Hour))
			}
			w.clock.advance(25 * time.Hour)
			w.once(nil)
			w.clock.advance(8 * 24 * time.Hour)
			w.once(nil)
			if replaced {
				w.wantKeys(key)
			} else {
				w.wantKeys()
			}
		})
	}
}
