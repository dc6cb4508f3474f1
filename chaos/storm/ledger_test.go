package main

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// written makes a ledger of some files with changes and returns its file.
func writtenLedger(t *testing.T, seed uint64) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := newLedger(path, seed, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	files, err := l.add(20)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files[:10] {
		l.list(f, 1, time.Now())
	}
	if changed, err := l.change(files); err != nil || len(changed) != 10 {
		t.Fatalf("%d files may change, want the 10 that are listed: %v", len(changed), err)
	}
	if changed, err := l.change(files); err != nil || len(changed) != 0 {
		t.Fatalf("%d files may change though their last change is not listed: %v", len(changed), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, v := range f.versions {
			if sum := sha256.Sum256(v.content()); sum != v.sum || int64(len(v.content())) != v.size {
				t.Errorf("%s, version %d: the content is not what the ledger says", f.name, v.number)
			}
		}
	}
	if n := bytes.Count(text, []byte("\n")); n != 1+20+10 {
		t.Errorf("%d lines are on disk before anything is placed, want 31", n)
	}
	return text
}

func TestLedgerFollowsFromTheSeed(t *testing.T) {
	one, again, other := writtenLedger(t, 1), writtenLedger(t, 1), writtenLedger(t, 2)
	if !bytes.Equal(one, again) {
		t.Error("the same seed gives other files")
	}
	if bytes.Equal(one, other) {
		t.Error("another seed gives the same files")
	}
}

func TestVersionsDifferInContentAndTime(t *testing.T) {
	s, _ := newScene(t, 0)
	for range 30 {
		f := placedFile(t, s, 6)
		for i, v := range f.versions {
			for _, w := range f.versions[:i] {
				if v.sum == w.sum || v.modified.Equal(w.modified) {
					t.Fatalf("%s: versions %d and %d can't be told apart", f.name, w.number, v.number)
				}
			}
			if v.size < 1 || v.size > maxSize {
				t.Errorf("%s: %d bytes", f.name, v.size)
			}
		}
		got, err := os.ReadFile(f.path(s.src))
		if err != nil || sha256.Sum256(got) != f.last().sum {
			t.Errorf("%s: the last version is not at its path: %v", f.name, err)
		}
		info, err := os.Stat(f.path(s.src))
		if err != nil || !info.ModTime().Equal(f.last().modified) {
			t.Errorf("%s: the file's time is not the version's: %v", f.name, err)
		}
	}
}

func TestLedgerRefusesWhatWasNeverThere(t *testing.T) {
	s, _ := newScene(t, 0)
	files, err := s.ledger.add(1)
	if err != nil {
		t.Fatal(err)
	}
	f := files[0]
	if _, err := s.ledger.archive(f, f.last().sum, "p", time.Now()); err == nil || !strings.Contains(err.Error(), "before it was there") {
		t.Errorf("a version that was never placed is archived: %v", err)
	}
	if _, err := s.ledger.archive(f, [32]byte{1}, "p", time.Now()); err == nil || !strings.Contains(err.Error(), "no version") {
		t.Errorf("content that no version has is archived: %v", err)
	}
}

// TestJudge: which of three versions may be served, by what was done to them
// and how long ago, in seconds; 0: never.
func TestJudge(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ago := func(seconds int) time.Time {
		if seconds == 0 {
			return time.Time{}
		}
		return now.Add(-time.Duration(seconds) * time.Second)
	}
	type life struct{ placing, archived int }
	stale := int(staleAfter/time.Second) + 5
	for _, tc := range []struct {
		name        string
		lives       [3]life
		unconfirmed bool
		want        [3]right
	}{
		{"nothing is there yet", [3]life{}, false, [3]right{rightNever, rightNever, rightNever}},
		{"one is there", [3]life{{50, 0}, {}, {}}, false, [3]right{rightNow, rightNever, rightNever}},
		{"one is archived", [3]life{{50, 40}, {}, {}}, false, [3]right{rightNow, rightNever, rightNever}},
		{"changed, not yet archived again", [3]life{{50, 40}, {30, 0}, {}}, false, [3]right{rightNow, rightNow, rightNever}},
		{"archived again a moment ago", [3]life{{50, 40}, {30, 1}, {}}, false, [3]right{rightNow, rightNow, rightNever}},
		{"archived again long ago", [3]life{{50, 40}, {30, stale}, {}}, false, [3]right{rightOnce, rightNow, rightNever}},
		{"the answer said that it may be old", [3]life{{50, 40}, {30, stale}, {}}, true, [3]right{rightNow, rightNow, rightNever}},
		{"changed twice, never archived between", [3]life{{50, 40}, {30, 0}, {20, 0}}, false, [3]right{rightNow, rightNow, rightNow}},
		{"the last of three is archived", [3]life{{50, 40}, {35, 0}, {30, stale}}, false, [3]right{rightOnce, rightOnce, rightNow}},
		{"a version that comes during the read", [3]life{{50, 40}, {-1, 0}, {}}, false, [3]right{rightNow, rightNow, rightNever}},
		{"a version that comes after the read", [3]life{{50, 40}, {-9, 0}, {}}, false, [3]right{rightNow, rightNever, rightNever}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s state
			for i, l := range tc.lives {
				s.versions = append(s.versions, version{number: i + 1, placing: ago(l.placing), archived: ago(l.archived)})
			}
			for i, want := range tc.want {
				match := func(v *version) bool { return v.number == i+1 }
				if got := s.judge(match, now, now.Add(3*time.Second), tc.unconfirmed); got != want {
					t.Errorf("version %d: %d, want %d", i+1, got, want)
				}
			}
		})
	}
}
