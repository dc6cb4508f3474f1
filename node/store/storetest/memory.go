package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/datavision/desnode/node/store"
)

// memory is a Store that keeps its objects in memory.
type memory struct {
	mu      sync.Mutex
	objects map[string]stored // guarded by mu
	serial  int64             // guarded by mu: the last version given out
}

type stored struct {
	bytes   []byte // never changed in place: streams read it
	version string
	at      time.Time
}

func newMemory() *memory { return &memory{objects: map[string]stored{}} }

func (o stored) object(key string) store.Object {
	return store.Object{Key: key, Size: int64(len(o.bytes)), Version: o.version, Modified: o.at}
}

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !fs.ValidPath(key) || key == "." || strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%q: %w", key, store.ErrBadKey)
	}
	return nil
}

func (m *memory) find(ctx context.Context, key, version string) (stored, error) {
	if err := check(ctx, key); err != nil {
		return stored{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok || version != "" && version != o.version {
		return stored{}, fmt.Errorf("%s version %q: %w", key, version, store.ErrNotFound)
	}
	return o, nil
}

func (m *memory) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	o, err := m.find(ctx, key, version)
	if err != nil {
		return nil, err
	}
	size := int64(len(o.bytes))
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		return nil, fmt.Errorf("get %s: %d bytes from %d of %d: %w", key, n, off, size, store.ErrBeyond)
	}
	return io.NopCloser(bytes.NewReader(o.bytes[off : off+n])), nil
}

func (m *memory) Head(ctx context.Context, key, version string) (store.Object, error) {
	o, err := m.find(ctx, key, version)
	if err != nil {
		return store.Object{}, err
	}
	return o.object(key), nil
}

func (m *memory) List(ctx context.Context, prefix, after string, f func(store.Object) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	var found []store.Object
	for key, o := range m.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			found = append(found, o.object(key))
		}
	}
	m.mu.Unlock()
	// By falling key: no order is promised, and callers must not find one.
	slices.SortFunc(found, func(a, b store.Object) int { return strings.Compare(b.Key, a.Key) })
	for _, o := range found {
		if err := f(o); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Put(ctx context.Context, key string, body store.Body, size int64) (store.Object, error) {
	if err := check(ctx, key); err != nil {
		return store.Object{}, err
	}
	if size < 0 {
		return store.Object{}, fmt.Errorf("put %s: size %d", key, size)
	}
	b := make([]byte, size)
	if n, err := body.ReadAt(b, 0); int64(n) < size {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return store.Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if there, ok := m.objects[key]; ok {
		if bytes.Equal(there.bytes, b) {
			return there.object(key), nil
		}
		return store.Object{}, fmt.Errorf("put %s: %w", key, store.ErrExists)
	}
	o := m.new(b)
	m.objects[key] = o
	return o.object(key), nil
}

// new makes an object of b; mu is held.
func (m *memory) new(b []byte) stored {
	m.serial++
	return stored{bytes: b, version: "v" + strconv.FormatInt(m.serial, 10), at: time.Now()}
}

func (m *memory) Move(ctx context.Context, from, to string) error {
	if err := errors.Join(check(ctx, from), check(ctx, to)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	source, okFrom := m.objects[from]
	target, okTo := m.objects[to]
	switch {
	case !okFrom && okTo, okFrom && from == to:
		return nil
	case !okFrom:
		return fmt.Errorf("move %s: %w", from, store.ErrNotFound)
	case okTo && !bytes.Equal(source.bytes, target.bytes):
		return fmt.Errorf("move %s to %s: %w", from, to, store.ErrExists)
	}
	m.objects[to] = source
	delete(m.objects, from)
	return nil
}

func (m *memory) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

func (m *memory) ConditionalCreate(context.Context) (bool, error) { return true, nil }
