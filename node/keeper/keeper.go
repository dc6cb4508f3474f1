package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Errors of this package, returned wrapped.
var (
	// ErrUnsafeStore: deleting originals is switched on over a store that could
	// replace an object, or over the default folder.
	ErrUnsafeStore = errors.New("originals are not deleted over this store")
	// ErrUnknownSource: a pack names a source that this node does not have.
	ErrUnknownSource = errors.New("unknown source")
	// ErrNotLive: the pack is not in the manifest, or another has replaced it.
	ErrNotLive = errors.New("pack is not live")
)

// Manifest is the cluster's state as the keeper reads it. All methods may be
// called at once.
type Manifest interface {
	// View returns the newest state that this node has applied; immutable.
	View() *raftmeta.View
	// Changed is closed at the next change of the view.
	Changed() <-chan struct{}
	// Confirm returns a view at least as new as the leader's state at the call.
	Confirm(ctx context.Context) (*raftmeta.View, error)
	// AppliedEverywhere reports whether every member has applied index.
	AppliedEverywhere(index uint64) bool
	// WithLease runs work under a lease. raftmeta.ErrClash: another holds it.
	WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error
}

// Commands change the cluster's state. On nil the change is durable in a
// quorum; after an error it may have happened. All may be repeated.
type Commands interface {
	AckPack(ctx context.Context, pack desformat.PackID, dead []uint32) error
	// VerifyPack replaces the copy as seen by what reading it found; a clean
	// result that was overtaken does not count.
	VerifyPack(ctx context.Context, pack desformat.PackID, seen, found raftmeta.Copy) error
	ForgetUpload(ctx context.Context, key string) error
	// Set stores a setting if its modification index still is ifModIndex (0:
	// there is none).
	Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error
}

// Store is the part of an object store that the keeper uses; see store.Store
// for what each method promises.
type Store interface {
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	Head(ctx context.Context, key, version string) (store.Object, error)
	Move(ctx context.Context, from, to string) error
	Delete(ctx context.Context, key string) error
	ConditionalCreate(ctx context.Context) (bool, error)
}

// Config is what a Keeper needs. Manifest, Commands, Store and Dir have no
// default; the zero value of every other field is the documented default.
type Config struct {
	Node     raftmeta.NodeID
	Manifest Manifest
	Commands Commands
	Store    Store
	Sources  []source.Source
	Dir      string // the data dir: audit.log stands here
	Disk     Disk   // in place of Dir; default: the folder Dir

	// DeleteSource switches the deletion of originals on. It needs a store
	// whose conditional create works and which is not the default folder. The
	// first is asked before each pass (CheckStore): a store that does not answer
	// when the node starts keeps originals, not the node.
	DeleteSource bool
	DefaultStore bool
	// DeleteGrace is how long a row stays PACKED before its original goes.
	// The zero value is no grace at all; node/config supplies 720 h.
	DeleteGrace time.Duration

	// Host names the machine on which this node runs: originals in folders are
	// deleted on one host only. Default: its machine id and name, or the node where
	// it has no machine id.
	Host string
	// OthersKeep reports whether another living member does this work too. Then
	// the first word on a pack is another node's than its packer's. nil: never.
	OthersKeep func() bool
	// AllSources returns why this node does not have all sources of the cluster:
	// then it deletes nothing, for rows that it does not see may reach the same
	// files. nil: it has.
	AllSources func() error

	// Newer returns the header of a live record of the name that is newer than a
	// seq, and is served in its place; nil: there is none. With a table that was
	// put back from a backup, a row may name the pack of an older version: its
	// original stays then. nil: nobody is asked.
	Newer func(ctx context.Context, name string, than desformat.Token) (*desformat.Header, error)

	// Current returns an error when this life of the cluster may be over, because
	// a newer generation has begun or because nobody can tell. It is asked before
	// anything is moved or deleted for good. nil: it never is.
	Current func(context.Context) error

	// Suspects are packs that reads found damaged; nil: reads tell nothing.
	Suspects *Suspects

	MaxAttempts      int            // refusals by the database until a row is FAILED; default 5
	ScrubInterval    time.Duration  // default 30 days
	ScrubBytesPerDay int64          // default 256 GiB
	Uploads          store.Uploader // of Store; nil: it has no open uploads
	Pace             Pacer          // of deletions; default: no limits

	Workers       int           // jobs at once; default 2
	DeleteWorkers int           // originals of one pack at once; default 4
	Interval      time.Duration // the view is looked through at least so often; default 1 min

	Now        func() time.Time      // default time.Now
	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: metrics are kept but not registered
}

const (
	defaultMaxAttempts      = 5
	defaultScrubInterval    = 30 * 24 * time.Hour
	defaultScrubBytesPerDay = 256 << 30
	defaultWorkers          = 2
	defaultDeleteWorkers    = 4
	defaultInterval         = time.Minute

	// verifiedWithin is how fresh a verification must be for a deletion.
	verifiedWithin = 24 * time.Hour
	// garbageAge is how old an announced upload must be to be garbage.
	garbageAge = 24 * time.Hour
	// quarantineAge is how long a garbage object stays in quarantine.
	quarantineAge = 7 * 24 * time.Hour
)

func (c Config) withDefaults() Config {
	if c.MaxAttempts == 0 {
		c.MaxAttempts = defaultMaxAttempts
	}
	if c.ScrubInterval == 0 {
		c.ScrubInterval = defaultScrubInterval
	}
	if c.ScrubBytesPerDay == 0 {
		c.ScrubBytesPerDay = defaultScrubBytesPerDay
	}
	if c.Workers == 0 {
		c.Workers = defaultWorkers
	}
	if c.DeleteWorkers == 0 {
		c.DeleteWorkers = defaultDeleteWorkers
	}
	if c.Interval == 0 {
		c.Interval = defaultInterval
	}
	if c.Host == "" {
		c.Host = hostID(c.Node)
	}
	if c.Disk == nil {
		c.Disk = folder(c.Dir)
	}
	if c.AllSources == nil {
		c.AllSources = func() error { return nil }
	}
	if c.OthersKeep == nil {
		c.OthersKeep = func() bool { return false }
	}
	if c.Pace == nil {
		c.Pace = pace.Free{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if c.Manifest == nil || c.Commands == nil || c.Store == nil || c.Dir == "" && c.Disk == nil {
		return errors.New("keeper: Manifest, Commands, Store and Dir are required")
	}
	if c.MaxAttempts < 0 || c.DeleteGrace < 0 || c.ScrubInterval < 0 || c.ScrubBytesPerDay < 0 || c.Workers < 0 || c.DeleteWorkers < 0 || c.Interval < 0 {
		return errors.New("keeper: durations, budgets and worker counts must not be negative")
	}
	if !c.DeleteSource {
		return nil
	}
	if c.DefaultStore {
		return fmt.Errorf("keeper: %w: it is the default folder inside the data dir; name another with store.url", ErrUnsafeStore)
	}
	return nil
}

// Keeper does the upkeep of packs. Its exported methods may be called at once.
type Keeper struct {
	cfg     Config
	sources map[string]source.Source
	metrics *metrics
	audit   *auditLog
	log     *slog.Logger

	hosting sync.Mutex // held while the host that deletes is found out or taken

	mu      sync.Mutex // guards the maps and superseded
	acking  map[desformat.PackID]int
	retryAt map[taskKey]retry
	drained map[desformat.PackID]time.Time // no original to delete before then

	superseded error // what Current said last
}

// New returns a Keeper that does nothing until its methods are called. It
// opens the audit log; Close closes it.
func New(cfg Config) (*Keeper, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	k := &Keeper{
		cfg:     cfg,
		sources: make(map[string]source.Source, len(cfg.Sources)),
		log:     cfg.Logger.With("part", "keeper"),
		acking:  map[desformat.PackID]int{},
		retryAt: map[taskKey]retry{},
		drained: map[desformat.PackID]time.Time{},
	}
	for _, s := range cfg.Sources {
		k.sources[s.Name] = s
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	k.metrics = m
	if k.audit, err = openAudit(cfg.Disk, cfg.Now); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	return k, nil
}

// Close closes the audit log. No other method may run or be called.
func (k *Keeper) Close() error { return k.audit.close() }

// CheckStore returns ErrUnsafeStore when originals are to be deleted and the
// store could replace an object, and another error while that is not known.
func (k *Keeper) CheckStore(ctx context.Context) error {
	if !k.cfg.DeleteSource {
		return nil
	}
	held, err := k.cfg.Store.ConditionalCreate(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("whether the store could replace an object is not known: %w", err)
	case !held:
		return fmt.Errorf("%w: it cannot create an object without the risk of replacing one", ErrUnsafeStore)
	}
	return nil
}

// current returns why nothing may be moved or deleted for good: this life of the
// cluster is over, or may be.
func (k *Keeper) current(ctx context.Context) error {
	if k.cfg.Current == nil {
		return nil
	}
	err := k.cfg.Current(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.superseded = err
	return err
}

// The causes of the keeper's requests to the store.
const (
	causeAcknowledge = "acknowledge"
	causeVerify      = "verify"
	causeDelete      = "delete"
	causeCollect     = "collect"
)

// ownCopy returns the pack's copy in the cluster's own store.
func ownCopy(p *raftmeta.Pack) (raftmeta.Copy, error) {
	for _, c := range p.Copies {
		if c.Site == "" {
			return c, nil
		}
	}
	return raftmeta.Copy{}, fmt.Errorf("pack %s has no copy in this store: %w", p.ID, ErrNotLive)
}

// objectFetcher reads one version of one object.
type objectFetcher struct {
	store        Store
	key, version string
}

func (f objectFetcher) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return f.store.Get(ctx, f.key, f.version, off, n)
}
