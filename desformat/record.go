package desformat

import (
	"crypto/sha256"
	"errors"
	"time"
)

// Errors of this package. Each is returned wrapped; compare with errors.Is.
var (
	// ErrNotPack: the bytes do not begin or end as a pack does.
	ErrNotPack = errors.New("not a DES pack")
	// ErrVersion: a pack, or a critical field, newer than this reader knows.
	ErrVersion = errors.New("unsupported version of the pack format")
	// ErrCorrupt: the bytes contradict a checksum or themselves. See CorruptError.
	ErrCorrupt = errors.New("corrupt pack")
	// ErrOutOfRange: the Writer was given a hash outside the pack's range.
	ErrOutOfRange = errors.New("name hash outside the pack's range")
	// ErrOutOfOrder: the Writer was given a hash lower than the one before it.
	ErrOutOfOrder = errors.New("name hash out of order")
	// ErrInvalidName: a name that DESIGN.md §10 refuses; the text says why.
	ErrInvalidName = errors.New("invalid name")
)

// RecordType says what a record is.
type RecordType uint8

// The record types.
const (
	TypeFile      RecordType = 1 // one archived version of a file
	TypeTombstone RecordType = 2 // the name was removed; no payload
	TypeVoid      RecordType = 3 // space that holds nothing; readers skip it
)

// Record is what a pack keeps about one version of one name.
type Record struct {
	Type    RecordType
	Name    string
	Seq     Token             // the packing that first archived this version
	Source  string            // the source's short name
	ID      string            // the row's key in the source, ≤ 64 bytes
	Tenant  string            // empty: none
	Version uint32            // archive_version of the row
	Size    int64             // content length in bytes; the Writer sets it
	SHA256  [sha256.Size]byte // of the content; the Writer sets it
	ModTime time.Time         // mtime of the file as read, nanoseconds, UTC
	Meta    Metadata

	// As the source's row listed them when the file was packed. They stand in
	// the catalog only and are zero in a record read by its header.
	SourceSize int64
	SourceTime time.Time
}

// Hash returns the name hash.
func (r *Record) Hash() NameHash { return HashName(r.Name) }

// Metadata is a record's optional part, the TLV area of its header.
type Metadata struct {
	ContentType string    // empty: none
	Created     time.Time // zero: unknown
	Retention   string    // retention class; empty: none
	Custom      []byte    // the customer's columns, one JSON object; nil: none
	Unknown     []TLV     // fields without the critical bit that this version does not know; kept
}

// TLV is one raw metadata field.
type TLV struct {
	Type  uint16
	Value []byte
}

// Location is the place of one record inside its pack.
type Location struct {
	Ordinal uint32 // 0 for the first record
	Offset  int64  // bytes from the start of the pack
	Length  int64  // header, name, metadata, chunk table and payload, in bytes
}

// Entry is one record of a sealed pack as its catalog lists it.
type Entry struct {
	Record
	Location
}

// Section is the place of one part of a pack and the CRC32C of its bytes.
type Section struct {
	Offset int64
	Length int64
	CRC    uint32
}

// Footer is what the fixed-size end of a pack says about all of it.
type Footer struct {
	Pack         PackID
	Cluster      ClusterID
	Token        Token // the packing lease it was built under
	MinSeq       Token
	MaxSeq       Token
	Range        Range
	Records      uint32 // files, tombstones and voids
	PayloadBytes int64  // stored payload of all records
	Created      time.Time
	Replaces     []PackID // merged packs: what this one stands for
	Catalog      Section
	Index        Section
	SHA256       [sha256.Size]byte // of all bytes before the footer
	Size         int64             // of the whole object, footer included
}
