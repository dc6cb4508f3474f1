package desformat

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// begin returns a Writer over a new file.
func begin(t *testing.T, cfg WriterConfig) (*Writer, *os.File) {
	t.Helper()
	f := testFile(t)
	w, err := NewWriter(f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w, f
}

// sealed seals w and returns the pack's bytes.
func sealed(t *testing.T, w *Writer, f *os.File) []byte {
	t.Helper()
	if _, err := w.Seal(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func appendItem(t *testing.T, w *Writer, it item) {
	t.Helper()
	if _, err := w.Append(it.Record, strings.NewReader(it.content)); err != nil {
		t.Fatal(err)
	}
}

func TestNewWriterRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*WriterConfig)
	}{
		{"no pack id", func(c *WriterConfig) { c.Pack = PackID{} }},
		{"negative chunks", func(c *WriterConfig) { c.ChunkSize = -1 }},
		{"huge chunks", func(c *WriterConfig) { c.ChunkSize = MaxPlain + 1 }},
		{"negative threshold", func(c *WriterConfig) { c.ChunkThreshold = -1 }},
		{"huge threshold", func(c *WriterConfig) { c.ChunkThreshold = MaxPlain + 1 }},
		{"too many replaced packs", func(c *WriterConfig) { c.Replaces = make([]PackID, MaxReplaces+1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig()
			tc.set(&cfg)
			if _, err := NewWriter(testFile(t), cfg); !errors.Is(err, ErrBadConfig) {
				t.Errorf("got %v, want ErrBadConfig", err)
			}
		})
	}
}

// TestWriterRefusesRecords: what the Writer refuses leaves no trace in the pack.
func TestWriterRefusesRecords(t *testing.T) {
	items := sortItems([]item{fileItem("first", "1"), fileItem("second", "2"), fileItem("third", "3")})
	h := items[1].Hash()
	narrow, err := NewRange(h.Shard(16), 16)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*Record)) func(*WriterConfig) item {
		return func(*WriterConfig) item {
			it := items[1]
			f(&it.Record)
			return it
		}
	}
	for _, tc := range []struct {
		name string
		bad  func(*WriterConfig) item
		want error
	}{
		{"falling hash", func(*WriterConfig) item { return items[0] }, ErrOutOfOrder},
		{"hash above the range", func(c *WriterConfig) item { c.Range = narrow; return items[2] }, ErrOutOfRange},
		{"hash below the range", func(c *WriterConfig) item { c.Range = narrow; return items[0] }, ErrOutOfRange},
		{"no name", change(func(r *Record) { r.Name = "" }), ErrBadRecord},
		{"long name", change(func(r *Record) { r.Name = strings.Repeat("n", MaxName+1) }), ErrBadRecord},
		{"name not UTF-8", change(func(r *Record) { r.Name = "\xff" }), ErrBadRecord},
		{"long id", change(func(r *Record) { r.ID = strings.Repeat("i", MaxID+1) }), ErrBadRecord},
		{"long source", change(func(r *Record) { r.Source = strings.Repeat("s", MaxSource+1) }), ErrBadRecord},
		{"long tenant", change(func(r *Record) { r.Tenant = strings.Repeat("t", MaxTenant+1) }), ErrBadRecord},
		{"unknown type", change(func(r *Record) { r.Type = 9 }), ErrBadRecord},
		{"void with a name", change(func(r *Record) { r.Type = TypeVoid }), ErrBadRecord},
		{"tombstone with content", change(func(r *Record) { r.Type = TypeTombstone }), ErrBadRecord},
		{"huge metadata", change(func(r *Record) { r.Meta.Custom = make([]byte, MaxHeader) }), ErrBadRecord},
		{"known field as unknown", change(func(r *Record) { r.Meta.Unknown = []TLV{{tlvCustom, nil}} }), ErrBadRecord},
		{"critical field", change(func(r *Record) { r.Meta.Unknown = []TLV{{tlvCritical | 9, nil}} }), ErrBadRecord},
		{"fields out of order", change(func(r *Record) { r.Meta.Unknown = []TLV{{9, nil}, {8, nil}} }), ErrBadRecord},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig()
			bad := tc.bad(&cfg)
			w, f := begin(t, cfg)
			appendItem(t, w, items[1])
			before := w.Bytes()
			if _, err := w.Append(bad.Record, strings.NewReader(bad.content)); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if w.Records() != 1 || w.Bytes() != before {
				t.Errorf("%d records, %d bytes; want 1 and %d", w.Records(), w.Bytes(), before)
			}
			want, _, _ := build(t, cfg, items[1:2])
			if got := sealed(t, w, f); !bytes.Equal(got, want) {
				t.Error("the refused record left a trace")
			}
		})
	}
}

// TestContentThatFails: a content that breaks off, wherever it does, leaves
// the pack as if it had never been offered.
func TestContentThatFails(t *testing.T) {
	items := sortItems([]item{fileItem("a", "AAA"), fileItem("b", "BBB"), fileItem("c", "CCC")})
	want, _, _ := build(t, testConfig(), []item{items[0], items[2]})
	errDisk := errors.New("disk on fire")
	for _, failure := range []error{errDisk, io.ErrUnexpectedEOF, io.ErrNoProgress} {
		for _, n := range []int{0, 1, 63, 64, 65, 96, 200} {
			w, f := begin(t, testConfig())
			appendItem(t, w, items[0])
			content := io.MultiReader(strings.NewReader(strings.Repeat("x", n)), iotest.ErrReader(failure))
			if _, err := w.Append(items[1].Record, content); !errors.Is(err, failure) {
				t.Fatalf("content that fails after %d bytes: %v, want %v", n, err, failure)
			}
			if err := w.Undo(); !errors.Is(err, ErrNothingToUndo) {
				t.Fatalf("Undo after a failed Append: %v", err)
			}
			appendItem(t, w, items[2])
			if got := sealed(t, w, f); !bytes.Equal(got, want) {
				t.Fatalf("content that failed after %d bytes left a trace", n)
			}
		}
	}
}

// TestReadersOfEveryKind: how content is handed over makes no difference, and
// neither does a wrong hint.
func TestReadersOfEveryKind(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 96, 127, 128, 129, 300} {
		it := fileItem("a", strings.Repeat("x", n))
		want, _, _ := build(t, testConfig(), []item{it})
		for _, hint := range []int64{-5, 0, 1, 64, 1000, 1 << 40} {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"plain": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader,
				"half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
			} {
				w, f := begin(t, testConfig())
				hinted := it.Record
				hinted.Size = hint
				if _, err := w.Append(hinted, wrap(strings.NewReader(it.content))); err != nil {
					t.Fatal(err)
				}
				if got := sealed(t, w, f); !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, hint %d, %s: another pack", n, hint, name)
				}
			}
		}
	}
	// Hints whose varint is shorter or longer than the truth.
	cfg := testConfig()
	cfg.ChunkThreshold = 1 << 20
	for _, n := range []int{0, 127, 128, 16_383, 16_384, 300_000} {
		it := fileItem("a", strings.Repeat("x", n))
		it.Size = int64(n)
		want, _, _ := build(t, cfg, []item{fileItem("a", ""), it, fileItem("a", "behind")})
		for _, hint := range []int64{0, 127, 128, 16_384, 1 << 20} {
			it.Size = hint
			if got, _, _ := build(t, cfg, []item{fileItem("a", ""), it, fileItem("a", "behind")}); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, hint %d: another pack", n, hint)
			}
		}
	}
	w, _ := begin(t, testConfig())
	if _, err := w.Append(fileItem("a", "").Record, idleReader{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("reader that never yields: %v", err)
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

// TestUndo: whatever was undone leaves no trace, small or in chunks, in the
// buffer or already in the file.
func TestUndo(t *testing.T) {
	small, large := strings.Repeat("s", 10), strings.Repeat("l", 500)
	for _, tc := range []struct {
		name   string
		before []string
		undone string
		after  []string
	}{
		{"only record", nil, small, nil},
		{"only record, chunks", nil, large, nil},
		{"small behind small", []string{small}, small, []string{small}},
		{"chunks behind small", []string{small}, large, []string{large}},
		{"small behind chunks", []string{large}, small, []string{small}},
		{"chunks behind chunks", []string{large}, large, []string{large, small}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, f := begin(t, testConfig())
			var kept []item
			for i, content := range append(append(append([]string{}, tc.before...), tc.undone), tc.after...) {
				it := fileItem("one name", content) // equal hashes are in order
				it.Seq = Token{1, uint64(100 - i)}
				appendItem(t, w, it)
				if i != len(tc.before) {
					kept = append(kept, it)
				} else if err := w.Undo(); err != nil {
					t.Fatal(err)
				} else if err := w.Undo(); !errors.Is(err, ErrNothingToUndo) {
					t.Fatalf("second Undo: %v", err)
				}
			}
			want, _, _ := build(t, testConfig(), kept)
			if got := sealed(t, w, f); !bytes.Equal(got, want) {
				t.Error("the undone record left a trace")
			}
		})
	}
}

func TestUseAfterSeal(t *testing.T) {
	w, f := begin(t, testConfig())
	appendItem(t, w, fileItem("a", "A"))
	sealed(t, w, f)
	_, errAppend := w.Append(fileItem("b", "B").Record, nil)
	_, errSeal := w.Seal()
	for _, err := range []error{errAppend, errSeal, w.Undo()} {
		if !errors.Is(err, ErrSealed) {
			t.Errorf("got %v, want ErrSealed", err)
		}
	}
}

// TestWriterKeepsTimesAsTheyAre: zones do not matter, instants do.
func TestWriterKeepsTimesAsTheyAre(t *testing.T) {
	for _, when := range []time.Time{
		{}, time.Unix(0, 0), time.Unix(-1, 999_999_999), time.Unix(253402300799, 1).In(time.FixedZone("odd", 1234)), time.Unix(-62135596800, 1),
	} {
		it := fileItem("a", "A")
		it.ModTime, it.SourceTime, it.Meta.Created = when, when.Add(-time.Millisecond), when
		pack, _, _ := build(t, testConfig(), []item{it})
		r, _ := open(t, pack)
		got, err := listed(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if e := got[0]; !e.ModTime.Equal(when) || !e.SourceTime.Equal(it.SourceTime) || !e.Meta.Created.Equal(when) {
			t.Errorf("%v: got %v, %v and %v", when, e.ModTime, e.SourceTime, e.Meta.Created)
		}
	}
}
