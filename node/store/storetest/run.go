// Package storetest holds the conformance suite of package store, which every
// driver passes, and Fake, the store of other packages' tests.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/datavision/desnode/node/store"
)

// Run holds a driver against the contract of store.Store. open returns a new,
// empty store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"put, head and get agree", putHeadGet},
		{"ranges", ranges},
		{"a range beyond the end is an error", beyond},
		{"what is missing is ErrNotFound", missing},
		{"put never replaces", putNeverReplaces},
		{"a repeated put of the same bytes succeeds", putRepeats},
		{"one of many racing puts wins", putRace},
		{"a put that fails leaves nothing", putFails},
		{"bad keys", badKeys},
		{"versions", versions},
		{"list", list},
		{"an error ends list", listEnds},
		{"move", move},
		{"move never replaces", moveNeverReplaces},
		{"a repeated move succeeds", moveRepeats},
		{"racing moves of one object", moveRace},
		{"delete", remove},
		{"a key that is free again", reuse},
		{"a done context", doneContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func mustPut(t *testing.T, s store.Store, key, content string) store.Object {
	t.Helper()
	o, err := s.Put(t.Context(), key, strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return o
}

func read(t *testing.T, s store.Store, key, version string, off, n int64) (string, error) {
	t.Helper()
	r, err := s.Get(t.Context(), key, version, off, n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), errors.Join(err, r.Close())
}

func wantContent(t *testing.T, s store.Store, key, want string) {
	t.Helper()
	if got, err := read(t, s, key, "", 0, -1); err != nil || got != want {
		t.Errorf("%s holds %.40q, %v; want %.40q", key, got, err, want)
	}
}

func wantMissing(t *testing.T, s store.Store, key string) {
	t.Helper()
	if _, err := s.Head(t.Context(), key, ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("head %s: %v, want ErrNotFound", key, err)
	}
	if _, err := read(t, s, key, "", 0, -1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s: %v, want ErrNotFound", key, err)
	}
}

func wantKeys(t *testing.T, s store.Store, prefix, after string, want ...string) {
	t.Helper()
	var got []string
	err := s.List(t.Context(), prefix, after, func(o store.Object) error {
		got = append(got, o.Key)
		return nil
	})
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("list %q after %q: %q, %v; want %q", prefix, after, got, err, want)
	}
}

func putHeadGet(t *testing.T, s store.Store) {
	// Around the sizes in which drivers copy.
	for _, size := range []int{0, 1, 4095, 256 << 10, 256<<10 + 1, 3 << 20} {
		content := pattern(size)
		key := fmt.Sprintf("packs/3a-8/%d.des", size)
		put := mustPut(t, s, key, content)
		head, err := s.Head(t.Context(), key, "")
		if err != nil || head.Size != int64(size) || head.Key != key || head.Version == "" || head.Modified.IsZero() {
			t.Errorf("%d bytes: head %+v, %v", size, head, err)
		}
		if put.Key != head.Key || put.Size != head.Size || put.Version != head.Version || !put.Modified.IsZero() && !put.Modified.Equal(head.Modified) {
			t.Errorf("%d bytes: put says %+v, head %+v", size, put, head)
		}
		wantContent(t, s, key, content)
	}
}

// pattern returns n bytes in which no two ranges of one length are alike.
func pattern(n int) string {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return string(b.Bytes()[:n])
}

func ranges(t *testing.T, s store.Store) {
	mustPut(t, s, "ten", "0123456789")
	mustPut(t, s, "none", "")
	for _, c := range []struct {
		key    string
		off, n int64
		want   string
	}{
		{"ten", 0, -1, "0123456789"},
		{"ten", 0, 10, "0123456789"},
		{"ten", 0, 0, ""},
		{"ten", 0, 1, "0"},
		{"ten", 3, 4, "3456"},
		{"ten", 9, 1, "9"},
		{"ten", 9, -1, "9"},
		{"ten", 10, 0, ""},
		{"ten", 10, -1, ""},
		{"none", 0, -1, ""},
		{"none", 0, 0, ""},
	} {
		if got, err := read(t, s, c.key, "", c.off, c.n); err != nil || got != c.want {
			t.Errorf("get %s from %d, %d bytes: %q, %v; want %q", c.key, c.off, c.n, got, err, c.want)
		}
	}
}

func beyond(t *testing.T, s store.Store) {
	mustPut(t, s, "ten", "0123456789")
	mustPut(t, s, "none", "")
	for _, c := range []struct {
		key    string
		off, n int64
	}{
		{"ten", 0, 11},
		{"ten", 9, 2},
		{"ten", 10, 1},
		{"ten", 11, 0},
		{"ten", 11, -1},
		{"ten", -1, 2},
		{"ten", 1, 1<<63 - 1},
		{"none", 0, 1},
		{"none", 1, -1},
	} {
		got, err := read(t, s, c.key, "", c.off, c.n)
		if err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("get %s from %d, %d bytes: %q, %v; want an error other than ErrNotFound", c.key, c.off, c.n, got, err)
		}
		if possible := c.off >= 0 && c.n <= 100; possible && (!errors.Is(err, store.ErrBeyond) || errors.Is(err, store.ErrUnavailable)) {
			t.Errorf("get %s from %d, %d bytes: %v; want ErrBeyond", c.key, c.off, c.n, err)
		}
	}
}

func missing(t *testing.T, s store.Store) {
	wantMissing(t, s, "nothing")
	wantMissing(t, s, "no/such/folder")
	mustPut(t, s, "a/b/c", "x")
	wantMissing(t, s, "a/b")   // a prefix of a key is no object
	wantMissing(t, s, "a/b/d") // a neighbour
	if err := s.Move(t.Context(), "nothing", "other"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("move of nothing: %v, want ErrNotFound", err)
	}
	wantMissing(t, s, "other")
}

func putNeverReplaces(t *testing.T, s store.Store) {
	first := mustPut(t, s, "cluster.json", "first")
	for _, other := range []string{"other", "longer than first", "", "firs"} {
		_, err := s.Put(t.Context(), "cluster.json", strings.NewReader(other), int64(len(other)))
		if !errors.Is(err, store.ErrExists) {
			t.Errorf("put of %q over another object: %v, want ErrExists", other, err)
		}
	}
	wantContent(t, s, "cluster.json", "first")
	if head, err := s.Head(t.Context(), "cluster.json", ""); err != nil || head.Version != first.Version {
		t.Errorf("version %s became %s, %v", first.Version, head.Version, err)
	}
}

func putRepeats(t *testing.T, s store.Store) {
	for _, content := range []string{"", "the same sealed bytes", pattern(600 << 10)} {
		key := fmt.Sprintf("packs/0-0/%d", len(content))
		first := mustPut(t, s, key, content)
		again := mustPut(t, s, key, content)
		if again.Version != first.Version || again.Size != first.Size {
			t.Errorf("%d bytes: repeated put says %+v, was %+v", len(content), again, first)
		}
	}
}

func putRace(t *testing.T, s store.Store) {
	held, err := s.ConditionalCreate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !held {
		return // promised to nobody
	}
	const writers = 16
	errs := make([]error, writers)
	content := func(i int) string { return strings.Repeat(string(rune('a'+i)), 1000) }
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = s.Put(t.Context(), "generations/1", strings.NewReader(content(i)), 1000)
		})
	}
	wg.Wait()
	winners := 0
	for i, err := range errs {
		switch {
		case err == nil:
			winners++
			wantContent(t, s, "generations/1", content(i))
		case !errors.Is(err, store.ErrExists):
			t.Errorf("writer %d: %v, want ErrExists", i, err)
		}
	}
	if winners != 1 {
		t.Errorf("%d of %d puts at one key won, want 1", winners, writers)
	}
	wantKeys(t, s, "", "", "generations/1")
}

// failing is a body that can't be read from some byte on.
type failing struct {
	good string
	err  error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.good)) {
		return 0, f.err
	}
	n := copy(p, f.good[off:])
	if n < len(p) {
		return n, f.err
	}
	return n, nil
}

func putFails(t *testing.T, s store.Store) {
	broken := errors.New("broken disk")
	if _, err := s.Put(t.Context(), "k", failing{pattern(300 << 10), broken}, 400<<10); !errors.Is(err, broken) {
		t.Errorf("put of a broken body: %v, want its error", err)
	}
	if _, err := s.Put(t.Context(), "k", strings.NewReader("short"), 6); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("put of a body that ends early: %v, want io.ErrUnexpectedEOF", err)
	}
	if _, err := s.Put(t.Context(), "k", strings.NewReader("x"), -1); err == nil {
		t.Error("put of a negative size succeeded")
	}
	wantMissing(t, s, "k")
	wantKeys(t, s, "", "")
	mustPut(t, s, "k", "good") // and may be repeated
	wantContent(t, s, "k", "good")
}

func badKeys(t *testing.T, s store.Store) {
	mustPut(t, s, "good", "x")
	for _, key := range []string{"", "/", "/etc/passwd", "a//b", "a/", ".", "..", "./a", "a/.", "../a", "a/../b", "a/..", "a\x00b"} {
		_, errPut := s.Put(t.Context(), key, strings.NewReader("x"), 1)
		_, errGet := s.Get(t.Context(), key, "", 0, -1)
		_, errHead := s.Head(t.Context(), key, "")
		for what, err := range map[string]error{
			"put": errPut, "get": errGet, "head": errHead, "delete": s.Delete(t.Context(), key),
			"move from": s.Move(t.Context(), key, "b"), "move to": s.Move(t.Context(), "good", key),
		} {
			if !errors.Is(err, store.ErrBadKey) {
				t.Errorf("%s %q: %v, want ErrBadKey", what, key, err)
			}
		}
	}
	wantKeys(t, s, "", "", "good")
}

func versions(t *testing.T, s store.Store) {
	o := mustPut(t, s, "k", "content")
	if got, err := read(t, s, "k", o.Version, 1, 3); err != nil || got != "ont" {
		t.Errorf("get by version: %q, %v", got, err)
	}
	if head, err := s.Head(t.Context(), "k", o.Version); err != nil || head.Version != o.Version {
		t.Errorf("head by version: %+v, %v", head, err)
	}
	// Of another object: some stores refuse what they would never give out. A
	// version may be a time, of a clock that ticks slowly.
	other := o.Version
	for i := 0; other == o.Version; i++ {
		other = mustPut(t, s, fmt.Sprintf("other/%d", i), "of another object").Version
	}
	if _, err := read(t, s, "k", other, 0, -1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of another version: %v, want ErrNotFound", err)
	}
	if _, err := read(t, s, "k", other, 2, 3); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get of a part of another version: %v, want ErrNotFound", err)
	}
	if _, err := s.Head(t.Context(), "k", other); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("head of another version: %v, want ErrNotFound", err)
	}
}

func list(t *testing.T, s store.Store) {
	all := []string{"a", "a-b", "a/b", "a/b-c", "a/c/d", "b/a", "packs/0-0/1", "packs/0-1/1", "zz"}
	for i, key := range all {
		mustPut(t, s, key+"x", strings.Repeat("y", i))
	}
	for i := range all {
		all[i] += "x"
	}
	want := func(prefix, after string) (w []string) {
		for _, key := range all {
			if strings.HasPrefix(key, prefix) && key > after {
				w = append(w, key)
			}
		}
		slices.Sort(w)
		return w
	}
	prefixes := []string{"", "a", "a/", "a/b", "a/b-", "a/c/", "packs/", "packs/0-", "packs/0-0/1x", "no", "a/bx/", "zzx"}
	afters := append([]string{"", "a/", "a/b", "a/c/d", "packs/0-0", "packs/0-0/1x", "zzx", "\xff"}, all...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			wantKeys(t, s, prefix, after, want(prefix, after)...)
		}
	}
	err := s.List(t.Context(), "", "", func(o store.Object) error {
		head, err := s.Head(t.Context(), o.Key, "")
		if err != nil || head.Size != o.Size || head.Version != o.Version || !head.Modified.Equal(o.Modified) {
			t.Errorf("list says %+v, head %+v, %v", o, head, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func listEnds(t *testing.T, s store.Store) {
	for _, key := range []string{"a", "b/c", "d"} {
		mustPut(t, s, key, "x")
	}
	enough := errors.New("enough")
	calls := 0
	err := s.List(t.Context(), "", "", func(store.Object) error {
		calls++
		return enough
	})
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("list went on for %d calls and returned %v", calls, err)
	}
}

func move(t *testing.T, s store.Store) {
	mustPut(t, s, "packs/0-0/x.des", "content")
	if err := s.Move(t.Context(), "packs/0-0/x.des", "quarantine/2026-01-02/packs/0-0/x.des"); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, "packs/0-0/x.des")
	wantContent(t, s, "quarantine/2026-01-02/packs/0-0/x.des", "content")
	wantKeys(t, s, "", "", "quarantine/2026-01-02/packs/0-0/x.des")

	mustPut(t, s, "same", "stays")
	if err := s.Move(t.Context(), "same", "same"); err != nil {
		t.Errorf("move onto itself: %v", err)
	}
	wantContent(t, s, "same", "stays")
}

func moveNeverReplaces(t *testing.T, s store.Store) {
	mustPut(t, s, "from", "one")
	mustPut(t, s, "to", "two")
	if err := s.Move(t.Context(), "from", "to"); !errors.Is(err, store.ErrExists) {
		t.Errorf("move onto another object: %v, want ErrExists", err)
	}
	wantContent(t, s, "from", "one")
	wantContent(t, s, "to", "two")
}

func moveRepeats(t *testing.T, s store.Store) {
	mustPut(t, s, "from", "content")
	for range 3 {
		if err := s.Move(t.Context(), "from", "to"); err != nil {
			t.Errorf("move: %v", err)
		}
	}
	wantContent(t, s, "to", "content")
	// Cut between its two halves, in a store that can only copy and delete.
	mustPut(t, s, "from", "content")
	if err := s.Move(t.Context(), "from", "to"); err != nil {
		t.Errorf("move onto a copy of itself: %v", err)
	}
	wantMissing(t, s, "from")
	wantContent(t, s, "to", "content")
}

func moveRace(t *testing.T, s store.Store) {
	mustPut(t, s, "from", "content")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = s.Move(t.Context(), "from", "to") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	wantMissing(t, s, "from")
	wantContent(t, s, "to", "content")
}

func remove(t *testing.T, s store.Store) {
	mustPut(t, s, "a/b", "x")
	mustPut(t, s, "a/c", "y")
	for range 2 {
		if err := s.Delete(t.Context(), "a/b"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	for _, absent := range []string{"no/such/folder", "nothing", "a"} {
		if err := s.Delete(t.Context(), absent); err != nil {
			t.Errorf("delete of %s, which is no object: %v", absent, err)
		}
	}
	wantMissing(t, s, "a/b")
	wantContent(t, s, "a/c", "y")
}

func reuse(t *testing.T, s store.Store) {
	mustPut(t, s, "a/b", "first")
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "a/b", "second")
	wantContent(t, s, "a/b", "second")
}

func doneContext(t *testing.T, s store.Store) {
	mustPut(t, s, "k", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errPut := s.Put(ctx, "new", strings.NewReader("x"), 1)
	_, errGet := s.Get(ctx, "k", "", 0, -1)
	_, errHead := s.Head(ctx, "k", "")
	for what, err := range map[string]error{
		"put": errPut, "get": errGet, "head": errHead, "move": s.Move(ctx, "k", "l"), "delete": s.Delete(ctx, "k"),
		"list": s.List(ctx, "", "", func(store.Object) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s under a cancelled context: %v", what, err)
		}
	}
	wantKeys(t, s, "", "", "k")
}
