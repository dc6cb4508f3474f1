package storetest_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
)

func TestFolder(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openFolder(t) })
}

func openFolder(t *testing.T) *store.Folder {
	f, err := store.OpenFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestFake(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.NewFake(t) })
}

func TestFakeOverFolder(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return storetest.NewFakeOver(t, openFolder(t)) })
}

func TestCounted(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return store.Count(openFolder(t)) })
}

func TestCountsByKindAndCause(t *testing.T) {
	s := store.Count(openFolder(t))
	ctx := store.WithCause(t.Context(), "index")
	if _, err := s.Put(t.Context(), "k", strings.NewReader("0123456789"), 10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := s.Get(ctx, "k", "", 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Head(ctx, "nothing", ""); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if got, want := s.Counts(), (store.Counts{Put: 1, Get: 2, Head: 1, Failed: 1, BytesPut: 10, BytesGot: 6}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if got, want := s.Causes()["index"], (store.Counts{Get: 2, Head: 1, Failed: 1, BytesGot: 6}); got != want {
		t.Errorf("for the index %+v, want %+v", got, want)
	}
	if got := s.Counts().Requests(); got != 4 {
		t.Errorf("%d requests, want 4", got)
	}
}

// recorder is a testing.TB that keeps what would fail the test.
type recorder struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, _ ...any) { r.failures = append(r.failures, format) }
func (r *recorder) Cleanup(f func())               { r.cleanups = append(r.cleanups, f) }

func TestFakeNoticesBreaches(t *testing.T) {
	put := func(s store.Store, key, content string) {
		_, _ = s.Put(t.Context(), key, strings.NewReader(content), int64(len(content)))
	}
	for _, c := range []struct {
		name   string
		breach func(*storetest.Fake)
		want   bool
	}{
		{"stream left open", func(f *storetest.Fake) {
			put(f, "k", "x")
			_, _ = f.Get(t.Context(), "k", "", 0, -1)
		}, true},
		{"read after close", func(f *storetest.Fake) {
			put(f, "k", "x")
			r, err := f.Get(t.Context(), "k", "", 0, -1)
			if err != nil {
				t.Error(err)
				return
			}
			_ = r.Close()
			_, _ = r.Read(make([]byte, 1))
		}, true},
		{"a retry with other bytes", func(f *storetest.Fake) {
			put(f, "packs/0-0/a", "one")
			put(f, "packs/0-0/a", "two")
		}, true},
		{"a list where none is allowed", func(f *storetest.Fake) {
			f.SetNoList()
			_ = f.List(t.Context(), "", "", func(store.Object) error { return nil })
		}, true},
		{"a retry with the same bytes", func(f *storetest.Fake) {
			put(f, "packs/0-0/a", "one")
			put(f, "packs/0-0/a", "one")
		}, false},
		{"a lost race", func(f *storetest.Fake) {
			put(f, "cluster.json", "one")
			put(f, "cluster.json", "two")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &recorder{TB: t}
			c.breach(storetest.NewFake(r))
			for _, f := range r.cleanups {
				f()
			}
			if got := len(r.failures) > 0; got != c.want {
				t.Errorf("failures %q", r.failures)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, applied := range []bool{false, true} {
		f := storetest.NewFake(t)
		f.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
			if c.Kind == store.KindPut {
				return storetest.Fault{Err: storetest.ErrInjected, Applied: applied}
			}
			return storetest.Fault{}
		})
		if _, err := f.Put(t.Context(), "k", strings.NewReader("x"), 1); !errors.Is(err, storetest.ErrInjected) {
			t.Errorf("applied %v: %v, want the injected fault", applied, err)
		}
		if _, err := f.Head(t.Context(), "k", ""); (err == nil) != applied {
			t.Errorf("applied %v: head says %v", applied, err)
		}
		if got := f.Counts(); got.Put != 1 || got.Head != 1 {
			t.Errorf("applied %v: counted %+v", applied, got)
		}
	}
}
