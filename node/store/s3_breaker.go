package store

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// errBreaker: so many requests failed that the store is not asked for a while.
var errBreaker = errors.New("too many requests failed; it is asked again in a few seconds")

// A breaker opens when half of at least breakerRequests requests in
// breakerPeriod failed; after breakerDelay one request finds out whether the
// store is back.
const (
	breakerRate     = 0.5
	breakerRequests = 10
	breakerPeriod   = 30 * time.Second
	breakerDelay    = 3 * time.Second
)

type breaker = circuitbreaker.CircuitBreaker[any]

// newBreaker returns the breaker for the requests that what names.
func newBreaker(what string, log *slog.Logger) breaker {
	return circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(breakerRate, breakerRequests, breakerPeriod).
		WithSuccessThreshold(1).
		WithDelay(breakerDelay).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			log.Warn("requests to the store", "which", what, "breaker", e.NewState.String(), "was", e.OldState.String())
		}).Build()
}

// breaker returns the one for requests of a kind. Reads have one of their own:
// a store that takes no more bytes is still read.
func (w *wire) breaker(k Kind) breaker {
	switch k {
	case KindGet, KindHead, KindList:
		return w.reads
	default:
		return w.changes
	}
}

// After ownAfter requests in a row that failed, with others going well in
// between, an object is taken to be bad, and not the store.
const (
	ownAfter    = 3
	maxCulprits = 1024
)

// culprits tells the trouble that a store has with one object from its trouble
// with all: an object that can't be read must not keep the others from being
// read.
type culprits struct {
	mu    sync.Mutex
	well  uint64             // guarded by mu: requests that went well
	paths map[string]culprit // guarded by mu: objects whose last request failed
}

type culprit struct {
	failed int    // in a row
	well   uint64 // of culprits, when it failed last
}

// worked notes that a request went well; whole: that its answer is complete, so
// that nothing speaks against the object any more.
func (c *culprits) worked(path string, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if whole {
		delete(c.paths, path)
	}
	if _, suspect := c.paths[path]; !suspect {
		c.well++
	}
}

// failed notes that a request failed, and reports whether the object is to
// blame, and not the store.
func (c *culprits) failed(path string) (own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paths == nil || len(c.paths) >= maxCulprits {
		c.paths = map[string]culprit{}
	}
	was := c.paths[path]
	c.paths[path] = culprit{was.failed + 1, c.well}
	return was.failed >= ownAfter && c.well > was.well
}
