package packer

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// rowOverhead is what a row counts beside its bytes, for record header, name,
// catalog and index, so that a million empty files are not one pack.
const rowOverhead = 256

// rowCap is the most bytes one row counts: half a pack with its overhead, so
// that two huge neighbours still fit one range and don't cut the hash space to
// dust.
func rowCap(packSize int64) int64 { return packSize/2 - rowOverhead }

// planning is all that decides what is packed now.
type planning struct {
	buckets    []source.Bucket // disjoint ranges, rising; all of bits
	bits       uint8
	packSize   int64
	roundBytes int64
	maxWait    time.Duration
	now        time.Time
	flush      bool                       // waiting is over for all
	full       bool                       // marking rests at its limit: waiting gains nothing
	busy       func(desformat.Range) bool // leased, or an unacknowledged pack overlaps
}

// cut is one range to be packed now.
type cut struct {
	rng    desformat.Range
	rows   int64
	bytes  int64 // as planned: capped, with overhead
	oldest time.Time
	asOf   uint64 // the manifest's Raft index before its rows were counted
}

// planned is what plan has found.
type planned struct {
	cuts      []cut             // to be packed now, rising
	busy      []desformat.Range // would be, but can't be leased
	rows      int64             // due, in all
	bytes     int64             // of them, capped
	tooCoarse bool              // some range holds more than a pack and the buckets are too wide to split it
}

func (p *planning) weigh(buckets []source.Bucket, r desformat.Range) cut {
	c := cut{rng: r}
	for _, b := range buckets {
		if b.Rows == 0 {
			continue
		}
		c.rows += b.Rows
		c.bytes += b.Bytes + b.Rows*rowOverhead
		if c.oldest.IsZero() || b.Oldest.Before(c.oldest) {
			c.oldest = b.Oldest
		}
	}
	return c
}

// plan cuts the backlog into ranges of about one pack and finds those whose
// time has come.
func plan(p planning) (found planned) {
	whole := p.weigh(p.buckets, desformat.Range{})
	found.rows, found.bytes = whole.rows, whole.bytes-whole.rows*rowOverhead
	leaves, tooCoarse := p.split(p.buckets, whole, nil)
	found.tooCoarse = tooCoarse
	// Less than a third of a pack is small. Leaves come from splitting more than
	// a pack in two, so most hold a half.
	small := p.packSize / 3
	ready := func(c cut) bool {
		aged := p.now.Sub(c.oldest) >= p.maxWait
		return p.flush || aged || c.bytes >= small && (p.full || whole.bytes >= p.roundBytes)
	}
	if p.full && !slices.ContainsFunc(leaves, ready) {
		p.flush = true // marking waits for room and the packer for rows: somebody has to begin
	}
	for _, c := range leaves {
		switch {
		case !ready(c):
		case p.busy(c.rng):
			found.busy = append(found.busy, c.rng)
		default:
			found.cuts = append(found.cuts, c)
		}
	}
	return found
}

// split appends the leaves of c.rng: ranges of at most one pack, or as narrow
// as the buckets.
func (p *planning) split(buckets []source.Bucket, c cut, leaves []cut) (_ []cut, tooCoarse bool) {
	if c.rows == 0 {
		return leaves, false
	}
	if c.bytes <= p.packSize || c.rows < 2 {
		return append(leaves, c), false
	}
	if c.rng.Bits() >= p.bits {
		return append(leaves, c), true
	}
	low, high := c.rng.Halves()
	at := sort.Search(len(buckets), func(i int) bool { return buckets[i].Range.First() >= high.First() })
	leaves, coarseLow := p.split(buckets[:at], p.weigh(buckets[:at], low), leaves)
	leaves, coarseHigh := p.split(buckets[at:], p.weigh(buckets[at:], high), leaves)
	return leaves, coarseLow || coarseHigh
}

// merge sums up the buckets of several sources.
func merge(all []source.Bucket) []source.Bucket {
	slices.SortStableFunc(all, func(a, b source.Bucket) int { return cmp.Compare(a.Range.First(), b.Range.First()) })
	sum := all[:0]
	for _, b := range all {
		last := len(sum) - 1
		if last < 0 || sum[last].Range != b.Range {
			sum = append(sum, b)
			continue
		}
		sum[last].Rows += b.Rows
		sum[last].Bytes += b.Bytes
		if b.Oldest.Before(sum[last].Oldest) {
			sum[last].Oldest = b.Oldest
		}
	}
	return sum
}
