package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Meta is one node's part in what the cluster agrees on.
type Meta struct {
	cfg     Config
	log     *slog.Logger
	raftLog hclog.Logger
	storage *storage
	guard   *guard
	machine *machine
	leading leading
	confirm *confirmer // what this node asks of the leader when it follows
	pending pending

	started chan struct{} // closed when raft is set
	raft    *raft.Raft
	began   uint64        // the last entry of the log at the start; set with raft
	checked atomic.Bool   // began was held against what others knew: see rollback.go
	fatal   chan error    // the first error that ends Run
	done    chan struct{} // closed when Run or Close has ended; err is set then
	err     error

	mu      sync.Mutex // guards the fields below
	running bool
	closed  bool
	cancel  context.CancelFunc

	clearing   chan struct{}          // holds what may make cleared true
	cleared    atomic.Bool            // leases of this node's earlier process are released
	votersWait atomic.Pointer[string] // see VotersWait
	settled    atomic.Uint64          // no command stands between the view's index and this one
}

// Open takes the data dir and checks that it is this node's. ErrLocked: another
// process has it. ErrOtherNode: it belongs to another node. It starts nothing
// that needs to be waited for; Run or Close lets go of the dir.
func Open(_ context.Context, cfg Config) (*Meta, error) { return open(cfg, nil) }

// open is Open; wrap, when not nil, stands between the guard and the log.
func open(cfg Config, wrap func(logStore) logStore) (*Meta, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Meta{
		cfg:     cfg,
		log:     cfg.logger(),
		raftLog: newRaftLogger(cfg.logger()),
		started: make(chan struct{}),
		fatal:   make(chan error, 1),
		done:    make(chan struct{}),
		confirm: newConfirmer(),

		clearing: make(chan struct{}, 1),
	}
	m.machine = newMachine(m.fail)
	var err error
	if m.storage, err = openStorage(cfg.Dir, cfg.Node, m.raftLog); err != nil {
		return nil, err
	}
	var inner logStore = m.storage.wal
	if wrap != nil {
		inner = wrap(inner)
	}
	m.guard = newGuard(suffixGuard{inner, func() uint64 { return m.View().applied }, m.fail}, m.fail)
	return m, nil
}

// fail makes Run end with err; the first one counts.
func (m *Meta) fail(err error) {
	select {
	case m.fatal <- err:
	default:
	}
}

// View returns the newest state. It is the empty one until Run has read the
// data dir.
func (m *Meta) View() *View { return m.machine.view.Load() }

// Changed returns a channel that is closed at the next change of the view.
// Take it before the View it is to watch over.
func (m *Meta) Changed() <-chan struct{} { return m.View().changed }

// Run takes part in the cluster until ctx ends, which is no error, or until it
// cannot go on: ErrStorage, ErrUnknownCommand, ErrOtherCluster. It returns
// after all its goroutines have ended and the data dir is free, but for a write
// that the disk does not answer: ErrStorage. A leader hands over first.
func (m *Meta) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	if m.running || m.closed {
		m.mu.Unlock()
		return fmt.Errorf("run: %w", ErrClosed)
	}
	m.running, m.cancel = true, cancel
	m.mu.Unlock()

	err := m.run(ctx)
	m.err = errors.Join(err, m.letGo())
	close(m.done)
	return m.err
}

// letGo frees the data dir, unless a write that the disk does not answer still
// has it: only the end of the process frees it then.
func (m *Meta) letGo() error {
	if m.guard.hanging() != nil {
		return fmt.Errorf("%s stays locked: %w: %w", m.cfg.Dir, ErrStorage, errHung)
	}
	return m.storage.close()
}

// Close lets go of the data dir; when Run is running, it ends it first.
func (m *Meta) Close() error {
	m.mu.Lock()
	running, closed := m.running, m.closed
	m.closed = true
	if running {
		m.cancel()
	}
	m.mu.Unlock()
	if running {
		<-m.done
		return m.err
	}
	if closed {
		return nil
	}
	m.err = m.storage.close()
	close(m.done)
	return m.err
}

const (
	// shutdownGrace is how long commands under way may still take when Run ends.
	shutdownGrace = 5 * time.Second
	// handOverGrace is how long handing over leadership may take then.
	handOverGrace = 3 * time.Second
)

func (m *Meta) run(ctx context.Context) error {
	notify := make(chan bool, 16)
	transport := m.cfg.Transport
	if transport == nil {
		_, transport = raft.NewInmemTransport(raft.ServerAddress(m.cfg.Node))
	}
	relay := newRelay(transport)
	r, err := m.startRaft(notify, relay.transport())
	if err != nil {
		close(m.guard.stop)
		return err
	}
	m.raft = r
	close(m.started)

	var group, under sync.WaitGroup
	raftCtx, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	known := voters(r)
	under.Go(func() { relay.run(raftCtx, len(known) == 1 && known[0] == m.cfg.Node) })
	inner, stop := context.WithCancel(raftCtx)
	defer stop()
	group.Go(func() { m.followLeadership(inner, notify) })
	group.Go(func() { m.observeLeaders(inner) })
	if m.cfg.Peers != nil {
		group.Go(func() { m.confirm.run(inner, m.askIndex) })
		group.Go(func() { m.report(inner) })
		group.Go(func() { m.keepApplied(inner) })
	}

	select {
	case <-ctx.Done():
	case err = <-m.fatal:
		if errors.Is(err, ErrRolledBack) {
			m.accuse(context.WithoutCancel(ctx))
		}
	}
	m.pending.drain(shutdownGrace)
	m.handOver()
	stop()
	group.Wait()
	close(m.guard.stop)
	err = errors.Join(err, r.Shutdown().Error())
	stopRelay()
	under.Wait()
	return err
}

// handOver gives leadership to another voter, so that the others need not find
// out by missing this node.
func (m *Meta) handOver() {
	if m.raft.State() != raft.Leader || len(voters(m.raft)) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverGrace)
	defer cancel()
	_ = m.raft.LeadershipTransfer() // whether it works shows by itself
	for m.raft.State() == raft.Leader {
		if !pause(ctx, retryPause) {
			m.log.Info("leadership was not handed over in time")
			return
		}
	}
}

// startRaft starts raft, forming a cluster of one when the dir is empty. It
// does so in a goroutine of its own, because the guard may end it.
func (m *Meta) startRaft(notify chan<- bool, transport raft.Transport) (r *raft.Raft, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("start raft: %w: %v", ErrStorage, p)
			}
		}()
		r, err = m.newRaft(notify, transport)
	}()
	<-done
	if r == nil && err == nil {
		err = <-m.fatal // the guard ended the goroutine
	}
	return r, err
}

func (m *Meta) newRaft(notify chan<- bool, transport raft.Transport) (*raft.Raft, error) {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(m.cfg.Node)
	c.Logger = m.raftLog
	c.NotifyCh = notify
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.HeartbeatTimeout = m.cfg.election()
	c.ElectionTimeout = m.cfg.election()
	c.LeaderLeaseTimeout = m.cfg.election() / 2

	existing, err := raft.HasExistingState(m.guard, m.guard, m.storage.snaps)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w: %w", ErrStorage, err)
	}
	if !existing && m.cfg.Formed {
		return nil, fmt.Errorf("start raft: %s holds no log and no snapshot: %w", m.cfg.Dir, ErrStateLost)
	}
	if !existing && !m.cfg.Join {
		self := raft.Server{ID: c.LocalID, Address: transport.LocalAddr()}
		err := raft.BootstrapCluster(c, m.guard, m.guard, m.storage.snaps, transport, raft.Configuration{Servers: []raft.Server{self}})
		if err != nil {
			// raft keeps the error's text only.
			return nil, errors.Join(fmt.Errorf("form a cluster: %w", err), m.guard.failing())
		}
	}
	if !existing {
		if err := forgetApplied(m.cfg.Dir); err != nil {
			return nil, fmt.Errorf("start raft: %w: %w", ErrStorage, err)
		}
	}
	m.guard.runs.Store(true)
	r, err := raft.NewRaft(c, m.machine, m.guard, m.guard, m.storage.snaps, transport)
	if err != nil {
		// raft keeps to itself why a snapshot was refused.
		return nil, errors.Join(fmt.Errorf("start raft: %w: %w", ErrStorage, err), m.machine.restoreErr)
	}
	m.began = r.LastIndex()
	restored := r.AppliedIndex()
	if err := m.checkGap(restored); err != nil {
		return nil, errors.Join(err, r.Shutdown().Error())
	}
	m.replay(restored)
	return r, nil
}

// checkGap refuses a log that does not go on where the restored snapshot
// ends: the newest snapshot is damaged and the older one too old.
func (m *Meta) checkGap(restored uint64) error {
	first, err := m.guard.FirstIndex()
	if err != nil {
		return fmt.Errorf("start raft: %w: %w", ErrStorage, err)
	}
	last, err := m.guard.LastIndex()
	if err != nil {
		return fmt.Errorf("start raft: %w: %w", ErrStorage, err)
	}
	if last > restored && first > restored+1 {
		return fmt.Errorf("the newest readable snapshot ends at entry %d, the log begins at %d: %w", restored, first, ErrStorage)
	}
	return nil
}
