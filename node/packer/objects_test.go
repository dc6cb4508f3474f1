package packer

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/objectstest"
)

// inBuckets makes the originals of the first source objects below /data and
// files below the world's folder.
func (w *world) inBuckets(b *objectstest.Bucket) {
	w.t.Helper()
	bucket, err := source.ParseRoot("/data => s3://b")
	if err != nil {
		w.t.Fatal(err)
	}
	roots := []source.Root{bucket, source.FolderRoot(w.dir)}
	w.sources[0].Files = source.NewOriginals(func() []source.Root { return roots },
		func(string) (source.Objects, error) { return b, nil })
}

func (w *world) markObject(name, content string, modified time.Time) {
	w.t.Helper()
	w.mark("files", source.File{Name: name, Path: "/data/" + name, Size: int64(len(content)), ModTime: modified})
}

// uploaded is a time with more digits than S3 keeps.
var uploaded = time.Date(2024, 5, 6, 7, 8, 9, 876_543_210, time.UTC)

func TestObjectsAndFilesOfOneTable(t *testing.T) {
	for _, kind := range []objectstest.Kind{objectstest.Plain, objectstest.Versioned} {
		w := newWorld(t)
		b := objectstest.New(t, kind)
		w.inBuckets(b)
		want := w.add(20, small)
		for i := range 20 {
			name := fmt.Sprintf("scans/%d", i)
			text := fmt.Sprintf("scan %d", i*i)
			want[name] = []byte(text)
			b.Put(name, text, uploaded)
			w.markObject(name, text, uploaded)
		}
		w.drain(w.packer(func(c *Config) { c.SmallFile = 6 })) // some streamed, some read ahead
		w.check(want)
	}
}

// A row that lists another object than the one that stands there is never
// packed, whatever the difference.
func TestObjectThatIsNotAsListed(t *testing.T) {
	const text = "the content"
	for _, c := range []struct {
		name     string
		content  string
		modified time.Time // listed
		sum      bool      // the row lists another checksum
		code     string    // "": packed
	}{
		{"as listed", text, uploaded, false, ""},
		{"time cut to the second", text, uploaded.Truncate(time.Second), false, ""},
		{"longer", text + "!", uploaded, false, source.CodeChanged},
		{"shorter", text[1:], uploaded, false, source.CodeChanged},
		{"newer", text, uploaded.Add(-2 * time.Second), false, source.CodeChanged},
		{"older", text, uploaded.Add(2 * time.Second), false, source.CodeChanged},
		{"another checksum", text, uploaded, true, source.CodeChecksum},
		{"missing", "", uploaded, false, source.CodeNoFile},
	} {
		for _, smallFile := range []int64{1 << 10, 1} { // read whole, and streamed
			t.Run(c.name, func(t *testing.T) {
				w := newWorld(t)
				b := objectstest.New(t, objectstest.Plain)
				w.inBuckets(b)
				if c.content != "" {
					b.Put("a", c.content, uploaded)
				}
				b.Put("other", "stays", uploaded)
				w.markObject("a", text, c.modified)
				w.markObject("other", "stays", uploaded)
				if c.sum {
					w.sources[0].Rows = &checksums{Table: w.sources[0].Rows, sums: map[string]*[32]byte{"a": {1}}}
				}
				w.drain(w.packer(func(cfg *Config) { cfg.MaxAttempts, cfg.SmallFile = 1, smallFile }))
				want := source.Packed
				if c.code != "" {
					want = source.Failed
				}
				if row := w.row("a"); row.State != want || row.ErrorCode != c.code {
					t.Errorf("row is %s %q (%s), want %s %q", row.State, row.ErrorCode, row.ErrorText, want, c.code)
				}
				if row := w.row("other"); row.State != source.Packed {
					t.Errorf("its neighbour is %s", row.State)
				}
			})
		}
	}
}

// An object that is replaced while it is read is cut away and charged.
func TestObjectReplacedWhileItIsRead(t *testing.T) {
	for _, smallFile := range []int64{1 << 10, 1} {
		w := newWorld(t)
		b := objectstest.New(t, objectstest.Versioned)
		w.inBuckets(b)
		b.Put("a", "old content", uploaded)
		w.markObject("a", "old content", uploaded)
		b.Before = func(op, key string) error {
			if op == "Get" {
				b.Put(key, "new content", uploaded)
			}
			return nil
		}
		w.drain(w.packer(func(cfg *Config) { cfg.MaxAttempts, cfg.SmallFile = 1, smallFile }))
		if row := w.row("a"); row.State != source.Failed || row.ErrorCode != source.CodeChanged {
			t.Errorf("row is %s %q", row.State, row.ErrorCode)
		}
	}
}

// A restored database lists rows whose objects were archived and deleted: they
// are found in the manifest, though S3 keeps less of a time than the row.
func TestDeletedObjectIsAcknowledgedAgain(t *testing.T) {
	w := newWorld(t)
	b := objectstest.New(t, objectstest.Plain)
	w.inBuckets(b)
	info := b.Put("a", "content", uploaded)
	w.markObject("a", "content", uploaded)
	p := w.packer()
	w.drain(p)
	first := w.row("a").Pack
	if err := b.Delete(t.Context(), "a", info.Version); err != nil {
		t.Fatal(err)
	}
	restored, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: filepath.Join(t.TempDir(), "old.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = restored.Close() })
	w.tables["files"] = restored
	w.sources[0].Rows = &faultyRows{restored, w}
	w.markObject("a", "content", uploaded)
	w.drain(p)
	if row := w.row("a"); row.State != source.Packed || row.Pack != first {
		t.Errorf("row is %s %q in pack %s, want %s", row.State, row.ErrorCode, row.Pack, first)
	}
}

// A bucket out of reach charges no row, and stops no other root.
func TestBucketOutOfReachLeavesItsRowsAlone(t *testing.T) {
	w := newWorld(t)
	b := objectstest.New(t, objectstest.Plain)
	w.inBuckets(b)
	files := w.add(50, small)
	for i := range 100 {
		name := fmt.Sprintf("scan-%d", i)
		b.Put(name, "x", uploaded)
		w.markObject(name, "x", uploaded)
	}
	b.Before = func(string, string) error { return errors.New("503 SlowDown") }
	res, err := w.packer().Once(t.Context(), true)
	if !errors.Is(err, ErrLeft) || res.Rows != int64(len(files)) || res.Left != 100 || res.Failed != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if n := len(b.Requests()); n > maxLeft+64 { // those that were prepared before the verdict
		t.Errorf("%d requests of a bucket that is out of reach", n)
	}
	b.Before = nil
	w.drain(w.packer())
	if row := w.row("scan-7"); row.State != source.Packed || row.Attempts != 0 {
		t.Errorf("later: %s after %d attempts", row.State, row.Attempts)
	}
}
