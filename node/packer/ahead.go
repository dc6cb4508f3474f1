package packer

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/datavision/desnode/node/source"
)

// verdict says what becomes of a row.
type verdict uint8

const (
	toPack   verdict = iota // content or file holds it
	toAgain                 // lives in a pack already: found
	toFail                  // err is the file's; code says which failure
	toRefuse                // err says why the row can never be packed; code says which failure
	toLeave                 // err is not about this row
	toWait                  // the database lets nobody change it, for now
)

// item is one row on its way into the pack.
type item struct {
	listed
	weight int64
	ready  chan struct{} // closed when the fields below are set

	verdict verdict
	found   *Found
	code    string
	err     error
	content []byte          // a small file, whole; from the packer's pool
	file    source.Original // a large file, open
	info    source.Info
}

// ahead looks rows up and opens their files ahead of the writer: one file at a
// time would leave the machine waiting for one look-up after the other.
//
// One goroutine lists rows, reserves their bytes in order and hands them out;
// Readers goroutines prepare them in any order; the caller takes them in order.
type ahead struct {
	p       *Packer
	rows    *lister
	prepare func(context.Context, *item)
	order   chan *item
	work    chan *item
	budget  *semaphore.Weighted
	stuck   *item // taken from order when the context ended, perhaps still being prepared
}

func (p *Packer) newAhead(rows *lister, prepare func(context.Context, *item)) *ahead {
	return &ahead{
		p:       p,
		rows:    rows,
		prepare: prepare,
		order:   make(chan *item, 4*p.cfg.Readers),
		work:    make(chan *item, 4*p.cfg.Readers),
		budget:  semaphore.NewWeighted(p.cfg.ReadAhead),
	}
}

// each calls f for every row in order, until f returns an error or the end.
// errStop ends it without one.
func (a *ahead) each(ctx context.Context, f func(*item) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.list(gctx) })
	for range a.p.cfg.Readers {
		g.Go(func() error {
			for it := range a.work {
				a.prepare(gctx, it)
				close(it.ready)
			}
			return nil
		})
	}
	taken := a.take(gctx, f)
	cancel()
	err := g.Wait()
	if a.stuck != nil {
		a.drop(a.stuck)
	}
	for it := range a.order { // closed by list; what f never saw
		a.drop(it)
	}
	switch {
	case errors.Is(taken, errStop):
		return nil
	case taken != nil && (err == nil || !errors.Is(taken, context.Canceled)):
		return taken
	default:
		return err // the lister's error cancelled the taking
	}
}

// errStop ends each early, in order.
var errStop = errors.New("enough")

func (a *ahead) take(ctx context.Context, f func(*item) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case it, more := <-a.order:
			if !more {
				return ctx.Err()
			}
			select {
			case <-ctx.Done():
				a.stuck = it
				return ctx.Err()
			case <-it.ready:
			}
			err := f(it)
			a.drop(it)
			if err != nil {
				return err
			}
		}
	}
}

func (a *ahead) list(ctx context.Context) error {
	defer close(a.order)
	defer close(a.work)
	for {
		at, ok, err := a.rows.next(ctx)
		if err != nil || !ok {
			return err
		}
		it := &item{listed: at, ready: make(chan struct{})}
		if at.row.Size <= a.p.cfg.SmallFile {
			it.weight = min(max(at.row.Size, 0), a.p.cfg.ReadAhead)
		}
		if err := a.budget.Acquire(ctx, it.weight); err != nil {
			return err
		}
		// order first: whatever is in work is in order too, and so is dropped.
		for _, to := range []chan<- *item{a.order, a.work} {
			select {
			case to <- it:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// drop frees what an item holds, after it was used or when it never will be.
func (a *ahead) drop(it *item) {
	if it.file != nil {
		_ = it.file.Close() // read only: nothing to lose
		it.file = nil
	}
	if it.content != nil {
		a.p.release(it.content)
		it.content = nil
	}
	a.budget.Release(it.weight)
	it.weight = 0
}
