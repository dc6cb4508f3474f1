package store

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// Kind is a kind of store request.
type Kind uint8

// The kinds of requests.
const (
	KindPut Kind = iota
	KindGet
	KindHead
	KindList
	KindMove
	KindDelete
	kinds
)

// String returns the kind in lower case, as metrics label it.
func (k Kind) String() string {
	return [...]string{"put", "get", "head", "list", "move", "delete"}[k]
}

// Kinds returns every kind of request.
func Kinds() []Kind { return []Kind{KindPut, KindGet, KindHead, KindList, KindMove, KindDelete} }

// Counts are numbers of requests by kind and of the bytes that went with them.
type Counts struct {
	Put, Get, Head, List, Move, Delete int64

	Failed   int64 // of them, those that returned an error, ErrNotFound and ErrExists included
	BytesPut int64 // bytes of successful Puts
	BytesGot int64 // bytes read from the streams of Gets
}

// Of returns the number of requests of one kind.
func (c Counts) Of(k Kind) int64 {
	return [...]int64{c.Put, c.Get, c.Head, c.List, c.Move, c.Delete}[k]
}

// Requests returns the number of requests of all kinds.
func (c Counts) Requests() int64 { return c.Put + c.Get + c.Head + c.List + c.Move + c.Delete }

// Sub returns what was counted since before was.
func (c Counts) Sub(before Counts) Counts {
	return Counts{
		Put: c.Put - before.Put, Get: c.Get - before.Get, Head: c.Head - before.Head,
		List: c.List - before.List, Move: c.Move - before.Move, Delete: c.Delete - before.Delete,
		Failed: c.Failed - before.Failed, BytesPut: c.BytesPut - before.BytesPut, BytesGot: c.BytesGot - before.BytesGot,
	}
}

// counters are Counts that change.
type counters struct {
	requests                   [kinds]atomic.Int64
	failed, bytesPut, bytesGot atomic.Int64
}

func (c *counters) counts() Counts {
	of := func(k Kind) int64 { return c.requests[k].Load() }
	return Counts{
		Put: of(KindPut), Get: of(KindGet), Head: of(KindHead), List: of(KindList), Move: of(KindMove), Delete: of(KindDelete),
		Failed: c.failed.Load(), BytesPut: c.bytesPut.Load(), BytesGot: c.bytesGot.Load(),
	}
}

type causeKey struct{}

// WithCause names what the requests made under ctx are for ("index", "verify"),
// by which Counted tells them apart. Causes are few and fixed words.
func WithCause(ctx context.Context, cause string) context.Context {
	return context.WithValue(ctx, causeKey{}, cause)
}

// Counted counts the requests that pass through it, in all and by cause.
type Counted struct {
	inner  Store
	total  counters
	causes sync.Map // string → *counters
}

var _ Store = (*Counted)(nil)

// Count returns s with its requests counted.
func Count(s Store) *Counted { return &Counted{inner: s} }

// Counts returns what was counted so far.
func (c *Counted) Counts() Counts { return c.total.counts() }

// Causes returns what was counted so far for each cause that WithCause named.
func (c *Counted) Causes() map[string]Counts {
	all := map[string]Counts{}
	c.causes.Range(func(cause, of any) bool {
		name, okName := cause.(string)
		n, okCounters := of.(*counters)
		if okName && okCounters {
			all[name] = n.counts()
		}
		return true
	})
	return all
}

// Unwrap returns the store whose requests are counted.
func (c *Counted) Unwrap() Store { return c.inner }

// request counts one request and returns the counters it belongs to.
func (c *Counted) request(ctx context.Context, k Kind) tallied {
	t := tallied{total: &c.total}
	if cause, ok := ctx.Value(causeKey{}).(string); ok {
		found, known := c.causes.Load(cause)
		if !known {
			found, _ = c.causes.LoadOrStore(cause, &counters{})
		}
		t.cause, _ = found.(*counters)
	}
	t.each(func(n *counters) { n.requests[k].Add(1) })
	return t
}

// Refused counts a request that failed before it came to the store.
func (c *Counted) Refused(ctx context.Context, k Kind) {
	c.request(ctx, k).each(func(n *counters) { n.failed.Add(1) })
}

// tallied are the counters of one request.
type tallied struct {
	total, cause *counters // cause may be nil
}

func (t tallied) each(f func(*counters)) {
	f(t.total)
	if t.cause != nil {
		f(t.cause)
	}
}

func (t tallied) result(err error) {
	if err != nil {
		t.each(func(n *counters) { n.failed.Add(1) })
	}
}

// Get counts and passes on.
func (c *Counted) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	t := c.request(ctx, KindGet)
	r, err := c.inner.Get(ctx, key, version, off, n)
	t.result(err)
	if err != nil {
		return nil, err
	}
	return &countedStream{ReadCloser: r, tallied: t}, nil
}

type countedStream struct {
	io.ReadCloser
	tallied tallied
}

func (s *countedStream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.tallied.each(func(c *counters) { c.bytesGot.Add(int64(n)) })
	return n, err
}

// Head counts and passes on.
func (c *Counted) Head(ctx context.Context, key, version string) (Object, error) {
	t := c.request(ctx, KindHead)
	o, err := c.inner.Head(ctx, key, version)
	t.result(err)
	return o, err
}

// List counts and passes on.
func (c *Counted) List(ctx context.Context, prefix, after string, f func(Object) error) error {
	t := c.request(ctx, KindList)
	err := c.inner.List(ctx, prefix, after, f)
	t.result(err)
	return err
}

// Put counts and passes on.
func (c *Counted) Put(ctx context.Context, key string, body Body, size int64) (Object, error) {
	t := c.request(ctx, KindPut)
	o, err := c.inner.Put(ctx, key, body, size)
	t.result(err)
	if err == nil {
		t.each(func(n *counters) { n.bytesPut.Add(size) })
	}
	return o, err
}

// Move counts and passes on.
func (c *Counted) Move(ctx context.Context, from, to string) error {
	t := c.request(ctx, KindMove)
	err := c.inner.Move(ctx, from, to)
	t.result(err)
	return err
}

// Delete counts and passes on.
func (c *Counted) Delete(ctx context.Context, key string) error {
	t := c.request(ctx, KindDelete)
	err := c.inner.Delete(ctx, key)
	t.result(err)
	return err
}

// ConditionalCreate passes on; it is no request that is counted here.
func (c *Counted) ConditionalCreate(ctx context.Context) (bool, error) {
	return c.inner.ConditionalCreate(ctx)
}

// class is what one call of a kind costs where it is one request.
func (k Kind) class() Class {
	switch k {
	case KindGet, KindHead:
		return ClassGet
	case KindDelete:
		return ClassFree
	default:
		return ClassPut
	}
}

// Requests returns what the store itself counted, or, of one that does not,
// each call as one request.
func (c *Counted) Requests() []RequestCount {
	if r, ok := c.inner.(Requester); ok {
		return r.Requests()
	}
	var all []RequestCount
	rest := c.Counts()
	add := func(cause string, n Counts) {
		for _, k := range Kinds() {
			if v := n.Of(k); v > 0 {
				all = append(all, RequestCount{Kind: k, Cause: cause, Class: k.class(), Count: v})
			}
		}
	}
	for cause, n := range c.Causes() {
		add(cause, n)
		rest = rest.Sub(n)
	}
	add("", rest)
	sortCounts(all)
	return all
}
