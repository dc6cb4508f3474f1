package retriever

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// Run keeps the caches in step with the manifest and with what this node owns
// until ctx ends: it loads indexes ahead of need, newest packs first, and lets
// go of what belongs to packs that have left. It returns nil when ctx has ended.
func (r *Retriever) Run(ctx context.Context) error {
	var known map[desformat.PackID]struct{}
	for {
		changed := r.cfg.Manifest.Changed() // before View, so that no change is missed
		var owned <-chan struct{}           // nil: never
		if r.cfg.OwnedChanged != nil {
			owned = r.cfg.OwnedChanged()
		}
		v := r.cfg.Manifest.View()
		known = r.dropDeparted(v, known)
		if err := r.Prewarm(ctx, r.cfg.PrewarmBytes); err != nil && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "indexes not loaded ahead", "error", err.Error())
		}
		select {
		case <-changed:
		case <-owned:
		case <-ctx.Done():
			return nil
		}
		// The manifest changes several times a pack, and the ring several times
		// when a cluster starts: one look covers them.
		settle := time.NewTimer(settleTime)
		select {
		case <-settle.C:
		case <-ctx.Done():
			settle.Stop()
			return nil
		}
	}
}

// settleTime is how long after a change of the manifest or of the ring the
// caches follow.
const settleTime = 500 * time.Millisecond

// dropDeparted empties the caches of packs that were known and are live no
// more, and returns those that are.
func (r *Retriever) dropDeparted(v View, known map[desformat.PackID]struct{}) map[desformat.PackID]struct{} {
	live := make(map[desformat.PackID]struct{}, len(known))
	for p := range v.Packs() {
		if p.ReplacedBy.IsZero() {
			live[p.ID] = struct{}{}
		}
	}
	// Not only those that were known: a read of an older view may have brought
	// one back.
	for id := range r.indexes.cache.Keys() {
		if _, ok := live[id]; !ok {
			r.indexes.cache.Invalidate(id)
		}
	}
	departed := false
	for id := range known {
		if _, ok := live[id]; !ok {
			departed = true
		}
	}
	if !departed {
		return live
	}
	for key, rec := range r.records.cache.All() {
		if _, ok := live[rec.Pack]; !ok && rec.answered <= v.Applied() { // of a later index: its pack is yet to come
			r.records.cache.Invalidate(key)
		}
	}
	return live
}

// Prewarm loads the indexes that are not in memory of packs that cover what this
// node owns, newest packs first, until those in memory take budget bytes. It returns the first error, having tried all.
func (r *Retriever) Prewarm(ctx context.Context, budget int64) error {
	budget = min(budget, r.indexes.ceiling)
	var packs []*raftmeta.Pack
	for p := range r.cfg.Manifest.View().Packs() {
		if p.ReplacedBy.IsZero() && (r.cfg.Owned == nil || r.cfg.Owned(p.Range)) {
			packs = append(packs, p)
		}
	}
	slices.SortFunc(packs, func(a, b *raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) })
	var first error
	for _, p := range packs {
		if _, ok := r.indexes.cache.GetEntryQuietly(p.ID); ok {
			continue
		}
		if r.indexes.resident()+indexCost(p) > budget {
			break
		}
		if ctx.Err() != nil {
			return errors.Join(first, ctx.Err())
		}
		if _, err := r.indexes.load(ctx, p); err != nil && first == nil {
			first = r.classify(ctx, p, p.Index.Offset, err)
		}
	}
	return first
}
