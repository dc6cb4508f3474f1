package desformat

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
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

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	var items []item
	for i := range 1000 {
		items = append(items, fileItem(fmt.Sprintf("dir/file-%d.txt", i), strings.Repeat("x", i)))
	}
	b, entries, footer := build(t, testConfig(), sortItems(items))
	f := FetchReaderAt(bytes.NewReader(b))
	r, err := OpenPack(ctx, f, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(ctx, nil); err != nil {
		t.Fatal(err)
	}
	x, err := r.Index(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for e, err := range r.Catalog(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Location != entries[i].Location || e.SHA256 != entries[i].SHA256 || e.Name != entries[i].Name {
			t.Fatalf("%+v\n%+v", e, entries[i])
		}
		if locs := x.Lookup(e.Hash(), nil); !slices.Contains(locs, e.Location) {
			t.Fatalf("lookup %v, want %v", locs, e.Location)
		}
		rr, err := OpenRecord(ctx, f, e.Location)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rr)
		if err != nil || string(got) != items[i].content {
			t.Fatal(err)
		}
		i++
	}
	t.Logf("%+v, %.2f bytes/file", footer, float64(x.Bytes())/1000)
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
