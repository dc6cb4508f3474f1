package retriever

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// checkCaps fails unless both caches keep to their caps, by what they say and
// by what is in them.
func checkCaps(tb failer, r *Retriever) {
	tb.Helper()
	s := r.Stats()
	var data, index int64
	for _, rec := range r.records.cache.All() {
		data += rec.cost()
		if rec.cost() < int64(cap(rec.content)) {
			tb.Fatalf("a record with %d bytes of content is counted as %d", cap(rec.content), rec.cost())
		}
	}
	for _, x := range r.indexes.cache.All() {
		index += x.Bytes()
	}
	if s.DataBytes > s.DataCap || data > s.DataCap {
		tb.Fatalf("data cache: %d bytes counted, %d found, cap %d", s.DataBytes, data, s.DataCap)
	}
	if s.IndexBytes > s.IndexCap || index > s.IndexCap {
		tb.Fatalf("index cache: %d bytes counted, %d found, cap %d", s.IndexBytes, index, s.IndexCap)
	}
}

// shelf is a world of several packs with files of many sizes.
func shelf(tb testing.TB, packs, files int) (w *world, names []string) {
	w = newWorld(tb)
	var list []*raftmeta.Pack
	for p := range packs {
		var versions []version
		for f := range files {
			name := fmt.Sprintf("pack%d/file%d", p, f)
			names = append(names, name)
			versions = append(versions, version{name: name, seq: uint64(p + 1), content: long(name, 1+f*f*f*40)})
		}
		list = append(list, w.pack(versions...))
	}
	w.manifest.set(list...)
	return w, names
}

func TestCachesKeepTheirCaps(t *testing.T) {
	w, names := shelf(t, 6, 12)
	rapid.Check(t, func(rt *rapid.T) {
		r := w.retriever(func(c *Config) {
			c.DataBytes = rapid.Int64Range(1, 400_000).Draw(rt, "data cap")
			c.IndexBytes = rapid.Int64Range(1, 4_000).Draw(rt, "index cap")
			c.ParallelIndexes = rapid.IntRange(1, 6).Draw(rt, "parallel")
		})
		for range rapid.IntRange(1, 40).Draw(rt, "reads") {
			name := rapid.SampledFrom(names).Draw(rt, "name")
			want := rapid.SampledFrom([]Want{WantWhole, WantPart, WantHeader}).Draw(rt, "want")
			f, err := r.Open(rt.Context(), name, Query{Want: want})
			if err != nil {
				rt.Fatalf("open %s: %v", name, err)
			}
			if f.Record.Header.Name != name {
				rt.Fatalf("opened %s, got %s", name, f.Record.Header.Name)
			}
			f.Close()
			checkCaps(rt, r)
		}
		if err := r.Prewarm(rt.Context(), 1<<40); err != nil {
			rt.Fatalf("prewarm: %v", err)
		}
		checkCaps(rt, r)
	})
}

func TestCachesKeepTheirCapsUnderConcurrentReads(t *testing.T) {
	w, names := shelf(t, 6, 12)
	r := w.retriever(func(c *Config) { c.DataBytes, c.IndexBytes = 200_000, 3_000 })
	var readers sync.WaitGroup
	for worker := range 8 {
		readers.Go(func() {
			for i := range 300 {
				name := names[(i*(worker+3)+worker)%len(names)]
				f, err := r.Open(t.Context(), name, Query{Want: Want(i % 3)})
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := contentOf(t.Context(), &f); err != nil || got != long(name, len(got)) || int64(len(got)) != f.Size() {
					t.Errorf("%s: %d bytes, %v, or wrong bytes", name, len(got), err)
				}
				f.Close()
			}
		})
	}
	readers.Wait()
	checkCaps(t, r)
}

func TestWhatFitsStaysInMemory(t *testing.T) {
	w, names := shelf(t, 3, 10)
	r := w.retriever()
	for _, name := range names {
		if _, err := read(t.Context(), r, name); err != nil {
			t.Fatal(err)
		}
	}
	n := w.gets(func() {
		for _, name := range names {
			if _, err := read(t.Context(), r, name); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%d requests for %d records that all fit into the caches", n, len(names))
	}
}

func TestPrewarmLoadsTheNewestIndexesWithinItsBudget(t *testing.T) {
	w, _ := shelf(t, 5, 8)
	view, _ := w.manifest.View().(fakeView)
	cost := func(packs ...*raftmeta.Pack) (n int64) {
		for _, p := range packs {
			n += indexCost(p)
		}
		return n
	}
	newestFirst := slices.Clone(view)
	slices.Reverse(newestFirst)
	for n := range len(view) + 1 {
		t.Run(fmt.Sprint(n, " fit"), func(t *testing.T) {
			r := w.retriever()
			budget := cost(newestFirst[:n]...)
			requests := w.gets(func() {
				if err := r.Prewarm(t.Context(), budget); err != nil {
					t.Fatal(err)
				}
			})
			if requests != int64(n) {
				t.Errorf("%d requests, want one an index that fits", requests)
			}
			if s := r.Stats(); s.IndexBytes > budget {
				t.Errorf("%d bytes loaded, budget %d", s.IndexBytes, budget)
			}
			for i, p := range newestFirst {
				if _, loaded := r.indexes.cache.GetEntryQuietly(p.ID); loaded != (i < n) {
					t.Errorf("index of the pack %d from the newest loaded: %v", i, loaded)
				}
			}
			again := w.gets(func() {
				if err := r.Prewarm(t.Context(), budget); err != nil {
					t.Fatal(err)
				}
			})
			if again != 0 {
				t.Errorf("%d requests for what is loaded", again)
			}
		})
	}
	t.Run("budget beyond the cap", func(t *testing.T) {
		r := w.retriever(func(c *Config) { c.IndexBytes = cost(newestFirst[:2]...) })
		if n := w.gets(func() {
			if err := r.Prewarm(t.Context(), 1<<40); err != nil {
				t.Fatal(err)
			}
		}); n != 2 {
			t.Errorf("%d indexes loaded into a cache for 2", n)
		}
	})
}

func TestPrewarmGoesOnBehindAnIndexThatFails(t *testing.T) {
	w, _ := shelf(t, 4, 3)
	view, _ := w.manifest.View().(fakeView)
	bad := view[2]
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Key == bad.Copies[0].Key {
			return storetest.Fault{Err: errInjected}
		}
		return storetest.Fault{}
	})
	r := w.retriever()
	err := r.Prewarm(t.Context(), 1<<20)
	wantOnly(t, err, ErrUnavailable)
	if s := r.Stats(); s.Indexes != 3 {
		t.Errorf("%d indexes loaded, want 3", s.Indexes)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.retriever().Prewarm(cancelled, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// running runs r until the test's bubble ends.
func running(t *testing.T, r *Retriever) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
}

func TestRunFollowsTheManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first, second := w.pack(version{name: "a", seq: 1, content: "A"}), w.pack(version{name: "b", seq: 2, content: "B"})
		w.manifest.set(first)
		r := w.retriever()
		running(t, r)
		if n := w.gets(func() { wantRead(t, r, "a", "A") }); n != 1 {
			t.Errorf("%d requests once started, want 1: the index is loaded at start", n)
		}
		wait := func() {
			time.Sleep(2 * settleTime) // virtual
			synctest.Wait()
		}
		w.manifest.set(first, second)
		wait()
		if n := w.gets(func() { wantRead(t, r, "b", "B") }); n != 1 {
			t.Errorf("%d requests for a file of a new pack, want 1: its index is loaded ahead", n)
		}

		replaced := *first
		replaced.ReplacedBy = second.ID
		w.manifest.set(&replaced, second)
		wait()
		if s := r.Stats(); s.Indexes != 1 || s.Records != 1 {
			t.Errorf("%d indexes and %d records in memory, want those of the pack that stayed", s.Indexes, s.Records)
		}
		if n := w.gets(func() { wantRead(t, r, "b", "B") }); n != 0 {
			t.Errorf("%d requests for a record of the pack that stayed", n)
		}

		// A read of an older view brought the index back.
		if _, err := r.indexes.load(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		w.manifest.set(second)
		wait()
		if s := r.Stats(); s.Indexes != 1 {
			t.Errorf("%d indexes in memory, want 1", s.Indexes)
		}
		w.manifest.set()
		wait()
		if s := r.Stats(); s.Indexes != 0 || s.Records != 0 || s.IndexBytes != 0 || s.DataBytes != 0 {
			t.Errorf("%+v in memory of an empty manifest", s)
		}
	})
}

func TestRunBearsAStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.pack(version{name: "a", seq: 1, content: "A"})
		w.manifest.set(p)
		w.store.SetHook(failing)
		r := w.retriever()
		running(t, r)
		w.store.SetHook(nil)
		w.manifest.set(p)
		time.Sleep(2 * settleTime) // virtual
		synctest.Wait()
		if s := r.Stats(); s.Indexes != 1 {
			t.Errorf("%d indexes loaded once the store is back, want 1", s.Indexes)
		}
	})
}

func TestRunLoadsNothingAheadWhenToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
		r := w.retriever(func(c *Config) { c.PrewarmBytes = -1 })
		if n := w.gets(func() { running(t, r) }); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

// No more indexes are under way at once than the cap leaves aside, whoever asks.
func TestLoadsOfIndexesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := shelf(t, maxIndexLoads+10, 1)
		view, _ := w.manifest.View().(fakeView)
		r := w.retriever()
		under, release := make(chan struct{}, len(view)), make(chan struct{})
		w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
			under <- struct{}{}
			<-release
			return storetest.Fault{}
		})
		var loads sync.WaitGroup
		for _, p := range view {
			loads.Go(func() {
				if _, err := r.indexes.load(t.Context(), p); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if len(under) != maxIndexLoads {
			t.Errorf("%d under way, want %d", len(under), maxIndexLoads)
		}
		close(release)
		loads.Wait()
		if s := r.Stats(); s.Indexes != int64(len(view)) {
			t.Errorf("%d indexes loaded of %d", s.Indexes, len(view))
		}
	})
}

// A load that panics takes its own caller down and leaves the others an error,
// not a wait without end.
func TestALoadThatPanicsReleasesThoseWhoJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls joined[int, int]
		release := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = calls.do(t.Context(), 1, func() (int, error) { <-release; panic("load") })
		})
		synctest.Wait()
		all.Go(func() {
			if _, err := calls.do(t.Context(), 1, nil); !errors.Is(err, errAborted) {
				t.Errorf("who joined: %v", err)
			}
		})
		synctest.Wait()
		close(release)
		all.Wait()
		if v, err := calls.do(t.Context(), 1, func() (int, error) { return 7, nil }); v != 7 || err != nil {
			t.Errorf("the next load: %d, %v", v, err)
		}
	})
}

func TestMemoIsMadeOnceARecord(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
	r := w.retriever()
	made := 0
	for range 3 {
		f, err := r.Open(t.Context(), "a", Query{})
		if err != nil {
			t.Fatal(err)
		}
		memo := f.Record.Memo(func(rec *Record) any { made++; return rec.Header.Name + "'s" })
		if memo != "a's" {
			t.Errorf("memo %v", memo)
		}
		f.Close()
	}
	if made != 1 {
		t.Errorf("made %d times, want 1", made)
	}
}

func TestTheCostOfARecordCoversItsMetadata(t *testing.T) {
	rec := &Record{Header: &desformat.Header{Record: desformat.Record{Name: long("n", 1000), Meta: desformat.Metadata{
		Custom: make([]byte, 500_000), Unknown: []desformat.TLV{{Type: 9, Value: make([]byte, 400_000)}},
	}}}}
	if got := rec.cost(); got < 901_000 {
		t.Errorf("cost %d of a header with 901,000 bytes of name and metadata", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t)
	good := Config{Manifest: w.manifest, Store: w.store, Sources: func() []Source { return nil }}
	for name, spoil := range map[string]func(*Config){
		"no manifest":         func(c *Config) { c.Manifest = nil },
		"no store":            func(c *Config) { c.Store = nil },
		"no sources":          func(c *Config) { c.Sources = nil },
		"negative cap":        func(c *Config) { c.DataBytes = -1 },
		"negative index cap":  func(c *Config) { c.IndexBytes = -1 },
		"negative parallel":   func(c *Config) { c.ParallelIndexes = -1 },
		"negative time limit": func(c *Config) { c.ConfirmTimeout = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			spoil(&c)
			if _, err := New(c); err == nil {
				t.Error("accepted")
			}
		})
	}
	r, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.IndexCap != 256<<20 || s.DataCap != 256<<20 {
		t.Errorf("caps %d and %d by default, want 256 MiB each", s.IndexCap, s.DataCap)
	}
}
