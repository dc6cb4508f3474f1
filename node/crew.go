package node

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// crew is the node's work as one thing that can be stopped, to leave the
// cluster, and begun again, when that failed.
type crew struct {
	mu      sync.Mutex // guards what follows
	resting chan struct{}
	stop    context.CancelFunc // nil: not at work
	idle    chan struct{}      // closed when the work that stop ends has ended
}

// run works until ctx ends, which is no error, or until one of the workers
// can't go on. While the crew rests, nothing is done.
func (c *crew) run(ctx context.Context, workers []func(context.Context) error) error {
	for {
		c.mu.Lock()
		resting := c.resting
		var work context.Context
		idle := make(chan struct{})
		if resting == nil {
			work, c.stop = context.WithCancel(ctx)
			c.idle = idle
		}
		c.mu.Unlock()
		if resting != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-resting:
				continue
			}
		}
		group, work := errgroup.WithContext(work)
		group.Go(func() error { <-work.Done(); return nil }) // no work at all lasts as long
		for _, w := range workers {
			group.Go(func() error { return w(work) })
		}
		err := group.Wait()
		c.mu.Lock()
		c.stop()
		c.stop = nil
		c.mu.Unlock()
		close(idle)
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// rest stops the work and returns when it has ended. resume begins it again.
func (c *crew) rest() (resume func()) {
	c.mu.Lock()
	resting := make(chan struct{})
	c.resting = resting
	idle := c.idle
	if c.stop != nil {
		c.stop()
	} else {
		idle = nil
	}
	c.mu.Unlock()
	if idle != nil {
		<-idle
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		c.resting = nil
		c.mu.Unlock()
		close(resting)
	})
}
