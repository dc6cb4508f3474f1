package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pending counts calls into raft that are under way. raft forgets calls that
// its shutdown overtakes, so Run lets them end first.
type pending struct {
	mu     sync.Mutex // guards the fields below
	n      int
	closed bool
	idle   chan struct{} // not nil: closed when n reaches 0
}

// do runs call in a goroutine and waits for it or for ctx.
func (p *pending) do(ctx context.Context, call func() error) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	p.n++
	p.mu.Unlock()

	done := make(chan error, 1)
	go func() {
		err := call()
		p.mu.Lock()
		p.n--
		if p.n == 0 && p.idle != nil {
			close(p.idle)
		}
		p.mu.Unlock()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drain refuses new calls and gives those under way some time to end.
func (p *pending) drain(grace time.Duration) {
	p.mu.Lock()
	p.closed = true
	if p.n == 0 {
		p.mu.Unlock()
		return
	}
	p.idle = make(chan struct{})
	p.mu.Unlock()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.idle:
	case <-t.C:
	}
}

// propose has a command committed and applied, and returns its answer. While
// leadership moves it tries again, which every command allows.
func (m *Meta) propose(ctx context.Context, c command) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	data, err := encodeCommand(c)
	if err != nil {
		return nil, err
	}
	for {
		if _, err := m.awaitLeading(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", c.kind(), err)
		}
		value, err := m.apply(ctx, data)
		if !isMoving(err) || ctx.Err() != nil {
			return value, err
		}
		if !pause(ctx, retryPause) {
			return nil, fmt.Errorf("%s: %w: %w", c.kind(), ErrNotLeader, err)
		}
	}
}

const retryPause = 10 * time.Millisecond

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// isMoving: leadership was lost before or while the command was committed.
// In the second case it may yet be committed.
func isMoving(err error) bool {
	for _, moving := range []error{
		raft.ErrLeadershipLost, raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress, raft.ErrAbortedByRestore,
	} {
		if errors.Is(err, moving) {
			return true
		}
	}
	return false
}

// apply hands an encoded command to raft, whoever leads.
func (m *Meta) apply(ctx context.Context, data []byte) (any, error) {
	var ans answer
	err := m.pending.do(ctx, func() error {
		f := m.raft.Apply(data, m.cfg.timeout())
		if err := f.Error(); err != nil {
			return err
		}
		ans, _ = f.Response().(answer)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return ans.value, ans.err
}
