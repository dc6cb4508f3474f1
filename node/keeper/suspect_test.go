package keeper

import (
	"context"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// A pack that a read found damaged is verified at once and not in a month, and
// not again for each read that meets it.
func TestSuspectsAreVerifiedAheadOfTheirTurn(t *testing.T) {
	w := newWorld(t)
	w.noDelete = true
	p := w.archived("a", "b")
	w.once(nil)
	w.clock.advance(2 * time.Hour)
	var suspects Suspects
	k := w.keeper(func(c *Config) { c.Suspects = &suspects })
	reads := func() int { return count(w.faults.calls, "store.Get") }
	once := func() (gets int) {
		before := reads()
		w.check(k.Once(t.Context()))
		return reads() - before
	}
	own := func() raftmeta.Copy { return w.meta.View().Pack(p.ID).Copies[0] }

	if n := once(); n != 0 {
		t.Errorf("%d GETs without a suspicion", n)
	}
	suspects.Add(p.ID)
	if n := once(); n == 0 || own().Damage != "" || w.clock.Now().Sub(own().VerifiedAt) > time.Minute {
		t.Errorf("%d GETs for a suspect that is whole, copy %+v", n, own())
	}
	w.spoil(p, p.Size/2)
	suspects.Add(p.ID)
	if n := once(); n != 0 {
		t.Errorf("%d GETs for one that was verified since it was suspected", n)
	}
	w.clock.advance(suspectPause)
	once() // forgets
	suspects.Add(p.ID)
	if n := once(); n == 0 || own().Damage == "" {
		t.Errorf("%d GETs for a damaged suspect, copy %+v", n, own())
	}
	w.clock.advance(suspectPause)
	once()
	suspects.Add(p.ID)
	if n := once(); n != 0 {
		t.Errorf("%d GETs for one that is known to be damaged", n)
	}
	suspects.Add(desformat.PackID{42}) // not in the manifest
	once()
}

// Run wakes when a pack is suspected.
func TestSuspicionWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Suspects
		woken := s.added()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan bool)
		go func() {
			select {
			case <-woken:
				done <- true
			case <-ctx.Done():
				done <- false
			}
		}()
		synctest.Wait()
		s.Add(desformat.PackID{1})
		if !<-done {
			t.Error("nobody was woken")
		}
		again := s.added()
		s.Add(desformat.PackID{1})
		select {
		case <-again:
			t.Error("woken again by the same pack")
		default:
		}
	})
}

func TestSuspectsAreBounded(t *testing.T) {
	var s Suspects
	for i := range 2 * maxSuspects {
		var id desformat.PackID
		binary.BigEndian.PutUint64(id[:], uint64(i))
		s.Add(id)
	}
	if n := len(s.since(time.Unix(0, 0))); n != maxSuspects {
		t.Errorf("%d suspects, want %d", n, maxSuspects)
	}
}
