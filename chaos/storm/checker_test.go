package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// rowOf is the row of a file's last version in a state.
func rowOf(f *file, state string) row {
	v := f.last()
	r := row{name: f.name, served: f.name, state: state, version: int64(v.number), size: v.size, modified: v.modified}
	if state == statePacked || state == stateDeleted {
		r.pack, r.sum = "p", v.sum
	}
	return r
}

func TestRowsAreHeldAgainstTheLedger(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(r *row) []row // what a second look finds of a row that was PACKED
		want map[breach]int
	}{
		{"as it was", func(r *row) []row { return []row{*r} }, nil},
		{"deleted", func(r *row) []row { r.state = stateDeleted; return []row{*r} }, nil},
		{"two rows", func(r *row) []row { return []row{*r, *r} }, map[breach]int{badRows: 1}},
		{"no row", func(*row) []row { return nil }, map[breach]int{badRows: 1}},
		{"a stranger's row", func(r *row) []row { return []row{*r, {name: "x", state: stateActive}} }, map[breach]int{badRows: 1}},
		{"an unknown state", func(r *row) []row { r.state = "LOST"; return []row{*r} }, map[breach]int{badRows: 1}},
		{"back to MARKED", func(r *row) []row { r.state = stateMarked; return []row{*r} }, map[breach]int{badRows: 1}},
		{"marked again without a change", func(r *row) []row { r.state, r.version = stateMarked, 2; return []row{*r} }, map[breach]int{badRows: 1}},
		{"the version falls", func(r *row) []row { r.version = 0; return []row{*r} }, map[breach]int{badRows: 1}},
		{"served under another name", func(r *row) []row { r.served = "x"; return []row{*r} }, map[breach]int{badRows: 1}},
		{"content of no version", func(r *row) []row { r.sum[0] ^= 1; return []row{*r} }, map[breach]int{badRows: 1}},
		{"another size than the packed version", func(r *row) []row { r.size++; return []row{*r} }, map[breach]int{badRows: 1}},
		{"another time than the packed version", func(r *row) []row { r.modified = r.modified.Add(time.Second); return []row{*r} }, map[breach]int{badRows: 1}},
		{"changed and ACTIVE", func(r *row) []row { r.state, r.size = stateActive, r.size+1; return []row{*r} }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newScene(t, 0)
			f := placedFile(t, s, 1)
			var w rowWatch
			first := rowOf(f, statePacked)
			w.take(s, []row{first}, time.Now())
			counts(t, s.verdict, nil)
			if len(w.archived) != 1 || w.archived[0].count != 1 || s.ledger.state(f).versions[0].pack != "p" {
				t.Fatalf("the ledger did not learn of the pack: %v", w.archived)
			}
			w.take(s, tc.do(&first), time.Now())
			counts(t, s.verdict, tc.want)
		})
	}
}

// TestStatesFollow: every pair of states without a change of the file, with the
// same archive_version and with a higher one.
func TestStatesFollow(t *testing.T) {
	states := []string{stateActive, stateMarked, statePacked, stateDeleted, stateFailed}
	same := map[string]string{ // legal with the same version, by first letters
		stateActive: "AF", stateMarked: "MPDF", statePacked: "PD", stateDeleted: "D", stateFailed: "AMPDF",
	}
	higher := map[string]string{stateActive: "AMPDF", stateFailed: "AMPDF"}
	for _, from := range states {
		for _, to := range states {
			for _, step := range []int64{0, 1} {
				legal := same[from]
				if step == 1 {
					legal = higher[from]
				}
				want := false
				for _, c := range legal {
					want = want || byte(c) == to[0]
				}
				why := illegal(row{state: from}, row{state: to, version: step}, true)
				if (why == "") != want {
					t.Errorf("%s to %s, version +%d: %q, legal: %t", from, to, step, why, want)
				}
			}
		}
	}
}

func verifiedAt(id string, at time.Time) []packInfo {
	var p packInfo
	_ = json.Unmarshal([]byte(fmt.Sprintf(`{"id": %q, "copies": [{"verified_at": %q}]}`, id, at.Format(time.RFC3339Nano))), &p) // as a node writes it
	return []packInfo{p}
}

func TestDeletionsAreHeldAgainstVerifications(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, s *scene, f *file, packs *packWatch) // before the original is gone
		then func(t *testing.T, s *scene, f *file, packs *packWatch) // after it was seen to be gone
		skew time.Duration
		want int // early deletions when all is told
	}{
		{name: "never archived", want: 1},
		{name: "archived, never verified", do: func(t *testing.T, s *scene, f *file, _ *packWatch) { archived(t, s, f, 1, "p", 0) }, want: 1},
		{name: "archived and verified", do: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			archived(t, s, f, 1, "p", 0)
			packs.take(s.verdict, verifiedAt("p", time.Now()), time.Now())
		}},
		{name: "another pack is verified", do: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			archived(t, s, f, 1, "p", 0)
			packs.take(s.verdict, verifiedAt("q", time.Now()), time.Now())
		}, want: 1},
		{name: "known to be archived only later", do: func(_ *testing.T, s *scene, _ *file, packs *packWatch) {
			packs.take(s.verdict, verifiedAt("p", time.Now()), time.Now())
		}, then: func(t *testing.T, s *scene, f *file, _ *packWatch) { archived(t, s, f, 1, "p", 0) }},
		{name: "verified before, told later", then: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			archived(t, s, f, 1, "p", 0)
			packs.take(s.verdict, verifiedAt("p", time.Now().Add(-time.Minute)), time.Now())
		}},
		{name: "verified only later", then: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			archived(t, s, f, 1, "p", 0)
			packs.take(s.verdict, verifiedAt("p", time.Now().Add(time.Minute)), time.Now())
		}, want: 1},
		{name: "verified by a clock that is ahead", skew: time.Hour, then: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			archived(t, s, f, 1, "p", 0)
			packs.take(s.verdict, verifiedAt("p", time.Now().Add(time.Minute)), time.Now())
		}},
		{name: "the version before is safe, this one is not", do: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			archived(t, s, f, 1, "p", 0)
			packs.take(s.verdict, verifiedAt("p", time.Now()), time.Now())
			next(t, s, f)
		}, want: 1},
		{name: "a newer version is safe", then: func(t *testing.T, s *scene, f *file, packs *packWatch) {
			next(t, s, f)
			archived(t, s, f, 2, "p", 0)
			packs.take(s.verdict, verifiedAt("p", time.Now().Add(-time.Minute)), time.Now())
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newScene(t, 0)
			s.skew = func() time.Duration { return tc.skew }
			f := placedFile(t, s, 1)
			var packs packWatch
			var w originalWatch
			look := func() {
				if err := w.find(s); err != nil {
					t.Fatal(err)
				}
				w.explain(s, &packs)
			}
			look()
			if tc.do != nil {
				tc.do(t, s, f, &packs)
			}
			if err := os.Remove(f.path(s.src)); err != nil {
				t.Fatal(err)
			}
			look()
			if tc.then != nil {
				tc.then(t, s, f, &packs)
			}
			look()
			w.giveUp(s)
			look() // nothing is told of twice
			w.giveUp(s)
			counts(t, s.verdict, map[breach]int{earlyDeletions: tc.want})
		})
	}
}

// next places one more version of a file.
func next(t *testing.T, s *scene, f *file) {
	t.Helper()
	if _, err := s.ledger.change([]*file{f}); err != nil {
		t.Fatal(err)
	}
	if err := s.ledger.place(f, s.src, s.incoming); err != nil {
		t.Fatal(err)
	}
}

func TestAnOriginalInQuarantineIsNotGone(t *testing.T) {
	s, _ := newScene(t, 0)
	f := placedFile(t, s, 1)
	path := f.path(s.src)
	if err := os.Rename(path, quarantinePath(path)); err != nil {
		t.Fatal(err)
	}
	var w originalWatch
	if err := w.find(s); err != nil || len(w.pending) != 0 {
		t.Errorf("%v is missing, %v", w.pending, err)
	}
	if err := findLeftovers(s, nil); err != nil {
		t.Fatal(err)
	}
	counts(t, s.verdict, map[breach]int{leftovers: 1})
}

func TestAnOriginalThatShouldBeGoneIsALeftover(t *testing.T) {
	s, _ := newScene(t, 0)
	gone, there := placedFile(t, s, 1), placedFile(t, s, 1)
	if err := os.Remove(gone.path(s.src)); err != nil {
		t.Fatal(err)
	}
	if err := findLeftovers(s, []row{rowOf(gone, stateDeleted), rowOf(there, statePacked)}); err != nil {
		t.Fatal(err)
	}
	counts(t, s.verdict, nil)
	if err := findLeftovers(s, []row{rowOf(there, stateDeleted)}); err != nil {
		t.Fatal(err)
	}
	counts(t, s.verdict, map[breach]int{leftovers: 1})
}

func TestDamageIsCountedOnce(t *testing.T) {
	s, _ := newScene(t, 0)
	var w packWatch
	packs := verifiedAt("p", time.Now())
	packs[0].Copies[0].Damage = "a flipped bit"
	w.take(s.verdict, packs, time.Now())
	w.take(s.verdict, packs, time.Now())
	if proven, known := w.proven("p", time.Now(), 0); proven || known {
		t.Error("a damaged pack is taken for verified")
	}
	counts(t, s.verdict, map[breach]int{badPacks: 1})
}

func TestObjectsThatNobodyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, doors := newScene(t, 2)
		for _, key := range []string{"cluster.json", "packs/1", "packs/2", "packs/3", "backups/1-1", "generations/1", "quarantine/x/packs/0"} {
			path := filepath.Join(s.objects, filepath.FromSlash(key))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		lists := func(packs string) func(*http.Request) (*http.Response, error) {
			return handled(func(w http.ResponseWriter, r *http.Request) {
				text := packs
				if r.URL.Path == "/cluster/status" {
					text = `{"uploads": [{"key": "packs/2"}]}`
				}
				_, _ = fmt.Fprint(w, text) // into memory
			})
		}
		c := newChecker(s, false)
		look := func(want int) {
			t.Helper()
			if err := c.lookAtObjects(t.Context()); err != nil {
				t.Fatal(err)
			}
			counts(t, s.verdict, map[breach]int{strangeObjects: want})
		}
		doors[1].setFit(time.Time{})
		doors[0].set(lists(`{"packs": [{"key": "packs/1"}]}`))
		look(1) // packs/3
		look(1) // it is told of once
		// A node that lags is asked again.
		doors[1].setFit(time.Now())
		doors[0].setFit(time.Time{})
		doors[1].set(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/cluster/status" {
				defer doors[1].set(lists(`{"packs": [{"key": "packs/1"}]}`))
			}
			return lists(`{"packs": []}`)(req)
		})
		look(1)
	})
}

func TestTheEndIsRead(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer script
		want   map[breach]int
	}{
		{"right", func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content(), strong(f.last()))
		}, nil},
		{"right at last", func(f *file) func(*http.Request) (*http.Response, error) {
			tries := 0
			return func(req *http.Request) (*http.Response, error) {
				if tries++; tries < patience {
					return closed(req)
				}
				return packed(0)(f)(req)
			}
		}, nil},
		{"404", always(problem(http.StatusNotFound, "not-found")), map[breach]int{lostFiles: 1}},
		{"503", always(problem(http.StatusServiceUnavailable, "unavailable")), map[breach]int{lostFiles: 1}},
		{"nobody", always(closed), map[breach]int{lostFiles: 1}},
		{"an older version", packed(1), map[breach]int{lostFiles: 1}},
		{"other bytes", always(serving([]byte("something else"), `"00"`)), map[breach]int{wrongBytes: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, doors := newScene(t, 2)
				f := placedFile(t, s, 2)
				doors[0].set(tc.answer(f))
				doors[1].set(serving(f.last().content(), strong(f.last())))
				if err := newChecker(s, false).readBack(t.Context()); err != nil {
					t.Fatal(err)
				}
				counts(t, s.verdict, tc.want)
				if doors[1].asked == 0 {
					t.Error("the second node was not asked")
				}
			})
		})
	}
}

func TestVerifyIsFollowedToItsEnd(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		want         int
		fails        bool
	}{
		{"all well", `{"pack":"p","ok":true}` + "\n" + `{"ok":true,"done":true}` + "\n", 0, false},
		{"one damaged", `{"pack":"p","ok":false,"damage":"x"}` + "\n" + `{"ok":false,"done":true}` + "\n", 2, false},
		{"ended early", `{"ok":false,"done":true,"error":{"code":"unavailable"}}` + "\n", 1, false},
		{"cut", `{"pack":"p","ok":true}` + "\n", 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 1)
			doors[0].set(handled(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, tc.answer) })) // into memory
			if err := newChecker(s, false).verify(t.Context()); (err != nil) != tc.fails {
				t.Errorf("%v, want an error: %t", err, tc.fails)
			}
			counts(t, s.verdict, map[breach]int{badPacks: tc.want})
		})
	}
}

func TestUnfinishedRows(t *testing.T) {
	s, _ := newScene(t, 0)
	f := placedFile(t, s, 2)
	old := rowOf(f, statePacked)
	old.sum = f.versions[0].sum
	ahead := rowOf(f, statePacked)
	ahead.packed = time.Now().Add(time.Hour)
	inFuture := rowOf(f, statePacked)
	inFuture.pack = "future"
	for _, tc := range []struct {
		name    string
		r       row
		deletes bool
		done    bool
	}{
		{"acknowledged by a clock that was ahead", ahead, true, true},
		{"packed by a clock that was ahead", inFuture, true, true},
		{"PACKED", rowOf(f, statePacked), false, true},
		{"PACKED where originals are deleted", rowOf(f, statePacked), true, false},
		{"DELETED_SOURCE", rowOf(f, stateDeleted), true, true},
		{"MARKED", rowOf(f, stateMarked), false, false},
		{"FAILED", rowOf(f, stateFailed), false, false},
		{"PACKED with the older version", old, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChecker(s, tc.deletes)
			c.packs.take(s.verdict, []packInfo{{ID: "future", Created: time.Now().Add(time.Hour)}, {ID: "p", Created: time.Now().Add(-time.Hour)}}, time.Now())
			if why := c.unfinished(tc.r); (why == "") != tc.done {
				t.Errorf("%q, done: %t", why, tc.done)
			}
		})
	}
}
