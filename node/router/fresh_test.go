package router

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// A kept record is served as long as it is provably the newest here: the rule
// stands in node/retriever/foreign.go.
func TestKeptRecordIsServedWhileItIsTheNewest(t *testing.T) {
	const none = ""
	for _, test := range []struct {
		name    string
		change  func(w *world, p *raftmeta.Pack)
		content string // none: the file is not found or gone
		err     error
		route   string // of the read after the change
	}{
		{"nothing changed", func(*world, *raftmeta.Pack) {}, "one", nil, "hot"},
		{"the pack was changed, not the record", func(w *world, p *raftmeta.Pack) { w.kill(nil, p, 1) }, "one", nil, "hot"},
		{"a pack of older versions came", func(w *world, _ *raftmeta.Pack) {
			w.add(version{name: "x", seq: 4, content: "zero"})
		}, "one", nil, "hot"},
		{"a pack came that may hold a newer version", func(w *world, _ *raftmeta.Pack) {
			w.add(version{name: "other", seq: 9})
		}, "one", nil, "owner"},
		{"a newer version came", func(w *world, _ *raftmeta.Pack) {
			w.add(version{name: "x", seq: 9, content: "two"})
		}, "two", nil, "owner"},
		{"a tombstone came", func(w *world, _ *raftmeta.Pack) { w.add(tombstone("x", 9)) }, none, retriever.ErrGone, "fallback"},
		{"the record died", func(w *world, p *raftmeta.Pack) { w.kill(nil, p, 0) }, none, retriever.ErrNotFound, "fallback"},
		{"the pack was merged", func(w *world, p *raftmeta.Pack) {
			w.merge(nil, []*raftmeta.Pack{p}, version{name: "x", seq: 5, content: "one"})
		}, "one", nil, "owner"},
		{"the pack was merged with a newer version", func(w *world, p *raftmeta.Pack) {
			q := w.addBut([]ring.NodeID{"b"}, version{name: "x", seq: 9, content: "two"})
			w.merge(nil, []*raftmeta.Pack{p, q}, version{name: "x", seq: 9, content: "two"})
		}, "two", nil, "owner"},
		{"others were merged", func(w *world, _ *raftmeta.Pack) {
			q := w.add(version{name: "other", seq: 3})
			w.merge(nil, []*raftmeta.Pack{q}, version{name: "other", seq: 3})
		}, "one", nil, "hot"},
		{"the pack was removed", func(w *world, p *raftmeta.Pack) {
			w.add(version{name: "other", seq: 3})
			w.remove(nil, p)
		}, none, retriever.ErrNotFound, "fallback"},
		{"all packs were removed", func(w *world, p *raftmeta.Pack) { w.remove(nil, p) }, none, retriever.ErrNotFound, "local"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			p := w.add(inOrder("x", "y", 5, "one")...)
			b := w.nodes["b"]
			b.wantRead(t, "x", "one")
			test.change(w, p)
			if test.err != nil {
				b.wantError(t, "x", test.err)
			} else {
				b.wantRead(t, "x", test.content)
			}
			want := map[string]int{"owner": 1}
			want[test.route]++
			b.wantRoutes(t, want)
			if test.err == nil { // what was answered last is kept again
				b.wantRead(t, "x", test.content)
				want["hot"]++
				b.wantRoutes(t, want)
			}
		})
	}
}

// inOrder are versions of two names, of which x is record 0 of their pack.
func inOrder(x, y string, seq uint64, content string) []version {
	for i := 0; ; i++ {
		other := fmt.Sprint(y, i)
		if a, b := keyOf(x).Hash, keyOf(other).Hash; a.Top32() < b.Top32() {
			return []version{{name: x, seq: seq, content: content}, {name: other, seq: seq}}
		}
	}
}

// A node that is behind keeps what a node ahead of it has answered, and is held
// to its own view again once that has caught up.
func TestNodeBehindKeepsWhatIsAheadOfIt(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "one"})
	behind := []ring.NodeID{"b"}
	p := w.addBut(behind, version{name: "x", seq: 2, content: "two"})
	b := w.nodes["b"]
	b.wantRead(t, "x", "two")
	b.wantRead(t, "x", "two")
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 1})

	b.at.Store(p.AddIndex)
	b.wantRead(t, "x", "two")
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 2})

	w.merge(behind, []*raftmeta.Pack{p}, version{name: "x", seq: 2, content: "two"})
	b.wantRead(t, "x", "two")
	b.wantRoutes(t, map[string]int{"owner": 1, "hot": 3}) // b does not know yet
	b.at.Store(w.head())
	b.wantRead(t, "x", "two")
	b.wantRoutes(t, map[string]int{"owner": 2, "hot": 3})
}

// The pack came and went again while the node was behind: when it has caught
// up, nothing of it is served.
func TestNothingOfARemovedPackIsServedByANodeThatCaughtUp(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "one"})
	behind := []ring.NodeID{"b"}
	p := w.addBut(behind, version{name: "x", seq: 2, content: "two"})
	b := w.nodes["b"]
	b.wantRead(t, "x", "two")
	w.remove(behind, p)
	b.at.Store(w.head())
	b.wantRead(t, "x", "one")
	b.wantRoutes(t, map[string]int{"owner": 2})
}

// A write that this node has seen is not unseen by a read, though the owner has
// not heard of it.
func TestReadAfterWriteDoesNotGoBackInTime(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(w *world, p *raftmeta.Pack, behind []ring.NodeID)
		want   string
		err    error
	}{
		{"a newer version", func(w *world, _ *raftmeta.Pack, behind []ring.NodeID) {
			w.addBut(behind, version{name: "x", seq: 2, content: "two"})
		}, "two", nil},
		{"a tombstone", func(w *world, _ *raftmeta.Pack, behind []ring.NodeID) { w.addBut(behind, tombstone("x", 2)) }, "", retriever.ErrGone},
		{"a dead record", func(w *world, p *raftmeta.Pack, behind []ring.NodeID) { w.kill(behind, p, 0) }, "", retriever.ErrNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			p := w.add(version{name: "x", seq: 1, content: "one"})
			a, b := w.nodes["a"], w.nodes["b"]
			b.wantRead(t, "x", "one")
			test.change(w, p, []ring.NodeID{"a"})
			a.wantRead(t, "x", "one") // it does not know better
			if test.err != nil {
				b.wantError(t, "x", test.err)
			} else {
				b.wantRead(t, "x", test.want)
			}
			if b.fallbacks(reasonDeclined) != 1 {
				t.Error("the owner did not decline")
			}
		})
	}
}

// The owner's pack has left this node's view, which the least index can't tell.
func TestAnswerFromAPackThatIsGoneHereIsRefused(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "other", seq: 1})
	p := w.add(version{name: "x", seq: 2, content: "one"})
	w.remove([]ring.NodeID{"a"}, p)
	b := w.nodes["b"]
	b.wantError(t, "x", retriever.ErrNotFound)
	if b.fallbacks(reasonOutdated) != 1 {
		t.Error("the answer was not refused as outdated")
	}
}

// A hundred readers of one record that is nowhere in memory: one hop, and at the
// owner one request for the record.
func TestConcurrentMissesMakeOneHop(t *testing.T) {
	for _, test := range []struct {
		name, content string
		owner, reader int64 // requests
	}{
		{"small", "hello", 1, 0},
		{"big", big, 1, 100}, // each streams its own content
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				w.add(version{name: "x", seq: 1, content: test.content}, version{name: "y", seq: 1})
				a, b := w.nodes["a"], w.nodes["b"]
				a.wantRead(t, "y", "") // the index is in memory
				w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
					time.Sleep(20 * time.Millisecond)
					return storetest.Fault{}
				})
				before := a.gets.Load()
				var readers sync.WaitGroup
				for range 100 {
					readers.Go(func() {
						if got, err := b.read(t.Context(), "x"); err != nil || got != test.content {
							t.Errorf("%d bytes, %v", len(got), err)
						}
					})
				}
				readers.Wait()
				if got := a.asked.Load(); got != 1 {
					t.Errorf("%d hops, want 1", got)
				}
				if got := a.gets.Load() - before; got != test.owner {
					t.Errorf("the owner made %d requests, want %d", got, test.owner)
				}
				if got := b.gets.Load(); got != test.reader {
					t.Errorf("the readers' node made %d requests, want %d", got, test.reader)
				}
			})
		})
	}
}

// Who joins a question of somebody that has seen less is not answered by it.
func TestWhoJoinsAQuestionIsHeldToWhatItHasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.add(version{name: "x", seq: 1, content: "one"})
		b := w.nodes["b"]
		b.asking(func(context.Context, ring.NodeID, *transport.Request) error {
			time.Sleep(50 * time.Millisecond)
			return nil
		})
		b.editing(func(a *transport.Answer) { time.Sleep(50 * time.Millisecond) }) // answered, on its way
		var readers sync.WaitGroup
		readers.Go(func() {
			if _, err := b.read(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(75 * time.Millisecond)
		w.add(version{name: "x", seq: 2, content: "two"})
		readers.Go(func() {
			if got, err := b.read(t.Context(), "x"); err != nil || got != "two" {
				t.Errorf("who came after the second version was committed reads %q, %v", got, err)
			}
		})
		readers.Wait()
	})
}
