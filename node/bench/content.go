package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Content is the bytes of one file: a sequence of 64-bit words, each a hash of
// the file's number and the word's place (SplitMix64), little-endian. No two
// files agree in more than chance allows, and no compression gains anything.
type Content struct {
	seed uint64
	size int64
	at   int64
}

var _ io.ReadSeeker = (*Content)(nil)

// Content returns the bytes of file i, from the start.
func (f Files) Content(i int64) *Content {
	return &Content{seed: mix(uint64(i) + 1), size: f.Sizes.Of(i)}
}

// golden is 2^64 divided by the golden ratio: SplitMix64's step.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's output function.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

const word = 8 // bytes

// Read fills p.
func (c *Content) Read(p []byte) (int, error) {
	left := c.size - c.at
	if left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), left)]
	n := len(p)
	place := uint64(c.at / word)
	if skip := int(c.at % word); skip > 0 { // the rest of a word that was begun
		p = p[copy(p, c.word(place)[skip:]):]
		place++
	}
	for ; len(p) >= word; p = p[word:] {
		binary.LittleEndian.PutUint64(p, mix(c.seed+place*golden))
		place++
	}
	copy(p, c.word(place)[:])
	c.at += int64(n)
	return n, nil
}

func (c *Content) word(place uint64) []byte {
	return binary.LittleEndian.AppendUint64(nil, mix(c.seed+place*golden))
}

// Seek moves to another place; beyond the end there is nothing.
func (c *Content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	c.at = offset
	return offset, nil
}

// ErrDiffers: what was read back is not what was archived.
var ErrDiffers = errors.New("its bytes differ")

// Compare reads r to its end and reports where it differs from the rest of
// the content.
func (c *Content) Compare(r io.Reader) error {
	var theirs, ours [16 << 10]byte
	for {
		n, err := io.ReadFull(r, theirs[:])
		m, errOurs := io.ReadFull(c, ours[:n])
		if m < n || string(ours[:m]) != string(theirs[:n]) {
			return fmt.Errorf("%w before byte %d", ErrDiffers, c.at)
		}
		_ = errOurs // m says it
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if c.at != c.size {
				return fmt.Errorf("%w: %d bytes came, not %d", ErrDiffers, c.at, c.size)
			}
			return nil
		case err != nil:
			return err
		}
	}
}
