package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
)

// leading says whether this node leads and has settled in: it has applied all
// that was committed before its term, and its lease timers run.
type leading struct {
	mu    sync.Mutex // guards the fields below
	cur   *timers    // nil: it does not lead
	moved chan struct{}
}

func (l *leading) now() *timers {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur
}

// changed returns a channel that is closed when now changes.
func (l *leading) changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved == nil {
		l.moved = make(chan struct{})
	}
	return l.moved
}

func (l *leading) set(t *timers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur = t
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// awaitLeading returns when this node leads, or why it does not: ErrNotLeader
// at once when another does, ErrStorage when its log cannot be written.
func (m *Meta) awaitLeading(ctx context.Context) (*timers, error) {
	select {
	case <-m.started:
	case <-m.done:
		return nil, m.ended()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNotLeader, context.Cause(ctx))
	}
	for {
		select {
		case <-m.done:
			return nil, m.ended()
		default:
		}
		moved := m.leading.changed()
		if t := m.leading.now(); t != nil {
			return t, nil
		}
		if err := m.guard.failing(); err != nil {
			return nil, err
		}
		if _, id := m.raft.LeaderWithID(); id != "" && NodeID(id) != m.cfg.Node {
			return nil, fmt.Errorf("node %s leads: %w", id, ErrNotLeader)
		}
		select {
		case <-moved:
		case <-m.done:
			return nil, m.ended()
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: no leader: %w", ErrNotLeader, context.Cause(ctx))
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

// reign does the leader's part: catch up, settle in, then expire leases.
func (m *Meta) reign(ctx context.Context) {
	for {
		err := m.settleIn(ctx)
		if err == nil {
			break
		}
		if errors.Is(err, ErrConflict) {
			m.fail(fmt.Errorf("%w: %w", ErrOtherCluster, err))
			return
		}
		m.log.Debug("leader settles in", "error", err)
		if !pause(ctx, retryPause) {
			return
		}
	}
	t := newTimers(m.cfg.leaseTTL(), m.View)
	m.leading.set(t)
	defer m.leading.set(nil)
	m.expireLeases(ctx, t)
}

// settleIn makes the state fit this leader: everything earlier is applied, the
// cluster is formed and is ours, we are a member, and what our dead
// predecessor in this data dir held is released.
func (m *Meta) settleIn(ctx context.Context) error {
	err := m.pending.do(ctx, func() error { return m.raft.Barrier(m.cfg.timeout()).Error() })
	if err != nil {
		return err
	}
	v := m.View()
	form := formCommand{Cluster: m.cfg.Cluster, ShardBits: m.cfg.shardBits(), Generation: m.cfg.generation()}
	if v.shardBits != 0 {
		// What is not configured is as it was when the cluster was formed.
		form.ShardBits = orDefault(m.cfg.ShardBits, v.shardBits)
		form.Generation = orDefault(m.cfg.Generation, v.generation)
	}
	commands := []command{}
	if v.shardBits == 0 || form != (formCommand{v.cluster, v.shardBits, v.generation}) {
		commands = append(commands, &form)
	}
	if _, member := v.members.get(string(m.cfg.Node)); !member {
		commands = append(commands, &memberCommand{Member{ID: m.cfg.Node}})
	}
	if !m.cleared.Load() && v.holdsAny(m.cfg.Node) {
		commands = append(commands, &releaseAllCommand{Holder: m.cfg.Node, UpTo: v.applied})
	}
	for _, c := range commands {
		data, err := encodeCommand(c)
		if err != nil {
			return err
		}
		if _, err := m.apply(ctx, data); err != nil {
			return err
		}
	}
	m.cleared.Store(true)
	return nil
}

func (s *state) holdsAny(holder NodeID) bool {
	for _, l := range s.leases.all() {
		if l.Holder == holder {
			return true
		}
	}
	return false
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

// renew gives the lease a whole TTL from now. ErrStale: it is not live, or is
// being expired.
func (t *timers) renew(token desformat.Token, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.view().live(token) {
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

// expireLeases proposes the end of each lease whose time is over.
func (m *Meta) expireLeases(ctx context.Context, t *timers) {
	for {
		v := m.View()
		over, next := t.sweep(v, time.Now())
		for _, token := range over {
			m.log.Info("lease expires", "token", token.String())
			data, err := encodeCommand(&releaseCommand{token})
			if err == nil {
				_, err = m.apply(ctx, data)
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
