package desformat

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawTime(t *rapid.T, label string) time.Time {
	return time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, label), rapid.Int64Range(0, nanosPerSecond-1).Draw(t, label+" ns")).UTC()
}

// drawItem draws a record with any of its fields set, and its content, around
// the threshold and the chunk's length more often than elsewhere.
func drawItem(t *rapid.T) item {
	size := rapid.OneOf(rapid.SampledFrom([]int{0, 1, 31, 32, 33, 63, 64, 65, 96, 97}), rapid.IntRange(0, 400)).Draw(t, "size")
	it := item{content: string(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "content"))}
	it.Record = Record{
		Type:    TypeFile,
		Name:    rapid.OneOf(rapid.SampledFrom([]string{"same name", "other name"}), rapid.StringN(1, 40, 200)).Draw(t, "name"),
		Seq:     Token{rapid.Uint64Range(1, 1<<63).Draw(t, "generation"), rapid.Uint64().Draw(t, "index")},
		Source:  rapid.StringN(-1, 20, MaxSource).Draw(t, "source"),
		ID:      rapid.StringN(-1, 20, MaxID).Draw(t, "id"),
		Tenant:  rapid.SampledFrom([]string{"", "", "tenant"}).Draw(t, "tenant"),
		Version: rapid.Uint32().Draw(t, "version"),
		ModTime: drawTime(t, "mtime"),
	}
	it.SourceSize = rapid.Int64Range(0, 1<<40).Draw(t, "source size")
	it.SourceTime = drawTime(t, "source time")
	if rapid.Bool().Draw(t, "metadata") {
		it.Meta = Metadata{
			ContentType: rapid.StringN(-1, 10, 100).Draw(t, "content type"), Retention: rapid.StringN(-1, 10, 100).Draw(t, "retention"),
			Created: drawTime(t, "created"), Custom: rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "custom"),
		}
		for typ := uint16(tlvLastKnown); rapid.Bool().Draw(t, "more fields"); {
			typ += rapid.Uint16Range(1, 1000).Draw(t, "type")
			it.Meta.Unknown = append(it.Meta.Unknown, TLV{typ, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")})
		}
	}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		it.Type, it.content = TypeTombstone, ""
	case 1:
		it.Type, it.Name = TypeVoid, ""
	}
	return it
}

// TestWhatWasWrittenIsRead: any records, some of them undone or broken off,
// come back the same by catalog, by look-up, as streams and as ranges.
func TestWhatWasWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		items := rapid.SliceOfN(rapid.Custom(drawItem), 0, 40).Draw(rt, "items")
		cfg := testConfig()
		cfg.Range, _ = NewRange(rapid.Uint32Range(0, 1).Draw(rt, "range"), 1) // one bit is a range
		if rapid.Bool().Draw(rt, "whole space") {
			cfg.Range = Range{}
		}
		cfg.ChunkSize = rapid.IntRange(1, 64).Draw(rt, "chunk size")
		for range rapid.IntRange(0, 3).Draw(rt, "replaced") {
			cfg.Replaces = append(cfg.Replaces, PackID{byte(len(cfg.Replaces) + 1)})
		}
		f, err := os.CreateTemp(dir, "pack")
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
		want, footer := writeDrawn(rt, f, cfg, items)
		r, err := OpenPack(context.Background(), FetchReaderAt(f), footer.Size)
		if err != nil {
			rt.Fatal(err)
		}
		if !sameJSON(t, r.Footer(), footer) {
			rt.Fatalf("footer %+v, want %+v", r.Footer(), footer)
		}
		checkPack(t, r, FetchReaderAt(f), want)
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// writeDrawn writes those items that fit the range, in order, undoing some.
func writeDrawn(rt *rapid.T, f File, cfg WriterConfig, items []item) ([]expectedRecord, Footer) {
	w, err := NewWriter(f, cfg)
	if err != nil {
		rt.Fatal(err)
	}
	var want []expectedRecord
	for _, it := range sortItems(items) {
		if it.Type != TypeVoid && !cfg.Range.Contains(it.Hash()) {
			continue
		}
		e, err := w.Append(it.Record, strings.NewReader(it.content))
		if err != nil {
			rt.Fatal(err)
		}
		if rapid.IntRange(0, 4).Draw(rt, "undo") == 0 {
			if err := w.Undo(); err != nil {
				rt.Fatal(err)
			}
			continue
		}
		if e.Size != int64(len(it.content)) || int(e.Ordinal) != len(want) {
			rt.Fatalf("entry %+v for %d bytes", e, len(it.content))
		}
		expected := Entry{Record: it.Record, Location: e.Location}
		expected.Size, expected.SHA256 = e.Size, e.SHA256
		want = append(want, expectedRecord{Entry: expected, Content: []byte(it.content)})
	}
	footer, err := w.Seal()
	if err != nil || int(footer.Records) != len(want) {
		rt.Fatalf("sealed %d of %d records: %v", footer.Records, len(want), err)
	}
	return want, footer
}
