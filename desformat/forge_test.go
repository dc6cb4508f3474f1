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
	records  []byte
	catalog  []byte
	index    []byte
	replaces []byte
	footer   Footer
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
		{"range", func(p *parts) { p.footer.Range = Range{prefix: ^entries[0].Hash().Top32() & (1 << 31), bits: 1} }},
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
		if err := r.Verify(t.Context(), nil); !errors.As(err, &c) || c.Offset != e.Offset || c.Pack != footer.Pack {
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
