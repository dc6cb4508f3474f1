package desformat

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// testFile returns an empty file that the test removes.
func testFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "pack.des"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// item is one record to write and its content.
type item struct {
	Record
	content string
}

// fileItem returns a plausible file.
func fileItem(name, content string) item {
	return item{Record{
		Type: TypeFile, Name: name, Seq: Token{1, 7}, Source: "files", ID: "4711", Version: 1,
		ModTime: time.Unix(1_700_000_000, 123_456_789), SourceSize: int64(len(content)),
		SourceTime: time.Unix(1_700_000_000, 123_456_000),
	}, content}
}

// sortItems puts items in the order of a pack; voids stay behind the item
// they follow.
func sortItems(items []item) []item {
	slices.SortStableFunc(items, func(a, b item) int {
		x, y := a.Hash(), b.Hash()
		return bytes.Compare(x[:], y[:])
	})
	return items
}

func testConfig() WriterConfig {
	return WriterConfig{
		Pack: PackID{1, 2, 3}, Cluster: ClusterID{4, 5, 6}, Token: Token{1, 7},
		Created: time.Unix(1_700_000_100, 5).UTC(), ChunkSize: 32, ChunkThreshold: 64,
	}
}

// build writes a pack and returns its bytes, its entries and its footer.
func build(t testing.TB, cfg WriterConfig, items []item) ([]byte, []Entry, Footer) {
	t.Helper()
	f := testFile(t)
	w, err := NewWriter(f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var entries []Entry
	for _, it := range items {
		e, err := w.Append(it.Record, strings.NewReader(it.content))
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	footer, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b, entries, footer
}

// benchItem returns file number i of an imaginary document archive, with
// everything that a real row brings: a long id, times, a content type.
func benchItem(rng *rand.Rand, i int) item {
	kinds := []struct{ ext, contentType string }{{"pdf", "application/pdf"}, {"xml", "text/xml"}, {"jpg", "image/jpeg"}}
	kind := kinds[rng.IntN(len(kinds))]
	mtime := time.Unix(1_600_000_000+rng.Int64N(100_000_000), rng.Int64N(1e9))
	it := fileItem(fmt.Sprintf("invoices/%d/%02d/INV-%08d-%06x.%s", 2015+rng.IntN(10), 1+rng.IntN(12), i, rng.IntN(1<<24), kind.ext), "")
	it.ID = fmt.Sprint(10_000_000 + i)
	it.Seq, it.ModTime, it.SourceTime = Token{1, 123_456}, mtime, mtime.Truncate(time.Microsecond)
	it.Meta.ContentType = kind.contentType
	return it
}

// open opens a pack that is in memory and must be right.
func open(t testing.TB, b []byte) (*Reader, Fetcher) {
	t.Helper()
	f := FetchReaderAt(bytes.NewReader(b))
	r, err := OpenPack(t.Context(), f, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return r, f
}

// listed returns what the catalog yields before it ends or fails.
func listed(ctx context.Context, r *Reader) (entries []Entry, err error) {
	for e, err := range r.Catalog(ctx) {
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// sameEntry compares all that a catalog says of a record.
func sameEntry(a, b Entry) bool {
	return reflect.DeepEqual(normal(a), normal(b))
}

// normal makes entries comparable: no metadata is nil metadata.
func normal(e Entry) Entry {
	if len(e.Meta.Custom) == 0 {
		e.Meta.Custom = nil
	}
	if len(e.Meta.Unknown) == 0 {
		e.Meta.Unknown = nil
	}
	for i := range e.Meta.Unknown {
		e.Meta.Unknown[i].Value = append([]byte{}, e.Meta.Unknown[i].Value...)
	}
	return e
}

// countingFetcher counts fetches and the bytes asked for.
type countingFetcher struct {
	Fetcher
	fetches int
	bytes   int64
}

func (f *countingFetcher) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	f.fetches++
	f.bytes += n
	return f.Fetcher.Fetch(ctx, off, n)
}

// allocated returns the bytes allocated by the process so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
