package main

import (
	"sync"
	"time"
)

// touches is what a fault takes away, besides what it does to a node: reads
// that fail meanwhile are told apart by it.
type touches uint8

const (
	touchesNodes    touches = 0
	touchesStore    touches = 1 << 0
	touchesDatabase touches = 1 << 1
	sparesReads     touches = 1 << 2 // of what is touched: only changes are hit
)

// timeline is what was done to the cluster, and when. Its methods may be
// called by any goroutine.
type timeline struct {
	start time.Time

	mu    sync.Mutex // guards what follows
	spans []*span
}

// span is one fault from its beginning until it was healed.
type span struct {
	of      *timeline
	kind    string
	target  string // a node's name, or ""
	touches touches
	from    time.Time
	to      time.Time // zero: not healed yet; guarded by of.mu
}

// newTimeline begins now.
func newTimeline() *timeline { return &timeline{start: time.Now()} }

// begin notes a fault right before it is injected.
func (t *timeline) begin(kind, target string, what touches) *span {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &span{of: t, kind: kind, target: target, touches: what, from: time.Now()}
	t.spans = append(t.spans, s)
	return s
}

// end notes that a fault was healed. A second call changes nothing.
func (s *span) end() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.to.IsZero() {
		s.to = time.Now()
	}
}

// touched reports whether a fault took that away from reads at any moment
// between two, or in the time before that its healing takes to reach the nodes.
func (t *timeline) touched(what touches, from, to time.Time, settles time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		if s.touches&what != 0 && s.touches&sparesReads == 0 && !s.from.After(to) && (s.to.IsZero() || !s.to.Add(settles).Before(from)) {
			return true
		}
	}
	return false
}

// counts returns how many faults of each kind there were.
func (t *timeline) counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]int{}
	for _, s := range t.spans {
		out[s.kind]++
	}
	return out
}
