package store

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// RequestCount is how many HTTP requests of one sort were sent, every attempt,
// part and hedge counted: what a store's bill counts.
type RequestCount struct {
	Kind  Kind
	Cause string // as WithCause said; empty: nobody did
	Class Class
	Count int64
}

// Requester is a store that counts what it really sends. Counted counts calls.
type Requester interface {
	// Requests returns the counts so far, in a fixed order.
	Requests() []RequestCount
}

// tally counts HTTP requests.
type tally struct {
	causes sync.Map // string → *[kinds][classes]atomic.Int64
}

func (t *tally) add(ctx context.Context, r request) {
	cause, _ := ctx.Value(causeKey{}).(string)
	found, ok := t.causes.Load(cause)
	if !ok {
		found, _ = t.causes.LoadOrStore(cause, new([kinds][classes]atomic.Int64))
	}
	if n, ok := found.(*[kinds][classes]atomic.Int64); ok {
		n[r.kind][r.class].Add(1)
	}
}

// Requests returns how many HTTP requests were sent so far, by kind, cause and
// class.
func (s *S3) Requests() []RequestCount {
	var all []RequestCount
	s.wire.tally.causes.Range(func(cause, counts any) bool {
		name, okName := cause.(string)
		n, okCounts := counts.(*[kinds][classes]atomic.Int64)
		if !okName || !okCounts {
			return true
		}
		for k := range kinds {
			for c := range classes {
				if v := n[k][c].Load(); v > 0 {
					all = append(all, RequestCount{Kind: k, Cause: name, Class: c, Count: v})
				}
			}
		}
		return true
	})
	sortCounts(all)
	return all
}

func sortCounts(all []RequestCount) {
	slices.SortFunc(all, func(a, b RequestCount) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Class, b.Class))
	})
}

// retryBudget lets requests be repeated only in proportion to those that went
// well, so that a store in trouble is not asked several times as often as one
// that is not. It fits the place of the SDK's retry quota.
type retryBudget struct {
	mu     sync.Mutex
	tenths int64 // guarded by mu: tenths of a retry
}

// A retry costs retryCost tenths, a request that went well at first earns
// retryEarns, and at most retryCap are kept, with which a budget begins.
const (
	retryCost  = 10
	retryEarns = 2
	retryCap   = 1000
)

func newRetryBudget() *retryBudget { return &retryBudget{tenths: retryCap} }

// GetToken takes what one retry costs.
func (b *retryBudget) GetToken(context.Context, uint) (func() error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tenths < retryCost {
		return nil, errRetryBudget
	}
	b.tenths -= retryCost
	return func() error {
		b.add(retryCost) // the retry went well
		return nil
	}, nil
}

// AddTokens is called for each request that went well at first.
func (b *retryBudget) AddTokens(uint) error {
	b.add(retryEarns)
	return nil
}

func (b *retryBudget) add(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tenths = min(b.tenths+n, retryCap)
}
