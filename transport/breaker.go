package transport

import (
	"sync"
	"time"
)

// breaker leaves a peer alone after failures in a row: for a time every call is
// refused, then one may try. A call that was given up counts as neither success
// nor failure and gives its turn back, which is why this is not failsafe-go's:
// there a turn of the half-open state comes back by an outcome only, and hedged
// reads give up often.
type breaker struct {
	limit int
	delay time.Duration
	now   func() time.Time

	mu       sync.Mutex // guards what follows
	failures int        // in a row
	until    time.Time  // calls are refused until then
	probing  bool       // one call tries
}

// outcome of a call.
type outcome uint8

const (
	givenUp outcome = iota
	succeeded
	failed
)

// enter reports whether a call may go ahead; if so, leave must be called.
func (b *breaker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < b.limit {
		return true
	}
	if b.probing || b.now().Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

// leave tells how a call that entered has ended.
func (b *breaker) leave(o outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch o {
	case succeeded:
		b.failures = 0
	case failed:
		b.failures++
		if b.failures >= b.limit {
			b.until = b.now().Add(b.delay)
		}
	}
}

// open reports whether calls are refused now.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures >= b.limit && (b.probing || b.now().Before(b.until))
}
