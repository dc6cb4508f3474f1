package raftmeta

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
)

// ordinals is a rising list of record ordinals. Its text is base64 of pairs of
// unsigned varints, for each run of neighbours: the gap since the last run's
// end, and the run's length less one. A pack of five million dead records is
// a few bytes that way, and one with every other record dead 5 MB.
type ordinals []uint32

// maxOrdinals keeps damaged text from filling the memory: no pack has so many
// records.
const maxOrdinals = 1 << 26

// MarshalText returns the text described above.
func (o ordinals) MarshalText() ([]byte, error) {
	var raw []byte
	next := uint64(0)
	for i := 0; i < len(o); {
		first, n := uint64(o[i]), uint64(1)
		if first < next {
			return nil, fmt.Errorf("ordinals not rising at %d: %w", first, ErrInvalid)
		}
		for i++; i < len(o) && uint64(o[i]) == first+n; i++ {
			n++
		}
		raw = binary.AppendUvarint(raw, first-next)
		raw = binary.AppendUvarint(raw, n-1)
		next = first + n
	}
	return base64.StdEncoding.AppendEncode(nil, raw), nil
}

// UnmarshalText parses what MarshalText returns.
func (o *ordinals) UnmarshalText(b []byte) error {
	raw, err := base64.StdEncoding.AppendDecode(nil, b)
	if err != nil {
		return fmt.Errorf("ordinals: %w", err)
	}
	var out []uint32
	next := uint64(0)
	for len(raw) > 0 {
		gap, a := binary.Uvarint(raw)
		if a <= 0 {
			return fmt.Errorf("ordinals: cut varint: %w", ErrInvalid)
		}
		more, b := binary.Uvarint(raw[a:])
		if b <= 0 || gap > math.MaxUint32 || more > maxOrdinals || next+gap+more > math.MaxUint32 || uint64(len(out))+more >= maxOrdinals {
			return fmt.Errorf("ordinals: bad run: %w", ErrInvalid)
		}
		raw = raw[a+b:]
		for n := range more + 1 {
			out = append(out, uint32(next+gap+n))
		}
		next += gap + more + 1
	}
	*o = out
	return nil
}
