package marker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Marker marks the rows of all sources. Its methods may be called at once.
type Marker struct {
	cfg     Config
	metrics *metrics

	clustered bool // other nodes may mark

	kick    chan struct{} // one pending wake-up of Run
	running chan struct{} // holds one token while a round runs

	mu     sync.Mutex        // guards what follows; the maps are keyed by source
	alive  bool              // Run is under way
	busy   bool              // a round is
	asked  uint64            // how often Kick was called
	served uint64            // how much of it the last round saw
	full   map[string]bool   // sources whose marking rests at a backlog limit
	done   map[string]bool   // sources that have had a round
	faults map[string]error  // why the last round of a source ended early
	resume map[string]string // the id behind which the next round begins

	seen   map[desformat.Token]time.Time // other nodes' leases to mark, since when
	kicked time.Time                     // when Kick was called, of a node that does not mark
}

// New checks cfg and returns a Marker. It starts nothing.
func New(cfg Config) (*Marker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	clustered := cfg.Live != nil
	cfg = cfg.withDefaults()
	metrics, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("marker: register metrics: %w", err)
	}
	return &Marker{
		cfg:     cfg,
		metrics: metrics,

		clustered: clustered,

		kick:    make(chan struct{}, 1),
		running: make(chan struct{}, 1),
		full:    make(map[string]bool),
		done:    make(map[string]bool),
		faults:  make(map[string]error),
		resume:  make(map[string]string),
	}, nil
}

// Kick makes Run begin its next round now. Marking is not at rest until that
// round has ended.
func (m *Marker) Kick() {
	m.mu.Lock()
	m.asked++
	if now := m.cfg.Now(); m.clustered && !m.alive && now.Sub(m.kicked) > 10*headStart {
		m.kicked = now
	}
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
	wasHeld := ""
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
		if held := m.heldBy(); held != wasHeld {
			m.cfg.Logger.InfoContext(ctx, "marking held or let go", "held", held)
			wasHeld = held
		}
		timer.Reset(m.cfg.Poll)
	}
}

// heldBy says what holds marking, or returns an empty string.
func (m *Marker) heldBy() string {
	if h := pace.AsHeld(m.Problem()); h != nil {
		return h.Error()
	}
	return ""
}

func (m *Marker) setAlive(alive bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive = alive
}

// Once marks what is eligible in every source, up to the backlog limits and as
// its pace allows, and returns how many rows it marked and how many it refused.
// The error joins what stopped single sources; the others have been marked all
// the same. To be held is no error; Problem tells.
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
		if err != nil && pace.AsHeld(err) == nil {
			err = fmt.Errorf("mark source %s: %w", s.Name, err)
			errs = append(errs, err)
			m.metrics.errors.Inc()
		}
		marked, refused = marked+r.marked, refused+r.refused
		m.note(s.Name, r.full, err)
		if !r.judged {
			continue
		}
		if err := m.shareFull(ctx, s.Name, r.full); err != nil {
			errs = append(errs, fmt.Errorf("mark source %s: %w", s.Name, err))
		}
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
// true), was held, found the work in other hands, or could not reach the source,
// for which the others' rows need not wait. Without Run nothing is marked here,
// and only a round under way is unrest. Another node's marking is unrest too, as
// far as this node's view shows its lease.
//
// A round that waits for its pace is at rest too: it may take days. It trickles
// then: more rows come, but slowly. So does another node's that goes on for more
// than a minute. Where nothing is marked, a Kick gives the others a moment to
// begin what they were asked for as well.
func (m *Marker) Rested() (rested, full, trickles bool) {
	sources, waiting := m.cfg.Sources(), m.cfg.Pace.Waiting()
	m.mu.Lock()
	defer m.mu.Unlock()
	trickles = m.busy && waiting
	rested = !m.busy
	for _, s := range sources {
		full = full || m.isFull(s.Name)
		rested = rested && (m.done[s.Name] || !m.alive)
	}
	rested = rested && (m.asked == m.served || !m.alive) || trickles
	others, trickling := m.others(sources)
	begins := !m.alive && m.cfg.Now().Sub(m.kicked) < headStart
	return rested && !others && !begins, full, trickles || trickling
}

// Problem returns what stopped the last round of some source, a *pace.Held when
// it was held, or nil.
func (m *Marker) Problem() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	held := false
	for _, name := range slices.Sorted(maps.Keys(m.faults)) {
		err := m.faults[name]
		if pace.AsHeld(err) != nil {
			if held {
				continue // all sources are held alike
			}
			held = true
		}
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
	judged          bool  // full is what the backlog says, and not for want of a look at it
	backlogRows     int64 // counted at the beginning, plus what was marked since; without what is stuck
	backlogBytes    int64
	stuck           func(path string) bool // whose root is gone
	passed          int                    // rows not marked for that
}

func (r *round) run(ctx context.Context) error {
	if err := r.cfg.Pace.Held(); err != nil {
		return err
	}
	// A look without the lease: an idle source costs no lease in each round.
	first, err := r.source.Rows.Eligible(ctx, r.before, "", 1)
	if err != nil || len(first) == 0 {
		r.judged = err == nil
		return err
	}
	m := r.Marker
	m.mu.Lock()
	wasFull := m.isFull(r.source.Name)
	m.mu.Unlock()
	if wasFull { // nor does one that waits for room
		if err := r.count(ctx); err != nil {
			return err
		}
		if r.over(2) {
			r.full, r.judged = true, true
			return nil
		}
	}
	began := m.cfg.Now()
	err = m.cfg.Leases.WithLease(ctx, raftmeta.Job{Kind: raftmeta.JobMark, Source: r.source.Name},
		func(ctx context.Context, _ raftmeta.Lease) error {
			// Only now: another node may have marked until a moment ago.
			if err := r.count(ctx); err != nil {
				return err
			}
			return r.pages(ctx)
		})
	if errors.Is(err, raftmeta.ErrClash) {
		return nil
	}
	r.judged = err == nil
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
	// What nobody can pack now would keep the others' rows waiting.
	var stuckRows, stuckBytes int64
	stuckRows, stuckBytes, r.stuck = r.cfg.Stuck(r.source.Name)
	r.backlogRows, r.backlogBytes = max(0, r.backlogRows-stuckRows), max(0, r.backlogBytes-stuckBytes)
	r.metrics.backlog.WithLabelValues(r.source.Name, "rows").Set(float64(r.backlogRows))
	r.metrics.backlog.WithLabelValues(r.source.Name, "bytes").Set(float64(r.backlogBytes))
	return nil
}

// maxPassed bounds the rows that one round passes over because their root is
// gone; the next round goes on behind them.
const maxPassed = 100 * source.MaxBatch

func (r *round) pages(ctx context.Context) error {
	after := r.resumeAfter("")
	for {
		if r.passed >= maxPassed {
			r.resumeAfter(after)
			return nil
		}
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

// resumeAfter returns where the last round stopped among rows that it passed
// over, "" for the start, and notes where this one did.
func (r *round) resumeAfter(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.resume[r.source.Name]
	r.resume[r.source.Name] = id
	return last
}

// page refuses the rows that can never be archived and marks the others.
func (r *round) page(ctx context.Context, rows []source.Row) error {
	now := r.cfg.Now()
	good := rows[:0]
	for _, row := range rows {
		if r.stuck(row.Path) {
			r.passed++
			continue
		}
		if row.DesName == "" { // else it was archived before, and keeps its served name
			var err error
			if row.DesName, err = r.name(row); err != nil {
				return err
			}
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
	return r.mark(ctx, good)
}

// name returns what a row is served under that was never archived before.
func (r *round) name(row source.Row) (string, error) {
	if !r.source.Generated {
		return row.Name, nil
	}
	name, err := r.cfg.NewName()
	if err != nil {
		return "", fmt.Errorf("generate a name: %w", err)
	}
	return name, nil
}
