package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

// failures are all the ways in which asking the owner can be of no use, each
// with the reason that it is counted under.
func failures() []struct {
	name   string
	fail   func(ctx context.Context) error
	reason reason
} {
	is := func(err error) func(context.Context) error {
		return func(context.Context) error { return err }
	}
	says := func(s transport.Status) func(context.Context) error {
		return is(&transport.RemoteError{Status: s, Applied: 1})
	}
	return []struct {
		name   string
		fail   func(ctx context.Context) error
		reason reason
	}{
		{"unreachable", is(transport.ErrUnreachable), reasonUnreachable},
		{"breaker", is(transport.ErrBreaker), reasonBreaker},
		{"not a member", is(transport.ErrNotMember), reasonOther},
		{"identity", is(transport.ErrIdentity), reasonOther},
		{"malformed", is(transport.ErrMalformed), reasonOther},
		{"closed", is(transport.ErrClosed), reasonOther},
		{"silent", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, reasonLate},
		{"not found", says(transport.StatusNotFound), reasonNotFound},
		{"gone", says(transport.StatusGone), reasonGone},
		{"declined", says(transport.StatusDeclined), reasonDeclined},
		{"not owner", says(transport.StatusNotOwner), reasonNotOwner},
		{"busy", says(transport.StatusBusy), reasonBusy},
		{"unavailable", says(transport.StatusUnavailable), reasonUnavailable},
		{"unconfirmed", says(transport.StatusUnconfirmed), reasonUnconfirmed},
		{"corrupt", says(transport.StatusCorrupt), reasonCorrupt},
		{"invalid", says(transport.StatusInvalid), reasonOther},
		{"hop loop", says(transport.StatusHopLoop), reasonOther},
		{"unsupported", says(transport.StatusUnsupported), reasonOther},
		{"range", says(transport.StatusRange), reasonOther},
		{"too late", says(transport.StatusTooLate), reasonLate},
		{"internal", says(transport.StatusInternal), reasonOther},
	}
}

// Whatever keeps the owner from answering, the node answers as if it had not
// asked: the file, or its own confirmed 404 and 410.
func TestEveryFailureFallsBack(t *testing.T) {
	for _, f := range failures() {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				w.add(
					version{name: "small", seq: 1, content: "hello"}, version{name: "big", seq: 1, content: big},
					version{name: "removed", seq: 1, content: "was here"}, tombstone("removed", 2),
				)
				b := w.nodes["b"]
				b.asking(func(ctx context.Context, _ ring.NodeID, _ *transport.Request) error { return f.fail(ctx) })
				began := time.Now()
				b.wantRead(t, "small", "hello")
				b.wantRead(t, "big", big)
				b.wantError(t, "removed", retriever.ErrGone)
				b.wantError(t, "absent", retriever.ErrNotFound)
				if got := time.Since(began); got > 4*250*time.Millisecond {
					t.Errorf("four reads took %v: more than four hops' time limits", got)
				}
				b.wantRoutes(t, map[string]int{"fallback": 4})
				if got := b.fallbacks(f.reason); got != 4 {
					t.Errorf("%d fallbacks are counted under %s, want 4", got, reasonNames[f.reason])
				}

				w.quorum.Store(false)
				b.wantRead(t, "small", "hello")
				b.wantError(t, "removed", retriever.ErrUnconfirmed)
				b.wantError(t, "absent", retriever.ErrUnconfirmed)
			})
		})
	}
}

// What the owner itself answers about names without a live record: the reader
// finds the same, by its own confirmed view.
func TestMissIsNeverAnsweredByAnotherNodesWord(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "removed", seq: 1, content: "was here"}, tombstone("removed", 2), version{name: "x", seq: 1})
	b := w.nodes["b"]
	b.wantError(t, "removed", retriever.ErrGone)
	b.wantError(t, "absent", retriever.ErrNotFound)
	if b.fallbacks(reasonGone) != 1 || b.fallbacks(reasonNotFound) != 1 {
		t.Error("the owner was not asked, or answered something else")
	}
	w.quorum.Store(false)
	b.wantError(t, "removed", retriever.ErrUnconfirmed)
	b.wantError(t, "absent", retriever.ErrUnconfirmed)

	w.quorum.Store(true)
	w.rows.set(row("absent", "1"))
	w.files["/absent"] = "not packed yet"
	b.wantRead(t, "absent", "not packed yet")
}

// lies are answers that don't answer the question, or contradict themselves.
func lies() []struct {
	name string
	edit func(*transport.Answer)
} {
	return []struct {
		name string
		edit func(*transport.Answer)
	}{
		{"another name", func(a *transport.Answer) { a.Name = "other" }},
		{"no pack", func(a *transport.Answer) { a.Pack = [16]byte{} }},
		{"no origin", func(a *transport.Answer) { a.Origin = 0 }},
		{"from a source", func(a *transport.Answer) { a.Origin = transport.OriginSource }},
		{"a part", func(a *transport.Answer) { a.Range = &transport.Range{Offset: 0, Length: a.Size} }},
		{"another size", func(a *transport.Answer) { a.Size++ }},
		{"another hash", func(a *transport.Answer) { a.SHA256[0] ^= 1 }},
		{"a seq that the pack can't have", func(a *transport.Answer) { a.SeqIndex = 1 << 40 }},
		{"an ordinal that the pack can't have", func(a *transport.Answer) { a.Ordinal = 1 << 20 }},
		{"neither content nor place", func(a *transport.Answer) {
			a.Location = nil
			if a.Body != nil {
				_ = a.Body.Close()
				a.Body = nil
			}
		}},
	}
}

func TestAnswerThatContradictsItselfFallsBack(t *testing.T) {
	for _, lie := range lies() {
		for _, test := range []struct{ name, content string }{{"small", "hello"}, {"big", big}} {
			t.Run(lie.name+"/"+test.name, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				w.add(version{name: test.name, seq: 1, content: test.content})
				b := w.nodes["b"]
				b.editing(lie.edit)
				b.wantRead(t, test.name, test.content)
				if b.fallbacks(reasonContradiction) != 1 {
					t.Error("the answer was not refused for contradicting itself")
				}
				b.editing(nil)
				b.wantRead(t, test.name, test.content)
				if got := routed(b, routeHot); got != 0 {
					t.Error("what was refused is kept")
				}
			})
		}
	}
}

// A large record is read where the owner says: if another one stands there, or
// none, this node looks for itself.
func TestPlaceThatIsWrongFallsBack(t *testing.T) {
	for _, test := range []struct {
		name   string
		edit   func(w *world, a *transport.Answer)
		reason reason
	}{
		{"another record's place", func(w *world, a *transport.Answer) {
			other, _, err := w.nodes["a"].local.OpenPacked(context.Background(), keyOf("other"), retriever.WantHeader, 0)
			if err != nil {
				w.tb.Fatal(err)
			}
			a.Location = location(other.Record)
		}, reasonContradiction},
		{"no record's place", func(_ *world, a *transport.Answer) { a.Location.Offset += 7 }, reasonCorrupt},
		{"outside the object", func(_ *world, a *transport.Answer) { a.Location.Offset = 1 << 40 }, reasonUnavailable},
		{"no length", func(_ *world, a *transport.Answer) { a.Location.Length = 0 }, reasonCorrupt},
	} {
		for _, want := range []retriever.Want{retriever.WantWhole, retriever.WantPart} {
			t.Run(test.name, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				w.add(version{name: "big", seq: 1, content: big}, version{name: "other", seq: 1, content: long("other", len(big))})
				b := w.nodes["b"]
				b.editing(func(a *transport.Answer) { test.edit(w, a) })
				f, err := b.router.Open(t.Context(), "big", retriever.Query{Want: want})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if got, err := contentOf(t.Context(), &f, 0, f.Size()); err != nil || got != big {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if b.fallbacks(test.reason) != 1 {
					t.Errorf("not counted under %s", reasonNames[test.reason])
				}
			})
		}
	}
}

// The owner answers from its own caches; what it can't read, this node may.
func TestOwnerWhoseStoreFailsIsReplaced(t *testing.T) {
	w := newWorld(t, "a", "b")
	p := w.add(version{name: "x", seq: 1, content: "hello"})
	b := w.nodes["b"]
	left := 1
	w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
		if left--; left >= 0 {
			return storetest.Fault{Err: storetest.ErrInjected}
		}
		return storetest.Fault{}
	})
	b.wantRead(t, "x", "hello")
	if b.fallbacks(reasonUnavailable) != 1 {
		t.Error("the owner did not say that it can't read")
	}
	w.store.SetHook(nil)

	// Of an object that has gone both say the same, and neither says 404.
	if err := w.store.Delete(t.Context(), p.Copies[0].Key); err != nil {
		t.Fatal(err)
	}
	w.start("a", nil)
	w.start("b", nil).wantError(t, "x", desformat.ErrCorrupt)
}

func TestOwnersCorruptDiskIsNotTheReaders(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	b := w.nodes["b"]
	b.editing(func(a *transport.Answer) { a.Body = nopBody("jello") })
	b.wantRead(t, "x", "hello")
	if b.fallbacks(reasonContradiction) != 1 {
		t.Error("content that is not its hash's was not refused")
	}
}

// The stream of a payload may fail at any byte.
func TestPayloadThatBreaksOffFallsBack(t *testing.T) {
	for _, test := range []struct {
		name   string
		body   func() *brokenBody
		reason reason
	}{
		{"connection lost", func() *brokenBody { return &brokenBody{err: transport.ErrUnreachable} }, reasonUnreachable},
		{"checksum", func() *brokenBody { return &brokenBody{err: transport.ErrChecksum} }, reasonOther},
		{"end without the last check", func() *brokenBody { return &brokenBody{all: "hello", err: transport.ErrChecksum} }, reasonOther},
		{"too long", func() *brokenBody { return &brokenBody{all: "hello, world"} }, reasonContradiction},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.add(version{name: "x", seq: 1, content: "hello"})
			b := w.nodes["b"]
			body := test.body()
			b.editing(func(a *transport.Answer) { a.Body = body })
			b.wantRead(t, "x", "hello")
			if !body.closed {
				t.Error("the body was not closed")
			}
			if b.fallbacks(test.reason) != 1 {
				t.Errorf("not counted under %s", reasonNames[test.reason])
			}
		})
	}
}

func TestPayloadThatStallsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.add(version{name: "x", seq: 1, content: "hello"})
		b := w.nodes["b"]
		var hop context.Context
		b.asking(func(ctx context.Context, _ ring.NodeID, _ *transport.Request) error {
			hop = ctx
			return nil
		})
		b.editing(func(a *transport.Answer) { a.Body = &stalledBody{hop} })
		began := time.Now()
		b.wantRead(t, "x", "hello")
		if took := time.Since(began); took != time.Second {
			t.Errorf("the stalled payload was given up after %v, want the payload's time limit of 1 s", took)
		}
		if b.fallbacks(reasonLate) != 1 {
			t.Error("not counted as late")
		}
	})
}

// A caller that leaves is told so, and no other.
func TestCallerThatLeavesGetsItsOwnError(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.add(version{name: "x", seq: 1, content: "hello"})
	ctx, cancel := context.WithCancel(t.Context())
	b := w.nodes["b"]
	b.asking(func(context.Context, ring.NodeID, *transport.Request) error {
		cancel()
		return transport.ErrUnreachable
	})
	w.store.SetHook(func(ctx context.Context, _ storetest.Call) storetest.Fault { return storetest.Fault{Err: ctx.Err()} })
	if _, err := b.read(ctx, "x"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func keyOf(name string) retriever.Key {
	return retriever.Key{Name: name, Hash: desformat.HashName(name)}
}
