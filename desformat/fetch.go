package desformat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
)

// Fetcher reads ranges of one immutable object. Fetch may be called at once
// from many goroutines.
type Fetcher interface {
	// Fetch streams n bytes from offset off; n < 0 means to the end. The caller
	// closes the stream. Errors are returned to this package's callers wrapped.
	Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error)
}

// FetchReaderAt makes a Fetcher of r, a file for example. It ignores contexts.
func FetchReaderAt(r io.ReaderAt) Fetcher { return readerAt{r} }

type readerAt struct{ r io.ReaderAt }

func (f readerAt) Fetch(_ context.Context, off, n int64) (io.ReadCloser, error) {
	if n < 0 {
		n = math.MaxInt64 - off
	}
	return io.NopCloser(io.NewSectionReader(f.r, off, n)), nil
}

// cut makes of the end of a stream the error that it is: the object is shorter
// than it was said to be, or the transfer broke off.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fetchBytes returns bytes [off, off+n), which the caller has bounded.
func fetchBytes(ctx context.Context, f Fetcher, off, n int64) ([]byte, error) {
	r, err := f.Fetch(ctx, off, n)
	if err != nil {
		return nil, fmt.Errorf("fetch bytes %d+%d: %w", off, n, err)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	if err = errors.Join(cut(err), r.Close()); err != nil {
		return nil, fmt.Errorf("fetch bytes %d+%d: %w", off, n, err)
	}
	return b, nil
}

// RecordReader streams the verified content of one record. A small record is
// verified whole before its first byte, a larger one chunk by chunk, its last
// chunk only after the SHA-256 of all the content was found right.
type RecordReader struct {
	h    *Header
	body io.ReadCloser
	next func() ([]byte, error) // the next verified piece; io.EOF at the end
	rest []byte                 // of the current piece
	skip int64                  // bytes of the next piece to leave out
	left int64                  // bytes still to hand out
	err  error                  // sticky
}

// OpenRecord opens the record at loc with one fetch of all of it.
func OpenRecord(ctx context.Context, f Fetcher, loc Location) (*RecordReader, error) {
	if err := loc.check(); err != nil {
		return nil, err
	}
	body, err := f.Fetch(ctx, loc.Offset, loc.Length)
	if err != nil {
		return nil, fmt.Errorf("fetch bytes %d+%d: %w", loc.Offset, loc.Length, err)
	}
	b, err := readHeader(body, loc.Length, nil)
	var h *Header
	if err == nil {
		h, err = parseHeaderAt(b, loc)
	} else {
		err = at(err, loc.Offset)
	}
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return newRecordReader(h, body, loc.Offset, 0, h.Size), nil
}

// OpenContent streams bytes [off, off+n) of the content of the record at loc,
// whose header is h: one fetch of just the chunks that cover the range, each
// verified. n is cut at the end of the content; n < 0 means to the end.
func OpenContent(ctx context.Context, f Fetcher, loc Location, h *Header, off, n int64) (io.ReadCloser, error) {
	if err := loc.check(); err != nil {
		return nil, err
	}
	if h.HeaderLen+h.StoredLen != loc.Length {
		return nil, corrupt(loc.Offset, "record of %d bytes where %d were expected", h.HeaderLen+h.StoredLen, loc.Length)
	}
	if off < 0 || off > h.Size {
		return nil, fmt.Errorf("bytes from %d of %d: %w", off, h.Size, ErrBadRange)
	}
	if n < 0 || n > h.Size-off {
		n = h.Size - off
	}
	if n == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	start, length := int64(0), h.StoredLen
	if h.ChunkLen > 0 {
		start = h.chunkOffset(off / h.ChunkLen)
		length = min(h.chunkOffset((off+n-1)/h.ChunkLen+1), h.StoredLen) - start
	}
	start += loc.Offset + h.HeaderLen
	body, err := f.Fetch(ctx, start, length)
	if err != nil {
		return nil, fmt.Errorf("fetch bytes %d+%d: %w", start, length, err)
	}
	return newRecordReader(h, body, loc.Offset, off, n), nil
}

// newRecordReader hands out content [off, off+n) of the record at offset
// start; body yields its payload from the first chunk that is needed.
func newRecordReader(h *Header, body io.ReadCloser, start, off, n int64) *RecordReader {
	r := &RecordReader{h: h, body: body, skip: off, left: n}
	payload := start + h.HeaderLen
	if h.ChunkLen > 0 {
		first := off / h.ChunkLen
		r.skip = off - first*h.ChunkLen
		r.next = newChunkReader(body, h, payload, first, (off+max(n, 1)-1)/h.ChunkLen).chunk
		return r
	}
	r.next = func() ([]byte, error) { return readPlain(body, h, payload) }
	return r
}

// readPlain reads and verifies a payload without chunks.
func readPlain(body io.Reader, h *Header, offset int64) ([]byte, error) {
	b := make([]byte, h.StoredLen)
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, cut(err)
	}
	if sha256.Sum256(b) != h.SHA256 {
		return nil, corrupt(offset, "content does not match its SHA-256")
	}
	return b, nil
}

// Header returns the record's header.
func (r *RecordReader) Header() *Header { return r.h }

// Read returns verified content. A checksum that does not fit is a
// CorruptError instead of the bytes in question.
func (r *RecordReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.advance(n)
	return n, nil
}

// WriteTo writes the rest of the content to w.
func (r *RecordReader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if err := r.fill(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		m, err := w.Write(r.rest)
		r.advance(m)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
}

func (r *RecordReader) advance(n int) {
	r.rest = r.rest[n:]
	r.left -= int64(n)
}

// fill makes sure that rest is not empty, or returns why it cannot: io.EOF at
// the end of what was asked for.
func (r *RecordReader) fill() error {
	for r.err == nil && len(r.rest) == 0 {
		if r.left == 0 && r.h.Size > 0 {
			r.err = io.EOF
			break
		}
		piece, err := r.next()
		if err == nil && r.h.Size == 0 {
			err = io.EOF // no content, and its SHA-256 is right
		}
		if err != nil {
			r.err = err
			break
		}
		piece = piece[r.skip:]
		r.skip = 0
		r.rest = piece[:min(int64(len(piece)), r.left)]
	}
	return r.err
}

// Close ends the fetch. It may be called before all was read.
func (r *RecordReader) Close() error {
	r.err, r.rest = io.ErrClosedPipe, nil
	return r.body.Close()
}
