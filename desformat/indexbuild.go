package desformat

import (
	"encoding/binary"
	"math/bits"
)

// indexBuilder makes the index of a pack whose number of records is known, one
// record after the other. Equal records make equal bytes.
type indexBuilder struct {
	geo     geometry
	records uint32 // all of the pack
	added   uint32
	page    uint32 // the page of rems and ends
	base    int64  // offset of that page's first record
	rems    []uint32
	ends    []int64 // counted from base
	key     uint64  // of the last record
	out     []byte
}

func newIndexBuilder(records uint32, r Range) *indexBuilder {
	x := &indexBuilder{geo: newGeometry(records, r), records: records, base: packHeaderLen}
	dir := indexHead + int(x.geo.pages+1)*dirEntry
	x.out = make([]byte, dir, dir+int(records)*9/2+int(x.geo.pages)*16+indexTail)
	copy(x.out, indexMagic)
	binary.LittleEndian.PutUint32(x.out[4:], records)
	binary.LittleEndian.PutUint32(x.out[8:], x.geo.pages)
	x.out[12], x.out[13] = r.bits, x.geo.quotients
	x.enter(0)
	return x
}

// enter notes where page i begins.
func (x *indexBuilder) enter(i uint32) {
	d := x.out[indexHead+int(i)*dirEntry:]
	binary.LittleEndian.PutUint32(d, uint32(len(x.out)))
	binary.LittleEndian.PutUint32(d[4:], x.added)
	x.page = i
}

// add appends the next record, which ends at offset end of the pack. Its hash
// is not lower than the last one's, and the caller has seen to it that it lies
// in the range.
func (x *indexBuilder) add(h NameHash, end int64) { x.addKey(h.key(x.geo.rangeBits), end) }

// addVoid appends a record without a name: it takes the place of the record
// before it.
func (x *indexBuilder) addVoid(end int64) { x.addKey(x.key, end) }

func (x *indexBuilder) addKey(key uint64, end int64) {
	at, rem := x.geo.place(key)
	x.key = key
	x.closeUpTo(at)
	x.rems = append(x.rems, rem)
	x.ends = append(x.ends, end-x.base)
	x.added++
}

// closeUpTo writes the current page and the empty ones before page i.
func (x *indexBuilder) closeUpTo(i uint32) {
	for x.page < i {
		x.writePage()
		x.enter(x.page + 1)
	}
}

// finish returns the index; its section is complete.
func (x *indexBuilder) finish() []byte {
	x.closeUpTo(x.geo.pages)
	return append(x.out, make([]byte, indexTail)...)
}

func (x *indexBuilder) writePage() {
	n := len(x.rems)
	if n == 0 {
		return
	}
	total := x.ends[n-1]
	width := uint(max(0, bits.Len64(uint64(total)/uint64(n))-1))
	x.out = append(binary.LittleEndian.AppendUint64(x.out, uint64(x.base))[:len(x.out)+6], byte(width))

	var w bitWriter
	w.start(&x.out, n+1<<x.geo.quotients)
	for i, rem := range x.rems {
		w.set(int(rem>>remBits)+i, 1)
	}
	w.start(&x.out, n*remBits)
	for i, rem := range x.rems {
		w.set(i*remBits, uint64(rem&remMask))
	}
	w.start(&x.out, n*int(width))
	for i, end := range x.ends {
		w.set(i*int(width), uint64(end)&(1<<width-1))
	}
	w.start(&x.out, n+int(total>>width))
	for i, end := range x.ends {
		w.set(int(end>>width)+i, 1)
	}
	x.base += total
	x.rems, x.ends = x.rems[:0], x.ends[:0]
}

// bitWriter sets bits of a run at the end of a slice.
type bitWriter struct{ run []byte }

// start appends a run of n zero bits to out and makes it the one written to.
func (w *bitWriter) start(out *[]byte, n int) {
	at := len(*out)
	*out = append(*out, make([]byte, (n+7)/8)...)
	w.run = (*out)[at:]
}

// set puts v at bit `at` and above; those bits are still zero.
func (w *bitWriter) set(at int, v uint64) {
	i := at >> 3
	if low := at & 7; low > 0 && v != 0 {
		w.run[i] |= byte(v << low)
		v >>= 8 - low
		i++
	}
	for ; v != 0; v >>= 8 {
		w.run[i] |= byte(v)
		i++
	}
}
