package desformat

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// The catalog is a run of blocks, each readable on its own. It is empty when
// the pack is.
//
//	 0   4  CRC32C of the block from 4 on
//	 4   4  entries n
//	 8   4  length of the fields, compressed
//	12   4  length of the fields
//	16   4  ordinal of the first entry
//	20   8  offset of the first record in the pack
//	28   …  n times the SHA-256 of the content
//	 …   …  n times the fields, as one zstd frame
//
// The fields of an entry:
//
//	header length v | fields as in the record's header
//	source size minus size z
//	source time minus mtime: seconds z, nanoseconds z
//
// The hashes stand apart because nothing compresses them.
const (
	blockHead = 28
	// blockTarget is the length of fields at which the Writer ends a block,
	// blockLimit what a reader accepts: one entry may go beyond the target.
	blockTarget = 64 << 10
	blockLimit  = 2 << 20
	minEntry    = 1 + minHeader - leadLen + 3
)

// catalogBuilder gathers entries and yields blocks.
type catalogBuilder struct {
	enc    *zstd.Encoder
	first  Location // of the block's first entry
	hashes []byte
	fields []byte
	packed []byte // scratch
	out    []byte // scratch
}

func newCatalogBuilder() (*catalogBuilder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(blockTarget*2), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	return &catalogBuilder{enc: enc}, err
}

// add appends the entry of h at loc; fields are those of its header, source
// what appendSource made.
func (c *catalogBuilder) add(h *Header, loc Location, fields, source []byte) {
	if len(c.hashes) == 0 {
		c.first = loc
	}
	c.hashes = append(c.hashes, h.SHA256[:]...)
	c.fields = binary.AppendUvarint(c.fields, uint64(h.HeaderLen))
	c.fields = append(c.fields, fields...)
	c.fields = append(c.fields, source...)
}

func (c *catalogBuilder) close() { _ = c.enc.Close() } // only a stream's end can fail

// full reports whether the block should be taken.
func (c *catalogBuilder) full() bool { return len(c.fields) >= blockTarget }

// take returns the block of the entries gathered, valid until the next call;
// nil when there are none.
func (c *catalogBuilder) take() []byte {
	if len(c.hashes) == 0 {
		return nil
	}
	c.packed = c.enc.EncodeAll(c.fields, c.packed[:0])
	b := append(c.out[:0], make([]byte, blockHead)...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(c.hashes)/sha256.Size))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(c.packed)))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(c.fields)))
	binary.LittleEndian.PutUint32(b[16:], c.first.Ordinal)
	binary.LittleEndian.PutUint64(b[20:], uint64(c.first.Offset))
	b = append(append(b, c.hashes...), c.packed...)
	binary.LittleEndian.PutUint32(b, crc32c(b[4:]))
	c.out, c.hashes, c.fields = b, c.hashes[:0], c.fields[:0]
	return b
}

// appendSource appends what the source's row listed, as differences from what
// was read: they are mostly zero.
func appendSource(b []byte, r *Record) []byte {
	b = binary.AppendVarint(b, r.SourceSize-r.Size)
	b = binary.AppendVarint(b, r.SourceTime.Unix()-r.ModTime.Unix())
	return binary.AppendVarint(b, int64(r.SourceTime.Nanosecond()-r.ModTime.Nanosecond()))
}

func parseSource(c *cursor, r *Record) {
	r.SourceSize = r.Size + c.varint("source size")
	sec := r.ModTime.Unix() + c.varint("source time")
	ns := int64(r.ModTime.Nanosecond()) + c.varint("source time")
	if ns < 0 || ns >= nanosPerSecond {
		c.fail("source time")
	}
	r.SourceTime = time.Unix(sec, ns).UTC()
}

// catalogReader reads a catalog from a stream, block after block.
type catalogReader struct {
	src    io.Reader
	s      Section
	pos    int64 // in the section
	crc    uint32
	next   Location // of the next record; Length is not used
	dec    *zstd.Decoder
	block  []byte
	fields []byte
}

func newCatalogReader(src io.Reader, s Section) (*catalogReader, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(blockLimit), zstd.WithDecodeAllCapLimit(true))
	return &catalogReader{src: src, s: s, next: Location{Offset: packHeaderLen}, dec: dec}, err
}

// each calls visit for every entry: its header with the source's size and
// time, its place, and its fields as they stand in the record's header. All
// three are valid only until visit returns. Offsets in errors are those of the
// blocks in the pack.
func (c *catalogReader) each(visit func(h *Header, loc Location, fields []byte) error) error {
	defer c.dec.Close()
	var h Header
	for c.pos < c.s.Length {
		start := c.s.Offset + c.pos
		n, err := c.readBlock()
		if err != nil {
			return at(err, start)
		}
		fields := cursor{b: c.fields}
		for i := range n {
			h.SHA256 = [sha256.Size]byte(c.block[blockHead+i*sha256.Size:])
			raw, err := c.entry(&fields, &h)
			if err != nil {
				return inBlock(err, start)
			}
			loc := Location{Ordinal: c.next.Ordinal, Offset: c.next.Offset, Length: h.HeaderLen + h.StoredLen}
			c.next.Ordinal++
			c.next.Offset += loc.Length
			if c.next.Offset > c.s.Offset {
				return corrupt(start, "catalog lists a record behind the last one")
			}
			if err := visit(&h, loc, raw); err != nil {
				return err
			}
		}
		if fields.left() != 0 {
			return corrupt(start, "%d bytes behind the entries of a catalog block", fields.left())
		}
	}
	if c.crc != c.s.CRC {
		return corrupt(c.s.Offset, "checksum of the catalog")
	}
	if c.next.Offset != c.s.Offset {
		return corrupt(c.s.Offset, "catalog ends with byte %d of the records", c.next.Offset)
	}
	return nil
}

// inBlock replaces the offset inside a block's fields, which are compressed,
// by the block's own.
func inBlock(err error, start int64) error {
	c, ok := bare(err)
	if !ok {
		return err
	}
	return &CorruptError{Pack: c.Pack, Offset: start, What: "catalog entry: " + c.What}
}

// readBlock reads and checks the next block, leaves its parts in block and
// fields, and returns its number of entries.
func (c *catalogReader) readBlock() (int, error) {
	left := c.s.Length - c.pos
	if left < blockHead {
		return 0, corrupt(0, "%d bytes left for a catalog block", left)
	}
	c.block = append(c.block[:0], make([]byte, blockHead)...)
	if _, err := io.ReadFull(c.src, c.block); err != nil {
		return 0, cut(err)
	}
	n := int64(binary.LittleEndian.Uint32(c.block[4:]))
	packed := int64(binary.LittleEndian.Uint32(c.block[8:]))
	plain := int64(binary.LittleEndian.Uint32(c.block[12:]))
	size := blockHead + n*sha256.Size + packed
	if n == 0 || plain > blockLimit || n > plain/minEntry || packed > 2*blockLimit || size > left {
		return 0, corrupt(4, "catalog block of %d entries, %d bytes", n, size)
	}
	c.block = append(c.block, make([]byte, size-blockHead)...)
	if _, err := io.ReadFull(c.src, c.block[blockHead:]); err != nil {
		return 0, cut(err)
	}
	if crc32c(c.block[4:]) != binary.LittleEndian.Uint32(c.block) {
		return 0, corrupt(0, "checksum of a catalog block")
	}
	if binary.LittleEndian.Uint32(c.block[16:]) != c.next.Ordinal ||
		binary.LittleEndian.Uint64(c.block[20:]) != uint64(c.next.Offset) {
		return 0, corrupt(16, "catalog block out of place")
	}
	if int64(cap(c.fields)) < plain {
		c.fields = make([]byte, 0, max(plain, blockTarget*5/4))
	}
	var err error
	c.fields, err = c.dec.DecodeAll(c.block[size-packed:], c.fields[:0:plain])
	if err != nil || int64(len(c.fields)) != plain {
		return 0, corrupt(size-packed, "catalog block does not unpack to %d bytes", plain)
	}
	c.pos += size
	c.crc = updateCRC(c.crc, c.block)
	return int(n), nil
}

// entry takes one entry's fields off cur.
func (c *catalogReader) entry(cur *cursor, h *Header) (fields []byte, err error) {
	h.HeaderLen = cur.length(MaxHeader, "header length")
	start := cur.pos
	parseFields(cur, h)
	fields = cur.b[start:cur.pos]
	parseSource(cur, &h.Record)
	if least := int64(leadLen + len(fields)); h.HeaderLen < least || h.ChunkLen == 0 && h.HeaderLen != least {
		cur.fail("header length")
	}
	return fields, cur.err
}
