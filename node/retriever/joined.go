package retriever

import (
	"context"
	"errors"
	"sync"
)

// errAborted is what those get who joined a load that panicked.
var errAborted = errors.New("load aborted")

// joined lets one caller at a time load the value of a key, and gives the
// result to all who ask meanwhile. The zero value is ready.
type joined[K comparable, V any] struct {
	mu    sync.Mutex // guards calls
	calls map[K]*call[V]
}

type call[V any] struct {
	done  chan struct{} // closed when value and err are set
	value V
	err   error
}

// do returns the result of load, its own or that of a call under way. Who joins
// stops waiting when ctx ends; who loads sees its load through, so load must
// bound itself and not depend on the context of one caller.
func (j *joined[K, V]) do(ctx context.Context, key K, load func() (V, error)) (V, error) {
	j.mu.Lock()
	if c, ok := j.calls[key]; ok {
		j.mu.Unlock()
		select {
		case <-c.done:
			return c.value, c.err
		case <-ctx.Done():
			var zero V
			return zero, ctx.Err()
		}
	}
	c := &call[V]{done: make(chan struct{}), err: errAborted}
	if j.calls == nil {
		j.calls = make(map[K]*call[V])
	}
	j.calls[key] = c
	j.mu.Unlock()

	defer func() {
		j.mu.Lock()
		delete(j.calls, key)
		j.mu.Unlock()
		close(c.done)
	}()
	c.value, c.err = load()
	return c.value, c.err
}
