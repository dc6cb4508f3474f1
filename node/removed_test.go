package node

import (
	"errors"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
)

// Its own state machine never hears of it: the others hang up before it could.
func TestNodeThatWasRemovedWhileAwayEndsWhenItReturns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		leader, others := w.leader(w.archivedAll(3)...)
		gone, other := others[0], others[1]
		gone.stop()
		w.settledView(2, leader, other)
		w.pass(10 * time.Second)
		if err := leader.RemoveMember(t.Context(), api.RemoveMemberRequest{Node: gone.id.Node}); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		gone.begin()
		w.within(time.Minute, "the removed node has ended", func() error {
			if gone.hasEnded() {
				return nil
			}
			return errors.New("it runs")
		})
		if err := gone.closed(); !errors.Is(err, ErrLeft) {
			t.Errorf("ended with %v, want ErrLeft", err)
		}
		if _, err := gone.openNode(); !errors.Is(err, ErrLeft) {
			t.Errorf("started again: %v, want ErrLeft", err)
		}
	})
}

func TestNodeThatWasRemovedWhileCutOffEndsWhenTheNetworkHeals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		leader, others := w.leader(w.archivedAll(3)...)
		gone, other := others[0], others[1]
		w.cutOff(gone)
		w.settledView(2, leader, other)
		w.pass(10 * time.Second)
		if err := leader.RemoveMember(t.Context(), api.RemoveMemberRequest{Node: gone.id.Node}); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		w.cutOff()
		w.within(time.Minute, "the removed node has ended", func() error {
			if gone.hasEnded() {
				return nil
			}
			return errors.New("it runs")
		})
		if err := gone.closed(); !errors.Is(err, ErrLeft) {
			t.Errorf("ended with %v, want ErrLeft", err)
		}
	})
}
