package retriever

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// everyRead asks for a name in every way that there is.
func everyRead(t *testing.T, r *Retriever, name string, each func(t *testing.T, err error)) {
	t.Helper()
	for _, want := range []Want{WantWhole, WantPart, WantHeader} {
		t.Run(fmt.Sprint("open ", want), func(t *testing.T) {
			f, err := r.Open(t.Context(), name, Query{Want: want})
			if err == nil {
				f.Close()
			}
			each(t, err)
		})
	}
	t.Run("find", func(t *testing.T) {
		_, err := r.Find(t.Context(), name)
		each(t, err)
	})
	t.Run("locate", func(t *testing.T) {
		_, err := r.Locate(t.Context(), name)
		each(t, err)
	})
}

func TestAStoreErrorNeverMeansNotFound(t *testing.T) {
	large := long("large", 2<<20)
	for _, c := range []struct {
		name string
		warm bool // the index is in memory, so the fault meets the record
		hook func(context.Context, storetest.Call) storetest.Fault
	}{
		{"refused, index", false, failing},
		{"refused, record", true, failing},
		{"answer lost", true, func(context.Context, storetest.Call) storetest.Fault {
			return storetest.Fault{Err: errInjected, Applied: true}
		}},
		{"the store's own time limit", true, func(context.Context, storetest.Call) storetest.Fault {
			return storetest.Fault{Err: context.DeadlineExceeded}
		}},
		{"the store cancelled", true, func(context.Context, storetest.Call) storetest.Fault {
			return storetest.Fault{Err: context.Canceled}
		}},
	} {
		for _, content := range []string{"small", large} {
			t.Run(fmt.Sprintf("%s, %d bytes", c.name, len(content)), func(t *testing.T) {
				w := newWorld(t)
				w.manifest.set(w.pack(version{name: "a", seq: 1, content: content}))
				r := w.retriever()
				if c.warm {
					if err := r.Prewarm(t.Context(), 1<<20); err != nil {
						t.Fatal(err)
					}
				}
				w.store.SetHook(c.hook)
				everyRead(t, r, "a", func(t *testing.T, err error) {
					wantOnly(t, err, ErrUnavailable)
					if errors.Is(err, ErrNotFound) {
						t.Errorf("%v is not found", err)
					}
				})
				w.store.SetHook(nil)
				wantRead(t, r, "a", content) // nothing of the failure is remembered
			})
		}
	}
}

// Even when every other pack and every source says no, the one that could not
// be asked may hold the name.
func TestAPackThatCannotBeAskedIsNoAbsence(t *testing.T) {
	w := newWorld(t)
	holds := w.pack(version{name: "a", seq: 1, content: "A"})
	w.manifest.set(holds, w.pack(version{name: "b", seq: 2, content: "B"}))
	r := w.retriever()
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Key == holds.Copies[0].Key {
			return storetest.Fault{Err: errInjected}
		}
		return storetest.Fault{}
	})
	wantError(t, r, "a", ErrUnavailable)
	if n := w.rows.questions(); n != 0 {
		t.Errorf("a source was asked %d times although the packs could not be", n)
	}
}

// A newer version may stand in the pack that cannot be asked, so the older one
// is not served in its place.
func TestAnOlderVersionIsNotServedForOneThatCannotBeRead(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("index in memory ", warm), func(t *testing.T) {
			w := newWorld(t)
			young := w.pack(version{name: "a", seq: 2, content: "young"})
			w.manifest.set(w.pack(version{name: "a", seq: 1, content: "old"}), young)
			r := w.retriever()
			if warm {
				if err := r.Prewarm(t.Context(), 1<<20); err != nil {
					t.Fatal(err)
				}
			}
			w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
				if c.Key == young.Copies[0].Key {
					return storetest.Fault{Err: errInjected}
				}
				return storetest.Fault{}
			})
			wantError(t, r, "a", ErrUnavailable)
		})
	}
}

func TestASourceErrorNeverMeansNotFound(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
	}{
		{"database down", errInjected},
		{"its own time limit", context.DeadlineExceeded},
		{"no such file, said by the database", source.ErrNoFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.retriever()
			w.rows.fail(c.err)
			wantError(t, r, "a", ErrUnavailable)
			_, err := r.OpenID(t.Context(), "", "17", Query{})
			wantOnly(t, err, ErrUnavailable)
			_, err = r.Locate(t.Context(), "a")
			wantOnly(t, err, ErrUnavailable)
		})
	}
}

// Not found takes a no from every source, whichever of them fails.
func TestOneFailingSourceKeepsANameFromBeingNotFound(t *testing.T) {
	for failed := range 3 {
		t.Run(fmt.Sprint("source ", failed), func(t *testing.T) {
			w := newWorld(t)
			w.sources = nil
			for i := range 3 {
				rows := &fakeRows{}
				if i == failed {
					rows.fail(errInjected)
				}
				w.sources = append(w.sources, Source{Name: fmt.Sprint("source", i), Rows: rows, Files: w.files})
			}
			wantError(t, w.retriever(), "a", ErrUnavailable)
		})
	}
}

func TestASilentSourceIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.rows.before(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		began := time.Now()
		wantError(t, w.retriever(), "a", ErrUnavailable)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("answered after %v, want the source's time limit", took)
		}
	})
}

func TestASilentStoreIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
		w.store.SetHook(func(ctx context.Context, _ storetest.Call) storetest.Fault {
			<-ctx.Done()
			return storetest.Fault{Err: ctx.Err()}
		})
		began := time.Now()
		wantError(t, w.retriever(), "a", ErrUnavailable)
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("answered after %v, want the load's time limit", took)
		}
	})
}

func TestNotFoundTakesAQuorumAndEverySource(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "b", seq: 1, content: "B"}))
	r := w.retriever()
	wantError(t, r, "a", ErrNotFound)
	if c, q := w.manifest.confirmed(), w.rows.questions(); c == 0 || q == 0 {
		t.Errorf("not found after %d confirmations and %d questions to the source", c, q)
	}
}

func TestAMissWithoutQuorumIsUnconfirmed(t *testing.T) {
	for _, c := range []struct {
		name    string
		confirm func(context.Context) (fakeView, error)
	}{
		{"no leader", withoutQuorum},
		{"an error", func(context.Context) (fakeView, error) { return nil, errInjected }},
		{"silence", func(ctx context.Context) (fakeView, error) { <-ctx.Done(); return nil, ctx.Err() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.manifest.set(w.pack(version{name: "b", seq: 1, content: "B"}))
				w.manifest.confirming(c.confirm)
				w.rows.set(row("unpacked", source.Active))
				r := w.retriever()
				wantError(t, r, "a", ErrUnconfirmed)
				wantError(t, r, "unpacked", ErrUnconfirmed) // it may be packed by now
				_, err := r.OpenID(t.Context(), "", "17", Query{})
				wantOnly(t, err, ErrUnconfirmed)
				_, err = r.Locate(t.Context(), "a")
				wantOnly(t, err, ErrUnconfirmed)
			})
		})
	}
}

func TestAHitNeedsNeitherQuorumNorSource(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
	w.manifest.confirming(withoutQuorum)
	w.rows.fail(errInjected)
	r := w.retriever()
	for range 2 {
		wantRead(t, r, "a", "A")
	}
	if c, q := w.manifest.confirmed(), w.rows.questions(); c+q != 0 {
		t.Errorf("%d confirmations and %d questions to the source for hits", c, q)
	}
}

// The node is behind: what was committed before the request came is found.
func TestARecordCommittedBetweenLookUpAndConfirmationIsFound(t *testing.T) {
	w := newWorld(t)
	committed := w.pack(version{name: "a", seq: 1, content: "A"})
	w.manifest.confirming(func(context.Context) (fakeView, error) {
		return fakeView{committed}, nil
	})
	r := w.retriever()
	wantRead(t, r, "a", "A")
	if n := w.rows.questions(); n != 0 {
		t.Errorf("a source was asked %d times", n)
	}
	place, err := r.Locate(t.Context(), "a")
	if err != nil || place.Pack.ID != committed.ID {
		t.Errorf("located in %+v: %v", place, err)
	}
}

func TestAMissingObjectIsLookedForInANewerView(t *testing.T) {
	for _, c := range []struct {
		name    string
		content string
		warm    func(t *testing.T, r *Retriever) // before the object is moved away
	}{
		{"cold", "A", func(*testing.T, *Retriever) {}},
		{"index in memory", "A", prewarm},
		{"index in memory, large", long("A", 2<<20), prewarm},
		{"header in memory, large", long("A", 2<<20), head},
		{"header in memory", "A", head},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			v := version{name: "a", seq: 1, content: c.content}
			input, merged := w.pack(v), w.pack(v, version{name: "b", seq: 2, content: "B"})
			w.manifest.set(input)
			r := w.retriever()
			c.warm(t, r)
			w.store.Lose(input.Copies[0].Key)
			w.manifest.confirming(func(context.Context) (fakeView, error) { return fakeView{merged}, nil })
			wantRead(t, r, "a", c.content)
			if n := count(r.metrics.missingObjects); n != 0 {
				t.Errorf("%d missing objects counted: the newest manifest misses none", n)
			}
		})
	}
}

func prewarm(t *testing.T, r *Retriever) {
	if err := r.Prewarm(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
}

func head(t *testing.T, r *Retriever) {
	f, err := r.Open(t.Context(), "a", Query{Want: WantHeader})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// Without a quorum the newest view of this node is the second look.
func TestAMissingObjectIsLookedForWithoutAQuorumToo(t *testing.T) {
	w := newWorld(t)
	v := version{name: "a", seq: 1, content: "A"}
	input, merged := w.pack(v), w.pack(v)
	w.manifest.set(input)
	r := w.retriever()
	w.store.Lose(input.Copies[0].Key)
	w.manifest.confirming(func(context.Context) (fakeView, error) {
		w.manifest.set(merged) // it arrived meanwhile, but nobody confirms it
		return nil, raftmeta.ErrUnconfirmed
	})
	wantRead(t, r, "a", "A")
}

// Another version than the one whose header was given out is not put in its
// place.
func TestAnOpenFileIsNotContinuedWithAnotherVersion(t *testing.T) {
	w := newWorld(t)
	input := w.pack(version{name: "a", seq: 1, content: long("old", 2<<20)})
	newer := w.pack(version{name: "a", seq: 2, content: long("new", 2<<20)})
	w.manifest.set(input)
	r := w.retriever()
	f, err := r.Open(t.Context(), "a", Query{Want: WantPart})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.store.Lose(input.Copies[0].Key)
	w.manifest.set(newer)
	_, err = part(t.Context(), &f, 0, 10)
	wantOnly(t, err, ErrUnavailable)
}

// The store says that an object is missing and a quorum that it should be there:
// that is damage.
func TestAnObjectMissingInTheConfirmedViewIsCorrupt(t *testing.T) {
	for _, warm := range []bool{false, true} {
		t.Run(fmt.Sprint("index in memory ", warm), func(t *testing.T) {
			w := newWorld(t)
			p := w.pack(version{name: "a", seq: 1, content: "A"})
			w.manifest.set(p)
			r := w.retriever()
			if warm {
				prewarm(t, r)
			}
			w.store.Lose(p.Copies[0].Key)
			before := w.store.Counts()
			everyRead(t, r, "a", func(t *testing.T, err error) {
				checkCorrupt(t, err, p, "missing")
			})
			if spent := w.store.Counts().Sub(before); spent.Requests() != 1 {
				t.Errorf("%d requests, want the first read's only", spent.Requests())
			}
			if n := count(r.metrics.missingObjects); n != 5 {
				t.Errorf("%d missing objects counted, want one a read", n)
			}
			if n := w.rows.questions(); n != 0 {
				t.Errorf("a source was asked %d times for what the manifest lists", n)
			}
		})
	}
}

// A cancelled caller gets its own error, and the load that it began goes on for
// those who joined.
func TestACancelledCallerDoesNotCancelASharedLoad(t *testing.T) {
	for _, c := range []struct {
		name string
		want Want
		warm func(*testing.T, *Retriever)
	}{
		{"index", WantWhole, func(*testing.T, *Retriever) {}},
		{"record", WantWhole, prewarm},
		{"header", WantHeader, prewarm},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
				r := w.retriever()
				c.warm(t, r)
				release := make(chan struct{})
				w.store.SetHook(func(ctx context.Context, _ storetest.Call) storetest.Fault {
					select {
					case <-release:
						return storetest.Fault{}
					case <-ctx.Done():
						return storetest.Fault{Err: ctx.Err()}
					}
				})
				open := func(ctx context.Context) error {
					f, err := r.Open(ctx, "a", Query{Want: c.want})
					if err == nil {
						f.Close()
					}
					return err
				}
				var readers sync.WaitGroup
				first, cancelFirst := context.WithCancel(t.Context())
				readers.Go(func() { _ = open(first) })
				synctest.Wait()
				second, cancelSecond := context.WithCancel(t.Context())
				left := make(chan error, 1)
				readers.Go(func() { left <- open(second) })
				readers.Go(func() {
					if err := open(t.Context()); err != nil {
						t.Errorf("a reader who joined: %v", err)
					}
				})
				synctest.Wait()
				cancelFirst()
				cancelSecond()
				// Who joined may leave at once, the load still held.
				if err := <-left; !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
					t.Errorf("a cancelled reader who joined: %v, want its own cancellation", err)
				}
				close(release)
				readers.Wait()
			})
		})
	}
}

func TestLoadErrorsAreNotCached(t *testing.T) {
	for _, c := range []struct {
		name string
		warm func(*testing.T, *Retriever)
		hook func(context.Context, storetest.Call) storetest.Fault
	}{
		{"index", func(*testing.T, *Retriever) {}, failing},
		{"record", prewarm, failing},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
			r := w.retriever()
			c.warm(t, r)
			w.store.SetHook(c.hook)
			for range 2 {
				wantError(t, r, "a", ErrUnavailable)
			}
			w.store.SetHook(nil)
			wantRead(t, r, "a", "A")
		})
	}
}

// A record of a newer format is neither corrupt nor absent.
func TestARecordOfANewerFormatIsUnavailable(t *testing.T) {
	w := newWorld(t)
	r := w.retriever()
	p := w.pack(version{name: "a", seq: 1, content: "A"})
	err := r.classify(t.Context(), p, 0, fmt.Errorf("codec 9: %w", desformat.ErrVersion))
	wantOnly(t, err, ErrUnavailable)
}

// limiter forbids clients by name and counts.
type limiter struct {
	forbidden string
	missed    map[string]int
}

func (l *limiter) Allow(client string) bool { return client != l.forbidden }

func (l *limiter) Missed(client string) { l.missed[client]++ }

func TestMissesAreLimitedAndHitsAreNot(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "gone", seq: 1, kind: desformat.TypeTombstone}))
	w.rows.set(row("unpacked", source.Active))
	w.files.content["/unpacked"] = []byte("U")
	limit := &limiter{forbidden: "guesser", missed: map[string]int{}}
	r := w.retriever(func(c *Config) { c.Misses = limit })
	open := func(name, client string) error {
		f, err := r.Open(t.Context(), name, Query{Client: client})
		if err == nil {
			f.Close()
		}
		return err
	}
	openID := func(id, client string) error {
		f, err := r.OpenID(t.Context(), "", id, Query{Client: client})
		if err == nil {
			f.Close()
		}
		return err
	}
	for _, c := range []struct {
		what, client string
		got, want    error
		missed       int // of the client, by now
	}{
		{"a hit of a forbidden client", "guesser", open("a", "guesser"), nil, 0},
		{"a miss of a forbidden client", "guesser", open("never", "guesser"), ErrBusy, 0},
		{"an unknown id of a forbidden client", "guesser", openID("17", "guesser"), ErrBusy, 0},
		{"a miss", "client", open("never", "client"), ErrNotFound, 3},
		{"a removed file", "client", open("gone", "client"), ErrGone, 3},
		{"an unknown id", "client", openID("17", "client"), ErrNotFound, 3},
		{"an unpacked file", "client", open("unpacked", "client"), nil, 3},
		{"a miss of nobody", "", open("never", ""), ErrNotFound, 0},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
		if limit.missed[c.client] != c.missed {
			t.Errorf("%s: %d misses counted, want %d", c.what, limit.missed[c.client], c.missed)
		}
	}
}
