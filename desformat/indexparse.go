package desformat

import (
	"encoding/binary"
	"math/bits"
)

// ParseIndex checks an index and keeps b. Place and checksum come from the
// footer or the manifest. What it returns is safe to use whatever the bytes
// were: every run is walked once.
func ParseIndex(b []byte, s Section) (*Index, error) {
	if int64(len(b)) != s.Length || crc32c(b) != s.CRC {
		return nil, corrupt(s.Offset, "checksum of the index")
	}
	x := &Index{b: b, start: s.Offset}
	if err := x.checkHead(); err != nil {
		return nil, at(err, s.Offset)
	}
	x.end = packHeaderLen
	for i := range x.geo.pages {
		if err := x.checkPage(i); err != nil {
			return nil, at(err, s.Offset)
		}
	}
	return x, nil
}

// checkHead checks all that has a fixed place: the head, both ends of the
// directory, the tail.
func (x *Index) checkHead() error {
	b := x.b
	if len(b) < indexHead+dirEntry+indexTail || string(b[:4]) != indexMagic {
		return corrupt(0, "not an index")
	}
	x.records = binary.LittleEndian.Uint32(b[4:])
	if x.records > MaxRecords || b[12] > MaxRangeBits {
		return corrupt(4, "index of %d records in a range of %d bits", x.records, b[12])
	}
	x.geo = newGeometry(x.records, Range{bits: b[12]})
	if binary.LittleEndian.Uint32(b[8:]) != x.geo.pages || b[13] != x.geo.quotients || b[14]|b[15] != 0 {
		return corrupt(8, "index of %d records does not have their layout", x.records)
	}
	dir := indexHead + int64(x.geo.pages+1)*dirEntry
	tail := int64(len(b)) - indexTail
	if dir > tail || binary.LittleEndian.Uint64(b[tail:]) != 0 {
		return corrupt(tail, "end of the index")
	}
	first, last := b[indexHead:], b[dir-dirEntry:]
	if binary.LittleEndian.Uint32(first[4:]) != 0 || int64(binary.LittleEndian.Uint32(first)) != dir ||
		binary.LittleEndian.Uint32(last[4:]) != x.records || int64(binary.LittleEndian.Uint32(last)) != tail {
		return corrupt(indexHead, "directory of the index")
	}
	return nil
}

// checkPage walks page i, which begins where the page before it said.
func (x *Index) checkPage(i uint32) error {
	d := x.b[indexHead+int(i)*dirEntry:]
	pos, next := int64(binary.LittleEndian.Uint32(d)), int64(binary.LittleEndian.Uint32(d[8:]))
	from, to := binary.LittleEndian.Uint32(d[4:]), binary.LittleEndian.Uint32(d[12:])
	if pos > next || next > int64(len(x.b)-indexTail) || from > to || to > x.records {
		return corrupt(pos, "directory entry %d of the index", i)
	}
	if from == to {
		if pos != next {
			return corrupt(pos, "page %d of the index is empty and is not", i)
		}
		return nil
	}
	// A record takes at least 15 bits, so a count beyond the page's bytes cannot
	// overflow what follows.
	if n := int64(to - from); next-pos < pageHead || n > (next-pos)*8/remBits || x.b[pos+6] > maxWidth {
		return corrupt(pos, "page %d of the index holds %d records in %d bytes", i, n, next-pos)
	}
	p := x.page(i)
	if p.ends > p.limit || p.base != x.end {
		return corrupt(pos, "page %d of the index does not follow the one before it", i)
	}
	if !x.checkHashes(&p) || !x.checkEnds(&p) {
		return corrupt(pos, "page %d of the index", i)
	}
	return nil
}

// checkHashes reports whether the page's remainders are a rising run below
// 2^(15+k).
func (x *Index) checkHashes(p *page) bool {
	last := uint64(0)
	i := 0
	ok := ones(x.b[p.quotients:p.rems], func(bit int) bool {
		if i == p.n || bit-i >= 1<<x.geo.quotients {
			return false
		}
		rem := uint64(bit-i)<<remBits | x.field(p.rems, i, remBits)
		rising := rem >= last
		last = rem
		i++
		return rising
	})
	return ok && i == p.n
}

// checkEnds reports whether the page's records follow one another, none
// shorter than a record can be, and moves x.end behind them.
func (x *Index) checkEnds(p *page) bool {
	last := int64(0)
	i := 0
	ok := ones(x.b[p.ends:p.limit], func(bit int) bool {
		if i == p.n {
			return false
		}
		end := int64(bit-i)<<p.width | int64(x.field(p.fixed, i, p.width))
		fits := end >= last+minHeader && end <= x.start-p.base
		last = end
		i++
		return fits
	})
	x.end += last
	return ok && i == p.n
}

// ones calls f with the number of each bit of run that is one, until f returns
// false, which it returns.
func ones(run []byte, f func(bit int) bool) bool {
	for at := 0; at < len(run); at += 8 {
		var w uint64
		if rest := run[at:]; len(rest) >= 8 {
			w = binary.LittleEndian.Uint64(rest)
		} else {
			var last [8]byte
			copy(last[:], rest)
			w = binary.LittleEndian.Uint64(last[:])
		}
		for ; w != 0; w &= w - 1 {
			if !f(at*8 + bits.TrailingZeros64(w)) {
				return false
			}
		}
	}
	return true
}
