package packer

import (
	"context"
	"time"
)

// Pauses of Run: after trouble, doubling; while marking is under way or a flush
// waits for what others hold.
const (
	minTrouble = time.Second
	maxTrouble = time.Minute
	shortPause = 20 * time.Millisecond
	// leastRecount is how long a flush waits at least until it counts again what
	// others hold, unless some of it comes free before.
	leastRecount = 200 * time.Millisecond
)

// Counting the backlog is work for the database. It takes no more than one part
// of these many of the time: while there is nothing to do, and while there is.
const (
	idleCounting = 20
	busyCounting = 4
)

// runner is what Run remembers from one round to the next.
type runner struct {
	p       *Packer
	wake    <-chan struct{} // nil while trouble is waited out: being asked for more does not end it
	trouble time.Duration   // the next pause after trouble
	flushed uint64          // how many of the flushes are done
	recount time.Time       // a flush waits until then for what others hold; zero: it does not
}

// Run packs continuously until ctx ends, and returns nil then. Errors are
// logged; the next round comes after a pause that grows.
func (p *Packer) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	r := runner{p: p, wake: p.kick, trouble: minTrouble}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.wake:
		}
		pause := r.next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		timer.Reset(pause)
	}
}

// next does a round, if it is time for one, and returns how long to wait.
func (r *runner) next(ctx context.Context) (pause time.Duration) {
	rested, _, trickles := r.p.cfg.Marking()
	if !rested {
		return shortPause // ranges cut now would be outgrown at once
	}
	if left := time.Until(r.recount); left > 0 && !r.p.freed() {
		return min(left, shortPause)
	}
	r.recount = time.Time{}
	asked := r.p.flushes.Load()
	flush := asked != r.flushed && !trickles
	began := time.Now()
	res, err := r.p.Once(ctx, flush)
	counting := r.p.counting()
	if err == nil && flush && res.Due == 0 && res.Held == nil {
		r.flushed = asked
	}
	r.wake, pause = r.p.kick, max(r.p.cfg.Poll, idleCounting*counting)
	grown := r.trouble
	if err == nil || res.progress() {
		r.trouble = minTrouble
	}
	switch {
	case err != nil:
		pause = r.afterTrouble(r.trouble)
		r.p.cfg.Logger.ErrorContext(ctx, "packing interrupted", "err", err, "wait", pause)
	case res.Held != nil: // asking for more does not end it
		r.wake = nil
	case res.progress():
		pause = busyCounting*counting - time.Since(began)
	case res.Refused+res.Waiting > 0: // packs that hold nothing but dead records are waste
		pause = r.afterTrouble(grown)
	case res.Overtaken > 0: // at most once for each pack that others commit
		pause = max(shortPause, busyCounting*counting)
	case flush && res.Due > 0:
		pause = shortPause
		r.recount = time.Now().Add(max(leastRecount, idleCounting*counting))
	case trickles: // a flush that waits is no reason to count again and again
		r.wake = nil
	}
	return max(pause, 0)
}

// afterTrouble returns a pause, that nothing ends before, and doubles the next.
func (r *runner) afterTrouble(pause time.Duration) time.Duration {
	r.wake, r.trouble = nil, min(2*pause, maxTrouble)
	return pause
}

// counting returns how long the last round took to count the backlog.
func (p *Packer) counting() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counted
}
