package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/marker"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/router"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
)

// member reports whether the node belongs to a cluster that exists: one that it
// has taken part in, or has been let into.
func (n *Node) member() bool { return n.formed || n.id.Joined }

func (n *Node) openStore(ctx context.Context, metrics *prometheus.Registry) error {
	if !n.cfg.Store.S3() {
		if err := n.findFolder(); err != nil {
			return err
		}
	}
	s, err := n.openDriver(ctx, store.S3Config{
		URL:       n.cfg.Store.URL,
		CAFile:    n.cfg.Store.CAFile,
		Read:      n.cfg.Store.Credentials.Read,
		Write:     n.cfg.Store.Credentials.Write,
		Collect:   n.cfg.Store.Credentials.Collect,
		NoCollect: !n.cfg.Does(config.WorkKeep),
		Observe:   n.observeStore,
		Logger:    n.log.With("part", "store"),
	})
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	if c, ok := s.(interface{ Close() error }); ok {
		n.onClose(c.Close)
	}
	n.uploads, _ = s.(store.Uploader)
	n.store = store.Count(s)
	if err := metrics.Register(storeCollector{n.store}); err != nil {
		return err
	}
	n.claimed = n.claim(ctx)
	if n.claimed != nil && !n.waitsForStore(n.claimed) {
		return n.claimed
	}
	if n.cfg.Store.S3() {
		return n.own(n.cfg.DataDir)
	}
	path, err := n.cfg.Store.Path()
	if err != nil {
		return err
	}
	return n.own(n.cfg.DataDir, path)
}

// openDriver opens the store. In the bucket of a cluster that was formed before
// nothing is created until it is found to be that cluster's.
func (n *Node) openDriver(ctx context.Context, c store.S3Config) (store.Store, error) {
	if !n.member() || !n.cfg.Store.S3() {
		return store.OpenConfig(ctx, c)
	}
	s, err := store.OpenBucket(ctx, c)
	if err != nil {
		return nil, err // and no pointer in an interface
	}
	return s, nil
}

// findFolder keeps a formed node from making the folder of a store whose disk
// is not there.
func (n *Node) findFolder() error {
	path, err := n.cfg.Store.Path()
	if err != nil || !n.member() {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no folder %s; is its disk mounted? A folder serves the nodes of one host only", ErrStoreLost, path)
	}
	return nil
}

// startWait bounds how long the start of a node of a formed cluster waits for a
// store that does not answer.
const startWait = 10 * time.Second

// claim claims the store at the start.
func (n *Node) claim(ctx context.Context) error {
	if !n.member() {
		return claimStore(ctx, n.store, n.id, false)
	}
	limited, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	err := claimStore(limited, n.store, n.id, true)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w for %s: %w", store.ErrUnavailable, startWait, err)
	}
	return err
}

// waitsForStore reports whether a node whose store could not be claimed may
// start all the same, and claim it later: a node of a formed cluster whose
// store does not answer.
func (n *Node) waitsForStore(err error) bool {
	return n.member() && errors.Is(err, store.ErrUnavailable) && !errors.Is(err, ErrStoreLost) && !errors.Is(err, ErrOtherCluster)
}

// storePause is how long a node waits between two attempts to claim a store
// that does not answer.
const storePause = 5 * time.Second

// awaitStore returns once the store is claimed, or with why it never will be.
func (n *Node) awaitStore(ctx context.Context) error {
	for err := n.claimed; err != nil; err = claimStore(ctx, n.store, n.id, n.formed) {
		if !n.waitsForStore(err) {
			return err
		}
		n.log.WarnContext(ctx, "the store does not answer; no work is done until it does", "err", err, "wait", storePause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(storePause):
		}
	}
	return nil
}

// observeStore tells the governor of a request. Those that carry content take
// as long as that is long.
func (n *Node) observeStore(k store.Kind, took time.Duration, err error) {
	n.governor.ObserveStore(took, k != store.KindPut && k != store.KindMove, err != nil)
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
		Manifest:   wholeManifest{retriever.FromMeta(n.meta), n},
		Store:      n.store,
		Sources:    func() []retriever.Source { return n.withLacking(readers) },
		IndexBytes: int64(n.cfg.Cache.Index),
		DataBytes:  int64(n.cfg.Cache.Data),
		Misses:     api.NewMissLimiter(api.MissLimits{}),
		Registerer: metrics,
		Logger:     n.log,

		Damaged:      n.suspects.Add,
		Owned:        n.owns,
		OwnedChanged: n.peers.Changed,
	})
	if err != nil {
		return err
	}
	n.router, err = router.New(router.Config{
		Self:       ring.NodeID(n.id.Node),
		Ring:       rings{n.peers},
		Peers:      n.peers.Endpoint(),
		Local:      n.retriever,
		Registerer: metrics,
		Logger:     n.log.With("part", "router"),
	})
	if err != nil {
		return err
	}
	n.peers.SetReader(n.router)
	return nil
}

// checkDeletion refuses to start over a store over which originals can't be
// deleted safely. One that does not answer now is asked again before each
// deletion.
func (n *Node) checkDeletion(ctx context.Context) error {
	if n.claimed != nil || !n.cfg.Does(config.WorkKeep) {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	err := n.keeper.CheckStore(store.WithCause(limited, causeClaim))
	if err == nil || errors.Is(err, keeper.ErrUnsafeStore) || ctx.Err() != nil {
		return err
	}
	n.log.WarnContext(ctx, "no original is deleted yet", "err", err)
	return nil
}

func (n *Node) openArchiving(ctx context.Context, metrics *prometheus.Registry) error {
	allSources := func() []source.Source { return n.sources }
	var err error
	n.pace, err = pace.New(pace.Config{
		Settings:   settings{n.meta},
		Limits:     limits(n.cfg.Archive.Pace),
		Governor:   n.governor,
		Lags:       n.lags,
		Logger:     n.log.With("part", "pace"),
		Nodes:      n.living,
		Markers:    func() int { return marker.Markers(n.meta.View().Leases()) },
		Now:        n.now,
		Registerer: metrics,
	})
	if err != nil {
		return err
	}
	n.keeper, err = keeper.New(keeper.Config{
		Node:         n.id.Node,
		Manifest:     n.meta,
		Commands:     n.meta,
		Store:        n.store,
		Sources:      n.sources,
		Dir:          n.cfg.DataDir,
		DeleteSource: n.cfg.Archive.DeleteSource,
		DefaultStore: n.inDataDir(),
		DeleteGrace:  n.cfg.Archive.DeleteGrace,
		MaxAttempts:  n.cfg.Archive.Attempts,
		Pace:         n.pace.Work(pace.Delete),
		Uploads:      n.uploads,
		Newer:        n.retriever.Newer,
		Suspects:     &n.suspects,
		Current:      n.checkCurrent,
		OthersKeep:   func() bool { return n.othersDo(config.WorkKeep) },
		AllSources:   n.hasAllSources,
		Now:          n.now,
		Logger:       n.log,
		Registerer:   metrics,

		ScrubInterval:    n.cfg.Scrub.Interval,
		ScrubBytesPerDay: int64(n.cfg.Scrub.BytesPerDay),
	})
	if err != nil {
		return err
	}
	n.onClose(n.keeper.Close)
	if err := n.checkDeletion(ctx); err != nil {
		return err
	}
	n.marker, err = marker.New(marker.Config{
		Sources: allSources,
		Leases:  n.meta,
		Cluster: n.id.Cluster,
		Node:    n.id.Node,
		Live:    func() []raftmeta.Lease { return n.meta.View().Leases() },
		Shared:  settings{n.meta},
		MinAge:  n.cfg.Archive.MinAge,
		Pace:    n.pace.Work(pace.Mark),
		Stuck:   func(source string) (rows, bytes int64, below func(string) bool) { return n.packer.Stuck(source) },
		Now:     n.now,
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
		Node:        n.id.Node,
		OthersPack:  func() bool { return n.othersDo(config.WorkPack) },
		SpoolDir:    filepath.Join(n.cfg.DataDir, "spool"),
		Marking:     n.marker.Rested,
		Pace:        n.pace.Work(pace.Pack),
		Emptied:     n.keeper.Emptied,
		PackSize:    int64(n.cfg.Archive.PackSize),
		MaxWait:     n.cfg.Archive.MaxWait,
		MaxAttempts: n.cfg.Archive.Attempts,
		Now:         n.now,
		Logger:      n.log.With("part", "packer"),
		Metrics:     metrics,
	})
	return err
}

func (n *Node) openAPI(_ context.Context, metrics *prometheus.Registry) error {
	var err error
	n.counters = newRowCounters(n.sources)
	n.api, err = api.New(api.Config{
		Files:      n.router,
		Operator:   n,
		Observer:   n,
		Throttler:  n,
		Cluster:    n,
		Backups:    n,
		Recoverer:  n,
		Node:       n.id.Node,
		Shared:     n.sharedInDataDir(),
		ShardBits:  func() uint8 { return n.meta.View().ShardBits() },
		Ready:      n.checkReady,
		Quorum:     n.surely,
		Gatherer:   metrics,
		Registerer: metrics,
		Logger:     n.log,
	})
	return err
}
