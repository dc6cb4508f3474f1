package rebuild

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Errors of this package, returned wrapped.
var (
	// ErrNoCluster: the store holds no cluster.json, so there is nothing to
	// rebuild: a wrong URL, or a disk that is not mounted.
	ErrNoCluster = errors.New("the store holds no cluster")
	// ErrSuperseded: a newer life of this cluster has begun in the store. Who gets
	// it has lost, and claims another generation only when its operator says so.
	ErrSuperseded = errors.New("a newer generation of this cluster has begun")
	// ErrBase: the base state is another cluster's, or of no earlier generation.
	ErrBase = errors.New("not a state that this cluster can be restored from")
	// ErrPlan: a rebuild from something else is under way in this generation.
	ErrPlan = errors.New("another rebuild is under way")
)

// Manifest is the cluster's state as a rebuild reads it. All methods may be
// called at once.
type Manifest interface {
	// View returns the newest state that this node has applied; immutable.
	View() *raftmeta.View
	// Confirm returns a view at least as new as the leader's state at the call.
	Confirm(ctx context.Context) (*raftmeta.View, error)
	// WithLease runs work under a lease. raftmeta.ErrClash: another holds it.
	WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error
}

// Commands change the cluster's state. On nil the change is durable in a
// quorum; after an error a part of it may have happened. All may be repeated.
type Commands interface {
	Adopt(ctx context.Context, a raftmeta.Adoption) error
	Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error
	RecordRebuild(ctx context.Context) error
}

// Store is the part of an object store that a rebuild reads; see store.Reader.
type Store interface {
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	List(ctx context.Context, prefix, after string, f func(store.Object) error) error
}

// Uploads lists open uploads; store.Uploader is one.
type Uploads interface {
	Uploads(ctx context.Context, prefix string, f func(store.Upload) error) error
}

// Config is what a Rebuild needs. Manifest, Commands and Store have no default;
// the zero value of every other field is the documented default.
type Config struct {
	Manifest Manifest
	Commands Commands
	Store    Store
	Uploads  Uploads // of Store; nil: it has no open uploads

	// Base names the state to begin from, a backup's key or the data dir of a dead
	// member; "": there is none. OpenBase reads it, also that of a rebuild that
	// was begun before and cut: its plan, not Base, says which.
	Base     string
	OpenBase func(ctx context.Context, base string) (*raftmeta.View, error)
	// RestoreSetting says which settings of the base are taken over, where this
	// life has no value yet. nil: none.
	RestoreSetting func(key string) bool

	// Source has the state columns of the sources' rows written back from the
	// packs' catalogs. It may be asked for later, while the rebuild is under way.
	Source  bool
	Sources []source.Source

	// Fence returns nil once every source refuses what writers of earlier
	// generations send. Only what is listed after that is all there is. nil:
	// there is no source.
	Fence func(ctx context.Context) error
	// Acknowledge has one adopted pack acknowledged again, and never marks a
	// record dead without proof. nil: whoever keeps packs does it later.
	Acknowledge func(ctx context.Context, p *raftmeta.Pack) error
	// Quarantined notes objects that stand in quarantine; known ones stay as they
	// are noted. nil: they are left alone.
	Quarantined func(ctx context.Context, keys []string) error

	Footers    int // read at once; default 32
	RowWorkers int // packs whose rows are written back, or acknowledged, at once; default 4

	Now        func() time.Time      // default time.Now
	Logger     *slog.Logger          // default: discard
	Registerer prometheus.Registerer // default: metrics are kept but not registered
}

const (
	defaultFooters    = 32
	defaultRowWorkers = 4

	firstPause = 250 * time.Millisecond
	longPause  = 30 * time.Second

	// ackRounds is how often the packs that could not be acknowledged are tried
	// again before they are left to whoever keeps packs.
	ackRounds = 4

	cause = "rebuild" // of the requests to the store
)

func (c Config) withDefaults() Config {
	if c.Footers == 0 {
		c.Footers = defaultFooters
	}
	if c.RowWorkers == 0 {
		c.RowWorkers = defaultRowWorkers
	}
	if c.RestoreSetting == nil {
		c.RestoreSetting = func(string) bool { return false }
	}
	if c.Fence == nil {
		c.Fence = func(context.Context) error { return nil }
	}
	if c.Quarantined == nil {
		c.Quarantined = func(context.Context, []string) error { return nil }
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
	switch {
	case c.Manifest == nil || c.Commands == nil || c.Store == nil:
		return errors.New("rebuild: Manifest, Commands and Store are required")
	case c.Base != "" && c.OpenBase == nil:
		return errors.New("rebuild: a Base without OpenBase")
	case c.Footers < 0 || c.RowWorkers < 0:
		return errors.New("rebuild: counts of workers must not be negative")
	}
	return nil
}
