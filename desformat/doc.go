// Package desformat is the pack format of desnode, DES format version 3: an
// immutable file that holds many small files, each found by its name with one
// range read, and that can be checked and listed without anything else.
//
// It knows bytes: Writer builds a pack, OpenPack and the functions beside it
// read one from memory, a file or an object store (Fetcher). It is not for
// deciding what goes into a pack, nor for finding packs, nor for caching.
//
// # Layout
//
//	header | record … record | catalog | index | replaced packs | footer
//
// Parts and records follow one another without gaps: every byte belongs to
// one of them, and no part is reached but through lengths that add up to the
// size of the file. Integers are little-endian. v is an unsigned varint and z
// a zigzag varint (encoding/binary), both in their shortest form only; s is a
// length v and so many bytes. Checksums are CRC32C (Castagnoli). Times are
// seconds and nanoseconds since 1970, UTC. The byte tables stand above the
// code that reads and writes them; this is the whole.
//
// Header, 84 bytes, see ends.go:
//
//	 0   8  magic 89 "DESP" 0d 0a 1a
//	 8   2  version, 3
//	10   2  flags, none known
//	12   8  range: prefix u32, left-aligned; bits u8; 3 zero bytes
//	20  16  pack id
//	36  16  cluster id
//	52  16  token: generation u64, index u64
//	68  12  created: seconds i64, nanoseconds u32
//	80   4  CRC32C of bytes 0 to 80
//
// Record, see header.go and fields.go:
//
//	 0   4  CRC32C of the header from byte 4 to its end
//	 4   4  header length, at most 1 MiB
//	 8  32  SHA-256 of the content
//	40   …  type u8 (1 file, 2 tombstone, 3 void), flags u8, codec u8, encryption u8,
//	        archive version v, content length v, stored length v, chunk length v,
//	        seq generation v, seq index v, mtime seconds z, mtime nanoseconds v,
//	        source s, id s, tenant s, key id s, nonce s, name s,
//	        metadata length v, metadata: fields of rising type {type u16, value s}
//	 …   …  zero bytes, only where there are chunks
//	 …   …  payload, of the stored length
//
// Metadata types: 1 content type, 2 created (seconds z, nanoseconds v),
// 3 retention class, 4 the customer's columns as one JSON object. A type with
// bit 0x8000 is critical: a reader that does not know it must not use the
// record. A record holds no pack id and no offset, and so can be copied into
// another pack as it is. A tombstone has no content; a void has no name and
// readers skip it.
//
// Payload. Without chunks (chunk length 0) it is the content, at most 16 MiB;
// the SHA-256 in the header checks it. With chunks it is, see chunk.go,
//
//	chunk | CRC32C | chunk | CRC32C | … | last chunk | CRC32C
//
// Every chunk has the chunk length but the last, which may be shorter and is
// never empty. A checksum covers the name hash, the chunk's number u64 and the
// chunk. The content's length is known only when it has been read to its end;
// a table in front of the payload would have to be reserved, and read before
// the first chunk of a range. So the checksums stand with their chunks, at
// places that follow from the header: a pack is written in one pass, only the
// header of a large record is patched, into zero bytes that fill what its
// lengths did not need; and a range is one read of the chunks that cover it.
//
// Records are in the order of their name hash; those of one hash, several
// versions of a name for example, stand in the order of their writing. A void
// counts as having the hash of the record before it, or the lowest of the range.
//
// Catalog: blocks of about a thousand entries, each with its checksum and
// readable on its own; an entry repeats the record's header and adds what the
// source's row listed. See catalog.go.
//
// Index: for every record some bits of its name hash and its end, in pages
// of about 112 records found by multiplying the hash. About 4.4 bytes a record
// where lengths spread as file sizes do; a name that is not in the pack has
// a false place with a probability of 2^-15 at most. See index.go.
//
// Replaced packs: their ids, 16 bytes each, at most 65536.
//
// Footer, 208 bytes, see ends.go:
//
//	  0  32  SHA-256 of all bytes before the footer
//	 32  16  pack id
//	 48  16  cluster id
//	 64  16  token
//	 80  16  lowest seq of the files and tombstones; zero when there are none
//	 96  16  highest seq
//	112   8  range
//	120  12  created
//	132   4  records, voids included
//	136   8  payload bytes, as stored
//	144  20  catalog: offset u64, length u64, CRC32C of its bytes
//	164  20  index: the same
//	184   4  replaced packs
//	188   4  CRC32C of the list of replaced packs
//	192   4  CRC32C of the footer without these four bytes
//	196   2  flags, none known
//	198   2  version, 3
//	200   8  magic 89 "DESE" 0d 0a 1a
//
// # What checks what
//
//	magic, version            compared; everything else has a checksum
//	header, footer            their CRC32C, and each other
//	record's header and name  header CRC32C
//	content                   SHA-256; in chunks also the CRC32C of each
//	catalog                   CRC32C of each block, and of all in footer and manifest
//	index, replaced packs     CRC32C in the footer, that of the index in the manifest too
//	all of it                 SHA-256 in the footer and the manifest
//
// A byte that changed is noticed by every read that touches it. Content
// without chunks is verified whole before its first byte is handed out,
// content in chunks chunk by chunk, and its last chunk only once the SHA-256
// of all of it was found right.
//
// # Errors
//
// A reader checks magic, then version, then the rest:
//
//	ErrNotPack   it does not begin as a pack does, or not end as one: foreign, empty, cut, torn
//	ErrVersion   another version (versions 1 and 2 by their beginning), or a flag, record
//	             type, codec, encryption or critical metadata field that this one does not know
//	ErrCorrupt   bytes contradict a checksum or themselves; a CorruptError says where
//
// An object that yields fewer bytes than its size says is io.ErrUnexpectedEOF:
// the transfer may have broken off. Lengths are held against the size of what
// they lie in and the limits of this package before they are used.
//
// # Compatibility
//
// Version 3 readers refuse what they do not know, except metadata fields
// without the critical bit, which they keep and hand on (Metadata.Unknown).
// Later versions keep the first 12 bytes and the last 12 where they are. The
// golden vectors in testdata are never made again: each release reads them.
package desformat
