package desformat

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// crc32c returns the CRC32C (Castagnoli) of b.
func crc32c(b []byte) uint32 { return updateCRC(0, b) }

// updateCRC adds b to a running CRC32C. The table is made once by the standard
// library; MakeTable returns that one.
func updateCRC(crc uint32, b []byte) uint32 {
	return crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), b)
}

// cursor takes values off the front of b. The first thing that does not fit
// ends it: err is set and every later call returns zero values.
type cursor struct {
	b   []byte
	pos int
	err error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = corrupt(int64(c.pos), format, args...)
	}
}

// refuse ends the cursor with ErrVersion.
func (c *cursor) refuse(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format+": %w", append(args, ErrVersion)...)
	}
}

func (c *cursor) left() int { return len(c.b) - c.pos }

// take returns the next n bytes, aliasing b.
func (c *cursor) take(n int, what string) []byte {
	if c.err == nil && (n < 0 || n > c.left()) {
		c.fail("%s: %d bytes, %d left", what, n, c.left())
	}
	if c.err != nil {
		return nil
	}
	v := c.b[c.pos : c.pos+n : c.pos+n]
	c.pos += n
	return v
}

func (c *cursor) u8(what string) uint8 {
	if v := c.take(1, what); v != nil {
		return v[0]
	}
	return 0
}

// uvarint takes a varint in its shortest form, so that each value has exactly
// one encoding.
func (c *cursor) uvarint(what string) uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.b[c.pos:])
	if n <= 0 || n > 1 && c.b[c.pos+n-1] == 0 {
		c.fail("%s: bad varint", what)
		return 0
	}
	c.pos += n
	return v
}

// length takes a varint that is at most limit.
func (c *cursor) length(limit int64, what string) int64 {
	v := c.uvarint(what)
	if c.err == nil && v > uint64(limit) {
		c.fail("%s: %d is above %d", what, v, limit)
		return 0
	}
	return int64(v)
}

// varint takes a zigzag varint.
func (c *cursor) varint(what string) int64 {
	u := c.uvarint(what)
	return int64(u>>1) ^ -int64(u&1)
}

// short takes a length and so many bytes, at most limit, aliasing b.
func (c *cursor) short(limit int, what string) []byte {
	return c.take(int(c.length(int64(limit), what)), what)
}

func (c *cursor) time(what string) time.Time {
	sec := c.varint(what)
	ns := c.length(nanosPerSecond-1, what)
	return time.Unix(sec, ns).UTC()
}

const nanosPerSecond = int64(time.Second)

func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func appendShort[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// putTime writes the 12-byte form used in the pack's header and footer:
// seconds (i64) and nanoseconds (u32) since 1970.
func putTime(b []byte, t time.Time) {
	binary.LittleEndian.PutUint64(b, uint64(t.Unix()))
	binary.LittleEndian.PutUint32(b[8:], uint32(t.Nanosecond()))
}

// fixedTime reads what putTime wrote; false when it is not a time.
func fixedTime(b []byte) (time.Time, bool) {
	ns := binary.LittleEndian.Uint32(b[8:])
	if int64(ns) >= nanosPerSecond {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.LittleEndian.Uint64(b)), int64(ns)).UTC(), true
}

func putToken(b []byte, t Token) {
	binary.LittleEndian.PutUint64(b, t.Generation)
	binary.LittleEndian.PutUint64(b[8:], t.Index)
}

func fixedToken(b []byte) Token {
	return Token{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// putRange writes the 8-byte form of a range: left-aligned prefix (u32), bits
// (u8) and three zero bytes.
func putRange(b []byte, r Range) {
	binary.LittleEndian.PutUint32(b, r.prefix)
	b[4], b[5], b[6], b[7] = r.bits, 0, 0, 0
}

// fixedRange reads what putRange wrote; false when it is not a range.
func fixedRange(b []byte) (Range, bool) {
	r := Range{prefix: binary.LittleEndian.Uint32(b), bits: b[4]}
	if r.bits > MaxRangeBits || b[5]|b[6]|b[7] != 0 {
		return Range{}, false
	}
	return r, uint64(r.prefix)&(uint64(math.MaxUint32)>>r.bits) == 0
}
