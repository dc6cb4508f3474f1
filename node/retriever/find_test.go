package retriever

import (
	"context"
	"errors"
	"testing"
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
