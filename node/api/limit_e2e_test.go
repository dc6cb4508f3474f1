package api

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

type emptyView struct{}

func (emptyView) Covering(desformat.NameHash, []*raftmeta.Pack) []*raftmeta.Pack { return nil }
func (emptyView) Packs() iter.Seq[*raftmeta.Pack]                                { return func(func(*raftmeta.Pack) bool) {} }
func (emptyView) ShardBits() uint8                                               { return 10 }

type emptyManifest struct{}

func (emptyManifest) View() retriever.View                            { return emptyView{} }
func (emptyManifest) Confirm(context.Context) (retriever.View, error) { return emptyView{}, nil }
func (emptyManifest) Changed() <-chan struct{}                        { return nil }
func (emptyManifest) Get(context.Context, string, string, int64, int64) (io.ReadCloser, error) {
	return nil, store.ErrNotFound
}

func TestMissesOverBurstAreBusy(t *testing.T) {
	r, err := retriever.New(retriever.Config{Manifest: emptyManifest{}, Store: emptyManifest{}, Sources: func() []retriever.Source { return nil },
		Misses: NewMissLimiter(MissLimits{PerSecond: 0.0001, Burst: 2})})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{retriever.ErrNotFound, retriever.ErrNotFound, retriever.ErrBusy} {
		if _, err := r.Open(context.Background(), "a", retriever.Query{Client: "192.0.2.1"}); !errors.Is(err, want) {
			t.Errorf("read %d: %v, want %v", i, err, want)
		}
	}
}
