package desformat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

// parts is a pack taken apart, to be put together wrongly with checksums that
// are right: what no Writer makes, and a reader must notice all the same.
type parts struct {
	records []byte
	catalog []byte
	index   []byte
	footer  Footer
}

func takeApart(b []byte, f Footer) parts {
	return parts{
		records: slices.Clone(b[packHeaderLen:f.Catalog.Offset]),
		catalog: slices.Clone(b[f.Catalog.Offset:f.Index.Offset]),
		index:   slices.Clone(b[f.Index.Offset : f.Index.Offset+f.Index.Length]),
		footer:  f,
	}
}

// assemble joins the parts and makes every place and checksum fit.
func (p parts) assemble() []byte {
	f := p.footer
	b := append(encodePackHeader(&f), p.records...)
	f.Catalog = Section{int64(len(b)), int64(len(p.catalog)), crc32c(p.catalog)}
	b = append(b, p.catalog...)
	f.Index = Section{int64(len(b)), int64(len(p.index)), crc32c(p.index)}
	b = append(b, p.index...)
	b = append(b, encodeReplaces(f.Replaces)...)
	f.SHA256 = sha256.Sum256(b)
	return append(b, encodeFooter(&f)...)
}

// fixHeader makes the checksum of the record header at the start of b right.
func fixHeader(b []byte) {
	n := binary.LittleEndian.Uint32(b[leadLength:])
	binary.LittleEndian.PutUint32(b, crc32c(b[leadLength:n]))
}

// TestVerifyNoticesContradictions: parts that are right by their checksums
// but do not belong together.
func TestVerifyNoticesContradictions(t *testing.T) {
	items := sortItems([]item{fileItem("a", "AAA"), fileItem("b", "BBB"), fileItem("c", "CCC")})
	raw, entries, footer := build(t, testConfig(), items)
	other := sortItems([]item{fileItem("a", "AAA"), fileItem("b", "XXX"), fileItem("c", "CCC")})
	rawOther, _, footerOther := build(t, testConfig(), other)
	apart := takeApart(rawOther, footerOther)
	at := func(i int) int64 { return entries[i].Offset - packHeaderLen }
	for _, tc := range []struct {
		name  string
		forge func(*parts)
	}{
		{"catalog of another pack", func(p *parts) { p.catalog = apart.catalog }},
		{"records of another pack", func(p *parts) { p.records = apart.records }},
		{"no index entry for a record", func(p *parts) {
			x := newIndexBuilder(2, Range{})
			x.add(entries[0].Hash(), entries[1].Offset)
			x.add(entries[2].Hash(), p.footer.Catalog.Offset)
			p.index = x.finish()
		}},
		{"index with another hash", func(p *parts) {
			x := newIndexBuilder(3, Range{})
			x.add(NameHash{}, entries[1].Offset)
			x.add(entries[1].Hash(), entries[2].Offset)
			x.add(entries[2].Hash(), p.footer.Catalog.Offset)
			p.index = x.finish()
		}},
		{"content and its hash", func(p *parts) {
			b := p.records[at(1):]
			n := binary.LittleEndian.Uint32(b[leadLength:])
			copy(b[n:], "YYY")
			sum := sha256.Sum256([]byte("YYY"))
			copy(b[leadSHA:], sum[:])
			fixHeader(b)
		}},
		{"name", func(p *parts) {
			b := p.records[at(1):]
			i := bytes.Index(b, []byte("\x01b\x00"))
			b[i+1]++
			fixHeader(b)
		}},
		{"records out of order", func(p *parts) {
			first, second := p.records[:at(1)], p.records[at(1):at(2)]
			p.records = slices.Concat(second, first, p.records[at(2):])
		}},
		{"record count", func(p *parts) { p.footer.Records-- }},
		{"payload bytes", func(p *parts) { p.footer.PayloadBytes-- }},
		{"lowest seq", func(p *parts) { p.footer.MinSeq.Index-- }},
		{"highest seq", func(p *parts) { p.footer.MaxSeq.Index++ }},
		{"range", func(p *parts) {
			p.footer.Range = Range{prefix: ^entries[0].Hash().Top32() & (1 << 31), bits: 1}
			x := newIndexBuilder(3, p.footer.Range)
			for _, e := range entries {
				x.add(e.Hash(), e.Offset+e.Length)
			}
			p.index = x.finish()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := takeApart(raw, footer)
			tc.forge(&p)
			b := p.assemble()
			r, err := OpenPack(t.Context(), FetchReaderAt(bytes.NewReader(b)), int64(len(b)))
			if err != nil {
				t.Fatalf("the forgery does not even open: %v", err)
			}
			if err := r.Verify(t.Context(), nil); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Verify: %v, want ErrCorrupt", err)
			}
		})
	}
	p := takeApart(raw, footer)
	if !bytes.Equal(p.assemble(), raw) {
		t.Error("assemble changes what nobody forged")
	}
}

// TestIndexAndCatalogBelongToTheirPack: each read on its own notices that it
// is another pack's.
func TestIndexAndCatalogBelongToTheirPack(t *testing.T) {
	items := sortItems([]item{fileItem("a", "AAA"), fileItem("b", "BBB"), fileItem("c", "CCC")})
	raw, _, footer := build(t, testConfig(), items)
	lessRaw, _, lessFooter := build(t, testConfig(), items[:2])
	p, less := takeApart(raw, footer), takeApart(lessRaw, lessFooter)
	p.index, p.catalog = less.index, less.catalog
	r, _ := open(t, p.assemble())
	if _, err := r.Index(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Index: %v, want ErrCorrupt", err)
	}
	if _, err := listed(t.Context(), r); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Catalog: %v, want ErrCorrupt", err)
	}
	p = takeApart(raw, footer)
	x := newIndexBuilder(3, Range{})
	for i, it := range items {
		x.add(it.Hash(), packHeaderLen+int64(i+1)*70)
	}
	p.index = x.finish() // right in itself, of shorter records
	r, _ = open(t, p.assemble())
	if _, err := r.Index(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Index that ends before the records: %v, want ErrCorrupt", err)
	}
	p = takeApart(raw, footer)
	p.footer.Records-- // a count that only the catalog's end contradicts
	r, _ = open(t, p.assemble())
	if _, err := listed(t.Context(), r); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Catalog with a record too many: %v, want ErrCorrupt", err)
	}
}

// TestVerifyHoldsThePackAgainstItsHash: the SHA-256 in the footer, which the
// manifest repeats, is that of the bytes.
func TestVerifyHoldsThePackAgainstItsHash(t *testing.T) {
	raw, _, footer := build(t, testConfig(), []item{fileItem("a", "AAA")})
	if sha256.Sum256(raw[:footer.Size-footerLen]) != footer.SHA256 {
		t.Error("the Writer returned another SHA-256 than that of the bytes before the footer")
	}
	end := raw[footer.Size-footerLen:]
	end[0] ^= 1
	binary.LittleEndian.PutUint32(end[footerCRC:], footerSum(end))
	r, _ := open(t, raw)
	if err := r.Verify(t.Context(), nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Verify: %v, want ErrCorrupt", err)
	}
}

// TestFooterContradictions: counts and places that no pack can have, under a
// checksum that is right.
func TestFooterContradictions(t *testing.T) {
	raw, _, footer := build(t, testConfig(), []item{fileItem("a", "AAA")})
	for _, tc := range []struct {
		name  string
		forge func(b []byte) // the footer
	}{
		{"catalog before the header", func(b []byte) { binary.LittleEndian.PutUint64(b[144:], 0) }},
		{"catalog behind the end", func(b []byte) { binary.LittleEndian.PutUint64(b[144:], 1<<40) }},
		{"catalog at a negative place", func(b []byte) { b[151] = 0x80 }},
		{"catalog too long", func(b []byte) { b[152]++ }},
		{"no catalog", func(b []byte) { binary.LittleEndian.PutUint64(b[152:], 0) }},
		{"index elsewhere", func(b []byte) { b[164]++ }},
		{"index too long", func(b []byte) { b[172]++ }},
		{"index of negative length", func(b []byte) { b[179] = 0x80 }},
		{"no records", func(b []byte) { binary.LittleEndian.PutUint32(b[132:], 0) }},
		{"more records than bytes", func(b []byte) { binary.LittleEndian.PutUint32(b[132:], 1000) }},
		{"more payload than bytes", func(b []byte) { binary.LittleEndian.PutUint64(b[136:], 1<<40) }},
		{"negative payload", func(b []byte) { b[143] = 0x80 }},
		{"replaced packs that are not there", func(b []byte) { b[184]++ }},
		{"range with bits behind its prefix", func(b []byte) { b[112]++ }},
		{"range too long", func(b []byte) { b[116] = 33 }},
		{"range padding", func(b []byte) { b[119] = 1 }},
		{"nanoseconds", func(b []byte) { binary.LittleEndian.PutUint32(b[128:], 1e9) }},
		{"another pack's", func(b []byte) { b[32]++ }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := slices.Clone(raw)
			end := b[footer.Size-footerLen:]
			tc.forge(end)
			binary.LittleEndian.PutUint32(end[footerCRC:], footerSum(end))
			if _, err := OpenPack(t.Context(), FetchReaderAt(bytes.NewReader(b)), footer.Size); !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
		})
	}
}

// TestHeaderContradictions: fields that do not go together, under a checksum
// that is right.
func TestHeaderContradictions(t *testing.T) {
	plain := func() Header {
		return Header{Record: fileItem("a", "").Record, StoredLen: 0}
	}
	encode := func(change func(*Header)) []byte {
		h := plain()
		change(&h)
		return appendHeader(nil, &h, 0)
	}
	insert := func(at int, v ...byte) []byte {
		return slices.Insert(encode(func(*Header) {}), at, v...)
	}
	behind := len(encode(func(*Header) {}))
	chunks := plain()
	chunks.Size, chunks.ChunkLen, chunks.StoredLen = 100, 10, storedLen(100, 10)
	padded := appendHeader(nil, &chunks, int64(behind+20))
	padded[behind+10] = 1
	for _, tc := range []struct {
		name string
		b    []byte
	}{
		{"stored length", encode(func(h *Header) { h.StoredLen = 1 })},
		{"stored length with chunks", encode(func(h *Header) { h.Size, h.StoredLen, h.ChunkLen = 100, 100, 10 })},
		{"chunks of nothing", encode(func(h *Header) { h.ChunkLen = 10 })},
		{"chunk too long", encode(func(h *Header) {
			h.Size, h.ChunkLen = MaxPlain+2, MaxPlain+1
			h.StoredLen = storedLen(h.Size, h.ChunkLen)
		})},
		{"no chunks though too long", encode(func(h *Header) { h.Size, h.StoredLen = MaxPlain+1, MaxPlain+1 })},
		{"content too long", encode(func(h *Header) {
			h.Size, h.ChunkLen = MaxSize+1, 1<<20
			h.StoredLen = storedLen(h.Size, h.ChunkLen)
		})},
		{"no name", encode(func(h *Header) { h.Name = "" })},
		{"name too long", encode(func(h *Header) { h.Name = strings.Repeat("n", MaxName+1) })},
		{"name not UTF-8", encode(func(h *Header) { h.Name = "\xff" })},
		{"id too long", encode(func(h *Header) { h.ID = strings.Repeat("i", MaxID+1) })},
		{"source too long", encode(func(h *Header) { h.Source = strings.Repeat("s", MaxSource+1) })},
		{"void with a name", encode(func(h *Header) { h.Type = TypeVoid })},
		{"tombstone with content", encode(func(h *Header) { h.Type, h.Size, h.StoredLen = TypeTombstone, 1, 1 })},
		{"metadata out of order", encode(func(h *Header) { h.Meta.Unknown = []TLV{{9, nil}, {8, nil}} })},
		{"metadata twice", encode(func(h *Header) { h.Meta.Retention = "r"; h.Meta.Unknown = []TLV{{tlvRetention, []byte("s")}} })},
		{"empty content type", encode(func(h *Header) { h.Meta.Unknown = []TLV{{tlvContentType, nil}} })},
		{"created that is no time", encode(func(h *Header) { h.Meta.Unknown = []TLV{{tlvCreated, []byte{1}}} })},
		{"created and more", encode(func(h *Header) { h.Meta.Unknown = []TLV{{tlvCreated, []byte{1, 1, 1}}} })},
		{"padding that is not zero", padded},
		{"padding without chunks", insert(behind, 0)},
		{"long varint", slices.Replace(insert(leadLen+4, 0), leadLen+4, leadLen+6, 0x81, 0x00)},
		{"endless varint", insert(leadLen+4, bytes.Repeat([]byte{0xff}, 12)...)},
		{"cut", encode(func(*Header) {})[:behind-1]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			honestHeader(tc.b, len(tc.b))
			var h Header
			if _, err := parseHeader(tc.b, &h); !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
		})
	}
	var h Header
	if _, err := parseHeader(encode(func(*Header) {}), &h); err != nil {
		t.Errorf("the header that nobody forged: %v", err)
	}
}

// TestUnknownIsRefusedOrKept: a newer version's fields.
func TestUnknownIsRefusedOrKept(t *testing.T) {
	it := fileItem("a", "AAA")
	it.Meta.Unknown = []TLV{{0x1234, []byte("new")}}
	raw, entries, _ := build(t, testConfig(), []item{it})
	record := raw[entries[0].Offset:][:entries[0].Length]
	if h, _, err := ParseRecord(record); err != nil || len(h.Meta.Unknown) != 1 || string(h.Meta.Unknown[0].Value) != "new" {
		t.Errorf("unknown field: %+v, %v; want it kept", h, err)
	}
	for _, tc := range []struct {
		name  string
		forge func(b []byte)
	}{
		{"type", func(b []byte) { b[leadLen] = 4 }},
		{"flags", func(b []byte) { b[leadLen+1] = 1 }},
		{"codec", func(b []byte) { b[leadLen+2] = 1 }},
		{"encryption", func(b []byte) { b[leadLen+3] = 1 }},
		{"critical field", func(b []byte) { b[bytes.Index(b, []byte{0x34, 0x12})+1] |= 0x80 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := slices.Clone(raw)
			rec := b[entries[0].Offset:][:entries[0].Length]
			tc.forge(rec)
			fixHeader(rec)
			if _, _, err := ParseRecord(rec); !errors.Is(err, ErrVersion) {
				t.Errorf("ParseRecord: %v, want ErrVersion", err)
			}
			r, f := open(t, b)
			if _, err := OpenRecord(t.Context(), f, entries[0].Location); !errors.Is(err, ErrVersion) {
				t.Errorf("OpenRecord: %v, want ErrVersion", err)
			}
			if err := r.Verify(t.Context(), nil); !errors.Is(err, ErrVersion) {
				t.Errorf("Verify: %v, want ErrVersion", err)
			}
		})
	}
}

// TestCatalogBombIsRefused: a block that claims or unpacks to more than a
// block may hold is refused before it takes memory.
func TestCatalogBombIsRefused(t *testing.T) {
	c, err := newCatalogBuilder()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	zeros := make([]byte, 64<<20)
	for _, tc := range []struct {
		name  string
		plain uint32
	}{{"honest", uint32(len(zeros))}, {"too little", 1000}, {"at the limit", blockLimit}} {
		t.Run(tc.name, func(t *testing.T) {
			c.hashes, c.fields, c.first = make([]byte, sha256.Size), zeros, Location{Offset: packHeaderLen}
			b := slices.Clone(c.take())
			binary.LittleEndian.PutUint32(b[12:], tc.plain)
			binary.LittleEndian.PutUint32(b, crc32c(b[4:]))
			pack := append(make([]byte, 1000), b...)
			s := Section{1000, int64(len(b)), crc32c(b)}
			before := allocated()
			_, err := catalogOf(t.Context(), FetchReaderAt(bytes.NewReader(pack)), s)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
			if grown := allocated() - before; grown > 16<<20 {
				t.Errorf("%d bytes allocated", grown)
			}
		})
	}
}

func catalogOf(ctx context.Context, f Fetcher, s Section) (entries []Entry, err error) {
	for e, err := range ReadCatalog(ctx, f, s) {
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// TestCatalogEndsWhenAsked: a consumer may stop, and a context may end it.
func TestCatalogEndsWhenAsked(t *testing.T) {
	raw, _, _ := build(t, testConfig(), manyItems(100))
	r, _ := open(t, raw)
	n := 0
	for _, err := range r.Catalog(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("stopped after %d", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := listed(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("catalog under a cancelled context: %v", err)
	}
	if err := r.Verify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify under a cancelled context: %v", err)
	}
	errCaller := errors.New("caller's own")
	if err := r.Verify(t.Context(), func(Entry) error { return errCaller }); !errors.Is(err, errCaller) {
		t.Errorf("Verify with a failing callback: %v", err)
	}
}

func TestCorruptErrorSaysWhere(t *testing.T) {
	raw, entries, footer := build(t, testConfig(), sortItems([]item{fileItem("a", "AAA"), fileItem("b", strings.Repeat("b", 100))}))
	for _, e := range entries {
		b := slices.Clone(raw)
		b[e.Offset+60] ^= 1
		r, _ := open(t, b)
		var c *CorruptError
		err := r.Verify(t.Context(), nil)
		if !errors.As(err, &c) || c.Offset != e.Offset || c.Pack != footer.Pack || !strings.Contains(err.Error(), footer.Pack.String()) {
			t.Errorf("record at %d: %v", e.Offset, err)
		}
	}
	b := slices.Clone(raw)
	b[entries[0].Offset+entries[0].Length-1] ^= 1
	b[entries[1].Offset+entries[1].Length-1] ^= 1
	for _, e := range entries {
		var c *CorruptError
		err := readWhole(t.Context(), FetchReaderAt(bytes.NewReader(b)), expectedRecord{Entry: e, Content: []byte(strings.Repeat("b", 100))})
		if !errors.As(err, &c) || c.Offset < e.Offset || c.Offset >= e.Offset+e.Length {
			t.Errorf("record at %d+%d: %v", e.Offset, e.Length, err)
		}
	}
}
