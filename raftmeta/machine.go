package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// machine is the state machine as raft drives it: raft's goroutine applies, and
// before it replay; any number read the view.
type machine struct {
	applying sync.Mutex // held by who changes the view
	view     atomic.Pointer[View]
	last     atomic.Pointer[entryID] // the last command applied from the log; nil: none yet

	halted atomic.Pointer[haltError]
	onHalt func(error) // told once, from raft's goroutine: must not block

	restoreErr error // why the last snapshot was refused; raft's goroutine only
}

// haltError is why a machine stopped for good.
type haltError struct{ error }

// answer is what applying a command gives to the one who proposed it.
type answer struct {
	value any
	err   error
}

var (
	_ raft.BatchingFSM = (*machine)(nil)
	_ raft.FSMSnapshot = (*snapshot)(nil)
)

func newMachine(onHalt func(error)) *machine {
	m := &machine{onHalt: onHalt}
	m.view.Store(&View{changed: make(chan struct{})})
	return m
}

// publish makes s the newest view.
func (m *machine) publish(s state) {
	old := m.view.Swap(&View{state: s, changed: make(chan struct{})})
	close(old.changed)
}

// Apply applies one committed log entry.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed log entries in order and publishes one view.
// Those that the view has applied, by replay, it passes over; nobody waits for
// their answers.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	m.applying.Lock()
	defer m.applying.Unlock()
	answers := make([]any, len(logs))
	s := m.view.Load().state
	before := s.applied
	for i, l := range logs {
		if l.Type != raft.LogCommand || l.Index <= s.applied {
			continue
		}
		value, err := m.applyOne(&s, l)
		answers[i] = answer{value: value, err: err}
	}
	if s.applied != before {
		m.publish(s)
		m.last.Store(&entryID{s.applied, termAt(logs, s.applied)})
	}
	return answers
}

func termAt(logs []*raft.Log, index uint64) uint64 {
	for _, l := range logs {
		if l.Index == index {
			return l.Term
		}
	}
	return 0
}

// applyOne changes *s by one command, or halts the machine and leaves *s as it
// was. A node that cannot apply an entry as the others do must not apply the
// next ones either: its view stays where it is and Run ends.
func (m *machine) applyOne(s *state, l *raft.Log) (value any, err error) {
	if h := m.halted.Load(); h != nil {
		return nil, h.error
	}
	next := *s
	defer func() {
		if p := recover(); p != nil {
			value, err = nil, m.halt(fmt.Errorf("apply log entry %d: panic: %v", l.Index, p))
		}
	}()
	c, e, err := decodeCommand(l.Data)
	if err == nil {
		err = e.permit(&next, l.Term)
	}
	if err == nil {
		value, err = c.apply(&next, l.Index)
	}
	if err == nil && e.Kind == kindForm && next.members.len() == 0 && e.From != "" {
		err = next.admit(Member{ID: e.From}, l.Index)
	}
	if errors.Is(err, ErrUnknownCommand) {
		return nil, m.halt(fmt.Errorf("apply log entry %d: %w", l.Index, err))
	}
	if err != nil {
		next = *s
	}
	next.applied = l.Index
	*s = next
	return value, err
}

func (m *machine) halt(err error) error {
	if m.halted.CompareAndSwap(nil, &haltError{err}) {
		m.onHalt(err)
	}
	return m.halted.Load().error
}

// Snapshot captures the state. A halted machine refuses: raft would believe
// that the snapshot holds the entries the machine did not apply.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if h := m.halted.Load(); h != nil {
		return nil, h.error
	}
	return &snapshot{state: m.view.Load().state}, nil
}

// Restore replaces the state by a snapshot's.
func (m *machine) Restore(r io.ReadCloser) error {
	s, err := readSnapshot(r)
	if err != nil {
		m.restoreErr = fmt.Errorf("restore snapshot: %w", err)
		return m.restoreErr
	}
	m.restoreErr = nil
	m.applying.Lock()
	defer m.applying.Unlock()
	if s.applied >= m.view.Load().applied { // else replay knows more, and raft will come to it
		m.publish(s)
	}
	return nil
}

// wait returns the first view that has applied the command at index.
func (m *machine) wait(ctx context.Context, index uint64) (*View, error) {
	for {
		v := m.view.Load()
		if v.applied >= index {
			return v, nil
		}
		if h := m.halted.Load(); h != nil {
			return nil, h.error
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
