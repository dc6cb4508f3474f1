package desformat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Limits of the format. Readers refuse what is beyond them before they
// allocate anything.
const (
	MaxName   = 1024    // bytes
	MaxID     = 64      // bytes
	MaxSource = 255     // bytes
	MaxTenant = 255     // bytes
	MaxHeader = 1 << 20 // bytes of one record's header, metadata included
	// MaxPlain is the largest payload without chunks, and the largest chunk.
	MaxPlain = 16 << 20
	// MaxSize is the largest content of one record: 2^46 bytes.
	MaxSize = 1 << 46
	// MaxRecords is the largest number of records in a pack: it keeps the
	// 32-bit positions of the index within the worst case of 8.5 bytes a record.
	MaxRecords = 1 << 28
	// MaxPack is the largest offset in a pack, 2^47 bytes.
	MaxPack = 1 << 47
	// MaxReplaces is the longest list of replaced packs.
	MaxReplaces = 1 << 16
)

// Codec and encryption of a payload: none, for now. A reader refuses others
// with ErrVersion.
const (
	CodecNone      = 0
	EncryptionNone = 0
)

// The metadata fields that version 3 knows. tlvCritical marks a field that a
// reader must know to make sense of the record.
const (
	tlvContentType = 1
	tlvCreated     = 2
	tlvRetention   = 3
	tlvCustom      = 4
	tlvLastKnown   = 4
	tlvCritical    = 0x8000
)

// Header is everything that stands before a record's payload.
type Header struct {
	Record
	HeaderLen  int64 // bytes from the record's start to its payload
	StoredLen  int64 // bytes of the payload as stored, chunk checksums included
	ChunkLen   int64 // content bytes in every chunk but the last; 0: no chunks
	Codec      uint8 // CodecNone
	Encryption uint8 // EncryptionNone
}

// check reports whether the format can hold h. The same rules bind the Writer,
// the header of a record and its entry in the catalog.
func (h *Header) check() error {
	switch {
	case h.Type != TypeFile && h.Type != TypeTombstone && h.Type != TypeVoid:
		return fmt.Errorf("record type %d: %w", h.Type, ErrVersion)
	case h.Type == TypeVoid && h.Name != "":
		return fmt.Errorf("a void record has no name: %w", ErrBadRecord)
	case h.Type != TypeVoid && h.Name == "":
		return fmt.Errorf("no name: %w", ErrBadRecord)
	case h.Type == TypeTombstone && h.Size != 0:
		return fmt.Errorf("a tombstone has no content: %w", ErrBadRecord)
	case len(h.Name) > MaxName, len(h.ID) > MaxID, len(h.Source) > MaxSource, len(h.Tenant) > MaxTenant:
		return fmt.Errorf("name, id, source or tenant too long: %w", ErrBadRecord)
	case !utf8.ValidString(h.Name):
		return fmt.Errorf("name is not UTF-8: %w", ErrBadRecord)
	case h.Size < 0 || h.Size > MaxSize:
		return fmt.Errorf("content of %d bytes: %w", h.Size, ErrBadRecord)
	case h.ChunkLen < 0 || h.ChunkLen > MaxPlain:
		return fmt.Errorf("chunks of %d bytes: %w", h.ChunkLen, ErrBadRecord)
	case h.ChunkLen > 0 && h.Size == 0:
		return fmt.Errorf("chunks without content: %w", ErrBadRecord)
	case h.ChunkLen == 0 && h.Size > MaxPlain:
		return fmt.Errorf("content of %d bytes without chunks: %w", h.Size, ErrBadRecord)
	case h.StoredLen != storedLen(h.Size, h.ChunkLen):
		return fmt.Errorf("content of %d bytes stored in %d: %w", h.Size, h.StoredLen, ErrBadRecord)
	}
	return h.Meta.check()
}

func (m *Metadata) check() error {
	last := uint16(tlvLastKnown)
	for _, f := range m.Unknown {
		if f.Type <= last || f.Type >= tlvCritical {
			return fmt.Errorf("metadata field %#x: known, critical or out of order: %w", f.Type, ErrBadRecord)
		}
		last = f.Type
	}
	return nil
}

// storedLen returns the stored length of content of size bytes: chunks are
// followed by their checksums.
func storedLen(size, chunkLen int64) int64 {
	if chunkLen == 0 {
		return size
	}
	return size + chunkSum*((size+chunkLen-1)/chunkLen)
}

// appendFields appends what a record's header and its entry in the catalog
// have in common, all but the content's hash:
//
//	type u8 | flags u8 | codec u8 | encryption u8 | archive version v
//	content length v | stored length v | chunk length v
//	seq generation v | seq index v | mtime seconds z | mtime nanoseconds v
//	source s | id s | tenant s | key id s | nonce s | name s
//	metadata length v | metadata
func appendFields(b []byte, h *Header) []byte {
	b = append(b, byte(h.Type), 0, h.Codec, h.Encryption)
	b = binary.AppendUvarint(b, uint64(h.Version))
	b = binary.AppendUvarint(b, uint64(h.Size))
	b = binary.AppendUvarint(b, uint64(h.StoredLen))
	b = binary.AppendUvarint(b, uint64(h.ChunkLen))
	b = binary.AppendUvarint(b, h.Seq.Generation)
	b = binary.AppendUvarint(b, h.Seq.Index)
	b = appendTime(b, h.ModTime)
	b = appendShort(b, h.Source)
	b = appendShort(b, h.ID)
	b = appendShort(b, h.Tenant)
	b = append(b, 0, 0) // key id and nonce: none without encryption
	b = appendShort(b, h.Name)
	b = binary.AppendUvarint(b, uint64(h.Meta.encodedLen()))
	return appendMetadata(b, &h.Meta)
}

// parseFields takes the fields off c, which keeps the error.
func parseFields(c *cursor, h *Header) {
	h.Type = RecordType(c.u8("type"))
	if flags := c.u8("flags"); flags != 0 {
		c.refuse("record flags %#x", flags)
	}
	if h.Codec = c.u8("codec"); h.Codec != CodecNone {
		c.refuse("codec %d", h.Codec)
	}
	if h.Encryption = c.u8("encryption"); h.Encryption != EncryptionNone {
		c.refuse("encryption %d", h.Encryption)
	}
	h.Version = uint32(c.length(math.MaxUint32, "archive version"))
	h.Size = c.length(MaxSize, "content length")
	h.StoredLen = c.length(math.MaxInt64, "stored length")
	h.ChunkLen = c.length(MaxPlain, "chunk length")
	h.Seq.Generation = c.uvarint("seq")
	h.Seq.Index = c.uvarint("seq")
	h.ModTime = c.time("mtime")
	h.Source = c.reuse(h.Source, MaxSource, "source")
	h.ID = c.reuse("", MaxID, "id")
	h.Tenant = c.reuse(h.Tenant, MaxTenant, "tenant")
	if len(c.short(math.MaxUint8, "key id"))+len(c.short(math.MaxUint8, "nonce")) != 0 {
		c.fail("key id or nonce without encryption")
	}
	h.Name = c.reuse("", MaxName, "name")
	meta := cursor{b: c.short(MaxHeader, "metadata")}
	base := c.pos - len(meta.b)
	if c.err == nil {
		parseMetadata(&meta, &h.Meta)
		c.err = at(meta.err, int64(base))
	}
	if c.err == nil {
		if err := h.check(); err != nil {
			c.failCheck(err)
		}
	}
}

// failCheck turns a broken rule of Header.check into what a reader returns:
// corrupt, unless a newer version may allow it.
func (c *cursor) failCheck(err error) {
	if errors.Is(err, ErrVersion) {
		c.err = err
		return
	}
	c.fail("%s", err)
}

// reuse takes a string; when it equals old, which is common in a catalog, it
// costs no allocation.
func (c *cursor) reuse(old string, limit int, what string) string {
	v := c.short(limit, what)
	if string(v) == old {
		return old
	}
	return string(v)
}

// Metadata is a run of fields of rising type: type u16 | length v | value.
func appendMetadata(b []byte, m *Metadata) []byte {
	if m.ContentType != "" {
		b = appendShort(binary.LittleEndian.AppendUint16(b, tlvContentType), m.ContentType)
	}
	if !m.Created.IsZero() {
		var t [2 * binary.MaxVarintLen64]byte
		b = appendShort(binary.LittleEndian.AppendUint16(b, tlvCreated), appendTime(t[:0], m.Created))
	}
	if m.Retention != "" {
		b = appendShort(binary.LittleEndian.AppendUint16(b, tlvRetention), m.Retention)
	}
	if len(m.Custom) > 0 {
		b = appendShort(binary.LittleEndian.AppendUint16(b, tlvCustom), m.Custom)
	}
	for _, f := range m.Unknown {
		b = appendShort(binary.LittleEndian.AppendUint16(b, f.Type), f.Value)
	}
	return b
}

// encodedLen returns the number of bytes that appendMetadata appends.
func (m *Metadata) encodedLen() int {
	if m.ContentType == "" && m.Created.IsZero() && m.Retention == "" && len(m.Custom) == 0 && len(m.Unknown) == 0 {
		return 0
	}
	return len(appendMetadata(nil, m))
}

func parseMetadata(c *cursor, m *Metadata) {
	*m = Metadata{}
	last := uint16(0)
	for c.err == nil && c.left() > 0 {
		raw := c.take(2, "metadata type")
		if c.err != nil {
			return
		}
		typ := binary.LittleEndian.Uint16(raw)
		value := c.short(MaxHeader, "metadata value")
		switch {
		case typ >= tlvCritical:
			c.refuse("critical metadata field %#x", typ)
		case typ <= last:
			c.fail("metadata field %#x out of order", typ)
		case typ == tlvCreated:
			t := cursor{b: value}
			m.Created = t.time("created")
			if t.err != nil || t.left() != 0 || m.Created.IsZero() {
				c.fail("created time")
			}
		case typ <= tlvLastKnown && len(value) == 0:
			c.fail("metadata field %#x is empty", typ)
		default:
			m.keep(typ, value)
		}
		last = typ
	}
}

// keep stores a copy of one field's value, Created excepted.
func (m *Metadata) keep(typ uint16, value []byte) {
	switch typ {
	case tlvContentType:
		m.ContentType = string(value)
	case tlvRetention:
		m.Retention = string(value)
	case tlvCustom:
		m.Custom = append([]byte(nil), value...)
	default:
		m.Unknown = append(m.Unknown, TLV{Type: typ, Value: append([]byte(nil), value...)})
	}
}
