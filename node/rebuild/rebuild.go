package rebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Rebuild is the rebuild that begins a generation, as one node does it.
type Rebuild struct {
	cfg      Config
	log      *slog.Logger
	progress progress
}

// New returns a Rebuild that does nothing until Run is called.
func New(cfg Config) (*Rebuild, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	r := &Rebuild{cfg: cfg, log: cfg.Logger.With("part", "rebuild")}
	r.progress.now = cfg.Now
	r.progress.p.OddCount = map[OddKind]int{}
	if err := r.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("rebuild: %w", err)
	}
	return r, nil
}

// Progress returns how far the rebuild has come.
func (r *Rebuild) Progress() Progress { return r.progress.snapshot() }

// Run does what is left of the rebuild that begins this generation, and returns
// nil when it is recorded as done; at once when that was so before. What the
// store, a source or the manifest refuses is tried again until ctx ends, so it
// returns another error only when trying again is useless: ErrBase, ErrPlan,
// ErrSuperseded. One call at a time.
func (r *Rebuild) Run(ctx context.Context) error {
	ctx = store.WithCause(ctx, cause)
	pause := firstPause
	for {
		if v := r.cfg.Manifest.View(); v.RebuildDone(v.Generation()) {
			r.progress.enter(PhaseDone)
			r.progress.add(func(s *Progress) { s.Problem = "" })
			return nil
		}
		before := r.progress.snapshot()
		err := r.cfg.Manifest.WithLease(ctx, raftmeta.Job{Kind: raftmeta.JobRebuild}, func(ctx context.Context, _ raftmeta.Lease) error {
			return r.work(ctx)
		})
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("rebuild: %w", context.Cause(ctx))
		case hopeless(err):
			if errors.Is(err, source.ErrSuperseded) {
				err = fmt.Errorf("%w: %w", ErrSuperseded, err) // whoever said so first
			}
			r.failed(ctx, err)
			return fmt.Errorf("rebuild: %w", err)
		case errors.Is(err, raftmeta.ErrClash): // another node is at it
			r.progress.enter(PhaseWait)
		default:
			r.failed(ctx, err)
		}
		if after := r.progress.snapshot(); after.Adopted != before.Adopted || after.Acknowledged != before.Acknowledged || after.Phase != before.Phase {
			pause = firstPause // it came further
		}
		if err := wait(ctx, pause); err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
		pause = min(2*pause, longPause)
	}
}

func hopeless(err error) bool {
	return slices.ContainsFunc([]error{ErrBase, ErrPlan, ErrSuperseded, source.ErrSuperseded, raftmeta.ErrClosed, raftmeta.ErrUnknownCommand, raftmeta.ErrRemoved},
		func(target error) bool { return errors.Is(err, target) })
}

func (r *Rebuild) failed(ctx context.Context, err error) {
	r.progress.add(func(s *Progress) { s.Problem = err.Error() })
	r.log.WarnContext(ctx, "the rebuild goes on later", "phase", r.Progress().Phase, "error", err)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// work is the whole rebuild, from wherever it was cut. Each step finds what it
// has done before in the state, and is harmless when repeated.
func (r *Rebuild) work(ctx context.Context) error {
	v, err := r.cfg.Manifest.Confirm(ctx)
	if err != nil || v.RebuildDone(v.Generation()) {
		return err
	}
	p, err := r.begin(ctx, v)
	if err != nil {
		return err
	}
	r.progress.add(func(s *Progress) { s.Plan = p })
	if p.Base != "" && !p.BaseDone {
		if err := r.adoptBase(ctx, &p); err != nil {
			return err
		}
	}
	// Reads want the packs soon, whether or not all sources answer. What counts
	// is the look that begins when nobody of an earlier life can archive any more.
	fence := r.cfg.Fence(ctx)
	if err := r.look(ctx, p); err != nil {
		return err
	}
	if fence != nil {
		if err := r.awaitFence(ctx, fence); err != nil {
			return err
		}
		if err := r.look(ctx, p); err != nil {
			return err
		}
	}
	if p.Source && !p.RowsDone {
		if err := r.restoreRows(ctx); err != nil {
			return err
		}
		p.RowsDone = true
		if err := r.save(ctx, p); err != nil {
			return err
		}
	}
	if err := r.acknowledge(ctx); err != nil {
		return err
	}
	if err := r.cfg.Commands.RecordRebuild(ctx); err != nil {
		return fmt.Errorf("record the rebuild as done: %w", err)
	}
	done := r.Progress()
	r.log.InfoContext(ctx, "rebuild done", "from_base", done.FromBase, "adopted", done.Adopted, "odd", len(done.Odd),
		"rows", done.RowsRestored, "requests", done.Requests, "bytes", done.Bytes)
	return nil
}

// awaitFence waits until every source refuses earlier lives.
func (r *Rebuild) awaitFence(ctx context.Context, err error) error {
	r.progress.enter(PhaseFence)
	for pause := firstPause; err != nil; pause = min(2*pause, longPause) {
		if hopeless(err) {
			return err
		}
		r.failed(ctx, fmt.Errorf("earlier lives of the cluster are not fenced out of every source: %w", err))
		if err := wait(ctx, pause); err != nil {
			return err
		}
		err = r.cfg.Fence(ctx)
	}
	r.progress.add(func(s *Progress) { s.Problem = "" })
	return nil
}

// acknowledge has the adopted packs acknowledged of which that is not known. A
// pack whose source does not answer does not hold up the rebuild: its records
// are served all the same, its range is not packed before, and whoever keeps
// packs goes on with it.
func (r *Rebuild) acknowledge(ctx context.Context) error {
	if r.cfg.Acknowledge == nil {
		return nil
	}
	r.progress.enter(PhaseAcknowledge)
	var last error
	pause := firstPause
	for round := range ackRounds {
		open := r.adopted(func(p *raftmeta.Pack) bool { return !p.Acknowledged })
		r.progress.add(func(s *Progress) {
			if s.Left = len(open); round == 0 {
				s.ToAcknowledge = len(open)
			}
		})
		if len(open) == 0 {
			return nil
		}
		if round > 0 {
			if err := wait(ctx, pause); err != nil {
				return err
			}
			pause *= 2
		}
		var good, bad atomic.Int64
		last = r.each(ctx, len(open), func(i int) error {
			if good.Load() == 0 && bad.Load() >= maxErrors {
				return nil // it is not the packs: each try costs a catalog
			}
			if err := r.cfg.Acknowledge(ctx, open[i]); err != nil {
				bad.Add(1)
				return err
			}
			good.Add(1)
			r.progress.add(func(s *Progress) { s.Acknowledged++; s.Left-- })
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case last != nil:
			r.failed(ctx, last)
		}
	}
	if last != nil {
		r.log.ErrorContext(ctx, "packs are left to be acknowledged later", "packs", r.Progress().Left, "error", last)
	}
	return nil
}

// adopted returns the live packs of earlier generations that which chooses,
// those with the newest records first.
func (r *Rebuild) adopted(which func(*raftmeta.Pack) bool) []*raftmeta.Pack {
	v := r.cfg.Manifest.View()
	var out []*raftmeta.Pack
	for p := range v.Packs() {
		if p.Token.Generation < v.Generation() && p.ReplacedBy.IsZero() && which(p) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) })
	return out
}

// fetcher reads one version of one object, and counts.
type fetcher struct {
	r            *Rebuild
	key, version string
}

func (f fetcher) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	f.r.request()
	body, err := f.r.cfg.Store.Get(ctx, f.key, f.version, off, n)
	if err != nil {
		return nil, err
	}
	return &counted{ReadCloser: body, done: func(n int64) { f.r.progress.add(func(s *Progress) { s.Bytes += n }) }}, nil
}

func (r *Rebuild) request() { r.progress.add(func(s *Progress) { s.Requests++ }) }
