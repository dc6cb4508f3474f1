package safety

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

const theNode raftmeta.NodeID = "node-a"

// node is one life of the node: the real parts, wired as node.go wires them.
type node struct {
	*life
	w      *world
	ctx    context.Context //nolint:containedctx // the life's own
	meta   *raftmeta.Local
	marker *marker.Marker
	packer *packer.Packer
	keeper *keeper.Keeper
	reader *retriever.Retriever // whose requests pass no gate
	last   error                // what the last round met
}

// observer marks the context of who only looks.
type observer struct{}

// start begins a life. It may fail, as a start may; the next try is another life.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{gate: w.gate, cancel: cancel, died: w.disk.powerCut}
	n := &node{life: l, w: w, ctx: ctx}
	if err := n.open(); err != nil {
		n.kill()
		return
	}
	w.node = n
}

// open makes the parts.
func (n *node) open() (err error) {
	w := n.w
	n.meta, err = raftmeta.OpenLocal(raftmeta.LocalConfig{
		Node: theNode, Cluster: theCluster, Journal: w.journal,
		Through: func(ctx context.Context, what string, do func() error) error {
			if ctx.Value(observer{}) != nil {
				return do()
			}
			return n.do("meta."+what, do)
		},
	})
	if err != nil {
		return err
	}
	w.meta = n.meta
	objects := gatedStore{w.store, n.life}
	sources := []source.Source{{Name: theSource, Rows: gatedRows{w.rows, n.life}, Files: gatedFiles{w.files, n.life}}}
	if n.reader, err = n.newReader(w.store, source.Source{Name: theSource, Rows: w.rows, Files: w.files}); err != nil {
		return err
	}
	finding, err := n.newReader(objects, sources[0])
	if err != nil {
		return err
	}
	n.keeper, err = keeper.New(keeper.Config{
		Node: theNode, Host: "host", Manifest: n.meta, Commands: n.meta, Store: objects, Sources: sources,
		Disk: gatedDisk{w.disk, n.life}, DeleteSource: !w.keep, Uploads: gatedUploads{w.uploads, n.life},
		Workers: 1, DeleteWorkers: 1, Now: w.now,
	})
	if err != nil {
		return err
	}
	n.marker, err = marker.New(marker.Config{
		Sources: func() []source.Source { return sources }, Leases: n.meta, Cluster: theCluster, Now: w.now,
	})
	if err != nil {
		return err
	}
	n.packer, err = packer.New(packer.Config{
		Sources: func() []source.Source { return sources }, View: func() packer.View { return n.meta.View() },
		Manifest: n.meta, Store: objects, Finder: finder{finding}, Acks: n.keeper, Cluster: theCluster, Node: theNode,
		Spool: gatedSpool{w.spool, n.life}, Marking: n.marker.Rested, Emptied: n.keeper.Emptied,
		Workers: 1, Readers: 1, ReadAhead: 1 << 10, Now: w.now, NewID: w.newPackID,
	})
	return err
}

func (n *node) newReader(objects retriever.Store, s source.Source) (*retriever.Retriever, error) {
	return retriever.New(retriever.Config{
		Manifest: manifest{n.meta}, Store: objects, Logger: slog.New(slog.DiscardHandler),
		Sources:    func() []retriever.Source { return []retriever.Source{{Name: s.Name, Rows: s.Rows, Files: s.Files}} },
		IndexBytes: 1 << 20, DataBytes: 1 << 20, PrewarmBytes: -1, Now: n.w.now,
	})
}

// round does once what the parts do continuously.
func (n *node) round() {
	_, _, errMark := n.marker.Once(n.ctx)
	_, errPack := n.packer.Once(n.ctx, true)
	n.last = errors.Join(errMark, errPack, n.keeper.Once(n.ctx))
}

// end lets go of what the life has open.
func (n *node) end() {
	n.kill()
	_ = n.keeper.Close() // a file in memory
}

// manifest is a Local as the retriever asks it.
type manifest struct{ meta *raftmeta.Local }

func (m manifest) View() retriever.View { return m.meta.View() }

func (m manifest) Changed() <-chan struct{} { return m.meta.Changed() }

func (m manifest) Confirm(ctx context.Context) (retriever.View, error) {
	v, err := m.meta.Confirm(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// finder is the retriever as the packer asks it.
type finder struct{ r *retriever.Retriever }

func (f finder) Find(ctx context.Context, name string) (*packer.Found, error) {
	found, err := f.r.Find(ctx, name)
	if errors.Is(err, retriever.ErrNotFound) {
		return nil, packer.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	h := found.Header
	return &packer.Found{
		Pack: found.Pack, Ordinal: found.Ordinal, Source: h.Source, ID: h.ID,
		Size: h.Size, ModTime: h.ModTime, Version: h.Version, SHA256: h.SHA256,
	}, nil
}

// read reads a file as a client does, by the node that lives.
func (n *node) read(name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), observer{}, true), time.Minute)
	defer cancel()
	f, err := n.reader.Open(ctx, name, retriever.Query{})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(ctx, &f)
}
