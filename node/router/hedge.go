package router

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// ask asks the owner, and the next one too when the owner takes unusually long
// and the budget allows it. The first good answer counts; hedged: it came from
// the next one. All that was begun has ended when ask returns.
func (r *Router) ask(ctx context.Context, owners []ring.NodeID, q transport.Request) (a *retriever.Answer, hedged bool, err error) {
	r.budget.earn()
	began := time.Now()
	next, ok := r.next(owners)
	if !ok {
		a, err = r.hop(ctx, owners[0], q, r.cfg.HopTimeout)
		r.waits.note(time.Since(began), err)
		return a, false, err
	}
	both, stop := context.WithCancel(ctx)
	defer stop()
	first, outrun := context.WithCancel(both)
	defer outrun()
	second := hedge{done: make(chan struct{})}
	delay := min(max(r.waits.usual(), r.cfg.HedgeDelay), r.cfg.HopTimeout/2)
	timer := time.AfterFunc(delay, func() {
		defer close(second.done)
		if !r.budget.spend() {
			return
		}
		second.begun = true
		second.answer, second.err = r.hop(both, next, q, r.cfg.HopTimeout-delay)
		if second.err == nil {
			outrun()
		}
	})
	a, err = r.hop(first, owners[0], q, r.cfg.HopTimeout)
	r.waits.note(time.Since(began), err)
	if timer.Stop() {
		return a, false, err
	}
	if err == nil {
		stop()
	}
	<-second.done
	switch {
	case !second.begun:
		return a, false, err
	case err == nil || second.err != nil:
		r.metrics.hedgesLost.Inc()
		return a, false, err
	}
	r.metrics.hedgesWon.Inc()
	return second.answer, true, nil
}

// hedge is the question to the next owner; what stands in it may be read when
// done is closed.
type hedge struct {
	done   chan struct{}
	begun  bool
	answer *retriever.Answer
	err    error
}

// budget holds hedges to their share of the hops. It starts empty, and keeps
// no more than maxHedges: a bad hour is not paid for by the good day before.
type budget struct {
	percent int64
	saved   atomic.Int64 // hundredths of a hedge
}

const maxHedges = 10

func (b *budget) earn() {
	if b.saved.Load() < 100*maxHedges { // some hops more at once do no harm
		b.saved.Add(b.percent)
	}
}

func (b *budget) spend() bool {
	for {
		saved := b.saved.Load()
		if saved < 100 {
			return false
		}
		if b.saved.CompareAndSwap(saved, saved-100) {
			return true
		}
	}
}

// waits remembers how long owners took lately.
type waits struct {
	mu    sync.Mutex
	took  [waitsKept]time.Duration // guarded by mu: a ring
	count int                      // guarded by mu: all that were noted
	p95   atomic.Int64             // of took, nanoseconds; 0: too few are known
}

const (
	waitsKept  = 256
	waitsEvery = 32 // notes between two computations
)

// note records a hop to an owner: one that was answered, or that was given up,
// whose answer would have taken longer still. How fast a refusal comes says
// nothing about answers.
func (w *waits) note(took time.Duration, err error) {
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took[w.count%waitsKept] = took
	w.count++
	if w.count%waitsEvery != 0 {
		return
	}
	known := w.took // a copy
	sorted := known[:min(w.count, waitsKept)]
	slices.Sort(sorted)
	w.p95.Store(int64(sorted[len(sorted)*95/100]))
}

// usual is the time in which 95 of 100 answers came.
func (w *waits) usual() time.Duration { return time.Duration(w.p95.Load()) }
