package raftmeta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

// Peers carries calls to other nodes, which hand them to ServeCall. Any number
// may be under way at once. A call returns soon after ctx has ended. An error
// means that its outcome is unknown: it may have been answered, may be under
// way, or may arrive later. When it is ErrNotMember, the other node refuses this
// one because it was removed, and asking again is useless.
type Peers interface {
	Call(ctx context.Context, node NodeID, request []byte) ([]byte, error)
}

// callVersion is the version of what nodes say to each other by calls.
const callVersion = 1

// What a call asks.
const (
	opTerm    = "term"    // any node: the term it is in
	opPropose = "propose" // the leader: commit a command of the caller's
	opConfirm = "confirm" // the leader: an index that covers all that is committed
	opRenew   = "renew"   // the leader: reset the timer of a lease of the caller's
	opReport  = "report"  // the leader: how far the caller is
	opServers = "servers" // the leader: what it knows of all nodes
)

// request is one call, as JSON.
type request struct {
	Version int             `json:"v"`
	Op      string          `json:"op"`
	Command json.RawMessage `json:"command,omitempty"` // opPropose: as it goes into the log
	Token   desformat.Token `json:"token,omitzero"`    // opRenew
	Report  *report         `json:"report,omitempty"`  // opReport
}

// response answers a call, as JSON. Refused, when set, is all that counts.
type response struct {
	Index   uint64          `json:"index,omitempty"` // opPropose: the command's; opConfirm: to be applied; opReport: known before
	Term    uint64          `json:"term,omitempty"`  // opTerm
	Value   json.RawMessage `json:"value,omitempty"` // opPropose
	Servers []Server        `json:"servers,omitempty"`
	Refused *refusal        `json:"refused,omitempty"`
}

// errMoved: who was asked does not lead (any more), or could not say what
// became of the command. Asking again is safe.
var errMoved = errors.New("leadership moves")

// ServeCall answers another node's call. from is who sent it, as the caller
// has authenticated it. An error means that the request makes no sense.
func (m *Meta) ServeCall(ctx context.Context, from NodeID, data []byte) ([]byte, error) {
	var q request
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, fmt.Errorf("call of %s: %w: %w", from, ErrInvalid, err)
	}
	if q.Version != callVersion {
		return nil, fmt.Errorf("call of %s, version %d: %w", from, q.Version, ErrUnknownCommand)
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	answer, err := m.serve(ctx, from, &q)
	if err != nil {
		answer.Refused = refuse(err)
	}
	return json.Marshal(answer)
}

func (m *Meta) serve(ctx context.Context, from NodeID, q *request) (response, error) {
	select {
	case <-m.started:
	default:
		return response{}, errMoved
	}
	if m.pending.begin() != nil {
		return response{}, errMoved // it ends: what it says of its term may soon be wrong
	}
	defer m.pending.end()
	if q.Op == opTerm {
		return response{Term: m.raft.CurrentTerm()}, nil
	}
	r := m.leading.now()
	if r == nil {
		return response{}, errMoved
	}
	if _, member := m.View().members.get(string(from)); !member {
		return response{}, fmt.Errorf("call of %s: %w", from, ErrNotMember)
	}
	switch q.Op {
	case opPropose:
		return m.servePropose(ctx, from, q.Command)
	case opConfirm:
		index, err := r.rounds.join(ctx)
		return response{Index: index}, err
	case opRenew:
		return response{}, m.renewHere(ctx, r, from, q.Token)
	case opServers:
		_, err := r.rounds.join(ctx)
		return response{Servers: m.Servers()}, err
	case opReport:
		if q.Report == nil {
			return response{}, fmt.Errorf("empty report of %s: %w", from, ErrInvalid)
		}
		return response{Index: m.heardOf(r, from, *q.Report)}, nil
	}
	return response{}, fmt.Errorf("call %q of %s: %w", q.Op, from, ErrUnknownCommand)
}

// servePropose commits another node's command. What this node does not
// understand it keeps out of the log, where it would end every node's work.
func (m *Meta) servePropose(ctx context.Context, from NodeID, data []byte) (response, error) {
	_, e, err := decodeCommand(data)
	if err != nil {
		return response{}, err
	}
	if e.From != from {
		return response{}, fmt.Errorf("%s of %q handed in by %s: %w", e.Kind, e.From, from, ErrInvalid)
	}
	value, index, err := m.apply(ctx, data)
	answer := response{Index: index}
	if err == nil && value != nil {
		answer.Value, err = json.Marshal(value)
	}
	return answer, err
}

// forward has the leader commit a command and returns its answer once this
// node's view shows it.
func (m *Meta) forward(ctx context.Context, leader NodeID, c command, data []byte) (any, error) {
	if err := m.pending.begin(); err != nil {
		return nil, err
	}
	defer m.pending.end()
	answer, err := m.call(ctx, leader, request{Op: opPropose, Command: data})
	if answer.Index == 0 {
		if err == nil {
			err = fmt.Errorf("%s of %s without an index: %w", leader, c.kind(), errMoved)
		}
		return nil, err
	}
	if _, waited := m.machine.wait(ctx, answer.Index); waited != nil {
		return nil, errors.Join(fmt.Errorf("%s, entry %d: %w: %w", c.kind(), answer.Index, ErrLagging, waited), err)
	}
	if err != nil {
		return nil, err
	}
	return decodeAnswer(c, answer.Value)
}

// decodeAnswer decodes what applying c has given the leader.
func decodeAnswer(c command, value json.RawMessage) (any, error) {
	var err error
	switch c.(type) {
	case *grantCommand:
		var l Lease
		err = json.Unmarshal(value, &l)
		return l, err
	case *addPackCommand:
		p := new(Pack)
		err = json.Unmarshal(value, p)
		return p, err
	}
	return nil, nil
}

// call asks the node that this one takes for the leader. It gives up with
// errMoved as soon as that is no longer so: a leader that died answers nobody.
func (m *Meta) call(ctx context.Context, leader NodeID, q request) (response, error) {
	callCtx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.watchLeader(callCtx, leader)
		cancel()
	}()
	answer, err := m.ask(callCtx, leader, q)
	cancel()
	<-watched
	if err != nil && answer.Refused == nil {
		if ctx.Err() != nil {
			return answer, fmt.Errorf("ask %s: %w", leader, context.Cause(ctx))
		}
		if errors.Is(err, ErrNotMember) {
			return answer, fmt.Errorf("ask %s: %w", leader, err)
		}
		return answer, fmt.Errorf("ask %s: %w: %w", leader, errMoved, err)
	}
	return answer, err
}

// watchLeader returns when this node does not take leader for the leader any
// more, or when ctx has ended.
func (m *Meta) watchLeader(ctx context.Context, leader NodeID) {
	for {
		moved := m.leading.changed()
		if m.Leader() != leader {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// ask sends one call. The error is the answer's when it has one.
func (m *Meta) ask(ctx context.Context, node NodeID, q request) (response, error) {
	q.Version = callVersion
	data, err := json.Marshal(q)
	if err != nil {
		return response{}, err
	}
	data, err = m.cfg.Peers.Call(ctx, node, data)
	if err != nil {
		return response{}, err
	}
	var answer response
	if err := json.Unmarshal(data, &answer); err != nil {
		return response{}, fmt.Errorf("answer of %s: %w", node, err)
	}
	return answer, answer.Refused.err()
}

// observeLeaders tells those who wait when this node takes another one for the
// leader.
func (m *Meta) observeLeaders(ctx context.Context) {
	seen := make(chan raft.Observation, 1) // what does not fit is told by what is in it
	o := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	})
	m.raft.RegisterObserver(o)
	defer m.raft.DeregisterObserver(o)
	var told raft.ServerID
	for {
		m.leading.poke()
		if _, leader := m.raft.LeaderWithID(); leader != told {
			told = leader
			m.tellLeader(NodeID(leader))
		}
		select {
		case <-seen:
		case <-ctx.Done():
			return
		}
	}
}

// tellLeader says in the log who leads: an operator's first question.
func (m *Meta) tellLeader(leader NodeID) {
	switch leader {
	case "":
		m.log.Info("no leader is known: nothing is written until there is one")
	case m.cfg.Node:
		m.log.Info("this node leads")
	default:
		m.log.Info("another node leads", "leader", string(leader))
	}
}

// roundTimeout is how long the leader, or another node, is waited for when one
// question is asked and many may wait for it: by then raft has given up too.
func (m *Meta) roundTimeout() time.Duration { return 2 * m.cfg.election() }
