package packer

import (
	"maps"
	"sync"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
)

// stuck remembers the rows that were left alone because their root is gone.
// Each range is known as its last build saw it.
type stuck struct {
	mu     sync.Mutex // guards ranges
	ranges map[desformat.Range]map[string]stuckRows
}

// stuckRows is the rows of one source.
type stuckRows struct {
	pace.Amount
	roots map[string]func(path string) bool // and what is below each
}

// note replaces what was known of the range.
func (s *stuck) note(rng desformat.Range, found map[string]stuckRows) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.ranges, func(r desformat.Range, _ map[string]stuckRows) bool { return r.Overlaps(rng) })
	if len(found) == 0 {
		return
	}
	if s.ranges == nil {
		s.ranges = make(map[desformat.Range]map[string]stuckRows)
	}
	s.ranges[rng] = found
}

// of sums up the rows of a source.
func (s *stuck) of(source string) (sum stuckRows) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.roots = make(map[string]func(string) bool)
	for _, found := range s.ranges {
		f := found[source]
		sum.Files += f.Files
		sum.Bytes += f.Bytes
		maps.Copy(sum.roots, f.roots)
	}
	return sum
}

// Stuck says how many MARKED rows of a source were left alone, as far as the
// last builds saw them, because their root is gone, and which paths are below
// such a root. Packing tries them again and again; marking more of them would
// be in vain.
func (p *Packer) Stuck(source string) (rows, bytes int64, below func(path string) bool) {
	sum := p.stuck.of(source)
	return sum.Files, sum.Bytes, func(path string) bool {
		for _, holds := range sum.roots {
			if holds(path) {
				return true
			}
		}
		return false
	}
}
