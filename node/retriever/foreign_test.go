package retriever

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
)

// answerOf is what a node that has applied index answers of a version, as the
// first record of a pack.
func answerOf(v version, pack desformat.PackID, applied uint64) *Answer {
	r := v.record()
	r.Size, r.SHA256 = int64(len(v.content)), desformat.HashName(v.content)
	return &Answer{Applied: applied, Pack: pack, Header: &desformat.Header{Record: r}, Content: []byte(v.content)}
}

// answered opens a name by an answer, and fails when that is not asked for.
func answered(t *testing.T, r *Retriever, name string, want Want, a *Answer) File {
	t.Helper()
	k, err := KeyOf(name)
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	f, err := r.OpenForeign(t.Context(), k, want, func(context.Context) (*Answer, error) {
		asked = true
		return a, nil
	})
	if err != nil || !asked {
		t.Fatalf("open: %v, asked: %v", err, asked)
	}
	return f
}

// kept returns the content of the foreign record of a name; false: none is kept.
func kept(t *testing.T, r *Retriever, name string, want Want) (string, bool) {
	t.Helper()
	k, err := KeyOf(name)
	if err != nil {
		t.Fatal(err)
	}
	f, s := r.Kept(k, want)
	if !s.Kept {
		return "", false
	}
	defer f.Close()
	b, _ := f.Content()
	return string(b), true
}

func TestForeignRecordsShareTheDataCachesCap(t *testing.T) {
	w := newWorld(t)
	const room = 64 << 10
	r := w.retriever(func(c *Config) { c.DataBytes = room })
	for i := range 100 {
		name := fmt.Sprint("f", i)
		f := answered(t, r, name, WantWhole, answerOf(version{name: name, seq: 1, content: long(name, 4096)}, desformat.PackID{1}, 9))
		f.Close()
		if got := r.Stats().DataBytes; got > room {
			t.Fatalf("%d bytes in the data cache after %d records, its cap is %d", got, i+1, room)
		}
	}
	if got := r.Stats().Records; got == 0 || got > room/4096 {
		t.Errorf("%d records are kept", got)
	}
}

// Both are kept: neither hides the other.
func TestForeignRecordsDoNotMeetThoseOfOwnPacks(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "x", seq: 1, content: "own"})
	p.AddIndex, p.ModIndex = 1, 1
	w.manifest.set(p)
	r := w.retriever()
	wantRead(t, r, "x", "own")
	if _, ok := kept(t, r, "x", WantWhole); ok {
		t.Error("a record of an own pack passes for a foreign one")
	}
	f := answered(t, r, "x", WantWhole, answerOf(version{name: "x", seq: 2, content: "foreign"}, desformat.PackID{9}, 5))
	f.Close()
	if got, ok := kept(t, r, "x", WantWhole); !ok || got != "foreign" {
		t.Errorf("kept: %q, %v", got, ok)
	}
	if got := w.gets(func() { wantRead(t, r, "x", "own") }); got != 0 {
		t.Errorf("the own record was let go: %d requests", got)
	}
}

func TestMoreOfTheNewestIsKept(t *testing.T) {
	pack := desformat.PackID{1}
	whole := func(seq uint64) *Answer {
		return answerOf(version{name: "x", seq: seq, content: fmt.Sprint(seq)}, pack, 5)
	}
	header := func(seq uint64) *Answer {
		a := whole(seq)
		a.Content = nil
		return a
	}
	for _, test := range []struct {
		name          string
		first, second *Answer
		want          string
	}{
		{"the same again", whole(2), whole(2), "2"},
		{"a newer version", whole(1), whole(2), "2"},
		{"an older version that comes late", whole(2), whole(1), "2"},
		{"the header of what is kept", whole(2), header(2), "2"},
		{"the content of a header", header(2), whole(2), "2"},
		{"an older header", whole(2), header(1), "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newWorld(t).retriever()
			k, err := KeyOf("x")
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range []*Answer{test.first, test.second} {
				rec, err := a.record(k)
				if err != nil {
					t.Fatal(err)
				}
				r.records.putForeign(foreignKey(k.Hash), rec)
			}
			if got, ok := kept(t, r, "x", WantWhole); !ok || got != test.want {
				t.Errorf("kept: %q, %v", got, ok)
			}
		})
	}
}

func TestHeaderAloneServesNoContent(t *testing.T) {
	r := newWorld(t).retriever()
	a := answerOf(version{name: "x", seq: 1, content: "hello"}, desformat.PackID{1}, 5)
	a.Content = nil
	f := answered(t, r, "x", WantHeader, a)
	f.Close()
	if _, ok := kept(t, r, "x", WantHeader); !ok {
		t.Error("the header is not kept")
	}
	for _, want := range []Want{WantWhole, WantPart} {
		if _, ok := kept(t, r, "x", want); ok {
			t.Error("a header passes for a file")
		}
	}
}

// Foreign records leave with their packs, unless those are yet to come.
func TestForeignRecordsLeaveWithTheirPacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.pack(version{name: "of p", seq: 1, content: "1"})
		q := w.pack(version{name: "of q", seq: 2, content: "2"})
		p.AddIndex, q.AddIndex, q.ModIndex = 1, 2, 2
		w.manifest.set(p, q)
		r := w.retriever()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		for _, a := range []*Answer{
			answerOf(version{name: "of p", seq: 1, content: "1"}, p.ID, 2),
			answerOf(version{name: "of q", seq: 2, content: "2"}, q.ID, 2),
			answerOf(version{name: "ahead", seq: 3, content: "3"}, desformat.PackID{7}, 9),
		} {
			f := answered(t, r, a.Header.Name, WantWhole, a)
			f.Close()
		}
		time.Sleep(time.Second)
		before := r.Stats().Records
		w.manifest.set(q)
		time.Sleep(time.Second)
		if got := before - r.Stats().Records; got != 1 {
			t.Errorf("%d records were let go, want that of the pack that left", got)
		}
		for name, want := range map[string]bool{"of p": false, "of q": true, "ahead": true} {
			if _, ok := kept(t, r, name, WantWhole); ok != want {
				t.Errorf("%s: kept %v, want %v", name, ok, want)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestOpenPackedLooksInThisNodesPacksOnly(t *testing.T) {
	w := newWorld(t)
	p := w.pack(
		version{name: "x", seq: 3, content: "hello"}, version{name: "big", seq: 3, content: long("big", 2<<20)},
		version{name: "gone", seq: 3, kind: desformat.TypeTombstone},
	)
	p.AddIndex, p.ModIndex = 4, 6
	w.manifest.set(p)
	w.rows.set(row("unpacked", source.Active))
	r := w.retriever()
	for _, test := range []struct {
		name     string
		file     string
		minIndex uint64
		err      error
	}{
		{"a file", "x", 0, nil},
		{"a large file", "big", 0, nil},
		{"at the index that is there", "x", 6, nil},
		{"at an index that is not", "x", 7, ErrBehind},
		{"a tombstone", "gone", 0, ErrGone},
		{"no record", "unpacked", 0, ErrNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, err := KeyOf(test.file)
			if err != nil {
				t.Fatal(err)
			}
			f, applied, err := r.OpenPacked(t.Context(), k, WantPart, test.minIndex)
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if applied != 6 {
				t.Errorf("at index %d, want 6", applied)
			}
			if err != nil {
				return
			}
			defer f.Close()
			if _, whole := f.Content(); whole != (test.file == "x") {
				t.Errorf("content in memory: %v", whole)
			}
		})
	}
	if w.manifest.confirmed() != 0 || w.rows.questions() != 0 {
		t.Errorf("%d confirmations and %d questions to the source", w.manifest.confirmed(), w.rows.questions())
	}
}

// An object that is not there is looked for once more where the manifest has
// moved on, and is unavailable where it has not: never missing.
func TestOpenPackedOfAMissingObject(t *testing.T) {
	for _, merged := range []bool{true, false} {
		w := newWorld(t)
		old, now := w.pack(version{name: "x", seq: 1, content: "hello"}), w.pack(version{name: "x", seq: 1, content: "hello"})
		old.AddIndex, now.AddIndex = 1, 2
		w.manifest.set(old)
		r := w.retriever()
		w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
			if c.Key != old.Copies[0].Key {
				return storetest.Fault{}
			}
			if merged {
				w.manifest.set(now)
			}
			return storetest.Fault{Err: store.ErrNotFound}
		})
		k, err := KeyOf("x")
		if err != nil {
			t.Fatal(err)
		}
		f, applied, err := r.OpenPacked(t.Context(), k, WantWhole, 0)
		switch {
		case merged && (err != nil || applied != 2):
			t.Errorf("merged meanwhile: %v at index %d", err, applied)
		case !merged && !errors.Is(err, ErrUnavailable):
			t.Errorf("lost: %v", err)
		}
		f.Close()
	}
}
