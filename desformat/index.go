package desformat

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Layout of the index. Records are in the order of their name hash, so the
// index holds no keys, only what tells them apart inside a page.
//
//	 0   4  magic "DESX"
//	 4   4  records n
//	 8   4  pages p = ceil(n / 112)
//	12   1  bits of the pack's range
//	13   1  k: quotient bits of a hash remainder, 0 to 7
//	14   2  zero
//	16   …  directory: p+1 times {position u32 in the index, ordinal u32}
//	 …   …  pages, one behind the other
//	 …   8  zero bytes: readers load 8 bytes at any byte
//
// The 64 bits of the hash behind the range's prefix are multiplied by p: the
// upper word is the page, the leading 15+k bits of the lower word are the
// remainder. Its leading k bits are the quotient, the other 15 stand as they
// are. A page of m records, empty when m is 0, else:
//
//	0   6  base: offset of its first record in the pack
//	6   1  w: width of the fixed part of an end
//	7   …  hash quotients, unary: m ones, 2^k zeros; record i is a one behind
//	       as many zeros as its quotient
//	…   …  hash remainders: m times 15 bits
//	…   …  ends, fixed part: m times w bits. An end is counted from base
//	…   …  ends, quotients, unary: m ones, as many zeros as the last quotient
//
// Bits are numbered from the lowest of each byte; each run begins on a byte and
// its unused bits are zero. Ends instead of lengths: an end is found without
// adding up a page, and the runs are bounded (2m bits and less) whatever the
// lengths are, without an escape.
const (
	indexMagic  = "DESX"
	indexHead   = 16
	indexTail   = 8
	dirEntry    = 8
	pageHead    = 7
	pageRecords = 112 // mean; below 128 = 2^7, so that 15 bits make the false rate 112/128 of 2^-15
	remBits     = 15
	remMask     = 1<<remBits - 1
	maxQuotient = 7
	maxWidth    = 47 // a load of 8 bytes holds 57 bits from any bit on
)

// Index maps name hashes to the places of records. It is immutable and may be
// used from many goroutines.
type Index struct {
	b       []byte // the whole section
	start   int64  // its offset in the pack; every record lies before it
	end     int64  // of the last record
	records uint32
	geo     geometry
}

// geometry says which page and remainder belong to a hash.
type geometry struct {
	pages     uint32
	quotients uint8 // k
	rangeBits uint8
}

func newGeometry(records uint32, r Range) geometry {
	g := geometry{pages: (records + pageRecords - 1) / pageRecords, rangeBits: r.bits}
	if g.pages > 0 {
		mean := (records + g.pages - 1) / g.pages
		g.quotients = uint8(bits.Len32(mean - 1))
	}
	return g
}

// key returns the 64 bits of h behind the prefix of a range of n bits.
func (h NameHash) key(n uint8) uint64 {
	hi, lo := binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:16])
	return hi<<n | lo>>(64-n)
}

// place returns the page of key and its remainder, quotient included.
func (g geometry) place(key uint64) (page, rem uint32) {
	hi, lo := bits.Mul64(key, uint64(g.pages))
	return uint32(hi), uint32(lo >> (64 - remBits - g.quotients))
}

// Records returns the number of records in the pack.
func (x *Index) Records() int { return int(x.records) }

// Bytes returns the memory that the index holds, in bytes.
func (x *Index) Bytes() int64 { return int64(cap(x.b)) + int64(unsafe.Sizeof(*x)) }

// page is the place of one page's runs in an index.
type page struct {
	ordinal   uint32
	n         int
	base      int64
	width     uint
	quotients int // byte positions in the index
	rems      int
	fixed     int
	ends      int
	limit     int // end of the page
}

// page locates the runs of page i. The index was checked by ParseIndex.
func (x *Index) page(i uint32) (p page) {
	d := x.b[indexHead+int(i)*dirEntry:][:2*dirEntry]
	pos := int(binary.LittleEndian.Uint32(d))
	p.ordinal = binary.LittleEndian.Uint32(d[4:])
	p.limit = int(binary.LittleEndian.Uint32(d[8:]))
	p.n = int(binary.LittleEndian.Uint32(d[12:]) - p.ordinal)
	if p.n <= 0 {
		return page{ordinal: p.ordinal, limit: p.limit}
	}
	head := load(x.b, pos)
	p.base = int64(head & (1<<48 - 1))
	p.width = uint(head>>48) & 0xff
	p.quotients = pos + pageHead
	p.rems = p.quotients + (p.n+1<<x.geo.quotients+7)/8
	p.fixed = p.rems + (p.n*remBits+7)/8
	p.ends = p.fixed + (p.n*int(p.width)+7)/8
	return p
}

// Lookup appends the places of all records that may have the hash h, in the
// order of the pack, and returns dst. A place may be false: the caller holds
// the record's name against its own. h must lie in the pack's range.
func (x *Index) Lookup(h NameHash, dst []Location) []Location {
	if x.records == 0 {
		return dst
	}
	at, rem := x.geo.place(h.key(x.geo.rangeBits))
	p := x.page(at)
	if p.n == 0 {
		return dst
	}
	bucket := int(rem >> remBits)
	low := uint64(rem & remMask)
	bit := 0
	if bucket > 0 {
		bit = selectZero(x.b, p.quotients, bucket-1) + 1
	}
	for i := bit - bucket; x.bit(p.quotients, bit); i, bit = i+1, bit+1 {
		if r := x.field(p.rems, i, remBits); r == low {
			dst = append(dst, x.location(&p, i))
		} else if r > low {
			break
		}
	}
	return dst
}

// location returns the place of record i of p.
func (x *Index) location(p *page, i int) Location {
	var from int64
	bit := -1
	if i > 0 {
		bit = selectOne(x.b, p.ends, i-1)
		from = int64(bit-(i-1))<<p.width | int64(x.field(p.fixed, i-1, p.width))
	}
	bit = nextOne(x.b, p.ends, bit+1)
	to := int64(bit-i)<<p.width | int64(x.field(p.fixed, i, p.width))
	return Location{Ordinal: p.ordinal + uint32(i), Offset: p.base + from, Length: to - from}
}

// load returns the 8 bytes at pos; the index's tail makes them readable from
// any byte of a page.
func load(b []byte, pos int) uint64 { return binary.LittleEndian.Uint64(b[pos:]) }

// bit reports bit i of the run at byte pos.
func (x *Index) bit(pos, i int) bool { return x.b[pos+i>>3]>>(i&7)&1 != 0 }

// field returns the i-th number of width bits of the run at byte pos.
func (x *Index) field(pos, i int, width uint) uint64 {
	at := i * int(width)
	return load(x.b, pos+at>>3) >> (at & 7) & (1<<width - 1)
}

// selectOne returns the number of the bit that is the k-th one, from 0, of the
// run at byte pos.
func selectOne(b []byte, pos, k int) int {
	for at := 0; ; at += 64 {
		w := load(b, pos+at>>3)
		if ones := bits.OnesCount64(w); k >= ones {
			k -= ones
			continue
		}
		return at + selectWord(w, k)
	}
}

// selectZero is selectOne for zeros.
func selectZero(b []byte, pos, k int) int {
	for at := 0; ; at += 64 {
		w := ^load(b, pos+at>>3)
		if zeros := bits.OnesCount64(w); k >= zeros {
			k -= zeros
			continue
		}
		return at + selectWord(w, k)
	}
}

// selectWord returns the place of the k-th one, from 0, of w, halving the word
// six times.
func selectWord(w uint64, k int) int {
	at := 0
	for half := 32; half > 0; half >>= 1 {
		if ones := bits.OnesCount64(w & (1<<half - 1)); k >= ones {
			k -= ones
			w >>= half
			at += half
		}
	}
	return at
}

// nextOne returns the first one at or behind bit i of the run at byte pos.
func nextOne(b []byte, pos, i int) int {
	w := load(b, pos+i>>3) >> (i & 7) << (i & 7)
	for at := i &^ 7; ; at += 64 {
		if w != 0 {
			return at + bits.TrailingZeros64(w)
		}
		w = load(b, pos+(at+64)>>3)
	}
}
