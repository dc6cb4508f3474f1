package desformat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The golden vectors are packs as the first release of version 3 wrote them,
// each beside a text that says what is in it. They are read by every release
// and never made again: -update makes those that are missing and refuses to
// touch the others.
var update = flag.Bool("update", false, "make the golden vectors and fuzz seeds that are missing")

const goldenDir = "testdata/golden"

// vector describes one golden vector.
type vector struct {
	name  string
	about string
	cfg   func(*WriterConfig)
	items []item
}

func goldenVectors(t testing.TB) []vector {
	t.Helper()
	plain := func(*WriterConfig) {}
	tombstone := fileItem("removed.txt", "")
	tombstone.Type, tombstone.Seq = TypeTombstone, Token{1, 9}
	void := item{Record{Type: TypeVoid}, strings.Repeat("\x00", 40)}
	bigVoid := item{Record{Type: TypeVoid}, strings.Repeat("\x00", 100)}
	all := fileItem("faktury/2024/zażółć.pdf", "all the metadata there is")
	all.Tenant, all.Version, all.Seq = "tenant-7", 3, Token{2, 1 << 40}
	all.ModTime = time.Date(1931, 5, 6, 7, 8, 9, 999_999_999, time.UTC)
	all.Meta = Metadata{
		ContentType: "application/pdf", Created: time.Date(1931, 5, 6, 0, 0, 0, 1, time.UTC), Retention: "10-years",
		Custom: []byte(`{"case":"K/17","pages":3}`), Unknown: []TLV{{5, []byte{1, 2}}, {0x7fff, []byte{}}},
	}
	older, newer := fileItem("twice.txt", "the first version"), fileItem("twice.txt", strings.Repeat("the second version ", 9))
	newer.Seq, newer.Version = Token{1, 8}, 2
	return []vector{
		{"empty", "no record at all", plain, nil},
		{"one", "one small file", plain, []item{fileItem("hello.txt", "hello, world\n")}},
		{"zero", "one file of 0 bytes", plain, []item{fileItem("nothing", "")}},
		{"chunked", "chunks of 32 bytes: one whole and a rest, three whole ones, and a file just below the threshold", plain, sortItems([]item{
			fileItem("rest.bin", strings.Repeat("0123456789", 7)), fileItem("whole.bin", strings.Repeat("abcdefgh", 12)),
			fileItem("plain.bin", strings.Repeat("z", 64)),
		})},
		{"tombstone", "a file and a tombstone", plain, sortItems([]item{fileItem("kept.txt", "kept"), tombstone})},
		{"void", "a void before, between and behind files, the last one in chunks", plain, []item{
			void, sortItems([]item{fileItem("a", "A"), fileItem("b", "B")})[0], void,
			sortItems([]item{fileItem("a", "A"), fileItem("b", "B")})[1], bigVoid,
		}},
		{"metadata", "every field, two of them unknown, a time before 1970", plain, []item{all}},
		{"equal", "two versions of one name, the second in chunks", plain, []item{older, newer}},
		{"replaces", "a pack that stands for three others", func(c *WriterConfig) {
			c.Replaces = []PackID{{9}, {8}, {7}}
		}, []item{fileItem("merged.txt", "merged")}},
		{"narrow", "a range of 11 bits, the one of its file", func(c *WriterConfig) {
			h := HashName("narrow.txt")
			c.Range, _ = NewRange(h.Shard(11), 11) // 11 bits are a range
		}, []item{fileItem("narrow.txt", "in a narrow range")}},
		{"many", "more records than one page of the index takes", plain, manyItems(120)},
	}
}

func manyItems(n int) []item {
	items := make([]item, n)
	for i := range items {
		items[i] = fileItem("m/"+strings.Repeat("y", i%7)+string(rune('a'+i%26))+string(rune('0'+i/26)), strings.Repeat("m", i%5))
	}
	return sortItems(items)
}

// expectation is the text beside a vector.
type expectation struct {
	About   string
	Footer  Footer
	Records []expectedRecord
}

type expectedRecord struct {
	Entry
	Content []byte
}

func TestGoldenVectors(t *testing.T) {
	for _, v := range goldenVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			path := filepath.Join(goldenDir, v.name)
			if *update {
				makeVector(t, path, v)
			}
			pack, want := loadVector(t, v.name)
			r, f := open(t, pack)
			if got := r.Footer(); !sameJSON(t, got, want.Footer) {
				t.Errorf("footer\n%+v, want\n%+v", got, want.Footer)
			}
			checkPack(t, r, f, want.Records)
			cfg := testConfig()
			v.cfg(&cfg)
			if again, _, _ := build(t, cfg, v.items); !bytes.Equal(again[:r.footer.Catalog.Offset], pack[:r.footer.Catalog.Offset]) {
				// The catalog is left out: another release of zstd may pack it otherwise.
				t.Error("the Writer no longer writes these records")
			}
		})
	}
}

// makeVector writes a vector that is missing.
func makeVector(t *testing.T, path string, v vector) {
	t.Helper()
	if _, err := os.Stat(path + ".des"); err == nil {
		t.Logf("%s.des is there: left alone", path)
		return
	}
	cfg := testConfig()
	v.cfg(&cfg)
	pack, entries, footer := build(t, cfg, v.items)
	want := expectation{About: v.about, Footer: footer}
	for i, e := range entries {
		want.Records = append(want.Records, expectedRecord{e, []byte(v.items[i].content)})
	}
	text, err := json.MarshalIndent(want, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	writeNew(t, path+".des", pack)
	writeNew(t, path+".json", append(text, '\n'))
}

// writeNew writes a file that must not exist.
func writeNew(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func loadVector(t testing.TB, name string) ([]byte, expectation) {
	t.Helper()
	pack, err := os.ReadFile(filepath.Join(goldenDir, name+".des"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(goldenDir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var want expectation
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	return pack, want
}

func sameJSON(t testing.TB, a, b any) bool {
	t.Helper()
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if err := errors.Join(errX, errY); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

// checkPack reads a pack in every way there is and compares.
func checkPack(t testing.TB, r *Reader, f Fetcher, want []expectedRecord) {
	t.Helper()
	ctx := t.Context()
	verified := 0
	if err := r.Verify(ctx, func(Entry) error { verified++; return nil }); err != nil || verified != len(want) {
		t.Errorf("verified %d records of %d: %v", verified, len(want), err)
	}
	x, err := r.Index(ctx)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := listed(ctx, r)
	if err != nil || len(entries) != len(want) {
		t.Fatalf("catalog of %d records, want %d: %v", len(entries), len(want), err)
	}
	for i, e := range entries {
		if !sameEntry(e, want[i].Entry) {
			t.Errorf("record %d: catalog has\n%+v, want\n%+v", i, e, want[i].Entry)
		}
		if e.Type != TypeVoid {
			checkFound(t, x, e)
		}
		if err := checkReads(ctx, f, want[i]); err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// checkFound looks e up.
func checkFound(t testing.TB, x *Index, e Entry) {
	t.Helper()
	found, last := false, int64(-1)
	for _, loc := range x.Lookup(e.Hash(), nil) {
		found = found || loc == e.Location
		if int64(loc.Ordinal) <= last {
			t.Errorf("candidates of %q out of order", e.Name)
		}
		last = int64(loc.Ordinal)
	}
	if !found {
		t.Errorf("record %d, %q: not found", e.Ordinal, e.Name)
	}
}

var errWrongBytes = errors.New("wrong bytes")

// checkReads reads one record in every way there is. It returns the first
// error; errWrongBytes when a read hands out what is not the content.
func checkReads(ctx context.Context, f Fetcher, want expectedRecord) error {
	h, err := ReadHeader(ctx, f, want.Location)
	if err != nil {
		return err
	}
	got := Entry{Record: h.Record, Location: want.Location}
	got.SourceSize, got.SourceTime = want.SourceSize, want.SourceTime
	if !sameEntry(got, want.Entry) {
		return errWrongBytes
	}
	raw, err := fetchBytes(ctx, f, want.Offset, want.Length)
	if err != nil {
		return err
	}
	if _, content, err := ParseRecord(raw); err != nil {
		return err
	} else if !bytes.Equal(content, want.Content) {
		return errWrongBytes
	}
	if err := readWhole(ctx, f, want); err != nil {
		return err
	}
	return readRanges(ctx, f, h, want)
}

// readWhole streams the record.
func readWhole(ctx context.Context, f Fetcher, want expectedRecord) error {
	r, err := OpenRecord(ctx, f, want.Location)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); !bytes.HasPrefix(want.Content, got) || err == nil && len(got) != len(want.Content) {
		return errWrongBytes
	}
	return err
}

// readRanges streams ranges around every chunk's border.
func readRanges(ctx context.Context, f Fetcher, h *Header, want expectedRecord) error {
	size := int64(len(want.Content))
	for _, off := range []int64{0, 1, 31, 32, 33, size - 1, size} {
		for _, n := range []int64{-1, 0, 1, 32, 33, size} {
			if off < 0 || off > size {
				continue
			}
			r, err := OpenContent(ctx, f, want.Location, h, off, n)
			if err != nil {
				return err
			}
			rest := want.Content[off:]
			if n >= 0 {
				rest = rest[:min(n, int64(len(rest)))]
			}
			got, err := io.ReadAll(r)
			if err = errors.Join(err, r.Close()); !bytes.HasPrefix(rest, got) || err == nil && len(got) != len(rest) {
				return errWrongBytes
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}
