package retriever

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// inline runs a cache's maintenance where it falls due, so that no goroutine of
// the cache outlives a call.
func inline(maintain func()) { maintain() }

// indexCache keeps the packs' indexes in memory up to a cap in bytes.
type indexCache struct {
	cache   *otter.Cache[desformat.PackID, *desformat.Index]
	loads   joined[desformat.PackID, *desformat.Index]
	slots   chan struct{} // one for each load under way, which the cap does not count yet
	fetch   func(ctx context.Context, p *raftmeta.Pack) (*desformat.Index, error)
	detach  func(ctx context.Context) (context.Context, context.CancelFunc)
	hits    *stats.Counter
	ceiling int64
}

// maxIndexLoads bounds the indexes that are being loaded at once.
const maxIndexLoads = 16

func newIndexCache(r *Retriever, ceiling int64) (*indexCache, error) {
	counter := stats.NewCounter()
	cache, err := otter.New(&otter.Options[desformat.PackID, *desformat.Index]{
		MaximumWeight: uint64(ceiling),
		Weigher: func(_ desformat.PackID, x *desformat.Index) uint32 {
			return weight(x.Bytes() + indexOverhead)
		},
		StatsRecorder: counter,
		Executor:      inline,
	})
	if err != nil {
		return nil, fmt.Errorf("index cache: %w", err)
	}
	return &indexCache{
		cache: cache, slots: make(chan struct{}, maxIndexLoads),
		fetch: r.fetchIndex, detach: r.loadContext, hits: counter, ceiling: ceiling,
	}, nil
}

// indexOverhead is what a cached index takes beside its own bytes.
const indexOverhead = 256

// indexCost is what the pack's index will take in the cache, in bytes.
func indexCost(p *raftmeta.Pack) int64 {
	return p.Index.Length + new(desformat.Index).Bytes() + indexOverhead
}

// weight fits a size in bytes into the cache's unit; what is too large for it
// is too large for any cache.
func weight(bytes int64) uint32 { return uint32(min(bytes, 1<<32-1)) }

// get returns the index of packs[0]. When that is not in memory, the missing
// ones among the next packs are loaded beside it, up to `parallel` in all, since
// the walk is likely to need them. cached: it was in memory.
func (c *indexCache) get(ctx context.Context, packs []*raftmeta.Pack, parallel int) (x *desformat.Index, cached bool, err error) {
	if x, ok := c.cache.GetIfPresent(packs[0].ID); ok {
		return x, true, nil
	}
	var others sync.WaitGroup
	started := 1
	for _, p := range packs[1:] {
		if started == parallel {
			break
		}
		if _, ok := c.cache.GetEntryQuietly(p.ID); ok {
			continue
		}
		started++
		others.Go(func() {
			// A failure shows again when the walk comes to this pack, if it does.
			_, _ = c.load(ctx, p)
		})
	}
	x, err = c.load(ctx, packs[0])
	others.Wait()
	return x, false, err
}

// load brings an index into the cache, joining a load under way.
func (c *indexCache) load(ctx context.Context, p *raftmeta.Pack) (*desformat.Index, error) {
	return c.loads.do(ctx, p.ID, func() (*desformat.Index, error) {
		// The load before this one may have ended after this caller missed.
		if e, ok := c.cache.GetEntryQuietly(p.ID); ok {
			return e.Value, nil
		}
		ctx, cancel := c.detach(ctx)
		defer cancel()
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: too many indexes are being loaded", ErrUnavailable)
		}
		x, err := c.fetch(ctx, p)
		if err != nil {
			return nil, err
		}
		c.cache.Set(p.ID, x)
		c.cache.CleanUp() // keeps the cap even when Set left that to another goroutine
		return x, nil
	})
}

// resident returns the bytes in memory.
func (c *indexCache) resident() int64 { return int64(c.cache.WeightedSize()) }

// fetchIndex reads one index; its place and checksum are in the manifest.
func (r *Retriever) fetchIndex(ctx context.Context, p *raftmeta.Pack) (*desformat.Index, error) {
	x, err := r.readIndex(ctx, p)
	if err != nil {
		// The load's own time limit is not the caller's: it means unavailable.
		return nil, r.classify(context.WithoutCancel(ctx), p, p.Index.Offset, err)
	}
	return x, nil
}

func (r *Retriever) readIndex(ctx context.Context, p *raftmeta.Pack) (*desformat.Index, error) {
	if p.Index.Length < 0 || p.Index.Offset < 0 || p.Index.Length > p.Size-p.Index.Offset {
		return nil, fmt.Errorf("%w: the manifest places the index outside the pack", desformat.ErrCorrupt)
	}
	body, err := r.object(p, causeIndex).Fetch(ctx, p.Index.Offset, p.Index.Length)
	if err != nil {
		return nil, err
	}
	b := make([]byte, p.Index.Length)
	_, err = io.ReadFull(body, b)
	_ = body.Close() // only read from: what came is verified
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return desformat.ParseIndex(b, p.Index)
}
