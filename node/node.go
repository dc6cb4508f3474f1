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
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/inspect"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/peers"
	"github.com/datavision/desnode/node/rebuild"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/router"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring/gossip"
	"github.com/datavision/desnode/transport"
)

// Node is one node. New opens it, Run runs it, Close lets go of it.
type Node struct {
	cfg      config.Config
	log      *slog.Logger
	id       identity
	formed   bool     // the data dir was in the cluster before this start
	known    []string // sources that the cluster had before this start
	started  time.Time
	now      func() time.Time // the wall clock
	ownPaths []string         // real paths of our own files: no root of a source may overlap them
	ready    chan struct{}

	peers     *peers.Peers
	meta      *raftmeta.Meta
	store     *store.Counted
	uploads   store.Uploader // of store; nil: it has none
	claimed   error          // why the store could not be claimed at the start; nil: it is
	sources   []source.Source
	lacks     atomic.Pointer[lackingSources]
	governor  *pace.Governor
	lags      []pace.LagFunc // how far the sources' replicas are behind
	pace      *pace.Pacer
	counters  []*rowCounter // of the sources, in their order
	retriever *retriever.Retriever
	router    *router.Router
	marker    *marker.Marker
	packer    *packer.Packer
	keeper    *keeper.Keeper
	suspects  keeper.Suspects // what reads find damaged
	backup    *backup.Backup
	inspector *inspect.Inspector
	rebuild   *rebuild.Rebuild // nil: this node began no new life of its cluster
	api       *api.Server
	listener  net.Listener

	originals func(source string) source.Originals // nil: those below the roots
	networks  Networks

	crew     crew
	stop     context.CancelCauseFunc   // ends Run
	newer    atomic.Pointer[newerLife] // why the work has ended for good: see generation.go
	newerC   chan struct{}             // closed then
	stopping atomic.Bool
	leaving  atomic.Bool

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

// WithClock makes now the wall clock by which rows are old enough, verifications
// fresh, tokens valid. Time-outs and leases follow the machine's own, which never
// jumps.
func WithClock(now func() time.Time) Option {
	return func(n *Node) { n.now = now }
}

// Networks are what a node listens on and dials with. The zero value of a field
// is the machine's own.
type Networks struct {
	HTTP    net.Listener
	Cluster *transport.Network
	Gossip  gossip.Transport
}

// WithNetworks puts other networks in the machine's place, for clusters in one
// test process.
func WithNetworks(networks Networks) Option {
	return func(n *Node) { n.networks = networks }
}

// New opens a node on cfg.DataDir, which it makes if it is missing, forming a
// cluster of one when it is empty. It takes the data dir (raftmeta.ErrLocked
// when another process has it) and the HTTP port, and starts nothing. The
// caller ends with Close, whether or not it called Run.
func New(ctx context.Context, cfg config.Config, log *slog.Logger, options ...Option) (_ *Node, err error) {
	n := &Node{cfg: cfg, log: log, started: time.Now(), now: time.Now, ready: make(chan struct{}), newerC: make(chan struct{})}
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
		n.listen, n.openDataDir, n.openPeers, n.openMeta, n.openStore, n.openSources, n.openReading, n.openArchiving, n.openRecovery, n.openInspection, n.openAPI,
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
	n.listener = n.networks.HTTP
	if n.listener == nil {
		var err error
		if n.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", n.cfg.HTTP); err != nil {
			return fmt.Errorf("listen for HTTP: %w", err)
		}
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

// errStopping is why a node that goes is not ready.
var errStopping = errors.New("the node is going")

func (n *Node) checkReady(context.Context) error {
	switch {
	case n.stopping.Load(), n.leaving.Load():
		return errStopping
	case !n.isReady() && !n.knowsEnough():
		return errStarting
	}
	return nil
}

// knowsEnough reports whether a node that has not caught up can serve what is
// archived all the same: it has read what it had applied in an earlier life, and
// its store is there. Without a quorum that is all that can be had, and load
// balancers must send reads somewhere. What it does not know it answers with 503.
func (n *Node) knowsEnough() bool {
	return n.formed && n.claimed == nil && n.meta.View().ShardBits() != 0
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

// Run runs the node until ctx ends or it has left its cluster, which are no
// errors, or until a part can't go on. It returns after everything it started
// has ended: first the work has stopped and released its leases, and the others
// know that the node goes; then the HTTP face has drained; then the state
// machine, which hands its leadership over; last the connections to other nodes.
func (n *Node) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n.stop = stop

	endPeers := n.background(ctx, n.peers.Run)
	endMeta := n.background(ctx, n.meta.Run)
	endAPI := n.background(ctx, func(ctx context.Context) error { return n.api.Run(ctx, n.listener) })
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.countOnDemand(ctx) })
	parts.Go(func() error { return n.work(ctx) })
	parts.Go(func() error { return n.sayGoodbye(ctx) })
	parts.Go(func() error { return n.heedRefusal(ctx) })
	err := parts.Wait()
	err = errors.Join(err, endAPI(), endMeta(), endPeers())
	if cause := context.Cause(ctx); errors.Is(cause, errHasLeft) && err == nil {
		n.log.Info("the node has left the cluster")
	}
	return err
}

// background runs a part beyond the end of ctx, until end is called, which
// waits for it. An error of the part stops the node.
func (n *Node) background(ctx context.Context, run func(context.Context) error) (end func() error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group errgroup.Group
	group.Go(func() error {
		err := run(own)
		if err != nil {
			n.stop(err)
		}
		return err
	})
	return func() error {
		cancel()
		return group.Wait()
	}
}

// work waits until the node has caught up, then does its work until ctx ends.
func (n *Node) work(ctx context.Context) error {
	if err := n.getReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop before it was ready
		}
		return err
	}
	close(n.ready)
	n.log.InfoContext(ctx, "node ready", "http", n.HTTPAddr(), "cluster_addr", n.peers.ClusterAddr(), "cluster", n.id.Cluster.String(),
		"store", config.Redacted(n.cfg.Store.URL), "work", n.cfg.Work, "seconds", time.Since(n.started).Seconds())
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.retriever.Run(ctx) })
	parts.Go(func() error { return n.pace.Run(ctx) })
	parts.Go(func() error { return n.followCluster(ctx) })
	parts.Go(func() error { return n.watchGeneration(ctx) })
	parts.Go(func() error {
		if err := n.rebuilt(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		return n.crew.run(ctx, n.workers())
	})
	return parts.Wait()
}

// getReady returns when the state machine has caught up, the store is known to
// be the cluster's, and cluster and configuration agree.
func (n *Node) getReady(ctx context.Context) error {
	if err := n.meta.Ready(ctx); err != nil {
		return err
	}
	if err := n.awaitStore(ctx); err != nil {
		return err
	}
	if err := setFormed(n.cfg.DataDir); err != nil {
		return fmt.Errorf("record that the cluster is formed: %w", err)
	}
	return n.agreeOnSettings(ctx)
}

// workers are the kinds of work that the configuration names.
func (n *Node) workers() []func(context.Context) error {
	var all []func(context.Context) error
	for work, run := range map[string]func(context.Context) error{
		config.WorkMark: n.marker.Run,
		config.WorkPack: n.packer.Run,
		config.WorkKeep: n.keeper.Run,
	} {
		if n.cfg.Does(work) {
			all = append(all, run)
		}
	}
	if n.cfg.Does(config.WorkKeep) {
		all = append(all, n.backup.Run)
	}
	return all
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
