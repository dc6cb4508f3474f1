package packer

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
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
	// ErrNotFound: a Finder's answer that no live record has the name, confirmed
	// as far as the manifest of this node goes.
	ErrNotFound = errors.New("no live record")
	// ErrSpoolFull: the spool's disk is full. No row is charged for it.
	ErrSpoolFull = errors.New("the packer's spool disk is full")
	// ErrLeft: rows were left as they are for a reason that is not theirs: the
	// manifest, the database or a root could not be used. The rest was packed.
	ErrLeft = errors.New("rows left alone")
	// ErrBehind: this node has not applied its own lease's grant yet, so it may
	// not know the packs that came before it.
	ErrBehind = errors.New("this node's state is behind its lease")
	// ErrRefused: a source's database refuses to move rows to PACKED.
	ErrRefused = errors.New("rows that their database refuses to change")
	// ErrMismatch: the store describes the uploaded object otherwise than it was
	// sent. The pack is not committed.
	ErrMismatch = errors.New("stored object differs from the upload")
)

// View is one immutable moment of the manifest; *raftmeta.View is one.
type View interface {
	Leases() []raftmeta.Lease
	// Overlapping returns the live packs whose range overlaps r, in any order.
	Overlapping(r desformat.Range) []*raftmeta.Pack
	Applied() uint64 // the Raft index of this moment
}

// Manifest is the cluster's state as the packer changes it; *raftmeta.Meta is
// one. All methods may be called at once.
type Manifest interface {
	// WithLease runs work under a lease on job, with a context that ends before
	// the lease can be given to anybody else, and returns work's error.
	// raftmeta.ErrClash and raftmeta.ErrUnacknowledged: not now.
	WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error
	// BeginUpload announces an object's key; durable when it returns nil.
	BeginUpload(ctx context.Context, u raftmeta.Upload) error
	// AddPack commits a pack and returns its entry. Repeating it is harmless.
	// raftmeta.ErrStale: the lease is gone, the pack can never be committed.
	AddPack(ctx context.Context, p raftmeta.Pack) (*raftmeta.Pack, error)
}

// Store is the part of an object store that the packer uses; store.Store is one.
type Store interface {
	Put(ctx context.Context, key string, body store.Body, size int64) (store.Object, error)
	Head(ctx context.Context, key, version string) (store.Object, error)
}

// Found is the live record of a name.
type Found struct {
	Pack    desformat.PackID
	Ordinal uint32
	Source  string
	ID      string
	Size    int64
	ModTime time.Time
	Version uint32
	SHA256  [sha256.Size]byte
}

// Finder looks names up in the manifest.
type Finder interface {
	// Find returns the live record of name, from header data alone. ErrNotFound
	// when there is none; any other error says nothing. Called from several
	// goroutines at once.
	Find(ctx context.Context, name string) (*Found, error)
}

// Acknowledger moves the rows of a committed pack to PACKED and records its
// dead ordinals; the keeper is one. content reads the pack's bytes. It may be
// repeated; raftmeta.ErrClash means that it is under way elsewhere. refused is
// called, by one goroutine, for each row that the database would not move: it
// has counted an attempt, if the database let it.
type Acknowledger interface {
	AcknowledgeFrom(ctx context.Context, p *raftmeta.Pack, content desformat.Fetcher, refused func(source, id string, version uint32)) error
}

// Pacer says when and how fast packs may be built; *pace.Work is one. Its
// methods may be called at once.
type Pacer interface {
	// Held says why no pack may be begun now, a *pace.Held, or returns nil.
	Held() error
	// Parallel returns how many of n packs may be built at once, one at least.
	Parallel(n int) int
	// Take waits for the rate and returns how much of a pack may be built; a
	// *pace.Held when nothing may. What is granted is recorded before.
	Take(ctx context.Context, want pace.Want) (*pace.Grant, error)
}

// Config configures a Packer. The fields of the first group are required.
type Config struct {
	Sources  func() []source.Source // called at the start of every round
	View     func() View            // the newest view of the manifest
	Manifest Manifest
	Store    Store
	Finder   Finder
	Acks     Acknowledger
	Cluster  desformat.ClusterID
	Node     raftmeta.NodeID // orders the cuts, so that nodes begin at different ones; default "": by rising range
	SpoolDir string          // a folder of the packer's own; created, and emptied of what a crash left

	Spool Spool // in place of SpoolDir; default: the folder SpoolDir

	// Emptied reports whether a root's folder, by its id, is known for one below
	// which originals were deleted: when it is empty they are absent, and no disk
	// is missing. nil: none is known.
	Emptied func(rootID string) bool

	// OthersPack reports whether another living node packs. Then this one does
	// not insist on rows whose root it does not see: it would keep the ranges from
	// those that do. nil: never.
	OthersPack func() bool

	// Marking says whether marking is at rest, whether because some backlog
	// reached its limit, and whether it trickles: what is MARKED is packed as it
	// comes to a pack's size, and a flush waits. nil: always at rest.
	Marking func() (rested, full, trickles bool)
	Pace    Pacer // default: no limits

	PackSize int64 // bytes of payload to aim at; default 256 MiB
	// RoundBytes is the backlog that is cut at once. A smaller one waits for
	// MaxWait, for a flush, or for marking to reach its limit: each round lays
	// one more pack over every name hash, and reads pay for layers. Default 32
	// packs.
	RoundBytes  int64
	MaxWait     time.Duration // since the oldest row was marked; default 24 h
	MaxAttempts int           // failed attempts until a row is FAILED; default 5
	Backoff     time.Duration // after a row's first failed attempt, then doubling; default 10 min
	Poll        time.Duration // pause between two rounds of Run; default 10 s
	Workers     int           // packs built at once; default 2

	Readers    int   // files of one pack opened at once; default 8
	SmallFile  int64 // files up to this size are read ahead, whole; default 256 KiB
	ReadAhead  int64 // bytes read ahead of one pack's writer; default 8 MiB
	PutRetries int   // further attempts at one step against the store or the manifest; default 4

	Now     func() time.Time        // default time.Now
	NewID   func() desformat.PackID // default random
	Logger  *slog.Logger            // default: silent
	Metrics prometheus.Registerer   // default: not registered anywhere
}

func (c Config) validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("packer: no "+what))
		}
	}
	need(c.Sources != nil, "Sources")
	need(c.View != nil, "View")
	need(c.Manifest != nil, "Manifest")
	need(c.Store != nil, "Store")
	need(c.Finder != nil, "Finder")
	need(c.Acks != nil, "Acks")
	need(c.SpoolDir != "" || c.Spool != nil, "SpoolDir")
	if min(c.PackSize, c.RoundBytes, c.SmallFile, c.ReadAhead, int64(c.MaxWait), int64(c.Backoff), int64(c.Poll)) < 0 ||
		min(c.MaxAttempts, c.Workers, c.Readers, c.PutRetries) < 0 {
		errs = append(errs, errors.New("packer: negative size, time or count"))
	}
	if c.PackSize != 0 && c.PackSize < minPackSize {
		errs = append(errs, errors.New("packer: PackSize below 4 KiB"))
	}
	return errors.Join(errs...)
}

// minPackSize keeps half a pack, the most a row counts, above a row's overhead.
const minPackSize = 4 << 10

// withDefaults returns c with every zero value replaced by its documented default.
func (c Config) withDefaults() Config {
	def(&c.PackSize, 256<<20)
	def(&c.RoundBytes, 32*c.PackSize)
	def(&c.MaxWait, 24*time.Hour)
	def(&c.MaxAttempts, 5)
	def(&c.Backoff, 10*time.Minute)
	def(&c.Poll, 10*time.Second)
	def(&c.Workers, 2)
	def(&c.Readers, 8)
	def(&c.SmallFile, 256<<10)
	def(&c.ReadAhead, 8<<20)
	def(&c.PutRetries, 4)
	if c.Marking == nil {
		c.Marking = func() (bool, bool, bool) { return true, false, false }
	}
	if c.OthersPack == nil {
		c.OthersPack = func() bool { return false }
	}
	if c.Pace == nil {
		c.Pace = pace.Free{}
	}
	if c.Spool == nil {
		c.Spool = spoolFolder(c.SpoolDir)
	}
	if c.Emptied == nil {
		c.Emptied = func(string) bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.NewID == nil {
		c.NewID = randomID
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
