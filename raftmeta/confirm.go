package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

func (m *Meta) confirmIndex(ctx context.Context) (index uint64, err error) {
	err = m.whileMoving(ctx, func(r *reign, _ NodeID) (err error) {
		if r != nil {
			index, err = r.rounds.join(ctx)
		} else {
			index, err = m.confirm.join(ctx)
		}
		return err
	})
	return index, err
}

// askIndex has the leader confirm an index. The leader joins the questions of
// all nodes with its own.
func (m *Meta) askIndex(ctx context.Context) (uint64, error) {
	leader := m.Leader()
	if leader == "" || leader == m.cfg.Node {
		return 0, errMoved
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*m.roundTimeout(), errMoved)
	defer cancel()
	answer, err := m.call(ctx, leader, request{Op: opConfirm})
	if err == nil && answer.Index == 0 {
		err = fmt.Errorf("%s confirms no index: %w", leader, errMoved)
	}
	return answer.Index, err
}

// confirmer lets all that wait share one question: it serves exactly those
// that arrived before it began.
type confirmer struct {
	wake  chan struct{} // holds at most one signal
	ended chan struct{} // closed when nobody asks any more

	mu   sync.Mutex // guards next
	next *round     // the one that has not begun
}

// round is one question and its answer, which may be read once done is closed.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

func newConfirmer() *confirmer {
	return &confirmer{wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// join waits for the answer to a question that begins after this call. Whoever
// has gone already gets none, however fast it would come.
func (c *confirmer) join(ctx context.Context) (uint64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
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
	case <-c.ended:
		return 0, errMoved
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// run asks, one question at a time, until ctx ends.
func (c *confirmer) run(ctx context.Context, ask func(context.Context) (uint64, error)) {
	defer close(c.ended)
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
// been told is committed, as the leader of that term, which has settled in.
//
// Suppose a command was acknowledged before this call. It was committed in
// this term or an earlier one, and then the commit index read here covers it:
// the barrier by which the leader settled in comes after all that earlier
// terms committed. Or it was committed in a later term: then a majority had
// voted in a later term by then, and whoever votes saves its new term first.
// A majority that is in this term, asked after the commit index was read, has
// a voter in common with that one, also when one change of the voters lies
// between the two, and terms never go back. So there is no such command.
func (m *Meta) readIndex(ctx context.Context, term uint64) (uint64, error) {
	commit := m.raft.CommitIndex()
	if err := m.askTerms(ctx, term); err != nil {
		return 0, err
	}
	return m.lastCommand(commit)
}

// askTerms asks every voter which term it is in, and returns nil when a
// majority, this node included, is in that one.
func (m *Meta) askTerms(ctx context.Context, term uint64) error {
	if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != term {
		return errMoved
	}
	all := voters(m.raft)
	others := slices.DeleteFunc(slices.Clone(all), func(id NodeID) bool { return id == m.cfg.Node })
	need := len(all)/2 + 1 - (len(all) - len(others))
	if need <= 0 {
		return nil
	}
	if m.cfg.Peers == nil {
		return fmt.Errorf("%d other voters and no way to ask them: %w", len(others), ErrInvalid)
	}
	return m.askOthers(ctx, others, need, term)
}

// askOthers returns nil as soon as need of the nodes are in that term.
func (m *Meta) askOthers(ctx context.Context, nodes []NodeID, need int, term uint64) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithTimeout(ctx, m.roundTimeout())
	defer cancel()
	type voice struct {
		term uint64
		err  error
	}
	voices := make(chan voice, len(nodes))
	for _, node := range nodes {
		group.Go(func() {
			answer, err := m.ask(ctx, node, request{Op: opTerm})
			voices <- voice{answer.Term, err}
		})
	}
	var errs []error
	for left := len(nodes); left >= need; left-- {
		v := <-voices
		switch {
		case v.err != nil:
			errs = append(errs, v.err)
		case v.term > term:
			return fmt.Errorf("a voter is in term %d, not %d: %w", v.term, term, errMoved)
		case v.term == term:
			need--
		}
		if need == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: no majority of the voters answered: %w", errMoved, errors.Join(errs...))
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
	if m.leading.now() == nil && (m.Leader() == "" || m.Leader() == m.cfg.Node) {
		return false
	}
	if m.leading.now() != nil || m.cfg.Peers != nil {
		v, err := m.Confirm(ctx)
		return err == nil && v.shardBits != 0
	}
	last, err := m.lastCommand(m.raft.CommitIndex())
	v := m.View()
	return err == nil && v.applied >= last && v.shardBits != 0
}
