package node

import (
	"errors"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
)

// Load balancers send nothing new to a node that leaves, from the beginning of
// its departure: once it has left, it soon ends.
func TestNodeThatLeavesIsNotReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		b := w.join(a)
		if err := b.checkReady(t.Context()); err != nil {
			t.Fatalf("before: %v", err)
		}
		left := make(chan error, 1)
		go func() { left <- b.Leave(t.Context(), api.LeaveRequest{}) }()
		w.pass(time.Millisecond)
		if err := b.checkReady(t.Context()); !errors.Is(err, errStopping) {
			t.Errorf("while it leaves: %v, want errStopping", err)
		}
		if err := errors.Join(<-left, b.closed()); err != nil {
			t.Error(err)
		}
		if err := a.Leave(t.Context(), api.LeaveRequest{}); !errors.Is(err, api.ErrConflict) {
			t.Errorf("the last one: %v, want ErrConflict", err)
		}
		if err := a.checkReady(t.Context()); err != nil {
			t.Errorf("after a departure that failed: %v", err)
		}
	})
}
