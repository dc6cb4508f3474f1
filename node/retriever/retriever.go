package retriever

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
)

// Config says what a Retriever works with. Manifest, Store and Sources are
// needed; the zero value of everything else is the default named beside it.
type Config struct {
	Manifest Manifest
	Store    Store
	// Sources returns the sources in the order in which they are asked. It is
	// called for each question, so sources may come and go.
	Sources func() []Source

	// Owned reports whether this node is an owner of any shard of a range; nil: of
	// all. Indexes of other packs are not loaded ahead of need.
	Owned func(desformat.Range) bool
	// OwnedChanged returns a channel that is closed when Owned may answer
	// differently; nil: it never does.
	OwnedChanged func() <-chan struct{}

	IndexBytes   int64 // cap of the index cache; default 256 MiB
	DataBytes    int64 // cap of the data cache; default 256 MiB
	PrewarmBytes int64 // of indexes loaded ahead of need; default: three quarters of IndexBytes; negative: none

	ParallelIndexes int           // indexes loaded at once for one read; default 4
	LoadTimeout     time.Duration // of a shared load from the store; default 30 s
	SourceTimeout   time.Duration // of one question to a source; default 5 s
	ConfirmTimeout  time.Duration // of one confirmation; default 5 s

	// Damaged is told of a pack each time that a read finds it damaged; it returns
	// at once and may be called at any time, also at once. nil: nobody is told.
	Damaged func(desformat.PackID)

	Misses     Limiter               // nil: misses are not limited
	Registerer prometheus.Registerer // nil: the metrics are kept but not registered
	Logger     *slog.Logger          // nil: slog.Default
	Now        func() time.Time      // nil: time.Now
}

func (c Config) validate() error {
	switch {
	case c.Manifest == nil, c.Store == nil, c.Sources == nil:
		return errors.New("retriever: Manifest, Store and Sources are needed")
	case c.IndexBytes < 0, c.DataBytes < 0:
		return errors.New("retriever: a cache cap is negative")
	case c.ParallelIndexes < 0:
		return errors.New("retriever: ParallelIndexes is negative")
	case c.LoadTimeout < 0, c.SourceTimeout < 0, c.ConfirmTimeout < 0:
		return errors.New("retriever: a time limit is negative")
	}
	return nil
}

// or returns v, or the default for its zero value.
func or[T comparable](v, byDefault T) T {
	var zero T
	if v == zero {
		return byDefault
	}
	return v
}

// withDefaults fills in what the zero values stand for.
func (c Config) withDefaults() Config {
	const mib = 1 << 20
	c.IndexBytes = or(c.IndexBytes, 256*mib)
	c.DataBytes = or(c.DataBytes, 256*mib)
	c.PrewarmBytes = or(c.PrewarmBytes, c.IndexBytes/4*3)
	c.ParallelIndexes = or(c.ParallelIndexes, 4)
	c.LoadTimeout = or(c.LoadTimeout, 30*time.Second)
	c.SourceTimeout = or(c.SourceTimeout, 5*time.Second)
	c.ConfirmTimeout = or(c.ConfirmTimeout, 5*time.Second)
	c.Logger = or(c.Logger, slog.Default())
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Retriever answers reads. All methods may be called at once.
type Retriever struct {
	cfg     Config
	metrics *metrics
	indexes *indexCache
	records *recordCache
	proofs  proofs
	scratch sync.Pool // of *scratch
}

// New makes a Retriever and starts nothing.
func New(cfg Config) (*Retriever, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Retriever{cfg: cfg.withDefaults()}
	r.scratch.New = func() any { return new(scratch) }
	var err error
	if r.indexes, err = newIndexCache(r, r.cfg.IndexBytes); err != nil {
		return nil, err
	}
	if r.records, err = newRecordCache(r.cfg.DataBytes); err != nil {
		return nil, err
	}
	if r.metrics, err = newMetrics(r, cfg.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return r, nil
}

// loadContext bounds a load that others may have joined: it goes on when the
// caller that happened to begin it goes away.
func (r *Retriever) loadContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), r.cfg.LoadTimeout)
}

// Stats says how the two caches are.
type Stats struct {
	Indexes, IndexBytes, IndexCap  int64
	IndexHits, IndexMisses         int64
	Records, DataBytes, DataCap    int64
	DataHits, DataMisses           int64
	StoreRequests, FalseCandidates int64
}

// Stats returns the figures of this moment.
func (r *Retriever) Stats() Stats {
	index, data := r.indexes.hits.Snapshot(), r.records.hits.Snapshot()
	return Stats{
		Indexes: int64(r.indexes.cache.EstimatedSize()), IndexBytes: r.indexes.resident(), IndexCap: r.indexes.ceiling,
		IndexHits: int64(index.Hits), IndexMisses: int64(index.Misses),
		Records: int64(r.records.cache.EstimatedSize()), DataBytes: int64(r.records.cache.WeightedSize()), DataCap: r.records.ceiling,
		DataHits: int64(data.Hits), DataMisses: int64(data.Misses),
		StoreRequests: r.metrics.storeRequests(), FalseCandidates: count(r.metrics.falseCandidates),
	}
}
