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
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/pace"
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
	uploads   store.Uploader // of store; nil: it has none
	claimed   error          // why the store could not be claimed at the start; nil: it is
	sources   []source.Source
	governor  *pace.Governor
	lags      []pace.LagFunc // how far the sources' replicas are behind
	pace      *pace.Pacer
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
	if err := n.awaitStore(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop meanwhile
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
		"store", config.Redacted(n.cfg.Store.URL), "work", n.cfg.Work, "seconds", time.Since(n.started).Seconds())
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.retriever.Run(ctx) })
	parts.Go(func() error { return n.pace.Run(ctx) })
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
