package bench

import (
	"fmt"
	"math"
)

// Sizes is a distribution of sizes. The zero Sizes are empty files.
type Sizes struct {
	Bytes     int64 // each file's size, or the median
	LogNormal bool  // sigma 1 around the median, as DESIGN.md §12 takes it
}

// tail bounds the largest size of a log-normal distribution, in medians. One
// file in a hundred thousand is larger by the formula.
const tail = 64

// Of returns the size of file i.
func (s Sizes) Of(i int64) int64 {
	if !s.LogNormal {
		return s.Bytes
	}
	// Box and Muller's transform of two numbers that follow from i.
	u := unit(mix(uint64(i)*2 + 1))
	v := unit(mix(uint64(i)*2 + 2))
	normal := math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
	return int64(float64(s.Bytes) * min(math.Exp(normal), tail))
}

// String returns the sizes as the command line writes them.
func (s Sizes) String() string {
	if s.LogNormal {
		return fmt.Sprintf("lognormal:%d", s.Bytes)
	}
	return fmt.Sprint(s.Bytes)
}

// unit maps x to (0, 1].
func unit(x uint64) float64 { return (float64(x>>11) + 1) / (1 << 53) }
