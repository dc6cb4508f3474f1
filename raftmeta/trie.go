package raftmeta

import (
	"slices"

	"github.com/datavision/desnode/desformat"
)

// rangeNode is one range in a persistent binary trie of ranges: the root is
// the whole space, the children are its halves. Changing one pack copies the
// nodes on the path to its range, at most 33, and shares all others. nil is an
// empty trie.
type rangeNode struct {
	child   [2]*rangeNode
	packs   []*Pack // of exactly this range, highest MaxSeq first; never changed in place
	unacked int     // unacknowledged packs here and below
}

// newerFirst orders packs as reads walk them.
func newerFirst(a, b *Pack) int {
	if c := b.MaxSeq.Compare(a.MaxSeq); c != 0 {
		return c
	}
	return slices.Compare(a.ID[:], b.ID[:]) // total, so that every node agrees
}

// bit returns the bit of a left-aligned prefix that leads from depth to
// depth+1.
func bit(prefix uint32, depth uint8) uint32 { return prefix >> (31 - depth) & 1 }

// with returns the trie in which old has been replaced by p. Either may be
// nil; both are of range r.
func (n *rangeNode) with(r desformat.Range, old, p *Pack) *rangeNode {
	return n.change(r, 0, old, p)
}

func (n *rangeNode) change(r desformat.Range, depth uint8, old, p *Pack) *rangeNode {
	var c rangeNode
	if n != nil {
		c = *n
	}
	if old != nil && !old.Acknowledged {
		c.unacked--
	}
	if p != nil && !p.Acknowledged {
		c.unacked++
	}
	if depth < r.Bits() {
		b := bit(r.First(), depth)
		c.child[b] = c.child[b].change(r, depth+1, old, p)
	} else {
		c.packs = replaced(c.packs, old, p)
	}
	if len(c.packs) == 0 && c.child[0] == nil && c.child[1] == nil {
		return nil
	}
	return &c
}

// replaced returns a copy of packs without old and with p.
func replaced(packs []*Pack, old, p *Pack) []*Pack {
	out := make([]*Pack, 0, len(packs)+1)
	for _, q := range packs {
		if old == nil || q.ID != old.ID {
			out = append(out, q)
		}
	}
	if p != nil {
		i, _ := slices.BinarySearchFunc(out, p, newerFirst)
		out = slices.Insert(out, i, p)
	}
	return out
}

// covering appends the packs whose range holds h, highest MaxSeq first.
func (n *rangeNode) covering(h desformat.NameHash, dst []*Pack) []*Pack {
	start, levels := len(dst), 0
	prefix := h.Top32()
	for depth := uint8(0); n != nil; depth++ {
		if len(n.packs) > 0 {
			dst = append(dst, n.packs...)
			levels++
		}
		if depth == desformat.MaxRangeBits {
			break
		}
		n = n.child[bit(prefix, depth)]
	}
	if levels > 1 { // each level is in order already
		slices.SortFunc(dst[start:], newerFirst)
	}
	return dst
}

// overlapping appends the packs whose range overlaps r: those on the way to r,
// and all below it. The order is the trie's.
func (n *rangeNode) overlapping(r desformat.Range, dst []*Pack) []*Pack {
	for depth := uint8(0); n != nil; depth++ {
		if depth == r.Bits() {
			return n.all(dst)
		}
		dst = append(dst, n.packs...)
		n = n.child[bit(r.First(), depth)]
	}
	return dst
}

func (n *rangeNode) all(dst []*Pack) []*Pack {
	if n == nil {
		return dst
	}
	dst = append(dst, n.packs...)
	return n.child[1].all(n.child[0].all(dst))
}

// at returns the packs of exactly range r.
func (n *rangeNode) at(r desformat.Range) []*Pack {
	for depth := uint8(0); n != nil; depth++ {
		if depth == r.Bits() {
			return n.packs
		}
		n = n.child[bit(r.First(), depth)]
	}
	return nil
}

// anyUnacked reports whether a pack whose range overlaps r waits for its
// acknowledgement.
func (n *rangeNode) anyUnacked(r desformat.Range) bool {
	for depth := uint8(0); n != nil && n.unacked > 0; depth++ {
		if depth == r.Bits() {
			return true
		}
		if slices.ContainsFunc(n.packs, func(p *Pack) bool { return !p.Acknowledged }) {
			return true
		}
		n = n.child[bit(r.First(), depth)]
	}
	return false
}
