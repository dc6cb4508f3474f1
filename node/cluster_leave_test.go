package node

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/raftmeta"
)

// readers read all files at these nodes, over and over, until the returned
// function is called, which returns how long the slowest read took. Reads that
// fail, fail the test.
func (w *world) readers(members ...*member) (end func() (slowest time.Duration)) {
	done := make(chan struct{})
	var group sync.WaitGroup
	names := w.names()
	slowest := make([]time.Duration, len(members))
	for i, m := range members {
		group.Go(func() {
			for reads := 0; ; reads++ {
				for _, name := range names {
					begun := time.Now()
					if err := m.serves(true, name); err != nil {
						w.t.Errorf("read %d: %v", reads, err)
						return
					}
					slowest[i] = max(slowest[i], time.Since(begun))
				}
				select {
				case <-done:
					if reads == 0 {
						w.t.Errorf("%s read nothing meanwhile", m.ip)
					}
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	return func() time.Duration {
		close(done)
		group.Wait()
		return slices.Max(slowest)
	}
}

// archived is a cluster of three with n archived files.
func (w *world) archived(n int) (a, b, c *member) {
	w.t.Helper()
	a, b, c = w.formThree()
	w.write(0, n)
	a.imports()
	b.archives(int64(n))
	w.mustServe(a, b, c)
	return a, b, c
}

func TestNodeThatLeavesFailsNoReadOfTheOthers(t *testing.T) {
	for _, leads := range []bool{false, true} {
		name := "a follower"
		if leads {
			name = "the leader"
		}
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				leader, others := w.leader(w.archivedAll(40)...)
				goes, stay := others[0], []*member{leader, others[1]}
				if leads {
					goes, stay = leader, others
				}
				end := w.readers(stay...)
				if err := goes.Leave(t.Context(), api.LeaveRequest{}); err != nil {
					t.Fatal(err)
				}
				if err := goes.closed(); err != nil {
					t.Errorf("the end of a node that left: %v", err)
				}
				w.settled(1, stay...)
				w.pass(10 * time.Second)
				end()
				for _, m := range stay {
					if !m.meta.View().Removed(goes.id.Node) {
						t.Errorf("%s does not know that the node has left", m.ip)
					}
				}
				if _, err := goes.openNode(); !errors.Is(err, ErrLeft) {
					t.Errorf("started again: %v, want ErrLeft", err)
				}
				if err := goes.enter(stay[0], stay[0].token()); !errors.Is(err, ErrLeft) {
					t.Errorf("joined again on the same data dir: %v, want ErrLeft", err)
				}
			})
		})
	}
}

// archivedAll is archived as a list.
func (w *world) archivedAll(n int) []*member {
	w.t.Helper()
	a, b, c := w.archived(n)
	return []*member{a, b, c}
}

func TestLastNodeCannotLeave(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		if err := a.Leave(t.Context(), api.LeaveRequest{}); !errors.Is(err, api.ErrConflict) {
			t.Fatalf("left: %v, want ErrConflict", err)
		}
		w.write(0, 1)
		a.imports()
		a.archives(1)
	})
}

func TestNodeThatRestartsCatchesUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		leader, others := w.leader(w.archivedAll(20)...)
		away, other := others[0], others[1]
		end := w.readers(leader, other)
		away.stop()
		w.write(20, 20)
		leader.imports()
		other.archives(20)
		end()
		away.start()
		w.settled(3, leader, other, away)
		w.mustServe(away)
		w.packed(away)
	})
}

// The bar is 30 s for the cluster to form again.
func TestAllNodesStoppedAndStartedAtNewAddressesFormAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.archivedAll(20)
		for _, m := range all {
			m.stop()
			m.move()
		}
		begun := time.Now()
		for _, m := range all {
			m.begin()
		}
		for _, m := range all {
			m.awaitReady()
		}
		w.settled(3, all...)
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("the cluster formed again after %v", took)
		}
		w.mustServe(all...)
		w.write(20, 20)
		all[0].imports()
		all[1].archives(20)
		w.mustServe(all...)
	})
}

func TestRemovedNodeEndsItselfAndAnswersNoMissUntilThen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		leader, others := w.leader(w.archivedAll(10)...)
		gone, other := others[0], others[1]
		w.cutOff(gone)
		w.settledView(2, leader, other)
		if err := leader.RemoveMember(t.Context(), api.RemoveMemberRequest{Node: gone.id.Node}); err != nil {
			t.Fatal(err)
		}
		w.write(10, 1)
		leader.imports()
		leader.archives(1)
		if err := os.RemoveAll(w.docs); err != nil { // the removed node can't read it through
			t.Fatal(err)
		}
		noMiss := func() {
			t.Helper()
			for _, name := range []string{"f0010", "no such file"} {
				if got := gone.read(name); got.Code != http.StatusServiceUnavailable {
					t.Errorf("%s: %d %s", name, got.Code, got.Body)
				}
			}
		}
		noMiss()
		w.cutOff()
		w.within(2*time.Minute, "the removed node has ended", func() error {
			if gone.hasEnded() {
				return nil
			}
			noMiss()
			return errors.New("it runs")
		})
		if err := gone.closed(); !errors.Is(err, ErrLeft) {
			t.Errorf("ended with %v, want ErrLeft", err)
		}
		if _, err := gone.openNode(); !errors.Is(err, ErrLeft) {
			t.Errorf("started again: %v, want ErrLeft", err)
		}
		if gone.hasEnded() {
			t.Error("Run has ended twice")
		}
	})
}

func TestVoterIsNotRemovedWhileItsVoteIsNeeded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.formThree()
		leader, others := w.leader(a, b, c)
		alive, away := others[0], others[1]
		w.cutOff(away)
		w.settledView(2, leader, alive)
		w.pass(5 * time.Second) // until the leader holds it for dead
		err := leader.RemoveMember(t.Context(), api.RemoveMemberRequest{Node: alive.id.Node, Force: true})
		if !errors.Is(err, api.ErrConflict) || !errors.Is(err, raftmeta.ErrVoteNeeded) {
			t.Errorf("removed: %v, want ErrVoteNeeded", err)
		}
		w.write(0, 5)
		alive.imports()
		alive.archives(5)
		w.cutOff()
		w.settled(3, a, b, c)
	})
}

// Two of three voters are alive. The one that goes hands its vote over first, so
// that the other is not left without a majority.
func TestNodeLeavesWhileAnotherIsAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.formThree()
		leader, others := w.leader(a, b, c)
		goes, away := others[0], others[1]
		w.cutOff(away)
		w.settledView(2, leader, goes)
		if err := goes.Leave(t.Context(), api.LeaveRequest{}); err != nil {
			t.Fatal(err)
		}
		if err := goes.closed(); err != nil {
			t.Error(err)
		}
		w.write(0, 5)
		leader.imports()
		leader.archives(5)
		w.cutOff()
		w.settled(1, leader, away)
		w.mustServe(leader, away)
	})
}
