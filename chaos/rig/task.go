package rig

import "context"

// Task is work that goes on beside its caller.
type Task struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
	Err    error         // of the work, once done is closed
}

// Begin starts work beside the caller, who calls End in any case.
func Begin(ctx context.Context, work func(context.Context) error) *Task {
	ctx, cancel := context.WithCancel(ctx)
	t := &Task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.Err = work(ctx)
	}()
	return t
}

// Ended reports whether the work is over.
func (t *Task) Ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// Wait waits for the end of the work and returns its error.
func (t *Task) Wait() error {
	<-t.done
	return t.Err
}

// End cuts the work short and waits until it has ended.
func (t *Task) End() {
	t.cancel()
	<-t.done
}
