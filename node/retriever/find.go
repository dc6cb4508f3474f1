package retriever

import (
	"context"
	"errors"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Found is a live record, as its header describes it.
type Found struct {
	Pack    desformat.PackID
	Ordinal uint32
	Header  *desformat.Header
}

// Find returns the live record of a name without reading its content and
// without caching it, for those who decide about many names. ErrNotFound when
// there is none, or a tombstone; any other error says nothing about the name.
// It looks in this node's newest view as it is: who must not miss a commit made
// elsewhere asks a Snapshot.
func (r *Retriever) Find(ctx context.Context, name string) (*Found, error) {
	return r.find(ctx, r.cfg.Manifest.View(), name)
}

// Newer returns the header of the record of the name that reads use in place of
// those up to a seq: a tombstone too; nil when there is none. It costs no request
// while no newer pack holds a like name, once their indexes are in memory. It
// looks in this node's newest view.
func (r *Retriever) Newer(ctx context.Context, name string, than desformat.Token) (*desformat.Header, error) {
	if err := desformat.CheckName(name); err != nil {
		return nil, err
	}
	q := lookup{Key: Key{name, desformat.HashName(name)}, want: WantHeader, newer: than}
	f, _, err := r.locate(ctx, &q)
	if err != nil || f.rec == nil {
		return nil, err
	}
	return f.rec.Header, nil
}

// Snapshot is the manifest at a moment that a quorum has confirmed. One serves
// any number of names: what was committed before it was made is in it, what was
// committed later may not be.
type Snapshot struct {
	r *Retriever
	v View
}

// Confirm returns a Snapshot that holds everything committed when it was
// called. ErrUnconfirmed: no quorum says so.
func (r *Retriever) Confirm(ctx context.Context) (Snapshot, error) {
	v, err := r.confirm(ctx)
	return Snapshot{r, v}, err
}

// Applied is the Raft index of the snapshot.
func (s Snapshot) Applied() uint64 { return s.v.Applied() }

// Find is Retriever.Find in the snapshot.
func (s Snapshot) Find(ctx context.Context, name string) (*Found, error) {
	return s.r.find(ctx, s.v, name)
}

func (r *Retriever) find(ctx context.Context, v View, name string) (*Found, error) {
	if err := desformat.CheckName(name); err != nil {
		return nil, err
	}
	f, _, err := r.locateIn(ctx, v, &lookup{Key: Key{name, desformat.HashName(name)}, want: WantHeader})
	if err != nil {
		return nil, err
	}
	if f.rec == nil || f.rec.Header.Type != desformat.TypeFile {
		return nil, ErrNotFound
	}
	return &Found{Pack: f.rec.Pack, Ordinal: f.rec.Location.Ordinal, Header: f.rec.Header}, nil
}

// Place is where a name is served from.
type Place struct {
	Hash  desformat.NameHash
	Shard uint32
	// Owner is the node that the ring names for the shard, Fallbacks are those to
	// ask after it, best first. Empty: no ring was asked.
	Owner     string
	Fallbacks []string

	Record *Record        // nil: not packed yet
	Pack   *raftmeta.Pack // of the record
	Row    *source.Row    // nil: no source has one, or none answered
}

// Locate tells where a name is served from, and what its source says of it if
// that answers. Errors as Open's.
func (r *Retriever) Locate(ctx context.Context, name string) (*Place, error) {
	if err := desformat.CheckName(name); err != nil {
		return nil, err
	}
	l := lookup{Key: Key{name, desformat.HashName(name)}, want: WantHeader, keep: true}
	f, v, err := r.locate(ctx, &l)
	if err != nil {
		return nil, err
	}
	if f.rec == nil || f.rec.Header.Type != desformat.TypeFile {
		if v, err = r.confirm(ctx); err != nil {
			return nil, err
		}
		if f, v, err = r.locateIn(ctx, v, &l); err != nil {
			return nil, err
		}
	}
	place := &Place{Hash: l.Hash, Shard: l.Hash.Shard(v.ShardBits())}
	row, _, rowErr := r.rowByName(ctx, name)
	if rowErr == nil {
		place.Row = &row
	}
	switch {
	case f.rec != nil && f.rec.Header.Type == desformat.TypeTombstone:
		return nil, ErrGone
	case f.rec != nil:
		place.Record, place.Pack = f.rec, f.pack
	case errors.Is(rowErr, ErrNotFound), rowErr != nil:
		return nil, rowErr
	}
	return place, nil
}
