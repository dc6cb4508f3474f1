package desformat

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// Verify reads the whole pack in one sequential fetch and checks all of it:
// every record with its content, the order of the hashes and the range, that
// catalog and index list exactly these records, the counts in the footer, and
// the SHA-256 of the whole. It calls each, when not nil, for every record once
// that is found right; an error from each ends it. Source size and time, which
// only the catalog has, are zero there. Memory is bounded by the index, twice,
// and the largest chunk.
func (r *Reader) Verify(ctx context.Context, each func(Entry) error) error {
	body, err := r.f.Fetch(ctx, 0, r.footer.Size)
	if err != nil {
		return fmt.Errorf("fetch pack: %w", err)
	}
	v := newVerifier(ctx, body, &r.footer)
	err = v.run(r.raw, each)
	if errClose := body.Close(); err == nil && errClose != nil {
		err = fmt.Errorf("fetch pack: %w", errClose)
	}
	return inPack(err, r.footer.Pack)
}

// verifier walks a pack once, from its first byte to its last.
type verifier struct {
	ctx    context.Context //nolint:containedctx // lives for one call of Verify
	f      *Footer
	src    *bufio.Reader // everything read is hashed
	sum    hash.Hash
	pos    int64
	index  *indexBuilder
	listed hash.Hash // of the fields of every record
	header []byte    // scratch
	buf    []byte    // scratch
	last   NameHash
	seen   Footer // counts as found
}

func newVerifier(ctx context.Context, body io.Reader, f *Footer) *verifier {
	v := &verifier{ctx: ctx, f: f, sum: sha256.New(), listed: sha256.New(), index: newIndexBuilder(f.Records, f.Range)}
	v.src = bufio.NewReaderSize(body, int(min(f.Size, 256<<10)))
	return v
}

// Read yields the pack's bytes and hashes them.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.src.Read(p)
	v.sum.Write(p[:n])
	v.pos += int64(n)
	return n, err //nolint:wrapcheck // io.Reader's contract
}

// bytes reads the next n bytes, which the footer has bounded.
func (v *verifier) bytes(n int64) ([]byte, error) {
	if int64(cap(v.buf)) < n {
		v.buf = make([]byte, n)
	}
	b := v.buf[:n]
	_, err := io.ReadFull(v, b)
	return b, cut(err)
}

func (v *verifier) run(footer []byte, each func(Entry) error) error {
	head, err := v.bytes(packHeaderLen)
	if err != nil {
		return err
	}
	if !bytes.Equal(head, encodePackHeader(v.f)) {
		return corrupt(0, "the pack's header changed since it was opened")
	}
	for v.pos < v.f.Catalog.Offset {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := v.record(each); err != nil {
			return err
		}
	}
	if err := v.counts(); err != nil {
		return err
	}
	if err := v.catalog(); err != nil {
		return err
	}
	return v.rest(footer)
}

// record checks the next record.
func (v *verifier) record(each func(Entry) error) error {
	start := v.pos
	var err error
	if v.header, err = readHeader(v, v.f.Catalog.Offset-start, v.header); err != nil {
		return at(err, start)
	}
	h := new(Header)
	fields, err := parseHeader(v.header, h)
	if err != nil {
		return at(err, start)
	}
	loc := Location{Ordinal: v.seen.Records, Offset: start, Length: h.HeaderLen + h.StoredLen}
	if loc.Length > v.f.Catalog.Offset-start {
		return corrupt(start, "record of %d bytes reaches into the catalog", loc.Length)
	}
	if v.seen.Records == v.f.Records {
		return corrupt(start, "more than %d records", v.f.Records)
	}
	if err := v.payload(h); err != nil {
		return err
	}
	if err := v.place(h, loc); err != nil {
		return err
	}
	hashListed(v.listed, h, fields)
	v.seen.Records++
	v.seen.PayloadBytes += h.StoredLen
	if each != nil {
		return each(Entry{Record: h.Record, Location: loc})
	}
	return nil
}

// payload checks the payload that follows h.
func (v *verifier) payload(h *Header) error {
	offset := v.pos
	if h.ChunkLen == 0 {
		b, err := v.bytes(h.StoredLen)
		if err == nil && sha256.Sum256(b) != h.SHA256 {
			err = corrupt(offset, "content does not match its SHA-256")
		}
		return err
	}
	r := newChunkReader(v, h, offset, 0, (h.Size-1)/h.ChunkLen)
	for {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if _, err := r.chunk(); err == io.EOF { //nolint:errorlint // made by chunk
			return nil
		} else if err != nil {
			return err
		}
	}
}

// place checks that the record may stand where it does, and notes it.
func (v *verifier) place(h *Header, loc Location) error {
	if h.Type == TypeVoid {
		v.index.addVoid(loc.Offset + loc.Length)
		return nil
	}
	name := h.Hash()
	if !v.f.Range.Contains(name) || bytes.Compare(name[:], v.last[:]) < 0 {
		return corrupt(loc.Offset, "record out of range or order")
	}
	v.last = name
	v.index.add(name, loc.Offset+loc.Length)
	v.seen.MinSeq, v.seen.MaxSeq = widen(v.seen.MinSeq, v.seen.MaxSeq, h.Seq)
	return nil
}

// counts holds what was found against the footer.
func (v *verifier) counts() error {
	s, f := &v.seen, v.f
	if v.pos != f.Catalog.Offset || s.Records != f.Records || s.PayloadBytes != f.PayloadBytes ||
		s.MinSeq != f.MinSeq || s.MaxSeq != f.MaxSeq {
		return corrupt(f.Size-footerLen, "the footer's counts are not those of the records")
	}
	return nil
}

// catalog checks that the catalog lists the records that were found.
func (v *verifier) catalog() error {
	c, err := newCatalogReader(v, v.f.Catalog)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	listed := sha256.New()
	err = c.each(func(h *Header, _ Location, fields []byte) error {
		hashListed(listed, h, fields)
		return nil
	})
	if err == nil && !bytes.Equal(listed.Sum(nil), v.listed.Sum(nil)) {
		err = corrupt(v.f.Catalog.Offset, "the catalog lists other records than the pack holds")
	}
	return err
}

// hashListed adds all that header and catalog have in common to sum.
func hashListed(sum hash.Hash, h *Header, fields []byte) {
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(h.HeaderLen))
	sum.Write(n[:])
	sum.Write(h.SHA256[:])
	sum.Write(fields)
}

// rest checks the index, which has one form only, the list of replaced packs,
// the SHA-256 of everything so far, and the footer.
func (v *verifier) rest(footer []byte) error {
	index, err := v.bytes(v.f.Index.Length)
	if err != nil {
		return err
	}
	if crc32c(index) != v.f.Index.CRC {
		return corrupt(v.f.Index.Offset, "checksum of the index")
	}
	if !bytes.Equal(index, v.index.finish()) {
		return corrupt(v.f.Index.Offset, "the index lists other records than the pack holds")
	}
	list, err := v.bytes(v.f.Size - footerLen - v.pos)
	if err != nil {
		return err
	}
	if !bytes.Equal(list, encodeReplaces(v.f.Replaces)) {
		return corrupt(v.f.Index.Offset+v.f.Index.Length, "the list of replaced packs changed since it was read")
	}
	if !bytes.Equal(v.sum.Sum(nil), v.f.SHA256[:]) {
		return corrupt(0, "the pack does not match its SHA-256")
	}
	end, err := v.bytes(footerLen)
	if err == nil && !bytes.Equal(end, footer) {
		err = corrupt(v.f.Size-footerLen, "the footer changed since it was read")
	}
	return err
}

// widen returns the bounds lo and hi, zero when there are none yet, with seq in
// them.
func widen(lo, hi, seq Token) (Token, Token) {
	if lo.IsZero() || seq.Compare(lo) < 0 {
		lo = seq
	}
	if seq.Compare(hi) > 0 {
		hi = seq
	}
	return lo, hi
}
