package packer

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// object reads one pack from the store.
type object struct {
	w *world
	p *raftmeta.Pack
}

func (o object) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return o.w.store.Get(ctx, o.p.Copies[0].Key, o.p.Copies[0].Version, off, n)
}

func o2bytes(ctx context.Context, f desformat.Fetcher, off, n int64) ([]byte, error) {
	r, err := f.Fetch(ctx, off, n)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

type worldView struct{ w *world }

func (v worldView) Applied() uint64 {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	if v.w.behind {
		return v.w.index - 1
	}
	return v.w.index
}

func (v worldView) Leases() []raftmeta.Lease {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	return slices.Collect(maps.Values(v.w.leases))
}

func (v worldView) Overlapping(r desformat.Range) (found []*raftmeta.Pack) {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	for _, p := range v.w.packs {
		if p.Range.Overlaps(r) {
			found = append(found, p)
		}
	}
	return found
}
