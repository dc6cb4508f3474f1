package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// pending counts calls into raft and to the leader that are under way. raft
// forgets calls that its shutdown overtakes, so Run lets them end first.
type pending struct {
	mu     sync.Mutex // guards the fields below
	n      int
	closed bool
	idle   chan struct{} // not nil: closed when n reaches 0
}

// begin counts a call; whoever is given no error calls end.
func (p *pending) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.n++
	return nil
}

func (p *pending) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n--
	if p.n == 0 && p.idle != nil {
		close(p.idle)
	}
}

// do runs call in a goroutine and waits for it or for ctx.
func (p *pending) do(ctx context.Context, call func() error) error {
	if err := p.begin(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := call()
		p.end()
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

// propose has a command committed and applied, here or by the leader, and
// returns its answer; this node's view shows it by then. While leadership
// moves it tries again, which every command allows.
func (m *Meta) propose(ctx context.Context, c command) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	data, err := encodeCommand(m.cfg.Node, c)
	if err != nil {
		return nil, err
	}
	var value any
	err = m.whileMoving(ctx, func(r *reign, leader NodeID) (err error) {
		if r == nil {
			value, err = m.forward(ctx, leader, c, data)
		} else {
			value, _, err = m.apply(ctx, data)
		}
		return err
	})
	if errors.Is(err, ErrNotLeader) {
		err = fmt.Errorf("%s: %w", c.kind(), err)
	}
	return value, err
}

// whileMoving calls do with the reign of this node or, when it does not lead,
// with the leader's id, and again as long as leadership moves meanwhile and
// ctx allows. ErrNotLeader: nobody was found in time.
func (m *Meta) whileMoving(ctx context.Context, do func(*reign, NodeID) error) error {
	var last error
	for wait := retryPause; ; wait = min(2*wait, retryPauseMax) {
		r, leader, err := m.awaitLeader(ctx)
		if err != nil {
			return errors.Join(err, last)
		}
		last = do(r, leader)
		if !isMoving(last) {
			return last
		}
		if !pause(ctx, wait) {
			return fmt.Errorf("%w: %w", ErrNotLeader, last)
		}
	}
}

const (
	retryPause    = 10 * time.Millisecond
	retryPauseMax = 200 * time.Millisecond
)

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// apply hands an encoded command to raft, whoever leads, and returns the
// answer of the state machine and the command's index; 0: its fate is unknown.
func (m *Meta) apply(ctx context.Context, data []byte) (any, uint64, error) {
	var ans answer
	var index uint64
	err := m.pending.do(ctx, func() error {
		f := m.raft.Apply(data, m.cfg.timeout())
		if err := f.Error(); err != nil {
			return err
		}
		ans, _ = f.Response().(answer)
		index = f.Index()
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("commit: %w", err)
	}
	return ans.value, index, ans.err
}
