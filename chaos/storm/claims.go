package main

import (
	"context"
	"sync"
)

// claims says which members are a fault's, and bounds how many are at once: a
// majority is left alone, so that the cluster can recover from each.
type claims struct {
	most int

	mu      sync.Mutex // guards what follows
	taken   map[*member]bool
	whole   bool          // somebody has, or waits for, all of them
	changed chan struct{} // closed at the next change
}

func newClaims(most int) *claims {
	return &claims{most: most, taken: map[*member]bool{}, changed: make(chan struct{})}
}

// take waits until a member may be claimed, and claims the first free one of a
// list.
func (c *claims) take(ctx context.Context, among []*member) (*member, error) {
	for {
		c.mu.Lock()
		if !c.whole && len(c.taken) < c.most {
			for _, m := range among {
				if !c.taken[m] {
					c.taken[m] = true
					c.mu.Unlock()
					return m, nil
				}
			}
		}
		if err := c.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// try claims a member if nobody has it, whatever else is claimed.
func (c *claims) try(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whole || c.taken[m] {
		return false
	}
	c.taken[m] = true
	return true
}

// takeAll waits until nobody has a member, and claims them all. From its
// beginning nobody else is given one.
func (c *claims) takeAll(ctx context.Context) error {
	for {
		c.mu.Lock()
		if !c.whole {
			c.whole = true
			break
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
	for len(c.taken) > 0 {
		if err := c.wait(ctx); err != nil {
			c.giveAll()
			return err
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	return nil
}

// wait unlocks, and waits for the next change.
func (c *claims) wait(ctx context.Context) error {
	changed := c.changed
	c.mu.Unlock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// give gives a member back.
func (c *claims) give(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.taken, m)
	c.change()
}

// giveAll gives back what takeAll has taken.
func (c *claims) giveAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = false
	c.change()
}

// change wakes who waits. c.mu is held.
func (c *claims) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}
