package desformat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The fuzz targets make the checksums of their input right where a checksum
// would keep the fuzzer from what lies behind it. The seeds in testdata/fuzz
// come from the golden vectors.

// documented fails the test when err is not one of a reader's errors.
func documented(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrNotPack) {
		t.Fatalf("undocumented error %v", err)
	}
}

// honestHeader makes length and checksum of a record's header right.
func honestHeader(b []byte, n int) {
	if len(b) >= leadLen && n <= len(b) && n >= leadLen {
		binary.LittleEndian.PutUint32(b[leadLength:], uint32(n))
		binary.LittleEndian.PutUint32(b, crc32c(b[leadLength:n]))
	}
}

// FuzzHeader: a header that is accepted is the one encoding of what it says.
func FuzzHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b) // the engine keeps the original
		honestHeader(b, len(b))
		var h Header
		if _, err := parseHeader(b, &h); err != nil {
			documented(t, err)
			return
		}
		reserve := int64(0)
		if h.ChunkLen > 0 {
			reserve = h.HeaderLen
		}
		if again := appendHeader(nil, &h, reserve); !bytes.Equal(again, b) {
			t.Fatalf("%+v\nis\n%x, not\n%x", h, again, b)
		}
	})
}

// FuzzRecord: a record reads the same in memory and as a stream.
func FuzzRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b) // the engine keeps the original
		if len(b) >= leadLen {
			n := int(binary.LittleEndian.Uint32(b[leadLength:]))
			if n >= leadLen && n <= len(b) && b[leadSHA] != 0 { // a zero byte keeps a wrong hash
				sum := sha256.Sum256(b[n:])
				copy(b[leadSHA:], sum[:])
			}
			honestHeader(b, n)
		}
		h, content, err := ParseRecord(b)
		documented(t, err)
		loc := Location{Offset: packHeaderLen, Length: int64(len(b))}
		src := FetchReaderAt(bytes.NewReader(append(make([]byte, packHeaderLen), b...)))
		var got []byte
		r, errStream := OpenRecord(t.Context(), src, loc)
		if errStream == nil {
			got, errStream = io.ReadAll(r)
		}
		documented(t, errStream)
		if (err == nil) != (errStream == nil) || err == nil && !bytes.Equal(got, content) {
			t.Fatalf("in memory %x, %v; as a stream %x, %v", content, err, got, errStream)
		}
		if err != nil {
			return
		}
		for _, off := range []int64{0, h.Size / 2, h.Size} {
			part, err := OpenContent(t.Context(), src, loc, h, off, 10)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(part); err != nil || !bytes.Equal(got, content[off:min(off+10, h.Size)]) {
				t.Fatalf("from byte %d: %x, %v", off, got, err)
			}
		}
	})
}

// FuzzIndex: whatever was accepted, no lookup leaves the pack.
func FuzzIndex(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, start int64, key uint64) {
		x, err := ParseIndex(b, Section{Offset: start, Length: int64(len(b)), CRC: crc32c(b)})
		if err != nil {
			documented(t, err)
			return
		}
		for i := range uint64(64) {
			for _, loc := range x.Lookup(keyed(Range{bits: x.geo.rangeBits}, key+i<<58), nil) {
				if loc.Offset < packHeaderLen || loc.Length < minHeader || loc.Offset+loc.Length > start || loc.Ordinal >= x.records {
					t.Fatalf("lookup yields %v in a pack whose records end at %d", loc, start)
				}
			}
		}
	})
}

// FuzzCatalog: n entries of the given fields, or, when n is 0, the bytes of a
// whole catalog.
func FuzzCatalog(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, n uint8, end int64) {
		if n > 0 {
			c, err := newCatalogBuilder()
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			c.hashes, c.fields, c.first = make([]byte, int(n)*sha256.Size), bytes.Clone(b), Location{Offset: packHeaderLen}
			b = c.take()
		}
		if end < packHeaderLen || end > 1<<20 {
			end = packHeaderLen
		}
		src := FetchReaderAt(bytes.NewReader(append(make([]byte, end), b...)))
		entries, err := catalogOf(t.Context(), src, Section{Offset: end, Length: int64(len(b)), CRC: crc32c(b)})
		documented(t, err)
		next := Location{Offset: packHeaderLen}
		for _, e := range entries {
			if e.Ordinal != next.Ordinal || e.Offset != next.Offset || e.Length < minHeader || e.Offset+e.Length > end {
				t.Fatalf("entry at %v behind %v in a pack whose records end at %d", e.Location, next, end)
			}
			next = Location{Ordinal: e.Ordinal + 1, Offset: e.Offset + e.Length}
		}
	})
}

// FuzzFooter: a footer that is accepted is the one encoding of what it says,
// and its parts fill the pack.
func FuzzFooter(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		b = bytes.Clone(b) // the engine keeps the original
		if len(b) == footerLen {
			copy(b[footerMagic:], endMagic)
			binary.LittleEndian.PutUint32(b[footerCRC:], footerSum(b))
		}
		footer, replaces, sum, err := parseFooter(b, size)
		if err != nil {
			documented(t, err)
			return
		}
		if footer.Index.Offset+footer.Index.Length+replaces+footerLen != size || footer.Catalog.Offset > size {
			t.Fatalf("%+v does not fill %d bytes", footer, size)
		}
		again := encodeFooter(footer)
		binary.LittleEndian.PutUint32(again[184:], uint32(replaces/16))
		binary.LittleEndian.PutUint32(again[188:], sum)
		binary.LittleEndian.PutUint32(again[footerCRC:], footerSum(again))
		if !bytes.Equal(again, b) {
			t.Fatalf("%+v\nis\n%x, not\n%x", footer, again, b)
		}
	})
}

// FuzzPack: whatever a file holds, reading all of it ends with a documented
// error or with a pack that all readers agree about.
func FuzzPack(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, honest bool) {
		b = bytes.Clone(b) // the engine keeps the original
		if honest && len(b) >= packHeaderLen+footerLen {
			binary.LittleEndian.PutUint32(b[packHeaderCRC:], crc32c(b[:packHeaderCRC]))
			end := b[len(b)-footerLen:]
			binary.LittleEndian.PutUint32(end[footerCRC:], footerSum(end))
		}
		r, err := OpenPack(t.Context(), FetchReaderAt(bytes.NewReader(b)), int64(len(b)))
		if err != nil {
			documented(t, err)
			return
		}
		errVerify := r.Verify(t.Context(), nil)
		documented(t, errVerify)
		entries, errCatalog := listed(t.Context(), r)
		documented(t, errCatalog)
		x, errIndex := r.Index(t.Context())
		documented(t, errIndex)
		if errVerify == nil && (errCatalog != nil || errIndex != nil) {
			t.Fatalf("Verify finds it right, but: %v, %v", errCatalog, errIndex)
		}
		for _, e := range entries {
			_, err := ReadHeader(t.Context(), r.f, e.Location)
			documented(t, err)
			if errIndex == nil {
				x.Lookup(e.Hash(), nil)
			}
		}
	})
}

// seeds returns the seeds of each target, as lines of a corpus file.
func seeds(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	add := func(target string, lines ...string) {
		all[target] = append(all[target], strings.Join(lines, "\n"))
	}
	raw := func(b []byte) string { return fmt.Sprintf("[]byte(%q)", b) }
	for _, v := range goldenVectors(t) {
		pack, want := loadVector(t, v.name)
		footer := &want.Footer
		for i, rec := range want.Records {
			if i >= 5 {
				break
			}
			b := pack[rec.Offset:][:rec.Length]
			add("FuzzHeader", raw(b[:binary.LittleEndian.Uint32(b[leadLength:])]))
			add("FuzzRecord", raw(b))
		}
		catalog := pack[footer.Catalog.Offset:footer.Index.Offset]
		add("FuzzCatalog", raw(catalog), "byte('\\x00')", fmt.Sprintf("int64(%d)", footer.Catalog.Offset))
		if n := len(want.Records); n > 0 && n < 100 {
			c, err := newCatalogReader(bytes.NewReader(catalog), footer.Catalog)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.readBlock(); err != nil {
				t.Fatal(err)
			}
			c.dec.Close()
			add("FuzzCatalog", raw(c.fields), fmt.Sprintf("byte('\\x%02x')", n), fmt.Sprintf("int64(%d)", footer.Catalog.Offset))
		}
		index := pack[footer.Index.Offset:][:footer.Index.Length]
		add("FuzzIndex", raw(index), fmt.Sprintf("int64(%d)", footer.Index.Offset), "uint64(0)")
		add("FuzzFooter", raw(pack[len(pack)-footerLen:]), fmt.Sprintf("int64(%d)", len(pack)))
		if len(pack) < 4096 {
			add("FuzzPack", raw(pack), "bool(true)")
		}
	}
	return all
}

// TestFuzzCorporaAreThere: no target runs without seeds. With -update it
// makes those that are missing.
func TestFuzzCorporaAreThere(t *testing.T) {
	for target, list := range seeds(t) {
		dir := filepath.Join("testdata", "fuzz", target)
		for i, seed := range list {
			path := filepath.Join(dir, fmt.Sprintf("seed-%02d", i))
			if _, err := os.Stat(path); *update && errors.Is(err, os.ErrNotExist) {
				writeNew(t, path, []byte("go test fuzz v1\n"+seed+"\n"))
			}
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) < 5 {
			t.Errorf("%s has %d seeds: %v", target, len(files), err)
		}
	}
}
