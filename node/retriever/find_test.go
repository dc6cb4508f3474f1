package retriever

import (
	"context"
	"errors"
	"testing"

	"github.com/datavision/desnode/desformat"
)

// One confirmation serves any number of names; what is committed later is not in
// it, whatever the node has heard of since.
func TestSnapshotIsOneConfirmedMoment(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "x", seq: 1, content: "one"})
	p.AddIndex, p.ModIndex = 3, 3
	q := w.pack(version{name: "y", seq: 2, content: "two"})
	q.AddIndex, q.ModIndex = 4, 4
	r := w.retriever()
	w.manifest.confirming(func(context.Context) (fakeView, error) { return fakeView{p}, nil }) // the view is behind that
	s, err := r.Confirm(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.manifest.set(p, q)
	if s.Applied() != 3 {
		t.Errorf("at index %d, want 3", s.Applied())
	}
	for range 2 {
		found, err := s.Find(t.Context(), "x")
		if err != nil || found.Pack != p.ID {
			t.Errorf("x: %v, %v", found, err)
		}
		if _, err := s.Find(t.Context(), "y"); !errors.Is(err, ErrNotFound) {
			t.Errorf("y, committed later: %v", err)
		}
	}
	if _, err := r.Find(t.Context(), "y"); err != nil {
		t.Errorf("y in the newest view: %v", err)
	}
	if w.manifest.confirmed() != 1 {
		t.Errorf("%d confirmations", w.manifest.confirmed())
	}
}

func TestNoSnapshotWithoutAQuorum(t *testing.T) {
	w := newWorld(t)
	w.manifest.confirming(withoutQuorum)
	if _, err := w.retriever().Confirm(t.Context()); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("error %v", err)
	}
}

// Newer finds what reads use in place of an older record, and costs nothing while
// no newer pack has a like name.
func TestNewerIsWhatReadsUseInstead(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(
		w.pack(version{name: "a", seq: 1, content: "old"}, version{name: "b", seq: 1, content: "B"}, version{name: "c", seq: 1, content: "C"}),
		w.pack(version{name: "a", seq: 5, content: "young"}),
		w.pack(version{name: "a", seq: 7, content: "youngest"}, version{name: "c", seq: 7, kind: desformat.TypeTombstone}),
	)
	r := w.retriever()
	for _, c := range []struct {
		name string
		than uint64
		want uint64 // seq; 0: none
	}{
		{"a", 1, 7}, {"a", 5, 7}, {"a", 7, 0}, {"b", 1, 0}, {"b", 0, 1}, {"c", 1, 7}, {"never", 0, 0},
	} {
		h, err := r.Newer(t.Context(), c.name, token(c.than))
		switch {
		case err != nil:
			t.Errorf("%s newer than %d: %v", c.name, c.than, err)
		case (h == nil) != (c.want == 0) || h != nil && h.Seq != token(c.want):
			t.Errorf("%s newer than %d: %+v, want seq %d", c.name, c.than, h, c.want)
		}
	}
	if n := w.gets(func() { _, _ = r.Newer(t.Context(), "b", token(1)) }); n != 0 {
		t.Errorf("%d requests for a name that no newer pack has", n)
	}
	if _, err := r.Newer(t.Context(), "", token(1)); !errors.Is(err, desformat.ErrInvalidName) {
		t.Errorf("no name: %v", err)
	}
}
