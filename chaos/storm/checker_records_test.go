package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
)

func TestRecordsAreWeighed(t *testing.T) {
	type deads map[string][]uint32
	for _, tc := range []struct {
		name  string
		homes [3]string // the pack that a row named, of two versions of one file and one of another
		p, q  []int     // which of the three each pack lists; 3 is a stranger's record, 4 a tombstone of the first file
		dead  deads
		more  int // records that the manifest counts beyond those of p
		want  map[breach]int
	}{
		{name: "each once", homes: [3]string{"p", "q", "q"}, p: []int{0}, q: []int{1, 2}},
		{name: "one twice, once dead", homes: [3]string{"p", "q", "q"}, p: []int{0}, q: []int{0, 1, 2}, dead: deads{"q": {0}}},
		{name: "one twice", homes: [3]string{"p", "q", "q"}, p: []int{0}, q: []int{0, 1, 2}, want: map[breach]int{doublePacks: 1}},
		{name: "one twice, and another dead", homes: [3]string{"p", "q", ""}, p: []int{0}, q: []int{0, 1, 2}, dead: deads{"q": {2}}, want: map[breach]int{doublePacks: 1}},
		{name: "one twice, dead at home", homes: [3]string{"p", "q", "q"}, p: []int{0}, q: []int{0, 1, 2}, dead: deads{"p": {0}}, want: map[breach]int{strangeRecords: 1}},
		{name: "one twice in one pack", homes: [3]string{"p", "q", "q"}, p: []int{0, 0}, q: []int{1, 2}, want: map[breach]int{doublePacks: 1}},
		{name: "never acknowledged, twice dead", homes: [3]string{"", "q", "q"}, p: []int{0}, q: []int{0, 1, 2}, dead: deads{"p": {0}, "q": {0}}},
		{name: "never acknowledged, twice", homes: [3]string{"", "q", "q"}, p: []int{0}, q: []int{0, 1, 2}, want: map[breach]int{doublePacks: 1}},
		{name: "a row names a pack without it", homes: [3]string{"q", "q", "q"}, p: []int{0}, q: []int{1, 2}, want: map[breach]int{strangeRecords: 1}},
		{name: "a stranger's record", homes: [3]string{"p", "q", "q"}, p: []int{0}, q: []int{1, 2, 3}, dead: deads{"q": {2}}, want: map[breach]int{strangeRecords: 1}},
		{name: "a tombstone that nobody asked for", homes: [3]string{"p", "q", "q"}, p: []int{0, 4}, q: []int{1, 2}, want: map[breach]int{strangeRecords: 1}},
		{name: "the manifest counts more", homes: [3]string{"p", "q", "q"}, p: []int{0}, q: []int{1, 2}, more: 1, want: map[breach]int{strangeRecords: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := newScene(t, 0)
			f, g := placedFile(t, s, 2), placedFile(t, s, 1)
			of := func(f *file, number int) record {
				return record{Type: "file", Name: f.name, SHA256: hex.EncodeToString(f.versions[number-1].sum[:])}
			}
			all := []record{of(f, 1), of(f, 2), of(g, 1), of(g, 1), of(f, 1)}
			all[3].Name, all[4].Type = "x", "tombstone"
			for i, home := range tc.homes {
				if home != "" {
					archived(t, s, []*file{f, f, g}[i], []int{1, 2, 1}[i], home, 0)
				}
			}
			listed, dead := map[string][]record{}, deadRecords{}
			packs := []packInfo{{ID: "p", Records: tc.more}, {ID: "q"}}
			for i, which := range [][]int{tc.p, tc.q} {
				id := packs[i].ID
				for _, n := range which {
					r := all[n]
					r.Ordinal = uint32(len(listed[id]))
					listed[id] = append(listed[id], r)
				}
				packs[i].Records += len(which)
				dead[id] = map[uint32]bool{}
				for _, n := range tc.dead[id] {
					dead[id][n] = true
				}
			}
			weigh(s, packs, listed, dead)
			counts(t, s.verdict, tc.want)
		})
	}
}

func TestOrdinals(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []uint32 // nil: refused
	}{
		{"none", "", []uint32{}},
		{"a run and one more", "AAEDAA==", []uint32{0, 1, 5}},
		{"the last one", "CQA=", []uint32{9}},
		{"one beyond", "CgA=", nil},
		{"a run beyond", "CQE=", nil},
		{"a varint that is cut", "AIA=", nil},
		{"a gap alone", "AA==", nil},
		{"a gap that wraps around", "////////////AQA=", nil},
		{"no base64", "?", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ordinals(tc.text, 10)
			if (err == nil) != (tc.want != nil) || err != nil && !errors.Is(err, errBadBackup) {
				t.Fatalf("%v, %v", got, err)
			}
			if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, tc.want) {
				t.Errorf("%v, want %v", keys, tc.want)
			}
		})
	}
}

func TestBackupIsHeldAgainstTheManifest(t *testing.T) {
	const (
		magic = "desnode-raftmeta 1\n"
		one   = `{"kind":"setting","body":{"key":"x"}}` + "\n" + `{"kind":"pack","body":{"pack":{"id":"p","records":7},"dead":"AAEDAA=="}}` + "\n"
		end   = `{"kind":"end","body":{"lines":3}}` + "\n"
	)
	for _, tc := range []struct {
		name, text string
		manifest   []packInfo
		want       int
	}{
		{"the same", magic + one + end, []packInfo{{ID: "p", Records: 7, Dead: 3}}, 0},
		{"a pack is missing", magic + one + end, []packInfo{{ID: "p", Records: 7, Dead: 3}, {ID: "q"}}, 1},
		{"other records", magic + one + end, []packInfo{{ID: "p", Records: 8, Dead: 3}}, 1},
		{"fewer dead", magic + one + end, []packInfo{{ID: "p", Records: 7, Dead: 2}}, 1},
		{"cut", magic + one, []packInfo{{ID: "p", Records: 7, Dead: 3}}, 1},
		{"another version", strings.Replace(magic, "1", "2", 1) + one + end, nil, 1},
		{"no JSON", magic + "x", nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 1)
			w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			object := w.EncodeAll([]byte(tc.text), nil)
			if err := errors.Join(w.Close(), os.MkdirAll(s.objects, 0o700), os.WriteFile(filepath.Join(s.objects, "b"), object, 0o600)); err != nil {
				t.Fatal(err)
			}
			doors[0].set(handled(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"key": "b"}`) })) // into memory
			dead, err := newChecker(s, false).backedUp(t.Context(), tc.manifest)
			if err != nil {
				t.Fatal(err)
			}
			counts(t, s.verdict, map[breach]int{badBackups: tc.want})
			if tc.want == 0 && !dead["p"][5] {
				t.Errorf("dead: %v", dead)
			}
		})
	}
}

func TestNoBackupIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, doors := newScene(t, 1)
		doors[0].set(problem(http.StatusServiceUnavailable, "unavailable"))
		if dead, err := newChecker(s, false).backedUp(t.Context(), nil); dead != nil || err != nil {
			t.Errorf("%v, %v", dead, err)
		}
		counts(t, s.verdict, map[breach]int{badBackups: 1})
		if doors[0].asked != patience {
			t.Errorf("it was tried %d times, want %d", doors[0].asked, patience)
		}
	})
}
