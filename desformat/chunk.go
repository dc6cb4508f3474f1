package desformat

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
)

// Payloads over the Writer's threshold are kept in chunks of one length, the
// last may be shorter, each followed by its checksum:
//
//	chunk 0 | CRC32C | chunk 1 | CRC32C | … | last chunk | CRC32C
//
// The checksum covers the name hash (32 bytes), the chunk's number (u64) and
// the chunk's stored bytes, so that a chunk of another file or place is noticed
// too. The place of chunk i follows from the header alone: no table has to be
// written before the payload's length is known, nor read before a range.
const chunkSum = 4 // bytes of a chunk's checksum

// chunkCRC returns the running checksum of chunk number i before its bytes.
func chunkCRC(name NameHash, i int64) uint32 {
	var seed [len(name) + 8]byte
	copy(seed[:], name[:])
	binary.LittleEndian.PutUint64(seed[len(name):], uint64(i))
	return crc32c(seed[:])
}

// chunkOffset returns the offset of chunk i inside the payload.
func (h *Header) chunkOffset(i int64) int64 { return i * (h.ChunkLen + chunkSum) }

// chunkReader verifies a run of chunks from a stream. Content is handed out
// only after its chunk, and with the last chunk of a whole record the SHA-256
// of all of it, was found right.
type chunkReader struct {
	src   io.Reader
	h     *Header
	base  int64 // of the record's payload in the pack, for errors
	next  int64 // number of the next chunk
	last  int64 // number of the last chunk wanted
	whole hash.Hash
	buf   []byte // one chunk and its checksum
	name  NameHash
}

// newChunkReader reads chunks first to last of h's payload, which src yields
// from chunk first on.
func newChunkReader(src io.Reader, h *Header, base, first, last int64) *chunkReader {
	r := &chunkReader{src: src, h: h, base: base, next: first, last: last, name: h.Hash()}
	if first == 0 && (last+1)*h.ChunkLen >= h.Size {
		r.whole = sha256.New()
	}
	r.buf = make([]byte, min(h.ChunkLen, h.Size)+chunkSum)
	return r
}

// chunk returns the content of the next chunk, valid until the next call, or
// io.EOF behind the last one.
func (r *chunkReader) chunk() ([]byte, error) {
	if r.next > r.last {
		return nil, io.EOF
	}
	n := min(r.h.ChunkLen, r.h.Size-r.next*r.h.ChunkLen)
	b := r.buf[:n+chunkSum]
	if _, err := io.ReadFull(r.src, b); err != nil {
		return nil, cut(err)
	}
	content, sum := b[:n], binary.LittleEndian.Uint32(b[n:])
	offset := r.base + r.h.chunkOffset(r.next)
	if updateCRC(chunkCRC(r.name, r.next), content) != sum {
		return nil, corrupt(offset, "checksum of chunk %d", r.next)
	}
	if r.whole != nil {
		r.whole.Write(content)
		if r.next == r.last && [sha256.Size]byte(r.whole.Sum(nil)) != r.h.SHA256 {
			return nil, corrupt(offset, "content does not match its SHA-256")
		}
	}
	r.next++
	return content, nil
}

// joinChunks returns the content of a whole payload in memory.
func joinChunks(h *Header, payload []byte) ([]byte, error) {
	content := make([]byte, 0, h.Size)
	last := (h.Size - 1) / h.ChunkLen
	r := newChunkReader(bytes.NewReader(payload), h, h.HeaderLen, 0, last)
	for {
		b, err := r.chunk()
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return nil, err
		}
		content = append(content, b...)
	}
}
