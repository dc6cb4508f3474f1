package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

// reign is one time during which this node leads and has settled in: it has
// applied all that was committed before its term. What is in it belongs to
// this leader alone; its successor begins with none of it.
type reign struct {
	term    uint64
	timers  *timers
	rounds  *confirmer // questions to the voters whether it still leads
	reports *reports
}

// leading says whether this node leads, and tells when that, or the node it
// takes for the leader, may have changed.
type leading struct {
	mu    sync.Mutex // guards the fields below
	cur   *reign     // nil: it does not lead, or has not settled in
	moved chan struct{}
}

func (l *leading) now() *reign {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur
}

// changed returns a channel that is closed at the next change.
func (l *leading) changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved == nil {
		l.moved = make(chan struct{})
	}
	return l.moved
}

func (l *leading) set(r *reign) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur = r
	l.wake()
}

// poke makes those who wait look again.
func (l *leading) poke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
}

func (l *leading) wake() {
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// awaitLeader returns this node's reign, or the id of the node that leads, as
// soon as either is known. ErrNotLeader: there is nobody, or, without Peers,
// somebody else. ErrStorage: this node's log cannot be written.
func (m *Meta) awaitLeader(ctx context.Context) (*reign, NodeID, error) {
	select {
	case <-m.started:
	case <-m.done:
		return nil, "", m.ended()
	case <-ctx.Done():
		return nil, "", fmt.Errorf("%w: %w", ErrNotLeader, context.Cause(ctx))
	}
	for {
		select {
		case <-m.done:
			return nil, "", m.ended()
		default:
		}
		moved := m.leading.changed()
		if r := m.leading.now(); r != nil {
			return r, "", nil
		}
		if id := m.Leader(); id != "" && id != m.cfg.Node {
			if m.cfg.Peers == nil {
				return nil, "", fmt.Errorf("node %s leads: %w", id, ErrNotLeader)
			}
			return nil, id, nil
		}
		if err := m.guard.failing(); err != nil {
			return nil, "", err
		}
		select {
		case <-moved:
		case <-m.done:
			return nil, "", m.ended()
		case <-ctx.Done():
			return nil, "", fmt.Errorf("%w: no leader: %w", ErrNotLeader, context.Cause(ctx))
		}
	}
}

// followLeadership begins and ends reigns as raft says. It always has room for
// what raft says: raft waits for it.
func (m *Meta) followLeadership(ctx context.Context, notify <-chan bool) {
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return
		case elected := <-notify:
			end()
			end = func() {}
			if elected {
				end = m.startReign(ctx)
			}
		}
	}
}

// startReign runs a reign until the returned function is called, which waits
// for its end.
func (m *Meta) startReign(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.reign(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// reign does the leader's part: catch up, settle in, then answer and expire.
func (m *Meta) reign(ctx context.Context) {
	r, ok := m.beginReign(ctx)
	if !ok {
		return
	}
	m.checked.Store(true) // its log holds all that is committed
	m.leading.set(r)
	var group sync.WaitGroup
	group.Go(func() {
		r.rounds.run(ctx, func(ctx context.Context) (uint64, error) { return m.readIndex(ctx, r.term) })
	})
	group.Go(func() { m.expireLeases(ctx, r) })
	group.Go(func() { m.keepReports(ctx, r) })
	group.Go(func() { m.keepVoters(ctx) })
	<-ctx.Done()
	m.leading.set(nil)
	group.Wait()
}

// beginReign tries to settle in until ctx ends: false.
func (m *Meta) beginReign(ctx context.Context) (*reign, bool) {
	for {
		term, err := m.settleIn(ctx)
		if err == nil {
			return &reign{
				term:    term,
				timers:  newTimers(m.cfg.leaseTTL(), m.View),
				rounds:  newConfirmer(),
				reports: newReports(),
			}, true
		}
		if errors.Is(err, ErrConflict) {
			m.fail(fmt.Errorf("%w: %w", ErrOtherCluster, err))
			return nil, false
		}
		m.log.Debug("leader settles in", "error", err)
		if !pause(ctx, retryPause) {
			return nil, false
		}
	}
}

// settleIn makes the state fit this leader: everything earlier is applied, the
// cluster is formed and is ours, and what our dead predecessor in this data dir
// held is released. It returns the term all that is true for: a reign that
// began before this node was deposed and elected again would take an old
// commit index for the cluster's.
func (m *Meta) settleIn(ctx context.Context) (term uint64, err error) {
	term = m.raft.CurrentTerm()
	err = m.pending.do(ctx, func() error { return m.raft.Barrier(m.cfg.timeout()).Error() })
	if err != nil {
		return 0, err
	}
	v := m.View()
	form := formCommand{Cluster: m.cfg.Cluster, ShardBits: m.cfg.shardBits(), Generation: m.cfg.generation()}
	if v.shardBits != 0 {
		// What is not configured is as it was when the cluster was formed.
		form.ShardBits = orDefault(m.cfg.ShardBits, v.shardBits)
		form.Generation = orDefault(m.cfg.Generation, v.generation)
	}
	commands := []command{}
	if v.members.len() == 0 || form != (formCommand{v.cluster, v.shardBits, v.generation}) {
		commands = append(commands, &form) // who forms a cluster is its first member
	}
	if c := m.releaseOwn(v); c != nil {
		commands = append(commands, c)
	}
	for _, c := range commands {
		data, err := encodeCommand(m.cfg.Node, c)
		if err != nil {
			return 0, err
		}
		if _, _, err := m.apply(ctx, data); err != nil && !errors.Is(err, ErrNotMember) {
			return 0, err // one that was removed leads until it has handed over
		}
	}
	if m.raft.State() != raft.Leader || m.raft.CurrentTerm() != term {
		return 0, errMoved
	}
	m.cleared.Store(true)
	return term, nil
}

// timers are the leader's own clocks of the live leases. They begin when the
// leader first sees a lease in its reign, so that a new leader gives every
// holder a whole TTL.
type timers struct {
	ttl  time.Duration
	view func() *View

	mu sync.Mutex // guards at
	at map[desformat.Token]time.Time
}

func newTimers(ttl time.Duration, view func() *View) *timers {
	return &timers{ttl: ttl, view: view, at: make(map[desformat.Token]time.Time)}
}

// renew gives the holder's lease a whole TTL from now. ErrStale: it is not
// live, not the holder's, or is being expired; or the holder is no member any
// more, whose leases run out.
func (t *timers) renew(holder NodeID, token desformat.Token, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.view()
	l, live := v.leases.get(tokenKey(token))
	_, member := v.members.get(string(holder))
	if !live || l.Holder != holder || !member {
		return ErrStale
	}
	if at, ok := t.at[token]; ok && !at.After(now) {
		return ErrStale
	}
	t.at[token] = now.Add(t.ttl)
	return nil
}

// sweep starts timers for new leases and drops those of ended ones. It returns
// the leases whose time is over and when to look again; zero: no lease is live.
func (t *timers) sweep(v *View, now time.Time) (over []desformat.Token, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for token := range t.at {
		if !v.live(token) {
			delete(t.at, token)
		}
	}
	for _, l := range v.leases.all() {
		at, ok := t.at[l.Token]
		if !ok {
			at = now.Add(t.ttl)
			t.at[l.Token] = at
		}
		if !at.After(now) {
			over = append(over, l.Token)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return over, next
}

// expireLeases proposes the end of each lease whose time is over. It binds the
// command to its term: written after this node was deposed and elected again,
// it could end a lease that another leader has renewed meanwhile.
func (m *Meta) expireLeases(ctx context.Context, r *reign) {
	for {
		v := m.View()
		over, next := r.timers.sweep(v, time.Now())
		for _, token := range over {
			m.log.Info("lease expires", "token", token.String())
			data, err := encodeInTerm(m.cfg.Node, r.term, &releaseCommand{token})
			if err == nil {
				_, _, err = m.apply(ctx, data)
			}
			if err != nil {
				m.log.Debug("expire lease", "token", token.String(), "error", err)
				if !pause(ctx, retryPause) {
					return
				}
			}
		}
		if len(over) > 0 {
			continue
		}
		if !waitChange(ctx, v, next) {
			return
		}
	}
}

// waitChange waits for a newer view than v, or for a moment; zero: for no
// moment. false: ctx has ended.
func waitChange(ctx context.Context, v *View, until time.Time) bool {
	var timeout <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-v.changed:
	case <-timeout:
	}
	return true
}

// Leader returns the node that leads as far as this one knows, "" for none. It
// is a hint: only a command or Confirm tells for certain.
func (m *Meta) Leader() NodeID {
	select {
	case <-m.started:
		_, id := m.raft.LeaderWithID()
		return NodeID(id)
	default:
		return ""
	}
}

// InTouch reports whether this node leads, or heard from its leader less than
// an election time ago. Without that the manifest may have gone on elsewhere: a
// node that was frozen or cut off names its former leader a moment longer. It
// costs nothing and is a hint as Leader is: a leader that was frozen learns only
// from its next round that another has followed it.
func (m *Meta) InTouch() bool {
	switch id := m.Leader(); id {
	case "":
		return false
	case m.cfg.Node:
		return true
	}
	return time.Since(m.raft.LastContact()) <= m.cfg.election()
}
