package marker

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Leaser grants leases; *raftmeta.Meta is one.
type Leaser interface {
	// WithLease runs work under a lease on job, with a context that ends before
	// the lease can be given to anybody else. raftmeta.ErrClash: somebody else
	// does this job, and its lease is among Config.Live by now, if it lives still.
	WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error
}

// Config configures a Marker. Sources, Leases and Cluster are required.
type Config struct {
	// Sources lists the sources to mark; called at the start of every round.
	Sources func() []source.Source
	Leases  Leaser
	Cluster desformat.ClusterID

	// Node is this node, and Live the leases of the newest view: while another
	// node marks, marking is not at rest here either. nil: nobody else does.
	Node raftmeta.NodeID
	Live func() []raftmeta.Lease
	// Shared is where the nodes tell each other that marking rests at a backlog
	// limit. nil: they don't.
	Shared Settings

	ShardBits uint8         // default 10
	MinAge    time.Duration // rows younger than this wait; default 0: none do
	Poll      time.Duration // pause between two rounds of Run; default 10 s

	// The MARKED backlog of one source is kept below these; the defaults, 64
	// packs of 256 MiB and of 16 Ki rows, are about two hours of packing at a
	// modest 2.4 MB/s. Marking that has stopped at a limit goes on when the
	// backlog has fallen below half of it.
	BacklogBytes int64 // default 16 GiB
	BacklogRows  int64 // default 1,048,576

	Pace Pacer // default: no limits
	// Stuck says how much of a source's MARKED backlog cannot be packed for now,
	// its root being gone, and which paths are below such a root: the one does
	// not count against the limits, the other are not marked. Default: none.
	Stuck func(source string) (rows, bytes int64, below func(path string) bool)
	// NewName makes up a name for a row of a source whose names are generated:
	// valid in URLs, never given before, rising with time. Default: a UUID of
	// version 7 as 32 hexadecimal digits.
	NewName func() (string, error)

	Now     func() time.Time      // default time.Now
	Logger  *slog.Logger          // default: silent
	Metrics prometheus.Registerer // default: not registered anywhere
}

func (c Config) validate() error {
	var errs []error
	if c.Sources == nil {
		errs = append(errs, errors.New("marker: no Sources"))
	}
	if c.Leases == nil {
		errs = append(errs, errors.New("marker: no Leases"))
	}
	if c.ShardBits > desformat.MaxRangeBits {
		errs = append(errs, errors.New("marker: ShardBits over 32"))
	}
	if c.MinAge < 0 || c.Poll < 0 || c.BacklogBytes < 0 || c.BacklogRows < 0 {
		errs = append(errs, errors.New("marker: negative MinAge, Poll or backlog limit"))
	}
	return errors.Join(errs...)
}

// withDefaults returns c with every zero value replaced by its documented default.
func (c Config) withDefaults() Config {
	if c.ShardBits == 0 {
		c.ShardBits = 10
	}
	if c.Poll == 0 {
		c.Poll = 10 * time.Second
	}
	if c.BacklogBytes == 0 {
		c.BacklogBytes = 64 * 256 << 20
	}
	if c.BacklogRows == 0 {
		c.BacklogRows = 64 * 16 << 10
	}
	if c.Pace == nil {
		c.Pace = pace.Free{}
	}
	if c.Live == nil {
		c.Live = func() []raftmeta.Lease { return nil }
	}
	if c.Stuck == nil {
		c.Stuck = func(string) (int64, int64, func(string) bool) { return 0, 0, func(string) bool { return false } }
	}
	if c.NewName == nil {
		c.NewName = newName
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// newName returns a new UUID of version 7. Its first 48 bits are the time in
// milliseconds, so that names sort by age; hexadecimal digits need no escaping
// and don't depend on case.
func newName() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(id[:]), nil
}
