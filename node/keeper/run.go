package keeper

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/raftmeta"
)

const (
	retryFirst = time.Second
	retryMost  = 5 * time.Minute
	waitMost   = 30 * time.Second // for what is no fault

	drainedMost = time.Hour // before the next look at a pack without due rows

	// clockSkew is how far the clocks of two nodes may be apart.
	clockSkew = time.Minute
)

// taskKey names a task: a kind of job and the pack it is about, if any.
type taskKey struct {
	kind raftmeta.JobKind
	pack desformat.PackID
}

// task is one piece of work that the view asks for.
type task struct {
	taskKey
	run func(context.Context) error
}

// retry says when a task that failed may be tried again.
type retry struct {
	fails int
	at    time.Time
	err   error
}

// Run does the upkeep until ctx ends, and returns nil when all it started has
// ended.
func (k *Keeper) Run(ctx context.Context) error {
	done := make(chan taskKey)
	busy := map[desformat.PackID]bool{} // one task a pack; the zero id: collecting
	defer func() {
		for range len(busy) {
			<-done
		}
	}()
	for {
		changed, suspected := k.cfg.Manifest.Changed(), k.cfg.Suspects.added()
		tasks, next := k.find()
		for _, t := range tasks {
			if len(busy) >= k.cfg.Workers {
				break
			}
			if busy[t.pack] {
				continue
			}
			busy[t.pack] = true
			go func() {
				_ = k.try(ctx, t) // logged and counted there
				done <- t.taskKey
			}()
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case t := <-done:
			delete(busy, t.pack)
		case <-changed:
		case <-suspected:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Once does what there is to do now, and what follows from it, tasks that wait
// for a retry included. It returns what failed.
func (k *Keeper) Once(ctx context.Context) error {
	k.mu.Lock()
	clear(k.retryAt)
	clear(k.drained)
	k.mu.Unlock()
	var (
		mu   sync.Mutex // guards errs
		errs []error
	)
	for ctx.Err() == nil {
		tasks, _ := k.find()
		if len(tasks) == 0 {
			break
		}
		busy := map[desformat.PackID]bool{}
		slots := make(chan struct{}, k.cfg.Workers)
		var wg sync.WaitGroup
		for _, t := range tasks {
			if busy[t.pack] {
				continue // its turn comes with the next look
			}
			busy[t.pack] = true
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				if err := k.try(ctx, t); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
		wg.Wait()
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// try runs one task and remembers when to try again what failed.
func (k *Keeper) try(ctx context.Context, t task) error {
	err := t.run(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.retryAt, t.taskKey)
		return nil
	}
	r := k.retryAt[t.taskKey]
	r.at = k.cfg.Now().Add(min(retryFirst<<min(r.fails, 10), retryMost))
	r.fails++
	r.err = err
	k.retryAt[t.taskKey] = r
	switch {
	case errors.Is(err, raftmeta.ErrClash): // another does it
		return nil
	case pace.AsHeld(err) != nil: // the pace's status tells
		r.fails, r.err = 0, nil
		r.at = k.cfg.Now().Add(retryMost)
		k.retryAt[t.taskKey] = r
		return nil
	case ctx.Err() != nil:
		return err
	case errors.Is(err, errNotSafe): // what is missing may come at any time, and is no fault
		r.at = k.cfg.Now().Add(min(retryFirst<<min(r.fails, 10), waitMost))
		k.retryAt[t.taskKey] = r
		k.log.InfoContext(ctx, "upkeep waits", "job", t.kind, "pack", t.pack, "again_at", r.at, "why", err)
		return err
	}
	k.metrics.errors.WithLabelValues(string(t.kind)).Inc()
	k.log.ErrorContext(ctx, "upkeep goes on later", "job", t.kind, "pack", t.pack, "again_at", r.at, "error", err)
	return err
}

// find looks the newest view through and returns what there is to do, the most
// urgent first, and how long it is until it should look again.
func (k *Keeper) find() (tasks []task, next time.Duration) {
	v, now := k.cfg.Manifest.View(), k.cfg.Now()
	s := survey{k: k, view: v, now: now, next: now.Add(k.cfg.Interval), hiding: k.audit.packs(), leased: leased(v), suspects: k.cfg.Suspects.since(now)}
	if !v.RebuildDone(v.Generation()) {
		return nil, max(s.next.Sub(now), 0) // not all packs are known yet; the rebuild has those acknowledged that it finds
	}
	for p := range v.Packs() {
		s.pack(p)
	}
	for id := range s.hiding {
		if v.Pack(id) == nil {
			s.add(&s.deletes, taskKey{raftmeta.JobDelete, id}, func(ctx context.Context) error { return k.settleUnknown(ctx, id) })
		}
	}
	if k.collectable(v) > 0 {
		s.add(&s.collects, taskKey{kind: raftmeta.JobCollect}, k.collect)
	}
	s.scrub()
	k.metrics.surveyed(&s)
	s.spread(s.acks, s.verifies, s.deletes)
	return slices.Concat(s.acks, s.verifies, s.deletes, s.collects, s.scrubs), max(s.next.Sub(now), 0)
}

// leased returns the packs that somebody works on under a lease; the zero id
// stands for collecting, which has one lease for all.
func leased(v *raftmeta.View) map[desformat.PackID]bool {
	out := make(map[desformat.PackID]bool)
	for _, l := range v.Leases() {
		for _, id := range l.Job.Packs {
			out[id] = true
		}
		if l.Job.Kind == raftmeta.JobCollect {
			out[desformat.PackID{}] = true
		}
	}
	return out
}

// survey is one look through the view.
type survey struct {
	k      *Keeper
	view   *raftmeta.View
	now    time.Time
	next   time.Time                 // when the earliest task that waits may run
	hiding map[desformat.PackID]bool // packs with open intents
	leased map[desformat.PackID]bool // packs with a live lease; the zero id: collecting

	suspects map[desformat.PackID]time.Time // packs that reads found damaged, since when

	acks, verifies, deletes, collects, scrubs []task

	aged     []*raftmeta.Pack // due for another verification
	scrubbed int64            // bytes read again within the last day
	damaged  int
	oldest   time.Duration // age of the oldest verification
}

// spread puts tasks of the same urgency into an order of this node's own: nodes
// that saw the same view would else ask for the same lease, one pack after the
// other.
func (s *survey) spread(lists ...[]task) {
	for _, tasks := range lists {
		slices.SortFunc(tasks, func(a, b task) int {
			return cmp.Compare(place(s.k.cfg.Node, a.pack), place(s.k.cfg.Node, b.pack))
		})
	}
}

// place is where a pack stands in the order of a node.
func place(node raftmeta.NodeID, pack desformat.PackID) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, string(node)) // a hash never fails
	_, _ = h.Write(pack[:])
	return h.Sum64()
}

// add appends a task unless it waits for a retry, or a lease is live that it
// would clash with: to ask would cost an entry of the log to be refused. The
// end of that lease is a change of the view, which wakes Run.
func (s *survey) add(to *[]task, key taskKey, run func(context.Context) error) {
	if s.leased[key.pack] {
		return
	}
	s.k.mu.Lock()
	r, failed := s.k.retryAt[key]
	s.k.mu.Unlock()
	if failed && comes(r.at, s.now, retryMost) {
		s.wake(r.at)
		return
	}
	*to = append(*to, task{key, run})
}

// comes reports whether a moment that was set at most so far ahead is still to
// come. One that is farther away was set by a clock that has been put back
// since: nobody waits for it.
func comes(at, now time.Time, most time.Duration) bool { return at.After(now) && at.Sub(now) <= most }

func (s *survey) wake(at time.Time) {
	if at.Before(s.next) {
		s.next = at
	}
}

func (s *survey) pack(p *raftmeta.Pack) {
	if !undamaged(p) {
		s.damaged++
	}
	if s.hiding[p.ID] || s.mayBeDue(p) {
		s.add(&s.deletes, taskKey{raftmeta.JobDelete, p.ID}, func(ctx context.Context) error { return s.k.deletePack(ctx, p) })
	}
	if !live(p) {
		return
	}
	if !p.Acknowledged && s.abandoned(p) {
		s.add(&s.acks, taskKey{raftmeta.JobAck, p.ID}, func(ctx context.Context) error { return s.k.acknowledgeLeased(ctx, p) })
	}
	s.verification(p)
}

// abandoned reports whether nobody is acknowledging p: its packer, who does it
// under the packing lease, has let go of that.
func (s *survey) abandoned(p *raftmeta.Pack) bool {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	return s.k.acking[p.ID] == 0 && s.view.Fenced(p.Token)
}

// mayBeDue reports whether p may have originals to delete by now.
func (s *survey) mayBeDue(p *raftmeta.Pack) bool {
	if !s.k.cfg.DeleteSource || !deletable(p) || s.deletionHeld() || s.k.forOthers(p) {
		return false
	}
	at := p.Created.Add(s.k.cfg.DeleteGrace)
	s.k.mu.Lock()
	if d := s.k.drained[p.ID]; d.After(at) && comes(d, s.now, drainedMost) {
		at = d
	}
	s.k.mu.Unlock()
	if at.After(s.now) {
		s.wake(at)
		return false
	}
	return true
}

func (s *survey) verification(p *raftmeta.Pack) {
	at := verifiedAt(p)
	// A time in the future was taken from a clock that was wrong.
	if at.IsZero() || at.Sub(s.now) > clockSkew {
		if s.k.forOthers(p) {
			return
		}
		s.add(&s.verifies, taskKey{raftmeta.JobVerify, p.ID}, s.verify(p))
		return
	}
	if since, ok := s.suspects[p.ID]; ok && at.Before(since) && undamaged(p) {
		s.add(&s.verifies, taskKey{raftmeta.JobVerify, p.ID}, s.verify(p))
	}
	age := s.now.Sub(at)
	s.oldest = max(s.oldest, age)
	if age < 24*time.Hour && s.now.Sub(p.Created) > s.k.cfg.ScrubInterval {
		s.scrubbed += p.Size
	}
	if age > s.k.cfg.ScrubInterval || !undamaged(p) && age > 24*time.Hour {
		s.aged = append(s.aged, p)
	}
}

func (s *survey) verify(p *raftmeta.Pack) func(context.Context) error {
	return func(ctx context.Context) error { return s.k.verifyDue(ctx, p) }
}

// scrub picks the packs that were verified longest ago, within what is left of
// the day's budget. The budget is read off the manifest, so that it holds for
// the whole cluster and across restarts.
func (s *survey) scrub() {
	slices.SortFunc(s.aged, func(a, b *raftmeta.Pack) int { return verifiedAt(a).Compare(verifiedAt(b)) })
	left := s.k.cfg.ScrubBytesPerDay - s.scrubbed
	for _, p := range s.aged {
		if left <= 0 {
			return
		}
		left -= p.Size
		s.add(&s.scrubs, taskKey{raftmeta.JobVerify, p.ID}, s.verify(p))
	}
}

func (k *Keeper) acknowledgeLeased(ctx context.Context, p *raftmeta.Pack) error {
	job := raftmeta.Job{Kind: raftmeta.JobAck, Packs: []desformat.PackID{p.ID}}
	return k.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, _ raftmeta.Lease) error {
		return k.Acknowledge(ctx, p)
	})
}
