package retriever

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// Want says how much of a file the caller will use, so that no request to the
// store is made for more.
type Want uint8

// What a caller may want.
const (
	WantWhole  Want = iota // all of the content
	WantPart               // some range of it
	WantHeader             // none of it
)

// lookup is one question to the manifest.
type lookup struct {
	Key
	want Want
	keep bool // headers that are read go into the cache
	// newer leaves out records up to this seq, and packs that hold no others.
	newer desformat.Token

	asked bool // set when anything had to be asked of the store
}

// scratch is the memory of one walk, used again.
type scratch struct {
	packs []*raftmeta.Pack
	locs  []desformat.Location
}

// walk finds the newest record of the name among the packs of v; rec is nil
// when there is none. It may be a tombstone.
func (r *Retriever) walk(ctx context.Context, v View, q *lookup) (found, error) {
	s, _ := r.scratch.Get().(*scratch)
	defer func() {
		clear(s.packs) // so that nothing of an old view is kept
		r.scratch.Put(s)
	}()
	s.packs = v.Covering(q.Hash, s.packs[:0])
	var best found
	for i, p := range s.packs {
		if best.rec != nil && p.MaxSeq.Compare(best.rec.Header.Seq) <= 0 {
			break // neither this pack nor those behind it hold a newer one
		}
		if p.MaxSeq.Compare(q.newer) <= 0 {
			break // nor one that is asked for
		}
		x, cached, err := r.indexes.get(ctx, s.packs[i:], r.cfg.ParallelIndexes)
		q.asked = q.asked || !cached
		if err != nil {
			best.close()
			return found{}, r.classify(ctx, p, p.Index.Offset, err)
		}
		s.locs = x.Lookup(q.Hash, s.locs[:0])
		for _, loc := range s.locs {
			if p.IsDead(loc.Ordinal) {
				continue
			}
			f, err := r.look(ctx, candidate{p, x, loc, keyOf(p.ID, loc.Ordinal)}, q)
			if err != nil {
				best.close()
				return found{}, err
			}
			if f.rec == nil {
				continue
			}
			if f.rec.Header.Seq.Compare(q.newer) <= 0 {
				f.close()
				continue
			}
			if best.rec != nil && f.rec.Header.Seq.Compare(best.rec.Header.Seq) <= 0 {
				f.close()
				continue
			}
			best.close()
			best = f
		}
	}
	return best, nil
}

// locate walks the newest view of this node.
func (r *Retriever) locate(ctx context.Context, q *lookup) (found, View, error) {
	return r.locateIn(ctx, r.cfg.Manifest.View(), q)
}

// locateIn walks v. When the store says that a pack's object is not there, the
// manifest may have moved on: it is asked for its newest view, and that is
// walked, unless it names the very same object. It returns the newest view that
// it looked at.
func (r *Retriever) locateIn(ctx context.Context, v View, q *lookup) (found, View, error) {
	f, err := r.walk(ctx, v, q)
	if !errors.Is(err, errMissing) {
		return f, v, err
	}
	v, err = r.settle(ctx, q.Hash, err)
	if err != nil {
		return found{}, v, err
	}
	f, err = r.walk(ctx, v, q)
	return f, v, r.missing(err)
}

// confirmed walks a view that a quorum has confirmed after the call began.
func (r *Retriever) confirmed(ctx context.Context, q *lookup) (found, View, error) {
	v, err := r.confirm(ctx)
	if err != nil {
		return found{}, nil, err
	}
	return r.locateIn(ctx, v, q)
}

// confirm asks for a confirmed view within the time limit.
func (r *Retriever) confirm(ctx context.Context) (View, error) {
	limited, cancel := context.WithTimeout(ctx, r.cfg.ConfirmTimeout)
	defer cancel()
	v, err := r.cfg.Manifest.Confirm(limited)
	switch {
	case err == nil:
		return v, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w: %w", ErrUnconfirmed, err)
}
