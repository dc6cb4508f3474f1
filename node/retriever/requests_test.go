package retriever

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// Reads cost two requests cold, one with the index in memory, none with the
// record in memory.
func TestRequestsOfAReadThatOnePackCovers(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "b", seq: 1, content: "B"}))
	r := w.retriever()
	for _, step := range []struct {
		name, file, content string
		requests            int64
	}{
		{"cold", "a", "A", 2},
		{"hot", "a", "A", 0},
		{"index in memory", "b", "B", 1},
		{"hot again", "b", "B", 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			if n := w.gets(func() { wantRead(t, r, step.file, step.content) }); n != step.requests {
				t.Errorf("%d requests, want %d", n, step.requests)
			}
		})
	}
	if n := w.manifest.confirmed() + w.rows.questions(); n != 0 {
		t.Errorf("hits asked the quorum or a source %d times", n)
	}
}

func TestAHundredConcurrentMissesMakeOneRequest(t *testing.T) {
	for _, c := range []struct {
		name     string
		want     Want
		warm     string // read before, so that the index is in memory
		requests int64
	}{
		{"of an index and a record", WantWhole, "", 2},
		{"of a record", WantWhole, "other", 1},
		{"of a part of a small record", WantPart, "other", 1},
		{"of a header", WantHeader, "other", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "other", seq: 1, content: "O"}))
				r := w.retriever()
				if c.warm != "" {
					wantRead(t, r, c.warm, "O")
				}
				// Each request is held until every reader waits for it.
				release := make(chan struct{})
				w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
					<-release
					return storetest.Fault{}
				})
				n := w.gets(func() {
					var readers sync.WaitGroup
					for range 100 {
						readers.Go(func() {
							f, err := r.Open(t.Context(), "a", Query{Want: c.want})
							if err != nil {
								t.Error(err)
								return
							}
							defer f.Close()
							if f.Record.Header.Name != "a" || f.Size() != 1 {
								t.Errorf("got record %q of %d bytes", f.Record.Header.Name, f.Size())
							}
							if b, whole := f.Content(); whole != (c.want != WantHeader) || whole && string(b) != "A" {
								t.Errorf("content %q, whole %v", b, whole)
							}
						})
					}
					for range c.requests {
						synctest.Wait()
						release <- struct{}{}
					}
					readers.Wait()
				})
				if n != c.requests {
					t.Errorf("%d requests, want %d", n, c.requests)
				}
			})
		})
	}
}

// With N packs to probe a cold read takes N+1 requests, and the N are under way
// at once.
func TestIndexesAreProbedInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const packs = 4
		w := newWorld(t)
		// The name stands in the oldest pack, so every index has to be probed.
		list := []*raftmeta.Pack{w.pack(version{name: "a", seq: 1, content: "A"})}
		for i := range packs - 1 {
			list = append(list, w.pack(version{name: fmt.Sprint("other", i), seq: uint64(i + 2), content: "O"}))
		}
		w.manifest.set(list...)
		r := w.retriever()
		indexes, release := make(chan struct{}, packs), make(chan struct{})
		w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
			indexes <- struct{}{}
			<-release
			return storetest.Fault{}
		})
		n := w.gets(func() {
			var reader sync.WaitGroup
			reader.Go(func() { wantRead(t, r, "a", "A") })
			synctest.Wait()
			if len(indexes) != packs {
				t.Errorf("%d requests under way at once, want %d", len(indexes), packs)
			}
			for range packs {
				<-indexes
			}
			close(release)
			reader.Wait()
		})
		if n != packs+1 {
			t.Errorf("%d requests, want %d indexes and 1 record", n, packs)
		}
	})
}

func TestNoMoreIndexesAreLoadedAtOnceThanConfigured(t *testing.T) {
	w := newWorld(t)
	list := []*raftmeta.Pack{w.pack(version{name: "a", seq: 9, content: "A"})}
	for i := range 5 {
		list = append(list, w.pack(version{name: "other", seq: uint64(i + 1), content: "O"}))
	}
	w.manifest.set(list...)
	r := w.retriever(func(c *Config) { c.ParallelIndexes = 2 })
	if n := w.gets(func() { wantRead(t, r, "a", "A") }); n != 3 {
		t.Errorf("%d requests for a hit in the newest of 6 packs, want its index, one ahead, and the record", n)
	}
}

func TestAFalseCandidateCostsItsHeaderOnly(t *testing.T) {
	const size = 500_000
	name := "a"
	other := colliding(name)
	for _, c := range []struct {
		name string
		size int
		want Want
	}{
		{"small record, whole wanted", size, WantWhole},
		{"large record, whole wanted", 4 * size, WantWhole},
		{"small record, header wanted", size, WantHeader},
		{"large record, header wanted", 4 * size, WantHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			old := w.pack(version{name: name, seq: 1, content: "A"})
			young := w.pack(version{name: other, seq: 2, content: long("o", c.size)})
			w.manifest.set(old, young)
			r := w.retriever()
			if err := r.Prewarm(t.Context(), 1<<20); err != nil {
				t.Fatal(err)
			}
			before := w.store.Counts()
			f, err := r.Open(t.Context(), name, Query{Want: c.want})
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if f.Record.Header.Name != name {
				t.Fatalf("got record %q", f.Record.Header.Name)
			}
			spent := w.store.Counts().Sub(before)
			if spent.Get != 2 || spent.BytesGot > 2*4096 {
				t.Errorf("%d requests and %d bytes, want 2 and a few KiB", spent.Get, spent.BytesGot)
			}
			if s := r.Stats(); s.FalseCandidates != 1 {
				t.Errorf("%d false candidates counted, want 1", s.FalseCandidates)
			}
			// What was learned of the candidate is kept, and does not stand in its
			// own way.
			if n := w.gets(func() { wantRead(t, r, other, long("o", c.size)) }); n != 1 {
				t.Errorf("%d requests for the candidate's own content, want 1", n)
			}
		})
	}
}

// Who joins the read of a false candidate still gets the content when the
// record is the one that it asked for.
func TestAReadThatJoinsOneOfAnotherNameGetsItsContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		name := "a"
		other := colliding(name)
		w.manifest.set(w.pack(version{name: other, seq: 1, content: "O"}))
		r := w.retriever()
		if err := r.Prewarm(t.Context(), 1<<20); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
			<-release
			return storetest.Fault{}
		})
		var readers sync.WaitGroup
		readers.Go(func() { wantError(t, r, name, ErrNotFound) })
		synctest.Wait()
		readers.Go(func() {
			f, err := r.Open(t.Context(), other, Query{})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if b, whole := f.Content(); !whole || string(b) != "O" {
				t.Errorf("content %q, whole %v", b, whole)
			}
		})
		synctest.Wait()
		close(release)
		readers.Wait()
	})
}

func TestARangeOfALargeRecordWithKnownHeaderIsOneRequest(t *testing.T) {
	w := newWorld(t)
	content := long("large", 5<<20)
	w.manifest.set(w.pack(version{name: "large", seq: 1, content: content}))
	r := w.retriever()
	open := func(off, n int64) (requests, bytes int64) {
		t.Helper()
		before := w.store.Counts()
		f, err := r.Open(t.Context(), "large", Query{Want: WantPart})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := part(t.Context(), &f, off, n)
		if err != nil || got != content[off:off+n] {
			t.Fatalf("%d bytes from %d: %v, or wrong bytes", n, off, err)
		}
		spent := w.store.Counts().Sub(before)
		return spent.Get, spent.BytesGot
	}
	if n, _ := open(100, 50); n != 3 {
		t.Errorf("cold: %d requests, want index, header, chunks", n)
	}
	for _, c := range []struct{ off, n, chunks int64 }{
		{0, 1, 1}, {1 << 20, 1 << 20, 1}, {1<<20 - 1, 2, 2}, {5<<20 - 1, 1, 1}, {0, 5 << 20, 5}, {3 << 20, 2 << 20, 2},
	} {
		n, bytes := open(c.off, c.n)
		if n != 1 {
			t.Errorf("%d bytes from %d: %d requests, want 1", c.n, c.off, n)
		}
		if most := c.chunks * (1<<20 + 64); bytes > most {
			t.Errorf("%d bytes from %d: %d bytes from the store, want at most %d", c.n, c.off, bytes, most)
		}
	}
}

func TestALargeRecordWantedWholeTakesTwoRequestsCold(t *testing.T) {
	w := newWorld(t)
	content := long("large", 3<<20+17)
	w.manifest.set(w.pack(version{name: "large", seq: 1, content: content}))
	r := w.retriever()
	for _, want := range []int64{2, 1} { // nothing of so much content is kept
		if n := w.gets(func() { wantRead(t, r, "large", content) }); n != want {
			t.Errorf("%d requests, want %d", n, want)
		}
	}
	if s := r.Stats(); s.DataBytes > 64<<10 {
		t.Errorf("%d bytes cached of a record that is too large to keep", s.DataBytes)
	}
}

func TestAHeaderIsReadWithoutItsPayload(t *testing.T) {
	for _, size := range []int{0, 1, 100_000, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t)
			content := long("x", size)
			w.manifest.set(w.pack(version{name: "x", seq: 1, content: content}))
			r := w.retriever()
			head := func() (int64, int64) {
				before := w.store.Counts()
				f, err := r.Open(t.Context(), "x", Query{Want: WantHeader})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if f.Size() != int64(size) {
					t.Errorf("size %d, want %d", f.Size(), size)
				}
				spent := w.store.Counts().Sub(before)
				return spent.Get, spent.BytesGot
			}
			if n, bytes := head(); n != 2 || bytes > 4096+1024 {
				t.Errorf("cold: %d requests and %d bytes, want 2 and at most 4 KiB beside the index", n, bytes)
			}
			if n, _ := head(); n != 0 {
				t.Errorf("hot: %d requests, want 0", n)
			}
			if n := w.gets(func() { wantRead(t, r, "x", content) }); n != 1 {
				t.Errorf("content behind a known header: %d requests, want 1", n)
			}
		})
	}
}

// Find decides about many names: it leaves nothing behind but indexes.
func TestFindReadsHeadersAndCachesNone(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "a", seq: 3, content: long("a", 100_000), id: "4711"}, version{name: "gone", seq: 3, kind: desformat.TypeTombstone})
	w.manifest.set(p)
	r := w.retriever()
	found, err := r.Find(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	h := found.Header
	if found.Pack != p.ID || h.Source != "files" || h.ID != "4711" || h.Size != 100_000 || h.Version != 1 || !h.ModTime.Equal(epoch) || h.Seq != token(3) {
		t.Errorf("found %+v", found)
	}
	if s := r.Stats(); s.Records != 0 || s.Indexes != 1 {
		t.Errorf("%d records and %d indexes cached, want 0 and 1", s.Records, s.Indexes)
	}
	for _, name := range []string{"gone", "never"} {
		_, err := r.Find(t.Context(), name)
		wantOnly(t, err, ErrNotFound)
	}
	if n := w.manifest.confirmed() + w.rows.questions(); n != 0 {
		t.Errorf("Find asked the quorum or a source %d times", n)
	}
	w.store.SetHook(failing)
	_, err = r.Find(t.Context(), "a")
	wantOnly(t, err, ErrUnavailable)
}

func TestPiecesOfASmallRecordComeFromMemory(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "0123456789"}))
	r := w.retriever()
	f, err := r.Open(t.Context(), "a", Query{Want: WantPart})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, whole := f.Content(); !whole || string(b) != "0123456789" {
		t.Fatalf("content %q, whole %v", b, whole)
	}
}
