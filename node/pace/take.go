package pace

import (
	"context"
	"math"
	"sync"
	"time"
)

// Want is the next step of some work.
type Want struct {
	Amount
	// First is the bytes of the step's first file: a grant of fewer bytes would
	// be of no use.
	First int64
	// Whole says that a second's rate does not cut the step, as of a pack that
	// would be too small; the next step waits for it instead.
	Whole bool
}

// Grant is the permission for one step. End it exactly once; ending it again
// does nothing.
type Grant struct {
	Amount // at most so much

	work  *Work
	day   string // whose budget it came from; empty: none
	began time.Time
	end   sync.Once
}

const (
	// longestWait is how long a wait goes on without a look at the windows.
	longestWait = 10 * time.Second
	// Bounds of the pause after a step while all goes slowly, see slowdown.
	leastStep    = 10 * time.Millisecond
	longestPause = time.Minute
)

// Held says why no work of this kind may begin now, or returns nil. Take may be
// held all the same, when what a day's budget has left is too little.
func (w *Work) Held() error {
	now := w.p.cfg.Now()
	if h := w.held(w.p.settings(), now); h != nil {
		return h
	}
	return nil
}

// held is settings.held, the day's budget included.
func (w *Work) held(s *settings, now time.Time) *Held {
	if h := s.held(w.kind, now); h != nil {
		return h
	}
	l := s.limits.of(w.kind)
	if !l.daily() {
		return nil
	}
	used, err := w.used(l, now)
	switch {
	case err != nil:
		return &Held{Kind: w.kind, Cause: CauseSettings, Text: err.Error()}
	case l.FilesPerDay > 0 && used.Files >= l.FilesPerDay, l.BytesPerDay > 0 && used.Bytes >= l.BytesPerDay:
		return w.heldForDay(l, now)
	}
	return nil
}

func (w *Work) heldForDay(l *limits, now time.Time) *Held {
	return &Held{Kind: w.kind, Cause: CauseDay, Until: dateOf(now.In(l.zone)).add(1).begins(l.zone)}
}

// Waiting reports whether some Take waits now, for the rate or the slow-down.
func (w *Work) Waiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting > 0
}

// Parallel returns how many of n steps may be made at once: all of them at full
// pace, one at least.
func (w *Work) Parallel(n int) int {
	return max(1, int(math.Ceil(float64(n)*w.p.cfg.Governor.Factor())))
}

// Take waits until the rate and the slow-down allow the next step and returns
// what of it may be made: at least one file, and want.First bytes. A *Held when
// it may not begin before a time that is worth no waiting.
func (w *Work) Take(ctx context.Context, want Want) (*Grant, error) {
	for {
		changed := w.p.cfg.Settings.Changed() // before the look, so that no change is missed
		g, wait, err := w.try(ctx, want)
		if g != nil || err != nil {
			return g, err
		}
		if err := w.sleep(ctx, min(wait, longestWait), changed); err != nil {
			return nil, err
		}
	}
}

func (w *Work) sleep(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	w.count(1)
	defer w.count(-1)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-changed:
	}
	return nil
}

func (w *Work) count(by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting += by
}

// try returns a grant, or how long to wait for one.
func (w *Work) try(ctx context.Context, want Want) (*Grant, time.Duration, error) {
	select {
	case w.taking <- struct{}{}:
		defer func() { <-w.taking }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	s := w.p.settings()
	now := w.p.cfg.Now()
	if h := s.held(w.kind, now); h != nil {
		return nil, 0, h
	}
	l, factor, nodes := s.limits.of(w.kind), w.p.cfg.Governor.Factor(), w.p.cfg.nodes(w.kind)
	w.mu.Lock()
	wait := max(w.rates.wait(l, want.Amount, nodes, factor, now), w.slowdown(factor, now))
	step := w.rates.cut(l, want)
	w.mu.Unlock()
	if wait > 0 {
		return nil, wait, nil
	}
	got, day, err := w.reserve(ctx, l, want, step, now)
	if err != nil {
		return nil, 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rates.spend(l, got)
	if day != "" && w.credit.day == day {
		w.credit.amount = w.credit.amount.minus(got)
	}
	return &Grant{Amount: got, work: w, day: day, began: w.p.cfg.Now()}, 0, nil
}

// slowdown returns how long to wait after the last step, so that work takes
// that share of the time: as long as the step was at a half, three times as
// long at a quarter.
func (w *Work) slowdown(factor float64, now time.Time) time.Duration {
	if factor >= 1 || w.ended.IsZero() {
		return 0
	}
	pause := time.Duration(float64(max(w.took, leastStep)) * (1/factor - 1))
	return max(0, w.ended.Add(min(pause, longestPause)).Sub(now))
}

// End says what was done of the grant; the rest is given back.
func (g *Grant) End(done Amount) {
	if g == nil || g.work == nil {
		return
	}
	g.end.Do(func() { g.work.finish(g, done) })
}

func (w *Work) finish(g *Grant, done Amount) {
	left := g.Amount.minus(done)
	l := w.p.settings().limits.of(w.kind)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = w.p.cfg.Now()
	w.took = w.ended.Sub(g.began)
	w.rates.spend(l, Amount{}.minus(left))
	if g.day != "" && w.credit.day == g.day {
		w.credit.amount = w.credit.amount.plus(left)
	}
}

// Free is a pace without limits.
type Free struct{}

// Held returns nil.
func (Free) Held() error { return nil }

// Waiting returns false.
func (Free) Waiting() bool { return false }

// Parallel returns n.
func (Free) Parallel(n int) int { return n }

// Take grants all of want at once.
func (Free) Take(ctx context.Context, want Want) (*Grant, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &Grant{Amount: want.Amount}, nil
}
