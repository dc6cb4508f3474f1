package desformat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Version is the version of the format that this package writes and reads.
const Version = 3

// Both ends of a pack carry a magic: a byte that is not ASCII, then letters,
// then the line ends that a transfer in text mode would change.
const (
	headMagic = "\x89DESP\r\n\x1a"
	endMagic  = "\x89DESE\r\n\x1a"
)

// How packs of versions 1 and 2 begin.
const (
	headMagic1 = "DESHEAD1"
	headMagic2 = "DES2"
)

// Layout of the pack's header:
//
//	 0   8  magic
//	 8   2  version
//	10   2  flags, none known
//	12   8  range: prefix u32, left-aligned; bits u8; 3 zero bytes
//	20  16  pack id
//	36  16  cluster id
//	52  16  token: generation u64, index u64
//	68  12  created: seconds i64, nanoseconds u32
//	80   4  CRC32C of bytes 0 to 80
const (
	packHeaderLen = 84
	packHeaderCRC = 80
)

// encodePackHeader returns the pack's header for what f says.
func encodePackHeader(f *Footer) []byte {
	b := make([]byte, packHeaderLen)
	copy(b, headMagic)
	binary.LittleEndian.PutUint16(b[8:], Version)
	putRange(b[12:], f.Range)
	copy(b[20:], f.Pack[:])
	copy(b[36:], f.Cluster[:])
	putToken(b[52:], f.Token)
	putTime(b[68:], f.Created)
	binary.LittleEndian.PutUint32(b[packHeaderCRC:], crc32c(b[:packHeaderCRC]))
	return b
}

// checkHead checks as much of the pack's header as it can without the footer:
// magic, version, checksum. Fewer bytes than a header are no pack.
func checkHead(b []byte) error {
	if bytes.HasPrefix(b, []byte(headMagic1)) || bytes.HasPrefix(b, []byte(headMagic2)) {
		return fmt.Errorf("begins as a pack of version 1 or 2: %w", ErrVersion)
	}
	if !bytes.HasPrefix(b, []byte(headMagic)) {
		return fmt.Errorf("does not begin as one: %w", ErrNotPack)
	}
	if len(b) < packHeaderLen {
		return fmt.Errorf("begins as one, but is cut after %d bytes: %w", len(b), ErrNotPack)
	}
	if err := checkVersion(b[8:10], b[10:12]); err != nil {
		return err
	}
	if crc32c(b[:packHeaderCRC]) != binary.LittleEndian.Uint32(b[packHeaderCRC:]) {
		return corrupt(0, "checksum of the pack's header")
	}
	return nil
}

func checkVersion(version, flags []byte) error {
	if v := binary.LittleEndian.Uint16(version); v != Version {
		return fmt.Errorf("version %d, not %d: %w", v, Version, ErrVersion)
	}
	if f := binary.LittleEndian.Uint16(flags); f != 0 {
		return fmt.Errorf("flags %#x: %w", f, ErrVersion)
	}
	return nil
}

// Layout of the footer, the last bytes of a pack. What a reader needs to know
// before anything else stands at places counted from the end, which stay the
// same in later versions.
//
//	  0  32  SHA-256 of all bytes before the footer
//	 32  16  pack id
//	 48  16  cluster id
//	 64  16  token
//	 80  16  lowest seq of the files and tombstones; zero when there are none
//	 96  16  highest seq
//	112   8  range
//	120  12  created
//	132   4  records
//	136   8  payload bytes
//	144  20  catalog: offset u64, length u64, CRC32C of its bytes
//	164  20  index: the same
//	184   4  replaced packs
//	188   4  CRC32C of the list of replaced packs
//	192   4  CRC32C of the footer without these four bytes
//	196   2  flags, none known
//	198   2  version
//	200   8  magic
const (
	footerLen     = 208
	footerCRC     = 192
	footerFlags   = 196
	footerVersion = 198
	footerMagic   = 200
)

func footerSum(b []byte) uint32 {
	return updateCRC(crc32c(b[:footerCRC]), b[footerFlags:footerLen])
}

func putSection(b []byte, s Section) {
	binary.LittleEndian.PutUint64(b, uint64(s.Offset))
	binary.LittleEndian.PutUint64(b[8:], uint64(s.Length))
	binary.LittleEndian.PutUint32(b[16:], s.CRC)
}

func fixedSection(b []byte) Section {
	return Section{
		Offset: int64(binary.LittleEndian.Uint64(b)),
		Length: int64(binary.LittleEndian.Uint64(b[8:])),
		CRC:    binary.LittleEndian.Uint32(b[16:]),
	}
}

// encodeReplaces returns the list that stands before the footer: the ids, in
// the order given.
func encodeReplaces(ids []PackID) []byte {
	b := make([]byte, 0, len(ids)*len(PackID{}))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	return b
}

// encodeFooter returns the footer. f.SHA256 covers all that stands before it.
func encodeFooter(f *Footer) []byte {
	b := make([]byte, footerLen)
	copy(b, f.SHA256[:])
	copy(b[32:], f.Pack[:])
	copy(b[48:], f.Cluster[:])
	putToken(b[64:], f.Token)
	putToken(b[80:], f.MinSeq)
	putToken(b[96:], f.MaxSeq)
	putRange(b[112:], f.Range)
	putTime(b[120:], f.Created)
	binary.LittleEndian.PutUint32(b[132:], f.Records)
	binary.LittleEndian.PutUint64(b[136:], uint64(f.PayloadBytes))
	putSection(b[144:], f.Catalog)
	putSection(b[164:], f.Index)
	binary.LittleEndian.PutUint32(b[184:], uint32(len(f.Replaces)))
	binary.LittleEndian.PutUint32(b[188:], crc32c(encodeReplaces(f.Replaces)))
	binary.LittleEndian.PutUint16(b[footerVersion:], Version)
	copy(b[footerMagic:], endMagic)
	binary.LittleEndian.PutUint32(b[footerCRC:], footerSum(b))
	return b
}

// parseFooter decodes the footer of a pack of size bytes, all but the list of
// replaced packs, whose length and checksum it returns. Every place it names
// is held against size: sections follow one another without gaps.
func parseFooter(b []byte, size int64) (f *Footer, replaces int64, sum uint32, err error) {
	if len(b) != footerLen || string(b[footerMagic:]) != endMagic {
		return nil, 0, 0, fmt.Errorf("does not end as one: cut, torn or foreign: %w", ErrNotPack)
	}
	if err := checkVersion(b[footerVersion:footerMagic], b[footerFlags:footerVersion]); err != nil {
		return nil, 0, 0, err
	}
	start := size - footerLen
	if footerSum(b) != binary.LittleEndian.Uint32(b[footerCRC:]) {
		return nil, 0, 0, corrupt(start, "checksum of the footer")
	}
	f = &Footer{
		SHA256:  [32]byte(b),
		Pack:    PackID(b[32:48]),
		Cluster: ClusterID(b[48:64]),
		Token:   fixedToken(b[64:]),
		MinSeq:  fixedToken(b[80:]),
		MaxSeq:  fixedToken(b[96:]),
		Records: binary.LittleEndian.Uint32(b[132:]),
		Catalog: fixedSection(b[144:]),
		Index:   fixedSection(b[164:]),
		Size:    size,
	}
	f.PayloadBytes = int64(binary.LittleEndian.Uint64(b[136:]))
	replaces = int64(binary.LittleEndian.Uint32(b[184:])) * int64(len(PackID{}))
	sum = binary.LittleEndian.Uint32(b[188:])
	var okRange, okTime bool
	f.Range, okRange = fixedRange(b[112:])
	f.Created, okTime = fixedTime(b[120:])
	switch {
	case !okRange || !okTime:
		err = corrupt(start, "range or created time in the footer")
	case !f.fits(replaces):
		err = corrupt(start, "the footer's sections do not fill a pack of %d bytes", size)
	}
	return f, replaces, sum, err
}

// fits reports whether the parts of the pack lie one behind the other and fill
// it, and the counts are possible.
func (f *Footer) fits(replaces int64) bool {
	records := f.Catalog.Offset - packHeaderLen
	return records >= 0 && records <= f.Size &&
		f.Records <= MaxRecords && int64(f.Records)*minHeader <= records &&
		(f.Records > 0) == (records > 0) && (f.Records > 0) == (f.Catalog.Length > 0) &&
		f.PayloadBytes >= 0 && f.PayloadBytes <= records &&
		f.Catalog.Length >= 0 && f.Catalog.Length <= f.Size &&
		f.Index.Length >= 0 && f.Index.Length <= min(f.Size, math.MaxUint32) &&
		f.Index.Offset == f.Catalog.Offset+f.Catalog.Length &&
		replaces <= MaxReplaces*int64(len(PackID{})) &&
		f.Index.Offset+f.Index.Length+replaces == f.Size-footerLen
}

// parseReplaces decodes the list of replaced packs, which ends where the
// footer of f begins.
func parseReplaces(b []byte, sum uint32, f *Footer) error {
	if crc32c(b) != sum {
		return corrupt(f.Index.Offset+f.Index.Length, "checksum of the list of replaced packs")
	}
	for ; len(b) > 0; b = b[len(PackID{}):] {
		f.Replaces = append(f.Replaces, PackID(b))
	}
	return nil
}
