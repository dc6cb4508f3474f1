package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

func (n *Node) openSources(ctx context.Context, metrics *prometheus.Registry) error {
	roots := map[string][]source.Root{} // by source, those of the configuration
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Sources)) {
		c := n.cfg.Sources[name]
		var rows source.Table
		var err error
		if c.Postgres() {
			rows, err = n.openPostgres(ctx, metrics, name, c)
		} else {
			rows, err = n.openSQLite(ctx, name, c)
		}
		if err != nil {
			return err
		}
		for _, text := range c.Roots {
			root, err := source.ParseRoot(text)
			if err != nil {
				return fmt.Errorf("source %s: %w", name, err)
			}
			roots[name] = append(roots[name], root)
		}
		n.sources = append(n.sources, source.Source{Name: name, Rows: rows, Files: n.files(name, c, roots[name]), Generated: c.Generated()})
	}
	return n.checkRoots(roots)
}

// openSQLite opens an embedded source, which is claimed at once. One that the
// cluster had before this node is only looked at: a database that nobody claimed
// is not the one whose files the cluster archives.
func (n *Node) openSQLite(ctx context.Context, name string, c config.Source) (source.Table, error) {
	path, err := c.Path()
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", name, err)
	}
	known := slices.Contains(n.known, name)
	rows, err := source.OpenSQLite(ctx, source.SQLiteConfig{Name: name, Path: path, Existing: known})
	if known && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s; is its disk mounted? Nodes of several machines need a source in Postgres: %w", ErrOtherSource, path, err)
	}
	if err != nil {
		return nil, err
	}
	n.onClose(rows.Close)
	claim := rows.ClaimCluster
	if known {
		claim = rows.CheckCluster
	}
	err = claim(ctx, n.id.Cluster, n.id.Generation)
	if errors.Is(err, source.ErrUnclaimed) {
		return nil, fmt.Errorf("%w: the cluster archives a source %q, which is not in %s; take its url out of the configuration: the cluster tells it", ErrOtherSource, name, path)
	}
	if errors.Is(err, source.ErrSuperseded) {
		return nil, fmt.Errorf("%w: this data dir belongs to generation %d; join the cluster anew with an empty one: %w", ErrSuperseded, n.id.Generation, err)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w; use another database, or the data dir of that cluster", name, err)
	}
	return &gate{Table: rows, heed: n.heedSource}, n.own(path)
}

// openPostgres opens a source whose database may be down: reads need none.
// Work waits at its gate.
func (n *Node) openPostgres(ctx context.Context, metrics *prometheus.Registry, name string, c config.Source) (source.Table, error) {
	cfg := PostgresConfig(name, c, n.cfg)
	cfg.Observe = n.observeDatabase
	rows, err := source.OpenPostgres(ctx, cfg)
	if err != nil {
		return nil, err
	}
	n.onClose(rows.Close)
	statements := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name:        "des_source_statements_total",
		Help:        "Statements sent to the source's database, settings and transactions included.",
		ConstLabels: prometheus.Labels{"source": name},
	}, func() float64 { return float64(rows.Statements()) })
	if err := metrics.Register(statements); err != nil {
		return nil, err
	}
	n.lags = append(n.lags, func(ctx context.Context) (map[string]time.Duration, error) {
		behind, known, err := rows.ReplicaLag(ctx)
		if err != nil || !known {
			return nil, err
		}
		return map[string]time.Duration{name: behind}, nil
	})
	warned := map[source.Finding]bool{} // the gate asks one at a time
	return &gate{Table: rows, heed: n.heedSource, prove: func(ctx context.Context) error {
		report, err := source.CheckPostgres(ctx, cfg, source.CheckScope{Delete: n.cfg.Archive.DeleteSource})
		if err == nil {
			err = report.Err()
		}
		if err == nil {
			err = n.claimSource(ctx, name, rows)
		}
		if err != nil {
			return err
		}
		for _, f := range report.Findings {
			if f.Level == source.LevelWarn && !warned[f] {
				warned[f] = true
				n.log.WarnContext(ctx, "the source could be better", "source", name, "check", f.Check, "what", f.What, "cure", f.Cure)
			}
		}
		return nil
	}}, nil
}

// PostgresConfig puts the configuration of a Postgres source into the driver's
// words, with the roles that the node's work needs.
func PostgresConfig(name string, c config.Source, node config.Config) source.PostgresConfig {
	cfg := source.PostgresConfig{Mapping: c.Mapping(name), URL: c.URL, URLs: map[source.Role]string{}}
	for role, url := range c.URLs {
		cfg.URLs[source.Role(role)] = url
	}
	for _, role := range node.Roles() {
		cfg.Roles = append(cfg.Roles, source.Role(role))
	}
	return cfg
}

// observeDatabase tells the governor of an operation.
func (n *Node) observeDatabase(_ string, took time.Duration, err error) {
	n.governor.ObserveDatabase(took, source.LockTimeout(err))
}

// files returns the originals of one source.
func (n *Node) files(name string, c config.Source, roots []source.Root) source.Originals {
	if n.originals != nil {
		return n.originals(name)
	}
	set := &rootSet{meta: n.meta, source: name, fixed: roots, log: n.log}
	opened := &buckets{node: n, cfg: c, opened: map[string]source.Objects{}}
	n.onClose(opened.close)
	return source.NewOriginals(set.list, opened.open)
}

// checkRoots refuses roots that overlap what is the node's own.
func (n *Node) checkRoots(roots map[string][]source.Root) error {
	for _, name := range slices.Sorted(maps.Keys(roots)) {
		for _, root := range roots[name] {
			if root.Folder == "" {
				continue
			}
			folder := root.Folder
			if resolved, err := filepath.EvalSymlinks(folder); err == nil {
				folder = resolved // else it is not there yet, or not now
			}
			if own, overlaps := n.overlapsOwn(folder); overlaps {
				return fmt.Errorf("source %s: the root %s and the node's own %s overlap", name, folder, own)
			}
		}
	}
	return nil
}

// buckets are the buckets of one source's originals, opened when a file of
// theirs is asked for.
type buckets struct {
	node *Node
	cfg  config.Source

	mu      sync.Mutex // guards what follows
	opened  map[string]source.Objects
	closers []func() error
}

func (b *buckets) open(name string) (source.Objects, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o, ok := b.opened[name]; ok {
		return o, nil
	}
	url, caFile := b.cfg.Bucket(name, b.node.cfg.Store)
	toRead := b.cfg.S3[config.S3Read]
	toDelete := cmp.Or(b.cfg.S3[config.S3Delete], toRead)
	s, err := store.OpenBucket(context.Background(), store.S3Config{
		URL:     url,
		CAFile:  caFile,
		Read:    toRead,
		Write:   toDelete, // for the object by which conditional deletion is tried
		Collect: toDelete,
		Observe: b.node.observeStore,
		Logger:  b.node.log.With("part", "originals"),
	})
	if err != nil {
		return nil, err
	}
	b.opened[name] = objects{s}
	b.closers = append(b.closers, s.Close)
	return b.opened[name], nil
}

func (b *buckets) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, c := range b.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
