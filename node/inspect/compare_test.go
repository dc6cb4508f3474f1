package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

func TestNothingDiffersInAnArchiveThatIsWhole(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b", "c")
	w.archived("d")
	w.register("e") // MARKED
	before := w.store.Counts()
	diffs, n := w.compare(CompareOptions{})
	if len(diffs) != 0 {
		t.Errorf("found %+v", diffs)
	}
	if n.Packs != 2 || n.TotalPacks != 2 || n.Objects != 2 || n.Rows != 5 || n.Catalogs != 2 || n.Records != 4 {
		t.Errorf("counted %+v", n)
	}
	made := w.store.Counts().Sub(before)
	if n.Requests != made.Requests() || n.Bytes != made.BytesGot {
		t.Errorf("told %d requests and %d bytes, made %+v", n.Requests, n.Bytes, made)
	}
}

// TestComparingReadsNoPayload: whatever the files' size, a listing for each of the
// two folders and one catalog a pack.
func TestComparingReadsNoPayload(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a", "b")
	q := w.archived("c")
	before := w.store.Counts()
	w.wantDifferences(CompareOptions{})
	made := w.store.Counts().Sub(before)
	if want := (store.Counts{List: 2, Get: 2, BytesGot: p.Catalog.Length + q.Catalog.Length}); made != want {
		t.Errorf("made %+v, want %+v", made, want)
	}
}

func TestWhatDiffersInTheStore(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(w *world, p *raftmeta.Pack)
		want func(p *raftmeta.Pack) []string
	}{
		{"the object is gone", func(w *world, p *raftmeta.Pack) { w.store.Lose(p.Copies[0].Key) }, func(p *raftmeta.Pack) []string {
			return []string{"at-risk pack-missing pack " + p.ID.String()}
		}},
		{"the object is cut", func(w *world, p *raftmeta.Pack) {
			w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { return b[:len(b)-1] })
		}, func(p *raftmeta.Pack) []string { return []string{"at-risk pack-size pack " + p.ID.String()} }},
		{"another object stands there", func(w *world, p *raftmeta.Pack) {
			b := w.store.Bytes(p.Copies[0].Key)
			w.store.Lose(p.Copies[0].Key)
			_, err := w.store.Put(w.t.Context(), p.Copies[0].Key, bytes.NewReader(b), int64(len(b)))
			w.check(err)
		}, func(p *raftmeta.Pack) []string { return []string{"at-risk pack-replaced pack " + p.ID.String()} }},
		{"the catalog is damaged", func(w *world, p *raftmeta.Pack) {
			w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { b[p.Catalog.Offset+20] ^= 1; return b })
		}, func(p *raftmeta.Pack) []string { return []string{"at-risk catalog-damaged pack " + p.ID.String()} }},
		{"verification found damage", func(w *world, p *raftmeta.Pack) {
			bad := p.Copies[0]
			bad.VerifiedAt, bad.Damage = bad.VerifiedAt.Add(time.Second), "record 0"
			w.check(w.meta.VerifyPack(w.t.Context(), p.ID, p.Copies[0], bad))
		}, func(p *raftmeta.Pack) []string { return []string{"at-risk pack-damaged pack " + p.ID.String()} }},
		{"an object that is no pack", func(w *world, _ *raftmeta.Pack) { w.put("packs/0-0/readme.txt", "hello") }, func(*raftmeta.Pack) []string {
			return []string{"note object-foreign packs/0-0/readme.txt"}
		}},
		{"quarantine that nobody listed", func(w *world, _ *raftmeta.Pack) { w.put("quarantine/2026-01-01/packs/x", "hello") }, func(*raftmeta.Pack) []string {
			return []string{"repairable quarantine-unlisted quarantine/2026-01-01/packs/x"}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a", "b")
			w.archived("c")
			tc.do(w, p)
			w.wantDifferences(CompareOptions{}, tc.want(p)...)
		})
	}
}

func (w *world) put(key, content string) {
	w.t.Helper()
	_, err := w.store.Put(w.t.Context(), key, strings.NewReader(content), int64(len(content)))
	w.check(err)
}

// TestTheLegsStandAlone: what one leg alone meets is told by it as well.
func TestTheLegsStandAlone(t *testing.T) {
	for name, do := range map[string]func(w *world, p *raftmeta.Pack) string{
		"gone": func(w *world, p *raftmeta.Pack) string { w.store.Lose(p.Copies[0].Key); return KindPackMissing },
		"cut": func(w *world, p *raftmeta.Pack) string {
			w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { return b[:100] })
			return KindPackSize
		},
		"replaced": func(w *world, p *raftmeta.Pack) string {
			w.store.Lose(p.Copies[0].Key)
			w.put(p.Copies[0].Key+"x", "") // versions rise
			w.store.Lose(p.Copies[0].Key + "x")
			w.replace(p, "another")
			return KindPackReplaced
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a", "b")
			kind := do(w, p)
			w.wantDifferences(CompareOptions{Only: []string{LegCatalogs}}, "at-risk "+kind+" pack "+p.ID.String())
			w.wantDifferences(CompareOptions{Only: []string{LegStore}}, "at-risk "+kind+" pack "+p.ID.String())
			w.wantDifferences(CompareOptions{Only: []string{LegRows}})
		})
	}
}

// replace puts another object in a pack's place, past the fake's rule that packs
// are sealed.
func (w *world) replace(p *raftmeta.Pack, content string) {
	w.t.Helper()
	w.put("elsewhere", content)
	w.check(w.store.Move(w.t.Context(), "elsewhere", p.Copies[0].Key))
}

// TestAVersionBelowANewerOneIsFound: a bucket keeps both, and its listing shows the
// newest alone.
func TestAVersionBelowANewerOneIsFound(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	w.cfg.Store = shadowed{w.store, p.Copies[0].Key}
	w.wantDifferences(CompareOptions{}, "at-risk pack-shadowed pack "+p.ID.String())
}

// shadowed is a store that lists another version of one object.
type shadowed struct {
	Store
	key string
}

func (s shadowed) List(ctx context.Context, prefix, after string, f func(store.Object) error) error {
	return s.Store.List(ctx, prefix, after, func(o store.Object) error {
		if o.Key == s.key {
			o.Version = "newer"
		}
		return f(o)
	})
}

// TestARolledBackManifestIsFound: the packs that it has forgotten are in the store,
// and rows name them.
func TestARolledBackManifestIsFound(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	p := w.archived("b", "c")
	old, err := raftmeta.OpenLocal(raftmeta.LocalConfig{Node: testNode, Cluster: w.meta.View().Cluster(), Journal: &raftmeta.Journal{}})
	w.check(err)
	w.check(old.PutMember(t.Context(), raftmeta.Member{ID: testNode}))
	first := w.archivedPacks()[0]
	w.cfg.Manifest = &manifest{Local: old}
	w.wantDifferences(
		CompareOptions{},
		"at-risk pack-forgotten "+first.Copies[0].Key, "at-risk pack-forgotten "+p.Copies[0].Key,
		"at-risk row-unknown-pack files row "+w.row("a").ID, "at-risk row-unknown-pack files row "+w.row("b").ID,
		"at-risk row-unknown-pack files row "+w.row("c").ID,
	)
}

// archivedPacks are the packs in the order of their making.
func (w *world) archivedPacks() []*raftmeta.Pack {
	return slices.SortedFunc(w.meta.View().Packs(), func(a, b *raftmeta.Pack) int { return a.Token.Compare(b.Token) })
}

func TestWhatDiffersInTheRows(t *testing.T) {
	sum := [32]byte{1}
	for _, tc := range []struct {
		name   string
		change func(r *source.Row)
		kind   string // "severity kind"; "": no difference
	}{
		{"deleted, as it may be", func(r *source.Row) { r.State = source.DeletedSource }, ""},
		{"back to ACTIVE, changed", func(r *source.Row) { r.State, r.Size = source.Active, 99 }, ""},
		{"marked again", func(r *source.Row) { r.State, r.Version = source.Marked, r.Version+1 }, ""},
		{"no pack", func(r *source.Row) { r.Pack = desformat.PackID{} }, "at-risk row-without-pack"},
		{"unknown pack", func(r *source.Row) { r.Pack = desformat.PackID{9}; r.Version++ }, "at-risk row-unknown-pack"},
		{"claimed by a deletion that is over", func(r *source.Row) { r.Claim = "1-1" }, "repairable row-claimed"},
		{"claimed by nobody", func(r *source.Row) { r.Claim = "x" }, "repairable row-claimed"},
		{"claimed by a deletion that may live", func(r *source.Row) { r.Claim = "1-99999" }, ""},
		{"restored before it was marked", func(r *source.Row) { *r = before(*r, source.Active, 0) }, "repairable row-behind"},
		{"restored before it was acknowledged", func(r *source.Row) { *r = before(*r, source.Marked, 1) }, "repairable row-behind"},
		{"restored and failed since", func(r *source.Row) { *r = before(*r, source.Failed, 1) }, "repairable row-behind"},
		{"archived at a version that its pack has not", func(r *source.Row) { r.Version += 5 }, "at-risk row-without-record"},
		{"another size", func(r *source.Row) { r.Size++ }, "repairable row-differs"},
		{"another time", func(r *source.Row) { r.ModTime = r.ModTime.Add(time.Second) }, "repairable row-differs"},
		{"another name", func(r *source.Row) { r.DesName = "x" }, "repairable row-differs"},
		{"another checksum", func(r *source.Row) { r.SHA256 = &sum }, "repairable row-differs"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a", "b")
			id := w.row("b").ID
			w.rows.change[id] = tc.change
			var want []string
			if tc.kind != "" {
				want = []string{tc.kind + " files row " + id}
			}
			got := w.wantDifferences(CompareOptions{}, slices.Concat(want, also(tc.name, id))...)
			if len(want) > 0 && len(got) == 0 {
				t.Fatal("nothing was found")
			}
		})
	}
}

// before is a row as a database shows it that was restored from then.
func before(r source.Row, state source.State, version uint32) source.Row {
	r.State, r.Version, r.Pack = state, version, desformat.PackID{}
	return r
}

// also is what else a case is told of: the record whose row names no pack is in an
// archive that the row has not caught up with.
func also(name, id string) []string {
	if name == "no pack" {
		return []string{"repairable row-behind files row " + id}
	}
	return nil
}

func TestRecordsAndRowsThatDoNotMeet(t *testing.T) {
	t.Run("the source system has removed the row", func(t *testing.T) {
		w := newWorld(t)
		w.archived("a", "b")
		id := w.row("a").ID
		w.rows.lose[id] = true
		w.wantDifferences(CompareOptions{}, "note record-without-row files row "+id)
	})
	t.Run("the pack has no record of the row", func(t *testing.T) {
		w := newWorld(t)
		p := w.archived("a", "b")
		w.archived("c")
		r := w.row("a")
		r.ID = "0" // one that no catalog lists
		w.rows.add = []source.Row{r}
		w.wantDifferences(CompareOptions{}, "at-risk row-without-record files row 0")
		r.Pack, r.Version = p.ID, 7
		w.rows.add = []source.Row{r}
		w.wantDifferences(CompareOptions{}, "at-risk row-without-record files row 0")
		w.wantDifferences(CompareOptions{Only: []string{LegCatalogs}})
	})
	t.Run("the record is dead", func(t *testing.T) {
		w := newWorld(t)
		w.register("a", "b")
		p := w.pack()
		w.register("b") // changed since: its record is dead
		w.check(w.keeper.Acknowledge(t.Context(), p))
		if p = w.meta.View().Pack(p.ID); len(p.Dead) != 1 {
			t.Fatalf("dead: %v", p.Dead)
		}
		id := w.row("b").ID
		w.wantDifferences(CompareOptions{})
		w.rows.change[id] = func(r *source.Row) { r.State, r.Pack, r.Version = source.Packed, p.ID, 1 }
		w.wantDifferences(CompareOptions{}, "at-risk row-of-dead-record files row "+id)
	})
	t.Run("the row names another pack with that version", func(t *testing.T) {
		w := newWorld(t)
		w.archived("a")
		q := w.archived("b", "c")
		id := w.row("a").ID
		w.rows.change[id] = func(r *source.Row) { r.Pack = q.ID }
		w.wantDifferences(CompareOptions{}, "note row-elsewhere files row "+id, "at-risk row-without-record files row "+id)
	})
	t.Run("a source that this node does not have", func(t *testing.T) {
		w := newWorld(t)
		w.archived("a", "b")
		w.cfg.Sources = nil
		d := w.wantDifferences(CompareOptions{}, "note record-of-no-source files")
		if len(d) == 1 && !strings.Contains(d[0].Found, "2 records") {
			t.Errorf("found %s", d[0].Found)
		}
	})
}

// TestAPackThatIsBeingAcknowledgedIsLeftOut: some of its rows are MARKED still.
func TestAPackThatIsBeingAcknowledgedIsLeftOut(t *testing.T) {
	w := newWorld(t)
	w.register("a", "b")
	w.pack()
	if _, n := w.compare(CompareOptions{}); n.Catalogs != 0 || n.Packs != 1 {
		t.Errorf("counted %+v", n)
	}
	w.wantDifferences(CompareOptions{})
}

// TestARowThatMovesOnIsNoDifference: between the reading of all rows and the look
// at the one that did not fit.
func TestARowThatMovesOnIsNoDifference(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	id := w.row("a").ID
	looks := 0
	w.rows.change[id] = func(r *source.Row) { // one deletion after the other claims it
		looks++
		r.Claim = fmt.Sprintf("1-%d", looks%3)
	}
	w.wantDifferences(CompareOptions{Only: []string{LegRows}})
	if looks < 2 {
		t.Errorf("looked at %d times", looks)
	}
	delete(w.rows.change, id)

	r := w.row("a")
	r.ID = "0"
	w.rows.add = []source.Row{r}
	batches := 0
	w.rows.listed = func() {
		if batches++; batches == 2 { // of the second reading
			w.rows.add[0].State = source.Active
		}
	}
	w.wantDifferences(CompareOptions{})
	if batches < 2 {
		t.Errorf("read %d batches", batches)
	}
}

// TestQuarantineThatIsNotThere: of what was moved there only.
func TestQuarantineThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	w.abandon()
	w.register("b")
	kept := w.abandon()
	w.check(os.Remove(filepath.Join(w.root, "b")))
	w.clock.advance(25 * time.Hour)
	w.check(w.keeper.CollectNow(t.Context()))
	list, err := w.cfg.Log.Quarantined(w.meta.View())
	w.check(err)
	if len(list) != 2 {
		t.Fatalf("on the list: %+v", list)
	}
	w.wantDifferences(CompareOptions{})
	for _, q := range list {
		if q.Key != kept {
			w.store.Lose(q.Place)
			w.wantDifferences(CompareOptions{}, "note quarantine-lost "+q.Place)
		}
	}
}

// TestMemoryDoesNotGrowWithTheRows: a table of a hundred batches leaves nothing
// behind.
func TestMemoryDoesNotGrowWithTheRows(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	many := &manyRows{overlay: w.rows, batches: 100}
	w.cfg.Sources = []Source{{Name: "files", Rows: many}}
	_, n := w.compare(CompareOptions{Only: []string{LegRows}})
	if n.Rows != 100*source.MaxBatch {
		t.Errorf("read %d rows", n.Rows)
	}
	if grown := many.last - many.first; many.last > many.first && grown > 2<<20 {
		t.Errorf("%d bytes are held after %d rows", grown, n.Rows)
	}
}

// manyRows is a long table of rows that wait, and measures the heap while it is
// read.
type manyRows struct {
	overlay     *overlay
	batches     int
	first, last uint64 // bytes held at the tenth batch, and at the last
}

func (m *manyRows) ByIDs(ctx context.Context, ids []string) ([]source.Row, error) {
	return m.overlay.ByIDs(ctx, ids)
}

func (m *manyRows) FailureTally(ctx context.Context) (map[string]source.Tally, error) {
	return m.overlay.FailureTally(ctx)
}

func (m *manyRows) Retry(ctx context.Context, which source.Selection, at time.Time) (int64, error) {
	return m.overlay.Retry(ctx, which, at)
}

func (m *manyRows) TimePrecision() time.Duration { return m.overlay.TimePrecision() }

func (m *manyRows) Rows(_ context.Context, after string, limit int) ([]source.Row, error) {
	n := 0
	if after != "" {
		_, _ = fmt.Sscanf(after, "%d", &n)
	}
	batch := n / limit
	if batch == m.batches {
		return nil, nil
	}
	if batch == 10 || batch == m.batches-1 {
		var mem runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&mem)
		if m.first == 0 {
			m.first = mem.HeapAlloc
		}
		m.last = mem.HeapAlloc
	}
	rows := make([]source.Row, limit)
	for i := range rows {
		id := fmt.Sprintf("%09d", n+i+1)
		rows[i] = source.Row{Source: "files", ID: id, Name: id, Path: "/" + id, Size: 1, State: source.Active}
	}
	return rows, nil
}

// TestWhatGoesOnMeanwhileIsNoDifference: files are archived and deleted between any
// two steps of a comparison.
func TestWhatGoesOnMeanwhileIsNoDifference(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b", "c")
	w.clock.advance(2 * time.Hour)
	n := 0
	more := func() {
		if n++; n > 4 {
			return // or the table would grow as fast as it is read
		}
		w.archived(fmt.Sprintf("more %d", n))
		w.register("b") // changed: packed again as a newer version
		w.archived(fmt.Sprintf("even more %d", n))
		w.check(w.keeper.Once(w.t.Context()))
	}
	w.rows.listed = more
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Kind == store.KindList && c.Key == "packs/" {
			w.store.SetHook(nil)
			more()
		}
		return storetest.Fault{}
	})
	w.wantDifferences(CompareOptions{})
	if n < 2 {
		t.Errorf("went on %d times", n)
	}
}

// TestANodeThatLagsAsksBeforeItSpeaks: its own view is old, what it tells is not.
func TestANodeThatLagsAsksBeforeItSpeaks(t *testing.T) {
	w := newWorld(t)
	w.cfg.Manifest = lagging{w.meta, w.meta.View()}
	p := w.archived("a")
	more := false
	w.rows.listed = func() {
		if !more {
			more = true
			w.archived("b")
		}
	}
	w.wantDifferences(CompareOptions{})
	w.store.Lose(p.Copies[0].Key)
	w.wantDifferences(CompareOptions{}, "at-risk pack-missing pack "+p.ID.String())
}

// lagging is the manifest of a node that applies nothing until it has to.
type lagging struct {
	Manifest
	old *raftmeta.View
}

func (l lagging) View() *raftmeta.View { return l.old }

// TestAnOutageIsNoDifference: each thing that may not answer, at each of its calls.
func TestAnOutageIsNoDifference(t *testing.T) {
	away := errors.New("away")
	for name, cut := range map[string]func(w *world){
		"no quorum": func(w *world) { w.meta.err = away },
		"no table":  func(w *world) { w.rows.err = away },
		"no list":   func(w *world) { w.failing(store.KindList, away) },
		"no get":    func(w *world) { w.failing(store.KindGet, away) },
		"no head": func(w *world) {
			w.store.Lose(w.archivedPacks()[0].Copies[0].Key)
			w.failing(store.KindHead, away)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			cut(w)
			_, err := w.inspector().Compare(t.Context(), CompareOptions{}, func(d Difference) error {
				t.Errorf("an outage is told as %+v", d)
				return nil
			})
			if !errors.Is(err, away) || errors.Is(err, ErrUnavailable) != (name != "no quorum") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// failing lets every request of a kind fail.
func (w *world) failing(kind store.Kind, err error) {
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Kind == kind {
			return storetest.Fault{Err: err}
		}
		return storetest.Fault{}
	})
}

func TestComparingEndsWhenNobodyListens(t *testing.T) {
	gone := errors.New("the client is gone")
	w := newWorld(t)
	p := w.archived("a")
	w.store.Lose(p.Copies[0].Key)
	if _, err := w.inspector().Compare(t.Context(), CompareOptions{}, func(Difference) error { return gone }); !errors.Is(err, gone) || errors.Is(err, ErrUnavailable) {
		t.Errorf("err = %v", err)
	}
	if _, err := w.inspector().Compare(t.Context(), CompareOptions{Progress: func(string, Counts) error { return gone }}, func(Difference) error { return nil }); !errors.Is(err, gone) {
		t.Errorf("err = %v", err)
	}
}

// TestProgressIsTold at the begin of each leg, and not for each row.
func TestProgressIsTold(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b", "c")
	var legs []string
	_, err := w.inspector().Compare(t.Context(), CompareOptions{Progress: func(leg string, _ Counts) error {
		legs = append(legs, leg)
		return nil
	}}, func(Difference) error { return nil })
	if want := []string{LegStore, LegRows, LegCatalogs}; err != nil || !slices.Equal(legs, want) {
		t.Errorf("told %v, %v", legs, err)
	}
}
