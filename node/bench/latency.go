package bench

import (
	"math/bits"
	"time"
)

// Latencies counts durations in buckets that are at most 1/64 of their value
// wide, so that a quantile is exact to 1.6 % whatever its size, in 30 KiB. The
// zero Latencies are empty. For one goroutine; Merge joins several.
type Latencies struct {
	buckets [buckets]int64
	count   int64
	sum     time.Duration
	max     time.Duration
}

// A duration of n significant bits keeps its highest 7: below 128 ns each has
// a bucket of its own, above there are 64 to each power of two.
const (
	keptBits = 7
	half     = 1 << (keptBits - 1)
	buckets  = (63-keptBits)*half + 2*half
)

// Add counts one duration.
func (l *Latencies) Add(d time.Duration) {
	d = max(0, d)
	shift := max(0, bits.Len64(uint64(d))-keptBits)
	l.buckets[shift*half+int(d>>shift)]++
	l.count++
	l.sum += d
	l.max = max(l.max, d)
}

// Merge adds what other has counted.
func (l *Latencies) Merge(other *Latencies) {
	for i, n := range other.buckets {
		l.buckets[i] += n
	}
	l.count += other.count
	l.sum += other.sum
	l.max = max(l.max, other.max)
}

// Count returns how many durations were counted.
func (l *Latencies) Count() int64 { return l.count }

// Max returns the longest.
func (l *Latencies) Max() time.Duration { return l.max }

// Mean returns the mean; 0 of none.
func (l *Latencies) Mean() time.Duration {
	if l.count == 0 {
		return 0
	}
	return l.sum / time.Duration(l.count)
}

// Quantile returns the duration that the share q of all, 0 to 1, do not
// exceed; 0 of none.
func (l *Latencies) Quantile(q float64) time.Duration {
	if l.count == 0 {
		return 0
	}
	rank := max(1, int64(q*float64(l.count)+0.5))
	for i, n := range l.buckets {
		if rank -= n; rank <= 0 {
			return min(longest(i), l.max)
		}
	}
	return l.max
}

// longest returns the longest duration of a bucket.
func longest(bucket int) time.Duration {
	shift := max(0, bucket/half-1)
	return time.Duration(bucket-shift*half+1)<<shift - 1
}
