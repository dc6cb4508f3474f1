package desformat

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"time"
)

// Layout of a record's header. The lead has fixed places, so that the header
// can be cut out before anything in it is believed:
//
//	 0   4  CRC32C of the header's bytes from 4 to its end
//	 4   4  header length in bytes
//	 8  32  SHA-256 of the content
//	40   …  fields, see appendFields
//	 …   …  zero bytes up to the header length (records with chunks only)
const (
	leadLen    = 40
	leadCRC    = 0
	leadLength = 4
	leadSHA    = 8
	// minHeader is the length of the shortest header: every field of a void
	// record in its shortest form.
	minHeader = leadLen + 19
	// peekLen is what a reader fetches when it wants a header only.
	peekLen = 4096
)

// appendHeader appends the header of a record and sets h.HeaderLen. A reserve
// above 0 is the length that the header is filled up to.
func appendHeader(b []byte, h *Header, reserve int64) []byte {
	start := len(b)
	b = append(b, make([]byte, leadLen)...)
	b = appendFields(b, h)
	if pad := reserve - int64(len(b)-start); pad > 0 {
		b = append(b, make([]byte, pad)...)
	}
	h.HeaderLen = int64(len(b) - start)
	lead := b[start:]
	binary.LittleEndian.PutUint32(lead[leadLength:], uint32(h.HeaderLen))
	copy(lead[leadSHA:], h.SHA256[:])
	binary.LittleEndian.PutUint32(lead[leadCRC:], crc32c(lead[leadLength:]))
	return b
}

// headerLen reads the header's length from the first bytes of a record of
// `total` bytes, and holds it against the limits.
func headerLen(lead []byte, total int64) (int64, error) {
	if len(lead) < leadLen {
		return 0, corrupt(0, "record header cut after %d bytes", len(lead))
	}
	n := int64(binary.LittleEndian.Uint32(lead[leadLength:]))
	if n < minHeader || n > MaxHeader || n > total {
		return 0, corrupt(leadLength, "header of %d bytes in a record of %d", n, total)
	}
	return n, nil
}

// parseHeader checks and decodes a whole header, and returns its fields' bytes.
func parseHeader(b []byte, h *Header) (fields []byte, err error) {
	if n, err := headerLen(b, int64(len(b))); err != nil {
		return nil, err
	} else if n != int64(len(b)) {
		return nil, corrupt(leadLength, "header of %d bytes, %d given", n, len(b))
	}
	if crc32c(b[leadLength:]) != binary.LittleEndian.Uint32(b[leadCRC:]) {
		return nil, corrupt(0, "header checksum")
	}
	h.SHA256 = [sha256.Size]byte(b[leadSHA:])
	h.HeaderLen = int64(len(b))
	c := cursor{b: b, pos: leadLen}
	parseFields(&c, h)
	fields = b[leadLen:c.pos]
	if h.ChunkLen == 0 && c.left() > 0 {
		c.fail("%d bytes behind the fields", c.left())
	}
	for _, pad := range b[c.pos:] {
		if pad != 0 {
			c.fail("header padding is not zero")
			break
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	h.SourceSize, h.SourceTime = 0, time.Time{}
	return fields, nil
}

// parseHeaderAt parses the header of the record at loc and holds it against
// loc; offsets in errors are from the start of the pack.
func parseHeaderAt(b []byte, loc Location) (*Header, error) {
	h := new(Header)
	if _, err := parseHeader(b, h); err != nil {
		return nil, at(err, loc.Offset)
	}
	if h.HeaderLen+h.StoredLen != loc.Length {
		return nil, corrupt(loc.Offset, "record of %d bytes where %d were expected", h.HeaderLen+h.StoredLen, loc.Length)
	}
	return h, nil
}

// ParseRecord verifies a whole record that is in memory, its SHA-256 included,
// and returns its header and its content. The content aliases b, except that
// of a record with chunks, which is copied together.
func ParseRecord(b []byte) (*Header, []byte, error) {
	n, err := headerLen(b, int64(len(b)))
	if err != nil {
		return nil, nil, err
	}
	h, err := parseHeaderAt(b[:n], Location{Length: int64(len(b))})
	if err != nil {
		return nil, nil, err
	}
	content := b[n:len(b):len(b)]
	if h.ChunkLen > 0 {
		if content, err = joinChunks(h, content); err != nil {
			return nil, nil, err
		}
	}
	if sha256.Sum256(content) != h.SHA256 {
		return nil, nil, corrupt(n, "content does not match its SHA-256")
	}
	return h, content, nil
}

// ReadHeader reads the header of the record at loc: one fetch, and one more
// when the header is longer than 4 KiB.
func ReadHeader(ctx context.Context, f Fetcher, loc Location) (*Header, error) {
	if err := loc.check(); err != nil {
		return nil, err
	}
	b, err := fetchBytes(ctx, f, loc.Offset, min(loc.Length, peekLen))
	if err != nil {
		return nil, err
	}
	n, err := headerLen(b, loc.Length)
	if err != nil {
		return nil, at(err, loc.Offset)
	}
	if have := int64(len(b)); n > have {
		rest, err := fetchBytes(ctx, f, loc.Offset+have, n-have)
		if err != nil {
			return nil, err
		}
		b = append(b, rest...)
	}
	return parseHeaderAt(b[:n], loc)
}

// check refuses a location that no record can have.
func (l Location) check() error {
	if l.Offset < packHeaderLen || l.Length < minHeader || l.Offset > MaxPack || l.Length > MaxPack {
		return corrupt(l.Offset, "no record can stand there with %d bytes", l.Length)
	}
	return nil
}

// readHeader reads the next header from r, a stream of a record of at most
// limit bytes, into buf, which it returns grown.
func readHeader(r io.Reader, limit int64, buf []byte) ([]byte, error) {
	buf = append(buf[:0], make([]byte, leadLen)...)
	if limit < leadLen {
		return buf, corrupt(0, "%d bytes left for a record", limit)
	}
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, cut(err)
	}
	n, err := headerLen(buf, limit)
	if err != nil {
		return buf, err
	}
	buf = append(buf, make([]byte, n-leadLen)...)
	_, err = io.ReadFull(r, buf[leadLen:])
	return buf, cut(err)
}
