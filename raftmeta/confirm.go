package raftmeta

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Confirm returns a view that has applied all that was committed anywhere
// before Confirm was called: a commit index that the leader, asked after the
// call arrived, confirmed as its own. ErrUnconfirmed otherwise.
func (m *Meta) Confirm(ctx context.Context) (*View, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	index, err := m.confirmIndex(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	v, err := m.machine.wait(ctx, index)
	if err != nil {
		return nil, fmt.Errorf("%w: waiting for entry %d: %w", ErrUnconfirmed, index, err)
	}
	return v, nil
}

func (m *Meta) confirmIndex(ctx context.Context) (uint64, error) {
	if _, err := m.awaitLeading(ctx); err != nil {
		return 0, err
	}
	return m.confirm.join(ctx)
}

// confirmer lets all confirmations that wait share one question to the leader:
// it serves exactly those that arrived before it began.
type confirmer struct {
	wake chan struct{} // holds at most one signal

	mu   sync.Mutex // guards next
	next *round     // the one that has not begun
}

// round is one question and its answer, which may be read once done is closed.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// join waits for the answer to a question that begins after this call.
func (c *confirmer) join(ctx context.Context) (uint64, error) {
	c.mu.Lock()
	if c.next == nil {
		c.next = &round{done: make(chan struct{})}
	}
	r := c.next
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// run asks, one question at a time, until ctx ends.
func (c *confirmer) run(ctx context.Context, ask func(context.Context) (uint64, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.mu.Lock()
		r := c.next
		c.next = nil
		c.mu.Unlock()
		if r == nil {
			continue
		}
		r.index, r.err = ask(ctx)
		close(r.done)
	}
}

// readIndex returns the index of the last command that any client may have
// been told is committed. The commit index is read first, then the leader asks
// a quorum whether it still leads.
func (m *Meta) readIndex(ctx context.Context) (uint64, error) {
	if m.leading.now() == nil {
		return 0, ErrNotLeader
	}
	commit := m.raft.CommitIndex()
	if err := m.verifyLeader(ctx); err != nil {
		return 0, err
	}
	return m.lastCommand(commit)
}

// verifyLeader asks a quorum whether this node leads.
func (m *Meta) verifyLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	return m.pending.do(ctx, func() error { return m.raft.VerifyLeader().Error() })
}

// lastCommand returns the index of the last command at or before index. The
// state machine sees commands only; the entries by which raft begins a term
// would be waited for in vain.
func (m *Meta) lastCommand(index uint64) (uint64, error) {
	applied := m.View().applied
	floor := max(applied, m.settled.Load())
	for i := index; i > floor; i-- {
		var l raft.Log
		err := m.guard.logStore.GetLog(i, &l)
		if isNotFound(err) {
			break // compacted: a snapshot that this node has taken or restored holds it
		}
		if err != nil {
			return 0, fmt.Errorf("read log entry %d: %w: %w", i, ErrStorage, err)
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	m.settled.Store(max(floor, index))
	return applied, nil
}

// Ready waits until this node has a leader, and its view holds what the leader
// had confirmed by then.
func (m *Meta) Ready(ctx context.Context) error {
	select {
	case <-m.started:
	case <-m.done:
		return m.ended()
	case <-ctx.Done():
		return fmt.Errorf("ready: %w", context.Cause(ctx))
	}
	for {
		if m.ready(ctx) {
			return nil
		}
		leads := m.leading.changed()
		if m.ready(ctx) {
			return nil
		}
		t := time.NewTimer(readyPoll)
		select {
		case <-leads:
		case <-t.C:
		case <-m.done:
			t.Stop()
			return m.ended()
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("ready: %w", context.Cause(ctx))
		}
		t.Stop()
	}
}

// readyPoll is how often a node that follows looks whether it has a leader.
const readyPoll = 50 * time.Millisecond

func (m *Meta) ended() error {
	if m.err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, m.err)
	}
	return ErrClosed
}

func (m *Meta) ready(ctx context.Context) bool {
	if m.leading.now() != nil {
		_, err := m.Confirm(ctx)
		return err == nil
	}
	if _, leader := m.raft.LeaderWithID(); leader == "" || m.raft.State() == raft.Leader {
		return false
	}
	last, err := m.lastCommand(m.raft.CommitIndex())
	v := m.View()
	return err == nil && v.applied >= last && v.shardBits != 0
}

// AppliedEverywhere reports whether every member has applied the command at
// index.
func (m *Meta) AppliedEverywhere(index uint64) bool {
	v := m.View()
	for _, member := range v.members.all() {
		applied := member.Applied
		if member.ID == m.cfg.Node {
			applied = v.applied
		}
		if applied < index {
			return false
		}
	}
	return v.applied >= index
}
