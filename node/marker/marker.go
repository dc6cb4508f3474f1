package marker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Marker marks the rows of all sources. Its methods may be called at once.
type Marker struct {
	cfg     Config
	metrics *metrics
	kick    chan struct{} // one pending wake-up of Run
	running chan struct{} // holds one token while a round runs

	mu     sync.Mutex       // guards what follows; the maps are keyed by source
	alive  bool             // Run is under way
	busy   bool             // a round is
	asked  uint64           // how often Kick was called
	served uint64           // how much of it the last round saw
	full   map[string]bool  // sources whose marking rests at a backlog limit
	done   map[string]bool  // sources that have had a round
	faults map[string]error // why the last round of a source ended early
}

// New checks cfg and returns a Marker. It starts nothing.
func New(cfg Config) (*Marker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	metrics, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("marker: register metrics: %w", err)
	}
	return &Marker{
		cfg:     cfg,
		metrics: metrics,
		kick:    make(chan struct{}, 1),
		running: make(chan struct{}, 1),
		full:    make(map[string]bool),
		done:    make(map[string]bool),
		faults:  make(map[string]error),
	}, nil
}

// Kick makes Run begin its next round now. Marking is not at rest until that
// round has ended.
func (m *Marker) Kick() {
	m.mu.Lock()
	m.asked++
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Run marks continuously until ctx ends, which it returns as nil. Errors are
// logged and tried again in the next round.
func (m *Marker) Run(ctx context.Context) error {
	m.setAlive(true)
	defer m.setAlive(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-m.kick:
		}
		marked, refused, err := m.Once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			m.cfg.Logger.WarnContext(ctx, "marking interrupted, tried again later", "err", err, "wait", m.cfg.Poll)
		}
		if marked+refused > 0 {
			m.cfg.Logger.InfoContext(ctx, "rows marked", "marked", marked, "refused", refused)
		}
		timer.Reset(m.cfg.Poll)
	}
}

func (m *Marker) setAlive(alive bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive = alive
}

// Once marks what is eligible in every source, up to the backlog limits, and
// returns how many rows it marked and how many it refused. The error joins what
// stopped single sources; the others have been marked all the same.
func (m *Marker) Once(ctx context.Context) (marked, refused int, err error) {
	select {
	case m.running <- struct{}{}:
		defer func() { <-m.running }()
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	m.mu.Lock()
	m.busy = true
	asked := m.asked
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.busy, m.served = false, asked
	}()
	var errs []error
	for _, s := range m.cfg.Sources() {
		r := round{Marker: m, source: s, before: m.cfg.Now().Add(-m.cfg.MinAge)}
		err := r.run(ctx)
		if err != nil {
			err = fmt.Errorf("mark source %s: %w", s.Name, err)
			errs = append(errs, err)
			m.metrics.errors.Inc()
		}
		marked, refused = marked+r.marked, refused+r.refused
		m.note(s.Name, r.full, err)
	}
	return marked, refused, errors.Join(errs...)
}

func (m *Marker) note(name string, full bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full[name] = full
	m.done[name] = true
	if err == nil {
		delete(m.faults, name)
	} else {
		m.faults[name] = err
	}
}

// Rested reports whether marking is at rest, so that the backlog is worth
// cutting into ranges: no round is under way or asked for, and the last one
// left no eligible row in any source, stopped at a backlog limit (then full is
// true), found the work in other hands, or could not reach the source, for
// which the others' rows need not wait. Without Run nothing is marked here, and
// only a round under way is unrest.
func (m *Marker) Rested() (rested, full bool) {
	sources := m.cfg.Sources()
	m.mu.Lock()
	defer m.mu.Unlock()
	rested = !m.busy
	for _, s := range sources {
		full = full || m.full[s.Name]
		rested = rested && (m.done[s.Name] || !m.alive)
	}
	return rested && (m.asked == m.served || !m.alive), full
}

// Problem returns what stopped the last round of some source, or nil.
func (m *Marker) Problem() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, err := range m.faults {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// round is one pass over one source.
type round struct {
	*Marker
	source source.Source
	before time.Time // rows modified before this are old enough

	marked, refused int
	full            bool
	backlogRows     int64 // counted at the beginning, plus what was marked since
	backlogBytes    int64
}

func (r *round) run(ctx context.Context) error {
	// A look without the lease: an idle source costs no lease in each round.
	first, err := r.source.Rows.Eligible(ctx, r.before, "", 1)
	if err != nil || len(first) == 0 {
		return err
	}
	if err := r.count(ctx); err != nil {
		return err
	}
	m := r.Marker
	m.mu.Lock()
	wasFull := m.full[r.source.Name]
	m.mu.Unlock()
	if r.over(1) || wasFull && r.over(2) {
		r.full = true
		return nil
	}
	began := m.cfg.Now()
	err = m.cfg.Leases.WithLease(ctx, raftmeta.Job{Kind: raftmeta.JobMark, Source: r.source.Name},
		func(ctx context.Context, _ raftmeta.Lease) error { return r.pages(ctx) })
	if errors.Is(err, raftmeta.ErrClash) {
		return nil
	}
	m.metrics.round.Observe(m.cfg.Now().Sub(began).Seconds())
	return err
}

// over reports whether the backlog has reached 1/part of a limit.
func (r *round) over(part int64) bool {
	return r.backlogRows >= max(1, r.cfg.BacklogRows/part) || r.backlogBytes >= max(1, r.cfg.BacklogBytes/part)
}

func (r *round) count(ctx context.Context) error {
	buckets, err := r.source.Rows.Backlog(ctx, 0, source.Due{Now: r.cfg.Now()})
	if err != nil {
		return err
	}
	r.backlogRows, r.backlogBytes = 0, 0
	for _, b := range buckets {
		r.backlogRows += b.Rows
		r.backlogBytes += b.Bytes
	}
	r.metrics.backlog.WithLabelValues(r.source.Name, "rows").Set(float64(r.backlogRows))
	r.metrics.backlog.WithLabelValues(r.source.Name, "bytes").Set(float64(r.backlogBytes))
	return nil
}

func (r *round) pages(ctx context.Context) error {
	after := ""
	for {
		if r.over(1) {
			// The packer has taken some since the last count.
			if err := r.count(ctx); err != nil {
				return err
			}
			if r.over(1) {
				r.full = true
				return nil
			}
		}
		rows, err := r.source.Rows.Eligible(ctx, r.before, after, source.MaxBatch)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1].ID
		if err := r.page(ctx, rows); err != nil {
			return err
		}
	}
}

// page refuses the rows that can never be archived and marks the others.
func (r *round) page(ctx context.Context, rows []source.Row) error {
	now := r.cfg.Now()
	good := rows[:0]
	for _, row := range rows {
		if row.DesName == "" { // else it was archived before, and keeps its served name
			row.DesName = row.Name
		}
		code, text := check(row)
		if code == "" {
			good = append(good, row)
			continue
		}
		if err := r.source.Rows.Refuse(ctx, row, code, text, now); err != nil {
			return err
		}
		r.refused++
		r.metrics.refused[code].Inc()
		r.cfg.Logger.InfoContext(ctx, "row can't be archived", "source", row.Source, "id", row.ID, "code", code, "reason", text)
	}
	if len(good) == 0 {
		return nil
	}
	moved, err := r.source.Rows.Mark(ctx, good, source.Marking{At: now, Cluster: r.cfg.Cluster, ShardBits: r.cfg.ShardBits})
	if err != nil {
		return err
	}
	for i, row := range good {
		if !moved[i] {
			r.metrics.moved.Inc()
			continue
		}
		r.marked++
		r.backlogRows++
		r.backlogBytes += row.Size
		r.metrics.rows.Inc()
		r.metrics.bytes.Add(float64(row.Size))
	}
	return nil
}
