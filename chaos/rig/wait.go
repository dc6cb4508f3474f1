package rig

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Pause waits, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// ErrTimeout: what was waited for did not come.
var ErrTimeout = errors.New("waited in vain")

// Await asks again and again until done is nil or the time is over; then the
// error says what was missing last.
func Await(ctx context.Context, what string, within time.Duration, done func(context.Context) error) error {
	const every = 50 * time.Millisecond
	deadline := time.Now().Add(within)
	for {
		err := done(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case time.Now().After(deadline):
			return fmt.Errorf("%w for %s, %s: %w", ErrTimeout, within, what, err)
		}
		if err := Pause(ctx, every); err != nil {
			return err
		}
	}
}
