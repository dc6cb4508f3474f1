package safety

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/rebuild"
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

	backup  *backup.Backup   // nil: the world makes none
	rebuild *rebuild.Rebuild // nil: this is the first life of the cluster
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
	objects := gatedStore{w.store, n.life}
	if w.newLife != nil { // its claim is found again at each start
		claimed, err := rebuild.Claim(n.ctx, objects, w.id)
		if err != nil {
			return err
		}
		w.generation = claimed.Generation
	}
	n.meta, err = raftmeta.OpenLocal(raftmeta.LocalConfig{
		Node: w.id, Cluster: theCluster, Journal: w.journal, Generation: w.generation,
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
	sources := []source.Source{{Name: theSource, Rows: gatedRows{w.rows, n.life}, Files: gatedFiles{w.files, n.life}}}
	if n.reader, err = n.newReader(w.store, source.Source{Name: theSource, Rows: w.rows, Files: w.files}); err != nil {
		return err
	}
	finding, err := n.newReader(objects, sources[0])
	if err != nil {
		return err
	}
	n.keeper, err = keeper.New(keeper.Config{
		Node: w.id, Host: "host", Manifest: n.meta, Commands: n.meta, Store: objects, Sources: sources,
		Disk: gatedDisk{w.disk, n.life}, DeleteSource: !w.keep, Uploads: gatedUploads{w.uploads, n.life},
		Newer: finding.Newer, Workers: 1, DeleteWorkers: 1, Now: w.now,
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
		Manifest: n.meta, Store: objects, Finder: finder{finding}, Acks: n.keeper, Cluster: theCluster, Node: w.id,
		Spool: gatedSpool{w.spool, n.life}, Marking: n.marker.Rested, Emptied: n.keeper.Emptied,
		Workers: 1, Readers: 1, ReadAhead: 1 << 10, Now: w.now, NewID: w.newPackID,
	})
	if err != nil {
		return err
	}
	return n.openRecovery(objects, sources)
}

// openRecovery makes what brings a cluster back.
func (n *node) openRecovery(objects gatedStore, sources []source.Source) (err error) {
	w := n.w
	if w.backups {
		n.backup, err = backup.New(backup.Config{Manifest: n.meta, Store: objects, Keep: 1, KeepDays: -1, Now: w.now})
		if err != nil {
			return err
		}
	}
	if w.newLife == nil {
		return nil
	}
	n.rebuild, err = rebuild.New(rebuild.Config{
		Manifest: n.meta, Commands: n.meta, Store: objects, Uploads: gatedUploads{w.uploads, n.life}, Sources: sources,
		Base: w.newLife.base, Source: w.newLife.rows, Footers: 1, RowWorkers: 1, Now: w.now,
		OpenBase:    func(ctx context.Context, base string) (*raftmeta.View, error) { return backup.Load(ctx, objects, base) },
		Fence:       func(ctx context.Context) error { return w.rows.ClaimCluster(ctx, theCluster, w.generation) },
		Acknowledge: n.keeper.AcknowledgeAgain, Quarantined: n.keeper.NoteQuarantined,
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
	if n.rebuild != nil {
		ctx, cancel := context.WithTimeout(n.ctx, 10*time.Minute) // for a lease that nobody holds runs out after it
		n.last = n.rebuild.Run(ctx)
		cancel()
		if n.last != nil {
			return // nobody archives before the manifest is whole
		}
	}
	_, _, errMark := n.marker.Once(n.ctx)
	_, errPack := n.packer.Once(n.ctx, true)
	n.last = errors.Join(errMark, errPack, n.keeper.Once(n.ctx))
	if n.backup != nil && !n.dead.Load() {
		if _, err := n.backup.Now(n.ctx); err == nil {
			n.w.backedUp++
		}
	}
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
	if err == nil && !v.RebuildDone(v.Generation()) {
		err = errRebuilding
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// errRebuilding: the manifest is not whole yet, so a miss means nothing.
var errRebuilding = errors.New("the manifest is being rebuilt")

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
