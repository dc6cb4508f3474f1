package pace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// LagFunc asks a database how far its replicas are behind, by their names.
type LagFunc func(ctx context.Context) (map[string]time.Duration, error)

// Config is what a Pacer needs; Settings has no default.
type Config struct {
	Settings Settings
	Limits   Limits    // in force until others are set
	Governor *Governor // default: one that is told nothing, and so slows nothing down

	// Nodes is how many nodes share a second's rate: those of the cluster that
	// live. It is called for each step, so that changes are followed. nil: 1.
	Nodes func() int
	// Markers is how many of them are marking; a source is marked by one node at
	// a time, and the rate must not wait for those that have nothing to do with
	// it. nil: Nodes.
	Markers func() int

	// Lags are asked about replicas every LagInterval while Run runs.
	Lags        []LagFunc
	LagInterval time.Duration // default 10 s

	Now        func() time.Time      // default time.Now
	Logger     *slog.Logger          // default: silent
	Registerer prometheus.Registerer // default: the metrics are not registered
}

// nodes is how many nodes share the rate of a kind of work.
func (c *Config) nodes(kind Kind) int {
	of := c.Nodes
	if kind == Mark && c.Markers != nil {
		of = c.Markers
	}
	if of == nil {
		return 1
	}
	return max(1, of())
}

// Pacer knows the cluster's limits and pauses and this node's slow-down. Its
// methods may be called at once.
type Pacer struct {
	cfg        Config
	configured *limits
	works      map[Kind]*Work
	parsed     atomic.Pointer[parsedSettings]
}

// parsedSettings is the newest settings, parsed once for each change.
type parsedSettings struct {
	modIndex uint64
	settings *settings
}

// New checks cfg and returns a Pacer. It starts nothing.
func New(cfg Config) (*Pacer, error) {
	if cfg.Settings == nil {
		return nil, errors.New("pace: no Settings")
	}
	if cfg.LagInterval < 0 {
		return nil, errors.New("pace: negative LagInterval")
	}
	def(&cfg.LagInterval, 10*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Governor == nil {
		var err error
		if cfg.Governor, err = NewGovernor(GovernorConfig{Now: cfg.Now}); err != nil {
			return nil, err
		}
	}
	configured, err := cfg.Limits.parse()
	if err != nil {
		return nil, fmt.Errorf("pace: configured limits: %w", err)
	}
	p := &Pacer{cfg: cfg, configured: configured, works: map[Kind]*Work{}}
	for _, k := range Kinds() {
		p.works[k] = &Work{p: p, kind: k, taking: make(chan struct{}, 1)}
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{p}); err != nil {
			return nil, fmt.Errorf("pace: register metrics: %w", err)
		}
	}
	return p, nil
}

// Work returns the pace of one kind of work.
func (p *Pacer) Work(kind Kind) *Work { return p.works[kind] }

// Run asks about replicas until ctx ends, which it returns as nil.
func (p *Pacer) Run(ctx context.Context) error {
	if len(p.cfg.Lags) == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(p.cfg.LagInterval)
	defer ticker.Stop()
	for {
		for _, ask := range p.cfg.Lags {
			limited, cancel := context.WithTimeout(ctx, p.cfg.LagInterval)
			lags, err := ask(limited)
			cancel()
			if err != nil && ctx.Err() == nil {
				p.cfg.Logger.WarnContext(ctx, "how far replicas are behind is not known", "err", err)
			}
			for replica, behind := range lags {
				p.cfg.Governor.ObserveLag(replica, behind)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// settings returns what is in force.
func (p *Pacer) settings() *settings {
	b, modIndex, _ := p.cfg.Settings.Setting(settingsKey)
	if s := p.parsed.Load(); s != nil && s.modIndex == modIndex {
		return s.settings
	}
	r, err := decodeRecord(b)
	var s *settings
	if err == nil {
		s, err = r.parse(p.configured)
	}
	if err != nil {
		s = &settings{limits: p.configured, unreadable: err}
	}
	p.parsed.Store(&parsedSettings{modIndex, s})
	return s
}

// change replaces the replicated record by what f makes of it.
func (p *Pacer) change(ctx context.Context, f func(*record)) error {
	return update(ctx, p.cfg.Settings, settingsKey, func(old []byte) ([]byte, error) {
		r, err := decodeRecord(old)
		if err != nil {
			// Not even its pauses can be read. To set something anew is the way out.
			p.cfg.Logger.ErrorContext(ctx, "unreadable settings replaced", "err", err)
			r = record{}
		}
		r.Pauses = r.live(p.cfg.Now())
		f(&r)
		if r.Limits == nil && len(r.Pauses) == 0 {
			return []byte("{}"), nil
		}
		return json.Marshal(r)
	})
}

// SetLimits puts limits in force for the whole cluster, in the place of those
// that were.
func (p *Pacer) SetLimits(ctx context.Context, l Limits) error {
	if _, err := l.parse(); err != nil {
		return err
	}
	return p.change(ctx, func(r *record) { r.Limits = &l })
}

// ClearLimits puts the configured limits back in force.
func (p *Pacer) ClearLimits(ctx context.Context) error {
	return p.change(ctx, func(r *record) { r.Limits = nil })
}

// Pause stops the kinds of work in the whole cluster, all when there are none
// named. Since is set here. Steps under way end first.
func (p *Pacer) Pause(ctx context.Context, kinds []Kind, pause Pause) error {
	pause.Since, pause.Until = p.cfg.Now().UTC(), pause.Until.UTC()
	if err := errors.Join(checkKinds(kinds), pause.check(pause.Since)); err != nil {
		return err
	}
	return p.change(ctx, func(r *record) {
		if r.Pauses == nil {
			r.Pauses = map[Kind]Pause{}
		}
		for _, k := range or(kinds) {
			r.Pauses[k] = pause
		}
	})
}

// Resume ends the pauses of the kinds of work, of all when there are none named.
func (p *Pacer) Resume(ctx context.Context, kinds []Kind) error {
	if err := checkKinds(kinds); err != nil {
		return err
	}
	return p.change(ctx, func(r *record) {
		for _, k := range or(kinds) {
			delete(r.Pauses, k)
		}
	})
}

// or returns all kinds in the place of none.
func or(kinds []Kind) []Kind {
	if len(kinds) == 0 {
		return Kinds()
	}
	return kinds
}

// Work is the pace of one kind of work. Its methods may be called at once.
type Work struct {
	p      *Pacer
	kind   Kind
	taking chan struct{} // holds one token while a Take looks and reserves

	mu      sync.Mutex // guards what follows
	rates   rates
	credit  credit
	seen    seenUsage
	waiting int           // Takes that wait for a rate or for the slow-down
	ended   time.Time     // when the last step did
	took    time.Duration // and how long it was
}
