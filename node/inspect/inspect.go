package inspect

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Errors of this package, returned wrapped.
var (
	// ErrUnavailable: the store or a source did not answer. Of what was not looked
	// at nothing is known.
	ErrUnavailable = errors.New("the store or a source does not answer")
	// ErrRebuilding: the rebuild that began this generation is not done: the
	// manifest does not know all packs yet, so nothing can be held against it.
	ErrRebuilding = errors.New("the rebuild of this generation is not done")
)

// Manifest is the cluster's state. Its methods may be called at once.
type Manifest interface {
	// View returns the newest state that this node has applied; immutable.
	View() *raftmeta.View
	// Confirm returns a view at least as new as the leader's state at the call.
	Confirm(ctx context.Context) (*raftmeta.View, error)
}

// Store is the part of an object store that is looked at; see store.Reader for
// what each method promises.
type Store interface {
	Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	Head(ctx context.Context, key, version string) (store.Object, error)
	List(ctx context.Context, prefix, after string, f func(store.Object) error) error
}

// Rows is one source's table, in the reader's and the operator's roles; see
// source.Table.
type Rows interface {
	source.ListRows
	FailureTally(ctx context.Context) (map[string]source.Tally, error)
	Retry(ctx context.Context, which source.Selection, at time.Time) (int64, error)
	TimePrecision() time.Duration
}

// Source is one source of this node.
type Source struct {
	Name string
	Rows Rows
}

// Upkeep is what the keeper does when it is asked for. Each method takes the lease
// that the keeper itself would take: raftmeta.ErrClash says that another has it.
// All may be repeated.
type Upkeep interface {
	// AcknowledgeNow acknowledges a committed pack; one that is needs nothing.
	AcknowledgeNow(ctx context.Context, pack desformat.PackID) error
	// VerifyNow reads a pack back whole and records what it finds. Damage is no
	// error.
	VerifyNow(ctx context.Context, pack desformat.PackID) (damage string, err error)
	// SettleNow finishes deletions of a pack's originals that were cut, or puts the
	// originals back.
	SettleNow(ctx context.Context, pack desformat.PackID) error
	// CollectNow moves garbage to quarantine, and deletes what has been there long
	// enough. Each act is in the audit log before it is done.
	CollectNow(ctx context.Context) error
	// AbortNow ends an upload that a crash left open, unless its key may yet be
	// committed. It is in the audit log before it is done.
	AbortNow(ctx context.Context, u store.Upload) error
}

// Log is what the keeper knows beside the manifest.
type Log interface {
	// Trouble returns why the last try of a job on the pack failed on this node;
	// nil: it did not.
	Trouble(kind raftmeta.JobKind, pack desformat.PackID) error
	// CutDeletions lists the originals whose deletion this node's audit log has as
	// begun and not ended.
	CutDeletions() []CutDeletion
	// Quarantined lists the objects in quarantine or on their way there.
	Quarantined(v *raftmeta.View) ([]Quarantined, error)
}

// CutDeletion is the deletion of one original that has begun and not ended.
type CutDeletion struct {
	Pack   desformat.PackID
	Source string
	ID     string
	Path   string
	Since  time.Time
}

// Quarantined is one object that was moved out of the way, or is to be.
type Quarantined struct {
	Key     string    // where it was uploaded to
	Place   string    // its key in quarantine
	Since   time.Time // when it was moved
	Expires time.Time // when it may be deleted
	Kept    string    // why it is not moved, or not deleted; empty: nothing speaks against it
}

// OpenUploads is a store that can have open uploads; see store.Uploader.
type OpenUploads interface {
	Uploads(ctx context.Context, prefix string, f func(store.Upload) error) error
}

// Member is a node of the cluster as this one sees it.
type Member struct {
	Node    raftmeta.NodeID
	Alive   bool
	State   string    // in words: alive, joining, unreachable, left
	Leaving bool      // it has begun to leave
	Heard   time.Time // when it was last heard of; zero: not known
}

// Backup is one backup of the cluster's state.
type Backup struct {
	Key        string
	Generation uint64
	At         time.Time
}

// Pause is work that somebody has stopped.
type Pause struct {
	Work   string
	Reason string
	By     string
	Since  time.Time // zero: not known
	Until  time.Time // zero: until it is resumed
}

// Config says what an Inspector looks at. Manifest, Store, Upkeep and Log have no
// default; what is nil beside them is not looked at.
type Config struct {
	Node     raftmeta.NodeID
	Manifest Manifest
	Store    Store
	Sources  []Source
	Upkeep   Upkeep
	Log      Log

	Uploads OpenUploads // of Store; nil: it has no open uploads

	// Members returns the nodes of the cluster, this one included.
	Members func(ctx context.Context) ([]Member, error)
	// Lacking returns the cluster's sources that this node does not have.
	Lacking func() ([]string, error)
	// Pauses returns what the operator has stopped.
	Pauses func() []Pause
	// Backups returns the backups of the state, in any order.
	Backups func() ([]Backup, error)
	// BackUp makes a backup.
	BackUp func(ctx context.Context) error
	// BackupEvery is how often a backup is made; 0: none is expected.
	BackupEvery time.Duration
	// Rebuilding says how far the rebuild of this generation is.
	Rebuilding func() string
	// Current returns why this node must do no write-path work any more: a newer
	// generation of the cluster lives.
	Current func(ctx context.Context) error

	// VerifiedWithin is how old a pack's last verification may be; default 60 days,
	// twice the keeper's interval.
	VerifiedWithin time.Duration
	Logger         *slog.Logger     // default: discard
	Now            func() time.Time // default time.Now
}

const (
	defaultVerifiedWithin = 60 * 24 * time.Hour
	// garbageAge is how old an uncommitted upload is when it may be collected, as
	// the keeper has it.
	garbageAge = 24 * time.Hour
	// settled is how long work may take before it counts as left behind.
	settled = time.Hour
)

func (c Config) validate() error {
	switch {
	case c.Manifest == nil, c.Store == nil, c.Upkeep == nil, c.Log == nil:
		return errors.New("inspect: Manifest, Store, Upkeep and Log are required")
	case c.BackupEvery < 0, c.VerifiedWithin < 0:
		return errors.New("inspect: a duration is negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.VerifiedWithin == 0 {
		c.VerifiedWithin = defaultVerifiedWithin
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Members == nil {
		c.Members = func(context.Context) ([]Member, error) { return nil, nil }
	}
	if c.Lacking == nil {
		c.Lacking = func() ([]string, error) { return nil, nil }
	}
	if c.Pauses == nil {
		c.Pauses = func() []Pause { return nil }
	}
	if c.Rebuilding == nil {
		c.Rebuilding = func() string { return "" }
	}
	if c.Current == nil {
		c.Current = func(context.Context) error { return nil }
	}
	return c
}

// Inspector looks a cluster through. Its methods may be called at once.
type Inspector struct {
	cfg Config
	log *slog.Logger
}

// New returns an Inspector that does nothing until its methods are called.
func New(cfg Config) (*Inspector, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Inspector{cfg: cfg, log: cfg.Logger.With("part", "inspect")}, nil
}

// causeInspect and causeCompare are the causes of this package's requests to the
// store.
const (
	causeInspect = "inspect"
	causeCompare = "compare"
)

// ownCopy returns the pack's copy in the cluster's own store, and whether it has
// one.
func ownCopy(p *raftmeta.Pack) (raftmeta.Copy, bool) {
	for _, c := range p.Copies {
		if c.Site == "" {
			return c, true
		}
	}
	return raftmeta.Copy{}, false
}

// live reports whether reads use the pack.
func live(p *raftmeta.Pack) bool { return p != nil && p.ReplacedBy.IsZero() }
