package desformat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// catalogBlock returns a block of n entries with these fields, the first of
// them at first.
func catalogBlock(t *testing.T, first Location, n int, fields []byte) []byte {
	t.Helper()
	c, err := newCatalogBuilder()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.hashes, c.fields, c.first = make([]byte, n*sha256.Size), fields, first
	return slices.Clone(c.take())
}

// TestCatalogContradictions: blocks whose checksum is right and whose content
// is not.
func TestCatalogContradictions(t *testing.T) {
	h := Header{Record: fileItem("a", "").Record}
	shared := appendFields(nil, &h)
	h.HeaderLen = int64(leadLen + len(shared))
	entry := func(headerLen int64, fields, source []byte) []byte {
		return slices.Concat(binary.AppendUvarint(nil, uint64(headerLen)), fields, source)
	}
	source := appendSource(nil, &h.Record)
	good := entry(h.HeaderLen, shared, source)
	home := Location{Offset: packHeaderLen}
	newer := slices.Clone(shared)
	newer[2] = 7 // codec
	repair := func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b, crc32c(b[4:]))
		return b
	}
	block := func(change func(b []byte)) []byte {
		b := catalogBlock(t, home, 1, good)
		change(b)
		return repair(b)
	}
	for _, tc := range []struct {
		name    string
		catalog []byte
		want    error
	}{
		{"nothing wrong", catalogBlock(t, home, 1, good), nil},
		{"header shorter than its fields", catalogBlock(t, home, 1, entry(h.HeaderLen-1, shared, source)), ErrCorrupt},
		{"header longer without chunks", catalogBlock(t, home, 1, entry(h.HeaderLen+1, shared, source)), ErrCorrupt},
		{"header of no length", catalogBlock(t, home, 1, entry(MaxHeader+1, shared, source)), ErrCorrupt},
		{"source time", catalogBlock(t, home, 1, entry(h.HeaderLen, shared, binary.AppendVarint([]byte{0, 0}, nanosPerSecond))), ErrCorrupt},
		{"no source time", catalogBlock(t, home, 1, entry(h.HeaderLen, shared, []byte{0})), ErrCorrupt},
		{"unknown codec", catalogBlock(t, home, 1, entry(h.HeaderLen, newer, source)), ErrVersion},
		{"one entry too few", catalogBlock(t, home, 1, slices.Concat(good, good)), ErrCorrupt},
		{"one entry too many", catalogBlock(t, home, 2, good), ErrCorrupt},
		{"a record behind the last one", catalogBlock(t, home, 2, slices.Concat(good, good)), ErrCorrupt},
		{"no entries", block(func(b []byte) { binary.LittleEndian.PutUint32(b[4:], 0) }), ErrCorrupt},
		{"first ordinal", catalogBlock(t, Location{Ordinal: 1, Offset: packHeaderLen}, 1, good), ErrCorrupt},
		{"first offset", catalogBlock(t, Location{Offset: packHeaderLen + 1}, 1, good), ErrCorrupt},
		{"longer than the catalog", block(func(b []byte) { b[8]++ }), ErrCorrupt},
		{"not zstd", block(func(b []byte) { b[blockHead+sha256.Size]++ }), ErrCorrupt},
		{"a head only", catalogBlock(t, home, 1, good)[:blockHead-1], ErrCorrupt},
		{"bytes behind the last block", append(catalogBlock(t, home, 1, good), 0), ErrCorrupt},
		{"fewer records than the pack", nil, ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			end := packHeaderLen + h.HeaderLen
			f := FetchReaderAt(bytes.NewReader(append(make([]byte, end), tc.catalog...)))
			s := Section{Offset: end, Length: int64(len(tc.catalog)), CRC: crc32c(tc.catalog)}
			entries, err := catalogOf(t.Context(), f, s)
			if !errors.Is(err, tc.want) || tc.want == nil && (err != nil || len(entries) != 1) {
				t.Errorf("%d entries, %v; want %v", len(entries), err, tc.want)
			}
		})
	}
}

// TestCatalogOfManyBlocks: entries go on over the borders of blocks, a block
// holds one entry larger than the target too.
func TestCatalogOfManyBlocks(t *testing.T) {
	items := manyItems(120)
	for i := range items {
		items[i].Meta.Custom = bytes.Repeat([]byte{byte(i)}, 2000)
	}
	items[60].Meta.Custom = bytes.Repeat([]byte("0123456789"), MaxHeader/2/10-10)
	pack, entries, footer := build(t, testConfig(), items)
	r, f := open(t, pack)
	got, err := listed(t.Context(), r)
	if err != nil || len(got) != len(entries) {
		t.Fatalf("%d entries of %d, %v", len(got), len(entries), err)
	}
	for i := range got {
		if !sameEntry(got[i], entries[i]) {
			t.Fatalf("entry %d: %+v, want %+v", i, got[i], entries[i])
		}
	}
	byManifest, err := catalogOf(t.Context(), f, footer.Catalog)
	if err != nil || len(byManifest) != len(entries) {
		t.Errorf("by the manifest: %d entries, %v", len(byManifest), err)
	}
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	other := footer.Catalog
	other.CRC++
	if _, err := catalogOf(t.Context(), f, other); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a catalog whose blocks are right and which is not the manifest's: %v, want ErrCorrupt", err)
	}
	for _, s := range []Section{{Offset: 5, Length: 10}, {Offset: footer.Catalog.Offset, Length: -1}, {Offset: 1 << 60}} {
		if _, err := catalogOf(t.Context(), f, s); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: %v, want ErrCorrupt", s, err)
		}
	}
}
