package raftmeta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/desformat"
)

// leaseKey carries the token of the lease that a context lives under.
type leaseKey struct{}

// tokenOf returns the token of the lease ctx lives under; zero: none.
func tokenOf(ctx context.Context) desformat.Token {
	t, _ := ctx.Value(leaseKey{}).(desformat.Token)
	return t
}

// WithLease has the leader grant a lease for job and runs work under it.
// ErrClash and ErrUnacknowledged: it was not granted and work was not run.
//
// work's context ends before anybody else can be granted the job: at the time
// the last granting or renewing request was sent, plus the TTL, less a tenth
// of it. Renewal goes on in the background until work returns; then the lease
// is released. When the lease was lost first, context.Cause is ErrStale.
// Commands given that context are refused once the lease is gone.
//
// What the job is about may have changed between the caller's look at a View
// and the grant: work looks again.
func (m *Meta) WithLease(ctx context.Context, job Job, work func(ctx context.Context, l Lease) error) error {
	if err := m.clear(ctx); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	sent := time.Now()
	value, err := m.propose(ctx, &grantCommand{Job: job, Holder: m.cfg.Node, Request: rand.Text()})
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	lease, ok := value.(Lease)
	if !ok {
		return fmt.Errorf("lease: answered %T: %w", value, ErrInvalid)
	}
	workCtx, cancel := context.WithCancelCause(context.WithValue(ctx, leaseKey{}, lease.Token))
	defer cancel(nil)
	kept := make(chan struct{})
	keepCtx, stop := context.WithCancel(workCtx)
	go func() {
		defer close(kept)
		m.keepLease(keepCtx, lease.Token, sent, cancel)
	}()
	err = work(workCtx, lease)
	stop()
	<-kept
	if cause := context.Cause(workCtx); err != nil && errors.Is(cause, ErrStale) && !errors.Is(err, ErrStale) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	m.release(ctx, lease.Token)
	return err
}

// release ends a lease whose work is done. When that fails it expires instead.
func (m *Meta) release(ctx context.Context, token desformat.Token) {
	if _, err := m.propose(context.WithoutCancel(ctx), &releaseCommand{token}); err != nil {
		m.log.Debug("release lease", "token", token.String(), "error", err)
	}
}

// keepLease renews a lease until ctx ends, or ends its work by lost. The end
// comes by a timer of its own: no call that hangs can put it off.
func (m *Meta) keepLease(ctx context.Context, token desformat.Token, sent time.Time, lost context.CancelCauseFunc) {
	ttl := m.cfg.leaseTTL()
	safe := ttl - m.cfg.margin()
	end := time.AfterFunc(time.Until(sent.Add(safe)), func() {
		lost(fmt.Errorf("lease %s was not renewed in time: %w", token, ErrStale))
	})
	defer end.Stop()
	for pause(ctx, ttl/3) {
		now := time.Now()
		renewCtx, cancel := context.WithDeadline(ctx, sent.Add(safe))
		err := m.renew(renewCtx, token)
		cancel()
		switch {
		case err == nil:
			if !end.Stop() {
				return // too late
			}
			sent = now
			end.Reset(time.Until(sent.Add(safe)))
		case errors.Is(err, ErrStale), errors.Is(err, ErrNotMember):
			lost(fmt.Errorf("lease %s: %w: %w", token, ErrStale, err))
			return
		default:
			m.log.Debug("renew lease", "token", token.String(), "error", err)
		}
	}
}

// renew has the leader reset its timer of a lease. While leadership moves it
// tries again.
func (m *Meta) renew(ctx context.Context, token desformat.Token) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timeout())
	defer cancel()
	return m.whileMoving(ctx, func(r *reign, leader NodeID) error {
		if r != nil {
			return m.renewHere(ctx, r, m.cfg.Node, token)
		}
		if err := m.pending.begin(); err != nil {
			return err
		}
		defer m.pending.end()
		_, err := m.call(ctx, leader, request{Op: opRenew, Token: token})
		return err
	})
}

// renewHere resets the timer of a lease in this node's reign. It proves first
// that the reign lasts: a deposed leader must not promise time that its
// successor, whose timers began earlier, does not give.
func (m *Meta) renewHere(ctx context.Context, r *reign, holder NodeID, token desformat.Token) error {
	if _, err := r.rounds.join(ctx); err != nil {
		return err
	}
	return r.timers.renew(holder, token, time.Now())
}

// clear releases, before this process is granted its first lease, what the
// process before it in this data dir held: the lock file proves it dead.
func (m *Meta) clear(ctx context.Context) error {
	if m.cleared.Load() {
		return nil
	}
	select {
	case m.clearing <- struct{}{}:
		defer func() { <-m.clearing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if m.cleared.Load() {
		return nil
	}
	v, err := m.Confirm(ctx)
	if err != nil {
		return err
	}
	if c := m.releaseOwn(v); c != nil {
		if _, err := m.propose(ctx, c); err != nil {
			return err
		}
	}
	m.cleared.Store(true)
	return nil
}

// releaseOwn returns the command that releases what an earlier process of this
// node holds in v; nil: nothing. v was taken before the question whether this
// process may hold leases too, so that none of its own is among them.
func (m *Meta) releaseOwn(v *View) command {
	if m.cleared.Load() {
		return nil
	}
	for _, l := range v.leases.all() {
		if l.Holder == m.cfg.Node {
			return &releaseAllCommand{Holder: m.cfg.Node, UpTo: v.applied}
		}
	}
	return nil
}
