package marker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Leaser grants leases; *raftmeta.Meta is one.
type Leaser interface {
	// WithLease runs work under a lease on job, with a context that ends before
	// the lease can be given to anybody else. raftmeta.ErrClash: somebody else
	// does this job.
	WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error
}

// Config configures a Marker. Sources, Leases and Cluster are required.
type Config struct {
	// Sources lists the sources to mark; called at the start of every round.
	Sources func() []source.Source
	Leases  Leaser
	Cluster desformat.ClusterID

	ShardBits uint8         // default 10
	MinAge    time.Duration // rows younger than this wait; default 0: none do
	Poll      time.Duration // pause between two rounds of Run; default 10 s

	// The MARKED backlog of one source is kept below these; the defaults, 64
	// packs of 256 MiB and of 16 Ki rows, are about two hours of packing at a
	// modest 2.4 MB/s. Marking that has stopped at a limit goes on when the
	// backlog has fallen below half of it.
	BacklogBytes int64 // default 16 GiB
	BacklogRows  int64 // default 1,048,576

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
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
