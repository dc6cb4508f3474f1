// Package node is one node put together: it opens the data dir, the store and
// the sources, joins the parts in the folders below, and owns their lifetime.
//
// Invariants and crash windows: DESIGN.md beside this file.
//
// Not for: any step of archiving or reading; those have parts of their own.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Node is one node. New opens it, Run runs it, Close lets go of it.
type Node struct {
	cfg      config.Config
	log      *slog.Logger
	id       identity
	formed   bool // the data dir was in the cluster before this start
	started  time.Time
	ownPaths []string // real paths of our own files: no root of a source may overlap them
	ready    chan struct{}

	meta      *raftmeta.Meta
	store     *store.Counted
	sources   []source.Source
	counters  []*rowCounter // of the sources, in their order
	retriever *retriever.Retriever
	marker    *marker.Marker
	packer    *packer.Packer
	keeper    *keeper.Keeper
	api       *api.Server
	listener  net.Listener

	originals func(source string) source.Originals // nil: those below the roots

	closers []func() error // what New opened, in order
	closing sync.Once
}

// Option changes what New puts together.
type Option func(*Node)

// WithOriginals makes the files of each source those that of returns for its
// name, whatever its roots. A load generator makes them up.
func WithOriginals(of func(source string) source.Originals) Option {
	return func(n *Node) { n.originals = of }
}

// New opens a node on cfg.DataDir, which it makes if it is missing, forming a
// cluster of one when it is empty. It takes the data dir (raftmeta.ErrLocked
// when another process has it) and the HTTP port, and starts nothing. The
// caller ends with Close, whether or not it called Run.
func New(ctx context.Context, cfg config.Config, log *slog.Logger, options ...Option) (_ *Node, err error) {
	n := &Node{cfg: cfg, log: log, started: time.Now(), ready: make(chan struct{})}
	for _, o := range options {
		o(n)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	metrics := prometheus.NewRegistry()
	for _, open := range []func(context.Context, *prometheus.Registry) error{
		n.listen, n.openMeta, n.openStore, n.openSources, n.openReading, n.openArchiving, n.openAPI,
	} {
		if err := open(ctx, metrics); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Node) onClose(f func() error) { n.closers = append(n.closers, f) }

// listen takes the HTTP port before anything is made on a disk.
func (n *Node) listen(ctx context.Context, _ *prometheus.Registry) error {
	var err error
	n.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", n.cfg.HTTP)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	n.onClose(func() error {
		if err := n.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

func (n *Node) openMeta(ctx context.Context, _ *prometheus.Registry) error {
	dir := filepath.Join(n.cfg.DataDir, "raft")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make the data dir: %w", err)
	}
	var err error
	if n.id, err = loadIdentity(n.cfg.DataDir); err != nil {
		return err
	}
	if n.formed, err = hasFormed(n.cfg.DataDir); err != nil {
		return err
	}
	n.log = n.log.With("node", string(n.id.Node))
	n.meta, err = raftmeta.Open(ctx, raftmeta.Config{
		Dir:        dir,
		Node:       n.id.Node,
		Cluster:    n.id.Cluster,
		Generation: n.id.Generation,
		Formed:     n.formed,
		Logger:     n.log,
	})
	if err != nil {
		return fmt.Errorf("data dir %s: %w", n.cfg.DataDir, err)
	}
	n.onClose(n.meta.Close)
	return nil
}

func (n *Node) openStore(ctx context.Context, metrics *prometheus.Registry) error {
	path, err := n.cfg.Store.Path()
	if err != nil {
		return err
	}
	if n.formed { // opening would make the folder
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: there is no folder %s; is its disk mounted?", ErrStoreLost, path)
		}
	}
	s, err := store.Open(ctx, n.cfg.Store.URL)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	if c, ok := s.(interface{ Close() error }); ok {
		n.onClose(c.Close)
	}
	n.store = store.Count(s)
	if err := metrics.Register(storeCollector{n.store}); err != nil {
		return err
	}
	if err := claimStore(ctx, n.store, n.id, n.formed); err != nil {
		return err
	}
	return n.own(n.cfg.DataDir, path)
}

// own notes paths that no root of a source may overlap.
func (n *Node) own(paths ...string) error {
	for _, p := range paths {
		resolved, err := filepath.EvalSymlinks(p)
		if err != nil {
			return err
		}
		n.ownPaths = append(n.ownPaths, resolved)
	}
	return nil
}

func (n *Node) openSources(ctx context.Context, _ *prometheus.Registry) error {
	names := make([]string, 0, len(n.cfg.Sources))
	for name := range n.cfg.Sources {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := n.cfg.Sources[name]
		path, err := c.Path()
		if err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
		rows, err := source.OpenSQLite(ctx, source.SQLiteConfig{Name: name, Path: path})
		if err != nil {
			return err
		}
		n.onClose(rows.Close)
		if err := rows.ClaimCluster(ctx, n.id.Cluster); err != nil {
			return fmt.Errorf("source %s: %w; use another database, or the data dir of that cluster", name, err)
		}
		if err := n.own(path); err != nil {
			return err
		}
		n.sources = append(n.sources, source.Source{Name: name, Rows: rows, Files: n.files(name, c)})
	}
	for _, name := range names {
		for _, root := range n.cfg.Sources[name].Roots {
			if resolved, err := filepath.EvalSymlinks(root); err == nil {
				root = resolved // else it is not there yet, or not now
			}
			if own, overlaps := n.overlapsOwn(root); overlaps {
				return fmt.Errorf("source %s: the root %s and the node's own %s overlap", name, root, own)
			}
		}
	}
	return nil
}

// files returns the originals of one source.
func (n *Node) files(name string, c config.Source) source.Originals {
	if n.originals != nil {
		return n.originals(name)
	}
	roots := &rootSet{meta: n.meta, source: name, fixed: c.Roots, log: n.log}
	return source.NewFolders(roots.list)
}

// overlapsOwn reports whether a real path holds, or lies in, what is ours.
func (n *Node) overlapsOwn(path string) (own string, overlaps bool) {
	i := slices.IndexFunc(n.ownPaths, func(own string) bool { return config.Within(own, path) || config.Within(path, own) })
	if i < 0 {
		return "", false
	}
	return n.ownPaths[i], true
}

func (n *Node) openReading(_ context.Context, metrics *prometheus.Registry) error {
	readers := make([]retriever.Source, 0, len(n.sources))
	for _, s := range n.sources {
		readers = append(readers, retriever.Source{Name: s.Name, Rows: s.Rows, Files: s.Files})
	}
	var err error
	n.retriever, err = retriever.New(retriever.Config{
		Manifest:   retriever.FromMeta(n.meta),
		Store:      n.store,
		Sources:    func() []retriever.Source { return readers },
		IndexBytes: int64(n.cfg.Cache.Index),
		DataBytes:  int64(n.cfg.Cache.Data),
		Misses:     api.NewMissLimiter(api.MissLimits{}),
		Registerer: metrics,
		Logger:     n.log,
	})
	return err
}

func (n *Node) openArchiving(_ context.Context, metrics *prometheus.Registry) error {
	allSources := func() []source.Source { return n.sources }
	var err error
	n.keeper, err = keeper.New(keeper.Config{
		Node:         n.id.Node,
		Manifest:     n.meta,
		Commands:     n.meta,
		Store:        n.store,
		Sources:      n.sources,
		Dir:          n.cfg.DataDir,
		DeleteSource: n.cfg.Archive.DeleteSource,
		DefaultStore: n.cfg.HasDefaultStore(),
		DeleteGrace:  n.cfg.Archive.DeleteGrace,
		MaxAttempts:  n.cfg.Archive.Attempts,
		Logger:       n.log,
		Registerer:   metrics,
	})
	if err != nil {
		return err
	}
	n.onClose(n.keeper.Close)
	n.marker, err = marker.New(marker.Config{
		Sources: allSources,
		Leases:  n.meta,
		Cluster: n.id.Cluster,
		MinAge:  n.cfg.Archive.MinAge,
		Logger:  n.log.With("part", "marker"),
		Metrics: metrics,
	})
	if err != nil {
		return err
	}
	n.packer, err = packer.New(packer.Config{
		Sources:     allSources,
		View:        func() packer.View { return n.meta.View() },
		Manifest:    n.meta,
		Store:       n.store,
		Finder:      finder{n.retriever},
		Acks:        n.keeper,
		Cluster:     n.id.Cluster,
		SpoolDir:    filepath.Join(n.cfg.DataDir, "spool"),
		Marking:     n.marker.Rested,
		PackSize:    int64(n.cfg.Archive.PackSize),
		MaxWait:     n.cfg.Archive.MaxWait,
		MaxAttempts: n.cfg.Archive.Attempts,
		Logger:      n.log.With("part", "packer"),
		Metrics:     metrics,
	})
	return err
}

func (n *Node) openAPI(_ context.Context, metrics *prometheus.Registry) error {
	var err error
	n.counters = newRowCounters(n.sources)
	n.api, err = api.New(api.Config{
		Files:      n.retriever,
		Operator:   n,
		Observer:   n,
		Node:       n.id.Node,
		ShardBits:  func() uint8 { return n.meta.View().ShardBits() },
		Ready:      n.checkReady,
		Quorum:     func() bool { return n.meta.Leader() != "" },
		Gatherer:   metrics,
		Registerer: metrics,
		Logger:     n.log,
	})
	return err
}

// errStarting is why a node that has not caught up is not ready.
var errStarting = errors.New("the node is catching up with its cluster")

func (n *Node) checkReady(context.Context) error {
	if !n.isReady() {
		return errStarting
	}
	return nil
}

// Ready is closed when the node has caught up with its cluster and answers.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// HTTPAddr returns the address that the HTTP face listens on, host:port.
func (n *Node) HTTPAddr() string { return n.listener.Addr().String() }

// isReady reports whether Ready is closed.
func (n *Node) isReady() bool {
	select {
	case <-n.ready:
		return true
	default:
		return false
	}
}

// Run runs the node until ctx ends, which is no error, or until a part can't
// go on. It returns after everything it started has ended: first the HTTP face
// has drained, then the work has stopped and released its leases, last the
// state machine.
func (n *Node) Run(ctx context.Context) error {
	metaCtx, stopMeta := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMeta()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	var meta errgroup.Group
	meta.Go(func() error {
		err := n.meta.Run(metaCtx)
		if err != nil {
			stop(err)
		}
		return err
	})
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.api.Run(ctx, n.listener) })
	parts.Go(func() error { return n.countOnDemand(ctx) })
	parts.Go(func() error { return n.work(ctx) })
	err := parts.Wait()
	stopMeta()
	return errors.Join(err, meta.Wait())
}

// work waits until the state machine has caught up, then does the kinds of
// work that the configuration names.
func (n *Node) work(ctx context.Context) error {
	if err := n.meta.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop before it was ready
		}
		return err
	}
	if err := setFormed(n.cfg.DataDir); err != nil {
		return fmt.Errorf("record that the cluster is formed: %w", err)
	}
	if err := n.agreeOnSources(ctx); err != nil {
		return err
	}
	close(n.ready)
	n.log.InfoContext(ctx, "node ready", "http", n.HTTPAddr(), "cluster", n.id.Cluster.String(),
		"store", redacted(n.cfg.Store.URL), "work", n.cfg.Work, "seconds", time.Since(n.started).Seconds())
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.retriever.Run(ctx) })
	for work, run := range map[string]func(context.Context) error{
		config.WorkMark: n.marker.Run,
		config.WorkPack: n.packer.Run,
		config.WorkKeep: n.keeper.Run,
	} {
		if n.cfg.Does(work) {
			parts.Go(func() error { return run(ctx) })
		}
	}
	return parts.Wait()
}

// Close lets go of everything that New opened. Run must have returned.
// Calling it again does nothing.
func (n *Node) Close() error {
	var errs []error
	n.closing.Do(func() {
		for _, c := range slices.Backward(n.closers) {
			errs = append(errs, c())
		}
	})
	return errors.Join(errs...)
}

// redacted returns a URL without its password.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}
