package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/datavision/desnode/node/store"
)

// Call is one request, as a Fake's hook sees it before it is carried out.
type Call struct {
	Kind    store.Kind
	Key     string // a List's prefix
	To      string // of a Move
	Version string // of a Get or Head
	Off, N  int64  // of a Get; N is the size of a Put
}

// Fault is what a Fake makes of a call: the zero Fault carries it out as it
// is. With Err set the caller gets that error, after the request was carried
// out when Applied is set, as if the answer had been lost, else without.
type Fault struct {
	Err     error
	Applied bool
}

// ErrInjected is a ready-made error for faults.
var ErrInjected = errors.New("injected fault")

// Fake is a Store for tests: in memory, or over another store. It counts
// requests, lets calls fail as a hook decides, and fails the test whose code
// breaks the contract of package store:
//
//   - a stream of a Get that is not closed when the test ends, or is read after
//     it was closed;
//   - a Put at the key of a pack (packs/…) of other bytes than an earlier Put
//     at that key sent: a retry sends the same sealed bytes;
//   - a List where SetNoList forbids it.
type Fake struct {
	tb      testing.TB
	counted *store.Counted
	memory  *memory // nil over another store

	mu     sync.Mutex
	hook   func(context.Context, Call) Fault // guarded by mu
	noList bool                              // guarded by mu
	open   map[*fakeStream]struct{}          // guarded by mu: streams not closed
	sent   map[string][sha256.Size]byte      // guarded by mu: packs that Puts sent
}

var _ store.Store = (*Fake)(nil)

// NewFake returns an empty store in memory.
func NewFake(tb testing.TB) *Fake {
	m := newMemory()
	f := NewFakeOver(tb, m)
	f.memory = m
	return f
}

// NewFakeOver returns a Fake that keeps its objects in inner.
func NewFakeOver(tb testing.TB, inner store.Store) *Fake {
	f := &Fake{
		tb: tb, counted: store.Count(inner),
		open: map[*fakeStream]struct{}{}, sent: map[string][sha256.Size]byte{},
	}
	tb.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for s := range f.open {
			tb.Errorf("the stream of a Get of %s was not closed", s.key)
		}
	})
	return f
}

// SetHook makes hook decide what becomes of each call; nil: all are carried
// out. The hook may wait, so that a test decides the order of calls.
func (f *Fake) SetHook(hook func(context.Context, Call) Fault) {
	f.mu.Lock()
	f.hook = hook
	f.mu.Unlock()
}

// SetNoList makes every List fail the test.
func (f *Fake) SetNoList() {
	f.mu.Lock()
	f.noList = true
	f.mu.Unlock()
}

// Counts returns the requests so far, those that the hook let fail included.
func (f *Fake) Counts() store.Counts { return f.counted.Counts() }

// Causes returns the requests so far by cause.
func (f *Fake) Causes() map[string]store.Counts { return f.counted.Causes() }

// Keys returns the keys of all objects, sorted, without a request.
func (f *Fake) Keys() []string {
	m := f.inMemory()
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.objects))
}

// Bytes returns a copy of an object's bytes, nil when there is none, without a
// request.
func (f *Fake) Bytes(key string) []byte {
	m := f.inMemory()
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.objects[key].bytes)
}

// Damage changes an object behind everyone's back; its version stays.
func (f *Fake) Damage(key string, change func(b []byte) []byte) {
	m := f.inMemory()
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		f.tb.Errorf("damage %s: no such object", key)
		return
	}
	o.bytes = change(slices.Clone(o.bytes))
	m.objects[key] = o
}

// Lose removes an object behind everyone's back.
func (f *Fake) Lose(key string) {
	m := f.inMemory()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
}

func (f *Fake) inMemory() *memory {
	if f.memory == nil {
		f.tb.Fatal("a Fake over another store has no memory to look into")
	}
	return f.memory
}

// judge asks the hook about a call.
func (f *Fake) judge(ctx context.Context, c Call) Fault {
	f.mu.Lock()
	hook := f.hook
	if c.Kind == store.KindList && f.noList {
		f.tb.Errorf("List of %q, where none is allowed", c.Key)
	}
	f.mu.Unlock()
	if hook == nil {
		return Fault{}
	}
	return hook(ctx, c)
}

// do carries out one call as the hook decides. A call that fails without being
// carried out is counted all the same: it was a request.
func (f *Fake) do(ctx context.Context, c Call, call func() error) error {
	fault := f.judge(ctx, c)
	if fault.Err != nil && !fault.Applied {
		f.counted.Refused(ctx, c.Kind)
		return fault.Err
	}
	if err := call(); err != nil {
		return err
	}
	return fault.Err
}

// Get is described at store.Reader.
func (f *Fake) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	var s *fakeStream
	err := f.do(ctx, Call{Kind: store.KindGet, Key: key, Version: version, Off: off, N: n}, func() error {
		r, err := f.counted.Get(ctx, key, version, off, n)
		if err != nil {
			return err
		}
		s = &fakeStream{fake: f, key: key, inner: r}
		f.mu.Lock()
		f.open[s] = struct{}{}
		f.mu.Unlock()
		return nil
	})
	if err != nil {
		if s != nil { // carried out, and the answer lost
			err = errors.Join(err, s.Close())
		}
		return nil, err
	}
	return s, nil
}

// Head is described at store.Reader.
func (f *Fake) Head(ctx context.Context, key, version string) (o store.Object, err error) {
	err = f.do(ctx, Call{Kind: store.KindHead, Key: key, Version: version}, func() (err error) {
		o, err = f.counted.Head(ctx, key, version)
		return err
	})
	return orNone(o, err)
}

// List is described at store.Reader.
func (f *Fake) List(ctx context.Context, prefix, after string, each func(store.Object) error) error {
	return f.do(ctx, Call{Kind: store.KindList, Key: prefix}, func() error {
		return f.counted.List(ctx, prefix, after, each)
	})
}

// Put is described at store.Writer.
func (f *Fake) Put(ctx context.Context, key string, body store.Body, size int64) (o store.Object, err error) {
	f.samePack(key, body, size)
	err = f.do(ctx, Call{Kind: store.KindPut, Key: key, N: size}, func() (err error) {
		o, err = f.counted.Put(ctx, key, body, size)
		return err
	})
	return orNone(o, err)
}

// samePack fails the test when a pack's key gets other bytes than before.
func (f *Fake) samePack(key string, body store.Body, size int64) {
	if !strings.HasPrefix(key, "packs/") || size < 0 {
		return
	}
	h := sha256.New()
	if n, err := io.Copy(h, io.NewSectionReader(body, 0, size)); err != nil || n != size {
		return // the Put itself will say so
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	f.mu.Lock()
	defer f.mu.Unlock()
	if before, ok := f.sent[key]; ok && before != sum {
		f.tb.Errorf("Put at %s of other bytes than before: a retry sends the same sealed bytes", key)
	}
	f.sent[key] = sum
}

// Move is described at store.Writer.
func (f *Fake) Move(ctx context.Context, from, to string) error {
	return f.do(ctx, Call{Kind: store.KindMove, Key: from, To: to}, func() error {
		return f.counted.Move(ctx, from, to)
	})
}

// Delete is described at store.Writer.
func (f *Fake) Delete(ctx context.Context, key string) error {
	return f.do(ctx, Call{Kind: store.KindDelete, Key: key}, func() error {
		return f.counted.Delete(ctx, key)
	})
}

// ConditionalCreate is what the store below says.
func (f *Fake) ConditionalCreate(ctx context.Context) (bool, error) {
	return f.counted.ConditionalCreate(ctx)
}

func orNone(o store.Object, err error) (store.Object, error) {
	if err != nil {
		return store.Object{}, err
	}
	return o, nil
}

// fakeStream watches how the stream of a Get is used.
type fakeStream struct {
	fake   *Fake
	key    string
	inner  io.ReadCloser
	closed bool // guarded by fake.mu
}

func (s *fakeStream) Read(p []byte) (int, error) {
	s.fake.mu.Lock()
	closed := s.closed
	s.fake.mu.Unlock()
	if closed {
		s.fake.tb.Errorf("the stream of a Get of %s was read after it was closed", s.key)
		return 0, errors.New("read after close")
	}
	return s.inner.Read(p)
}

func (s *fakeStream) Close() error {
	s.fake.mu.Lock()
	again := s.closed
	s.closed = true
	delete(s.fake.open, s)
	s.fake.mu.Unlock()
	if again {
		return nil
	}
	return s.inner.Close()
}
