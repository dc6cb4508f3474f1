package objectstest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// Subject is an empty bucket to test.
type Subject struct {
	Objects source.Objects
	// Put stores an object, as the customer does.
	Put func(key, content string)
	// Deletes reports whether the store can delete one version and no other.
	Deletes bool
}

// Run holds an implementation of source.Objects against its contract. open
// returns an empty bucket at each call.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, Subject)
	}{
		{"what was put is described and read", testRead},
		{"ranges", testRanges},
		{"an empty object", testEmpty},
		{"keys that are no plain words", testKeys},
		{"what is not there", testMissing},
		{"a replaced object is not given for the old one", testReplaced},
		{"only the version that was named is deleted", testDelete},
		{"a context that ended", testContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func head(t *testing.T, s Subject, key string) source.ObjectInfo {
	t.Helper()
	info, err := s.Objects.Head(t.Context(), key)
	if err != nil {
		t.Fatalf("Head(%q) = %v", key, err)
	}
	return info
}

func get(ctx context.Context, s Subject, key, version string, off, n int64) (string, error) {
	body, err := s.Objects.Get(ctx, key, version, off, n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(body)
	return string(b), errors.Join(err, body.Close())
}

func wantContent(t *testing.T, s Subject, key, version string, off, n int64, want string) {
	t.Helper()
	if got, err := get(t.Context(), s, key, version, off, n); err != nil || got != want {
		t.Errorf("Get(%q, off %d, n %d) = %q, %v; want %q", key, off, n, got, err, want)
	}
}

func testRead(t *testing.T, s Subject) {
	before := time.Now().Add(-time.Minute)
	s.Put("dir/a", "content")
	info := head(t, s, "dir/a")
	if info.Size != 7 || info.Version == "" || info.ModTime.Before(before) || info.ModTime.After(time.Now().Add(time.Minute)) {
		t.Errorf("Head = %+v", info)
	}
	if again := head(t, s, "dir/a"); again != info {
		t.Errorf("a second Head = %+v, the first was %+v", again, info)
	}
	wantContent(t, s, "dir/a", info.Version, 0, -1, "content")
}

func testRanges(t *testing.T, s Subject) {
	s.Put("a", "0123456789")
	v := head(t, s, "a").Version
	wantContent(t, s, "a", v, 3, 4, "3456")
	wantContent(t, s, "a", v, 7, -1, "789")
	wantContent(t, s, "a", v, 9, 1, "9")
	wantContent(t, s, "a", v, 0, 10, "0123456789")
}

func testEmpty(t *testing.T, s Subject) {
	s.Put("empty", "")
	info := head(t, s, "empty")
	if info.Size != 0 {
		t.Errorf("size %d", info.Size)
	}
	wantContent(t, s, "empty", info.Version, 0, -1, "")
}

func testKeys(t *testing.T, s Subject) {
	for _, key := range []string{"with space", "plus+and&amp", "percent%41", "zażółć/gęślą", "hash#?query=1", "tilde~(star)*'"} {
		s.Put(key, key)
		wantContent(t, s, key, head(t, s, key).Version, 0, -1, key)
	}
}

func testMissing(t *testing.T, s Subject) {
	s.Put("dir/a", "content")
	for _, key := range []string{"b", "dir", "dir/a/b", "dirx"} {
		if _, err := s.Objects.Head(t.Context(), key); !errors.Is(err, source.ErrNoFile) {
			t.Errorf("Head(%q) = %v, want ErrNoFile", key, err)
		}
	}
	v := head(t, s, "dir/a").Version
	if _, err := get(t.Context(), s, "dir/b", v, 0, -1); !errors.Is(err, source.ErrNoFile) && !errors.Is(err, source.ErrChanged) {
		t.Errorf("Get of nothing = %v, want ErrNoFile or ErrChanged", err)
	}
}

func testReplaced(t *testing.T, s Subject) {
	s.Put("a", "old content")
	old := head(t, s, "a")
	s.Put("a", "new content")
	now := head(t, s, "a")
	if now.Version == old.Version {
		t.Fatalf("both versions are called %s", old.Version)
	}
	wantContent(t, s, "a", now.Version, 0, -1, "new content")
	// A bucket that keeps versions still gives the old one; no other may give
	// the new one in its place.
	got, err := get(t.Context(), s, "a", old.Version, 0, -1)
	if err == nil && got != "old content" || err != nil && !errors.Is(err, source.ErrChanged) && !errors.Is(err, source.ErrNoFile) {
		t.Errorf("Get of the old version = %q, %v; want it or ErrChanged", got, err)
	}
}

func testDelete(t *testing.T, s Subject) {
	s.Put("a", "old content")
	old := head(t, s, "a")
	if !s.Deletes {
		if err := s.Objects.Delete(t.Context(), "a", old.Version); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Delete = %v, want ErrUnsupported", err)
		}
		wantContent(t, s, "a", old.Version, 0, -1, "old content")
		return
	}
	s.Put("a", "new content")
	now := head(t, s, "a")
	if err := s.Objects.Delete(t.Context(), "a", old.Version); err != nil && !errors.Is(err, source.ErrChanged) {
		t.Errorf("Delete of the old version = %v, want nil or ErrChanged", err)
	}
	wantContent(t, s, "a", now.Version, 0, -1, "new content")
	if err := s.Objects.Delete(t.Context(), "a", now.Version); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if _, err := s.Objects.Head(t.Context(), "a"); !errors.Is(err, source.ErrNoFile) {
		t.Errorf("Head of the deleted = %v, want ErrNoFile", err)
	}
	// Repeated after a crash.
	if err := s.Objects.Delete(t.Context(), "a", now.Version); err != nil && !errors.Is(err, source.ErrNoFile) {
		t.Errorf("repeated Delete = %v, want nil or ErrNoFile", err)
	}
}

func testContext(t *testing.T, s Subject) {
	s.Put("a", "content")
	v := head(t, s, "a").Version
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for op, err := range map[string]error{
		"Head":   func() error { _, err := s.Objects.Head(ctx, "a"); return err }(),
		"Get":    func() error { _, err := get(ctx, s, "a", v, 0, -1); return err }(),
		"Delete": s.Objects.Delete(ctx, "a", v),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want the context's end", op, err)
		}
	}
	wantContent(t, s, "a", v, 0, -1, "content")
}
