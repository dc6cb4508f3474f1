package store

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A second GET is sent when the first takes longer than hedgeQuantile of those
// before, hedgeSamples of which are remembered and hedgeKnown needed. A GET
// earns hedgeShare of a hedge, and at most hedgeCap are kept.
const (
	hedgeQuantile = 0.95
	hedgeSamples  = 256
	hedgeKnown    = 64
	hedgeShare    = 0.05
	hedgeCap      = 16
	// hedgeLeast: below it nothing is won, and much of it is our own scheduler.
	hedgeLeast = 5 * time.Millisecond
)

// hedging knows how long small GETs take, and how many more it may send.
type hedging struct {
	mu    sync.Mutex // guards what follows
	took  []time.Duration
	next  int
	after time.Duration // 0: not known
	left  float64
	hedge int64 // hedges sent
	won   int64 // of them, those that were quicker
}

func newHedging() *hedging { return &hedging{} }

// delay returns after how long a GET that begins now is hedged; 0: never.
func (h *hedging) delay() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = min(h.left+hedgeShare, hedgeCap)
	if h.after == 0 {
		return 0
	}
	return max(h.after, hedgeLeast)
}

// take takes one hedge out of the budget.
func (h *hedging) take() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left < 1 {
		return false
	}
	h.left--
	h.hedge++
	return true
}

// learn remembers how long a GET that went well took.
func (h *hedging) learn(took time.Duration, hedged bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hedged {
		h.won++
	}
	if len(h.took) < hedgeSamples {
		h.took = append(h.took, took)
	} else {
		h.took[h.next] = took
	}
	h.next = (h.next + 1) % hedgeSamples
	// The quantile moves slowly: it is looked up anew now and then.
	if len(h.took) >= hedgeKnown && h.next%(hedgeKnown/2) == 0 {
		sorted := slices.Sorted(slices.Values(h.took))
		h.after = sorted[int(float64(len(sorted)-1)*hedgeQuantile)]
	}
}

// answer is what one of two GETs brought.
type answer struct {
	bytes  []byte
	err    error
	took   time.Duration
	hedged bool
}

// hedged calls get, and once more when the first takes long: the quicker one
// wins, and the other is ended. Only when both fail is there an error, the
// first's.
func (s *S3) hedged(ctx context.Context, get func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, 2)
	send := func(hedged bool) {
		s.inflight.Go(func() {
			start := time.Now()
			b, err := get(ctx)
			answers <- answer{b, err, time.Since(start), hedged}
		})
	}
	delay := s.hedge.delay()
	if delay == 0 {
		start := time.Now()
		b, err := get(ctx)
		if err == nil {
			s.hedge.learn(time.Since(start), false)
		}
		return b, err
	}
	send(false)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	var failed error
	for open := 1; open > 0; {
		select {
		case <-timer.C:
			if s.hedge.take() {
				open++
				send(true)
			}
		case a := <-answers:
			if open--; a.err == nil {
				s.hedge.learn(a.took, a.hedged)
				return a.bytes, nil
			}
			if failed == nil || !a.hedged {
				failed = a.err
			}
		}
	}
	return nil, failed
}
