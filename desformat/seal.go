package desformat

import (
	"errors"
	"fmt"
	"io"
)

// flush writes the first n bytes of buf and hashes them; the rest of buf is
// dropped, its memory stays readable until the next record.
func (w *Writer) flush(n int) {
	b := w.buf[:n]
	w.buf = w.buf[:0]
	if w.write(b); w.err == nil {
		w.sum.Write(b)
		w.hashed = w.flushed
	}
}

// write puts b behind what is in the file.
func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.f.WriteAt(b, w.flushed); err != nil {
		w.err = fmt.Errorf("write pack: %w", err)
		return
	}
	w.flushed += int64(len(b))
}

// settle hashes what the file has beyond sum: a record with chunks, read back
// because its header was patched.
func (w *Writer) settle() {
	if w.err != nil || w.hashed == w.flushed {
		return
	}
	n, err := io.Copy(w.sum, io.NewSectionReader(w.f, w.hashed, w.flushed-w.hashed))
	if err == nil && n != w.flushed-w.hashed {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		w.err = fmt.Errorf("read pack back: %w", err)
		return
	}
	w.hashed = w.flushed
}

// readUpTo fills b from r as far as r goes. Only io.EOF itself is the end:
// io.ErrUnexpectedEOF from r is a content that broke off.
func readUpTo(r io.Reader, b []byte) (n int, end bool, err error) {
	for idle := 0; n < len(b); idle++ {
		m, err := r.Read(b[n:])
		if m < 0 || m > len(b)-n {
			return n, false, errors.New("reader returned an impossible count")
		}
		if m > 0 {
			idle = 0
		}
		n += m
		if err == io.EOF { // itself, as io.Reader demands, and not wrapped
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
		if idle == 100 {
			return n, false, io.ErrNoProgress
		}
	}
	return n, false, nil
}

// Seal writes catalog, index and footer and ends the pack; the caller syncs
// the file. Headers are read back from the file, so that the Writer need not
// keep them: the catalog lists what the file holds.
func (w *Writer) Seal() (Footer, error) {
	if err := w.ready(); err != nil {
		return Footer{}, err
	}
	w.undo, w.sealed = false, true
	w.settle()
	w.flush(len(w.buf))
	if w.err != nil {
		return Footer{}, w.err
	}
	f := w.footer()
	index := newIndexBuilder(f.Records, f.Range)
	if err := w.writeCatalog(&f, index); err != nil {
		if w.err == nil {
			w.err = inPack(err, f.Pack)
		}
		return Footer{}, w.err
	}
	w.source = nil
	b := index.finish()
	f.Index = Section{Offset: w.flushed, Length: int64(len(b)), CRC: crc32c(b)}
	w.add(b)
	w.add(encodeReplaces(f.Replaces))
	f.SHA256 = [32]byte(w.sum.Sum(nil))
	w.write(encodeFooter(&f))
	f.Size = w.flushed
	if w.err != nil {
		return Footer{}, w.err
	}
	return f, nil
}

// add writes and hashes b.
func (w *Writer) add(b []byte) {
	if w.write(b); w.err == nil {
		w.sum.Write(b)
		w.hashed = w.flushed
	}
}

// writeCatalog walks the headers in the file, writes the catalog and feeds the
// index.
func (w *Writer) writeCatalog(f *Footer, index *indexBuilder) error {
	c, err := newCatalogBuilder()
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer c.close()
	f.Catalog.Offset = w.state.end
	emit := func() {
		b := c.take()
		f.Catalog.Length += int64(len(b))
		f.Catalog.CRC = updateCRC(f.Catalog.CRC, b)
		w.add(b)
	}
	walk := headerWalk{f: w.f, end: w.state.end, source: cursor{b: w.source}}
	loc := Location{Offset: packHeaderLen}
	for w.err == nil && loc.Offset < w.state.end {
		h, fields, source, err := walk.read(loc.Offset)
		if err != nil {
			return err
		}
		loc.Length = h.HeaderLen + h.StoredLen
		c.add(h, loc, fields, source)
		if h.Type == TypeVoid {
			index.addVoid(loc.Offset + loc.Length)
		} else {
			index.add(h.Hash(), loc.Offset+loc.Length)
		}
		loc.Ordinal++
		loc.Offset += loc.Length
		if c.full() {
			emit()
		}
	}
	if emit(); w.err == nil && (loc.Offset != w.state.end || loc.Ordinal != f.Records) {
		return corrupt(loc.Offset, "the file holds %d records, not the %d written", loc.Ordinal, f.Records)
	}
	return w.err
}

// headerWalk reads the headers of consecutive records through a small window,
// skipping the payloads.
type headerWalk struct {
	f      io.ReaderAt
	end    int64 // of the last record
	source cursor
	buf    []byte
	window []byte // bytes of the file from start
	start  int64
	h      Header
}

// read returns the record's header, its fields and its source part, all valid
// until the next call.
func (r *headerWalk) read(offset int64) (*Header, []byte, []byte, error) {
	b, err := r.bytes(offset, min(leadLen, r.end-offset))
	if err != nil {
		return nil, nil, nil, err
	}
	n, err := headerLen(b, r.end-offset)
	if err != nil {
		return nil, nil, nil, at(err, offset)
	}
	if b, err = r.bytes(offset, n); err != nil {
		return nil, nil, nil, err
	}
	fields, err := parseHeader(b, &r.h)
	if err != nil {
		return nil, nil, nil, at(err, offset)
	}
	from := r.source.pos
	parseSource(&r.source, &r.h.Record)
	return &r.h, fields, r.source.b[from:r.source.pos], r.source.err
}

// bytes returns bytes [offset, offset+n), n at most MaxHeader.
func (r *headerWalk) bytes(offset, n int64) ([]byte, error) {
	if offset < r.start || offset+n > r.start+int64(len(r.window)) {
		want := min(max(n, peekLen), r.end-offset)
		if int64(cap(r.buf)) < want {
			r.buf = make([]byte, want)
		}
		r.window, r.start = r.buf[:want], offset
		if n, err := r.f.ReadAt(r.window, offset); err != nil && n < len(r.window) {
			return nil, fmt.Errorf("read pack back: %w", cut(err))
		}
	}
	return r.window[offset-r.start:][:n], nil
}
