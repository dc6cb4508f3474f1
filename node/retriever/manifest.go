package retriever

import (
	"context"
	"io"
	"iter"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// View is the manifest at one moment, immutable. *raftmeta.View is one.
type View interface {
	// Covering appends the live packs whose range holds h, highest MaxSeq first.
	Covering(h desformat.NameHash, dst []*raftmeta.Pack) []*raftmeta.Pack
	// Packs lists the manifest, packs that others have replaced included.
	Packs() iter.Seq[*raftmeta.Pack]
	// ShardBits is the length of a shard's prefix.
	ShardBits() uint8
	// Applied is the Raft index of the last command in this view.
	Applied() uint64
}

// Manifest is where the live packs are listed. All methods may be called at
// once.
type Manifest interface {
	// View returns the newest view of this node, at once.
	View() View
	// Confirm returns a view that holds everything a quorum had committed when
	// it was called, or an error when no quorum answers in time.
	Confirm(ctx context.Context) (View, error)
	// Changed is closed at the next change of the view.
	Changed() <-chan struct{}
}

// FromMeta makes a Manifest of the node's Raft state machine.
func FromMeta(m *raftmeta.Meta) Manifest { return meta{m} }

type meta struct{ m *raftmeta.Meta }

func (a meta) View() View { return a.m.View() }

func (a meta) Changed() <-chan struct{} { return a.m.Changed() }

func (a meta) Confirm(ctx context.Context) (View, error) {
	v, err := a.m.Confirm(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Store is the part of a store that reads need. Errors as store.Reader's.
type Store interface {
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	// Head is asked only of an object that seems damaged.
	Head(ctx context.Context, key, version string) (store.Object, error)
}

// Originals opens the files of a source. Errors as source.Originals's.
type Originals interface {
	Open(ctx context.Context, path string) (source.Original, error)
}

// Source is one source as reads need it.
type Source struct {
	Name  string
	Rows  source.ReaderRows
	Files Originals
}
