package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// A frame:
//
//	0  4  length of the body
//	4  1  version, 1
//	5  1  kind
//	6  2  zero
//	8  4  CRC32C of bytes 0 to 8 and the body
const (
	frameHeaderBytes = 12
	frameVersion     = 1
)

type frameKind uint8

const (
	frameRequest   frameKind = 1
	frameResponse  frameKind = 2
	frameChunk     frameKind = 3
	frameTrailer   frameKind = 4
	frameJoin      frameKind = 5
	frameAdmission frameKind = 6
	frameRenewal   frameKind = 7
	frameCall      frameKind = 8
)

// chunkBytes is the longest chunk: large enough that its header and checksum
// cost nothing, small enough that a buffer a stream is bearable.
const chunkBytes = 64 << 10

// bound is the longest body of a kind; 0: no such kind.
func (k frameKind) bound() int {
	switch k {
	case frameRequest:
		return 16 << 10
	case frameResponse:
		return 2 << 20
	case frameChunk:
		return chunkBytes
	case frameTrailer, frameCall:
		return 4 << 10
	case frameJoin, frameRenewal:
		return 64 << 10
	case frameAdmission:
		return 1 << 20
	}
	return 0
}

// castagnoli returns the table of CRC32C; crc32 makes it once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// openFrame appends the place of a frame header; the body follows, and
// sealFrame fills the header in. at is where the frame starts.
func openFrame(b []byte) (frame []byte, at int) {
	return append(b, make([]byte, frameHeaderBytes)...), len(b)
}

// sealFrame completes the frame that starts at at and ends with b.
func sealFrame(b []byte, at int, kind frameKind) ([]byte, error) {
	body := len(b) - at - frameHeaderBytes
	if body > kind.bound() {
		return nil, fmt.Errorf("%w: a body of %d bytes, %d are allowed", ErrTooLarge, body, kind.bound())
	}
	h := b[at : at+frameHeaderBytes]
	binary.LittleEndian.PutUint32(h, uint32(body))
	h[4], h[5], h[6], h[7] = frameVersion, byte(kind), 0, 0
	sum := crc32.Update(crc32.Checksum(h[:8], castagnoli()), castagnoli(), b[at+frameHeaderBytes:])
	binary.LittleEndian.PutUint32(h[8:], sum)
	return b, nil
}

// appendChunk appends a chunk frame.
func appendChunk(b, payload []byte) ([]byte, error) {
	b, at := openFrame(b)
	return sealFrame(append(b, payload...), at, frameChunk)
}

// readFrame reads one frame of one of the kinds wanted into buf, which grows
// when it is too small. body is valid until buf is used again. A clean end
// before the first byte is io.EOF, later it is io.ErrUnexpectedEOF.
func readFrame(r io.Reader, buf *[]byte, want ...frameKind) (kind frameKind, body []byte, err error) {
	if cap(*buf) < frameHeaderBytes {
		*buf = make([]byte, 4<<10)
	}
	h := (*buf)[:frameHeaderBytes]
	if _, err := io.ReadFull(r, h); err != nil {
		return 0, nil, err
	}
	if h[4] != frameVersion {
		return 0, nil, fmt.Errorf("%w: a frame of version %d", ErrVersion, h[4])
	}
	kind = frameKind(h[5])
	expected := false
	for _, w := range want {
		expected = expected || kind == w
	}
	if !expected || h[6] != 0 || h[7] != 0 {
		return 0, nil, fmt.Errorf("%w: a frame of kind %d where %d was expected", ErrMalformed, kind, want)
	}
	n := int(binary.LittleEndian.Uint32(h))
	if n < 0 || n > kind.bound() {
		return 0, nil, fmt.Errorf("%w: a body of %d bytes, %d are allowed", ErrTooLarge, uint32(n), kind.bound())
	}
	sum, head := binary.LittleEndian.Uint32(h[8:]), crc32.Checksum(h[:8], castagnoli())
	body, err = readBody(r, buf, n)
	if err != nil {
		return 0, nil, err
	}
	if crc32.Update(head, castagnoli(), body) != sum {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes", ErrChecksum, n)
	}
	return kind, body, nil
}

// readBody reads n bytes, growing buf as they arrive: a length that no bytes
// follow costs its sender more than us.
func readBody(r io.Reader, buf *[]byte, n int) ([]byte, error) {
	b := (*buf)[:cap(*buf)]
	for got := 0; ; {
		if got == n {
			*buf = b
			return b[:n], nil
		}
		if got == len(b) {
			grown := make([]byte, min(n, max(2*len(b), chunkBytes)))
			copy(grown, b[:got])
			b = grown
		}
		m, err := io.ReadFull(r, b[got:min(n, len(b))])
		if got += m; err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// critical marks a field type that must not be skipped.
const critical = 0x8000

const fieldHeaderBytes = 6

// fields writes the fields of a message; zero values are left out.
type fields []byte

func (f *fields) head(typ uint16, n int) {
	*f = binary.LittleEndian.AppendUint16(*f, typ)
	*f = binary.LittleEndian.AppendUint32(*f, uint32(n))
}

func (f *fields) u8(typ uint16, v uint8) {
	if v != 0 {
		f.head(typ, 1)
		*f = append(*f, v)
	}
}

func (f *fields) u32(typ uint16, v uint32) {
	if v != 0 {
		f.head(typ, 4)
		*f = binary.LittleEndian.AppendUint32(*f, v)
	}
}

func (f *fields) u64(typ uint16, v uint64) {
	if v != 0 {
		f.head(typ, 8)
		*f = binary.LittleEndian.AppendUint64(*f, v)
	}
}

func (f *fields) pair(typ uint16, a, b uint64) {
	f.head(typ, 16)
	*f = binary.LittleEndian.AppendUint64(*f, a)
	*f = binary.LittleEndian.AppendUint64(*f, b)
}

func (f *fields) text(typ uint16, s string) {
	if s != "" {
		f.head(typ, len(s))
		*f = append(*f, s...)
	}
}

func (f *fields) bytes(typ uint16, b []byte) {
	if len(b) > 0 {
		f.head(typ, len(b))
		*f = append(*f, b...)
	}
}

func (f *fields) time(typ uint16, t time.Time) {
	if !t.IsZero() {
		f.head(typ, 12)
		*f = binary.LittleEndian.AppendUint64(*f, uint64(t.Unix()))
		*f = binary.LittleEndian.AppendUint32(*f, uint32(t.Nanosecond()))
	}
}

// eachField calls use for every field. use returns errUnknownField for a type
// it does not know.
func eachField(b []byte, use func(typ uint16, v []byte) error) error {
	for last := -1; len(b) > 0; {
		if len(b) < fieldHeaderBytes {
			return fmt.Errorf("%w: %d bytes after the last field", ErrMalformed, len(b))
		}
		typ, n := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint32(b[2:])
		b = b[fieldHeaderBytes:]
		order := int(typ &^ critical)
		if order <= last {
			return fmt.Errorf("%w: field %d after field %d", ErrMalformed, order, last)
		}
		last = order
		if uint64(n) > uint64(len(b)) {
			return fmt.Errorf("%w: field %d is cut", ErrMalformed, typ)
		}
		err := use(typ, b[:n])
		if err == errUnknownField { //nolint:errorlint // a mark between two functions, never wrapped
			err = nil
			if typ&critical != 0 {
				err = fmt.Errorf("%w: critical field %d", ErrVersion, typ&^critical)
			}
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

type fieldError string

func (e fieldError) Error() string { return string(e) }

// errUnknownField never leaves this file and its callers' switches.
const errUnknownField = fieldError("unknown field")

// value reads one field's value; the first fault stays.
type value struct {
	typ uint16
	b   []byte
	err error
}

func (v *value) fail(format string, a ...any) {
	if v.err == nil {
		v.err = fmt.Errorf("%w: field %d: %s", ErrMalformed, v.typ, fmt.Sprintf(format, a...))
	}
}

// fixed returns the value if it is n bytes long and not all zero.
func (v *value) fixed(n int) []byte {
	if len(v.b) != n {
		v.fail("%d bytes, not %d", len(v.b), n)
		return make([]byte, n)
	}
	return v.b
}

func (v *value) nonZero(x uint64) uint64 {
	if x == 0 && v.err == nil {
		v.fail("a zero that should be left out")
	}
	return x
}

func (v *value) u8() uint8 { return uint8(v.nonZero(uint64(v.fixed(1)[0]))) }
func (v *value) u32() uint32 {
	return uint32(v.nonZero(uint64(binary.LittleEndian.Uint32(v.fixed(4)))))
}
func (v *value) u64() uint64 { return v.nonZero(binary.LittleEndian.Uint64(v.fixed(8))) }

// length reads a u64 that must fit an int64.
func (v *value) length(x uint64) int64 {
	if x > math.MaxInt64 {
		v.fail("%d is beyond 63 bits", x)
		return 0
	}
	return int64(x)
}

func (v *value) pair() (a, b uint64) {
	f := v.fixed(16)
	return binary.LittleEndian.Uint64(f), binary.LittleEndian.Uint64(f[8:])
}

// text reads 1 to limit bytes.
func (v *value) text(limit int) string { return string(v.bytes(limit)) }

// bytes is text without a copy.
func (v *value) bytes(limit int) []byte {
	switch {
	case len(v.b) > limit:
		if v.err == nil {
			v.err = fmt.Errorf("%w: field %d of %d bytes, %d are allowed", ErrTooLarge, v.typ, len(v.b), limit)
		}
		return nil
	case len(v.b) == 0:
		v.fail("empty")
	}
	return v.b
}

func (v *value) time() time.Time {
	f := v.fixed(12)
	ns := binary.LittleEndian.Uint32(f[8:])
	t := time.Unix(int64(binary.LittleEndian.Uint64(f)), int64(ns)).UTC()
	if ns >= 1e9 || t.IsZero() {
		v.fail("not a time")
	}
	return t
}
