package main

import "context"

// task is work that goes on beside a scenario.
type task struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
	err    error         // of the work, once done is closed
}

// begin starts work beside the caller, who calls end in any case.
func begin(ctx context.Context, work func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(ctx)
	t := &task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = work(ctx)
	}()
	return t
}

// ended reports whether the work is over.
func (t *task) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of the work and returns its error.
func (t *task) wait() error {
	<-t.done
	return t.err
}

// end cuts the work short and waits until it has ended.
func (t *task) end() {
	t.cancel()
	<-t.done
}
