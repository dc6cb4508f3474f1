package retriever

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

func TestTheNewestVersionIsServed(t *testing.T) {
	young, old := version{name: "a", seq: 7, content: "young"}, version{name: "a", seq: 3, content: "old"}
	other := func(seq uint64) version {
		return version{name: fmt.Sprint("other", seq), seq: seq, content: "O"}
	}
	for _, c := range []struct {
		name  string
		packs [][]version
		want  string
	}{
		{"in the newest pack", [][]version{{young}, {old}}, "young"},
		{"whatever the order of the list", [][]version{{old}, {young}}, "young"},
		{"before an older one inside one pack", [][]version{{young, old}}, "young"},
		{"behind an older one inside one pack", [][]version{{old, young}}, "young"},
		{"in the middle of three inside one pack", [][]version{{old, young, {name: "a", seq: 1, content: "oldest"}}}, "young"},
		// The merged pack's highest seq is another file's: its hit does not end
		// the walk.
		{"behind a merged pack with a wide span", [][]version{{old, other(9)}, {young}}, "young"},
		{"behind two merged packs with wide spans", [][]version{{other(2), other(9)}, {old, other(8)}, {young}}, "young"},
		{"in a merged pack with a wide span", [][]version{{young, other(1), other(9)}, {old, other(8)}}, "young"},
		{"equal versions in two packs", [][]version{{young}, {young, other(1)}}, "young"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			var list []*raftmeta.Pack
			for _, p := range c.packs {
				list = append(list, w.pack(p...))
			}
			w.manifest.set(list...)
			r := w.retriever()
			for range 2 { // cold, and from memory
				wantRead(t, r, "a", c.want)
			}
		})
	}
}

func TestTheWalkStopsWhereNothingNewerCanBe(t *testing.T) {
	w := newWorld(t)
	young := w.pack(version{name: "a", seq: 9, content: "young"})
	old := w.pack(version{name: "a", seq: 9, content: "young"}, version{name: "b", seq: 1, content: "B"})
	w.manifest.set(young, old)
	r := w.retriever(func(c *Config) { c.ParallelIndexes = 1 })
	if n := w.gets(func() { wantRead(t, r, "a", "young") }); n != 2 {
		t.Errorf("%d requests, want 2: no other pack exceeds the hit's seq", n)
	}
}

// For any packs of any versions, what is served is the live version of the
// highest seq, for every name and however much is wanted.
func TestAnyPacksServeTheLiveVersionOfTheHighestSeq(t *testing.T) {
	names := []string{"a", "b", colliding("a"), "c"}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		best := map[string]version{}
		var list []*raftmeta.Pack
		for range rapid.IntRange(0, 5).Draw(rt, "packs") {
			versions := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) version {
				v := version{name: rapid.SampledFrom(names).Draw(rt, "name"), seq: rapid.Uint64Range(1, 12).Draw(rt, "seq")}
				// Equal versions are equal in content, as merging keeps them.
				if (len(v.name)+int(v.seq))%4 == 0 {
					v.kind = desformat.TypeTombstone
				} else {
					v.content = long(v.name, int(v.seq)) + fmt.Sprint(v.seq)
				}
				return v
			}), 1, 8).Draw(rt, "versions")
			p := w.pack(versions...)
			replaced := rapid.IntRange(0, 4).Draw(rt, "replaced") == 0
			if replaced {
				p.ReplacedBy = desformat.PackID{1}
			}
			for e, err := range desformat.ReadCatalog(t.Context(), direct(w, p), p.Catalog) {
				if err != nil {
					rt.Fatal(err)
				}
				if dead := rapid.IntRange(0, 3).Draw(rt, "dead") == 0; dead {
					p.Dead = append(p.Dead, e.Ordinal)
				} else if !replaced && e.Seq.Index > best[e.Name].seq {
					i := slices.IndexFunc(versions, func(v version) bool { return v.name == e.Name && v.seq == e.Seq.Index })
					best[e.Name] = versions[i]
				}
			}
			list = append(list, p)
		}
		w.manifest.set(list...)
		r := w.retriever()
		for range 2 {
			for _, name := range names {
				switch v, ok := best[name]; {
				case !ok:
					wantError(rt, r, name, ErrNotFound)
				case v.kind == desformat.TypeTombstone:
					wantError(rt, r, name, ErrGone)
				default:
					wantRead(rt, r, name, v.content)
				}
			}
		}
	})
}

// direct fetches from a pack as a reader of its own would.
func direct(w *world, p *raftmeta.Pack) desformat.Fetcher {
	return desformat.FetchReaderAt(&memFile{w.store.Bytes(p.Copies[0].Key)})
}

func TestDeadRecordsAreSkipped(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "a", seq: 2, content: "dead"})
	old := w.pack(version{name: "a", seq: 1, content: "live"})
	w.manifest.set(p, old)
	r := w.retriever()
	wantRead(t, r, "a", "dead") // not acknowledged yet

	acknowledged := *p
	acknowledged.Dead = []uint32{0}
	w.manifest.set(&acknowledged, old)
	wantRead(t, r, "a", "live") // although the dead one is in memory

	w.manifest.set(&acknowledged)
	wantError(t, r, "a", ErrNotFound)
}

func TestReplacedPacksAreNotUsed(t *testing.T) {
	w := newWorld(t)
	input := w.pack(version{name: "a", seq: 2, content: "input"})
	merged := w.pack(version{name: "a", seq: 2, content: "merged"})
	replaced := *input
	replaced.ReplacedBy = merged.ID
	w.manifest.set(&replaced, merged)
	r := w.retriever()
	if err := r.Prewarm(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.Indexes != 1 {
		t.Errorf("%d indexes loaded ahead, want that of the merged pack only", s.Indexes)
	}
	wantRead(t, r, "a", "merged")
	w.manifest.set(&replaced)
	wantError(t, r, "a", ErrNotFound)
}

func TestVoidRecordsHoldNothing(t *testing.T) {
	w := newWorld(t)
	// The index has a void record at the hash of the record before it.
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "", kind: desformat.TypeVoid}))
	r := w.retriever()
	for range 2 {
		wantRead(t, r, "a", "A")
	}
	if s := r.Stats(); s.FalseCandidates == 0 {
		t.Error("the void record was no candidate, so nothing is shown")
	}
	_, err := r.Open(t.Context(), "", Query{})
	wantOnly(t, err, desformat.ErrInvalidName)
}

func TestOnlyPacksWhoseRangeHoldsTheHashAreAsked(t *testing.T) {
	w := newWorld(t)
	name := "a"
	low, high := desformat.Range{}.Halves()
	if high.Contains(desformat.HashName(name)) {
		low, high = high, low
	}
	elsewhere := "b"
	for i := 0; !high.Contains(desformat.HashName(elsewhere)); i++ {
		elsewhere = fmt.Sprint("b", i)
	}
	w.manifest.set(
		w.packOf(desformat.WriterConfig{Range: low}, version{name: name, seq: 1, content: "A"}),
		w.packOf(desformat.WriterConfig{Range: high}, version{name: elsewhere, seq: 2, content: "B"}),
	)
	r := w.retriever()
	if n := w.gets(func() { wantRead(t, r, name, "A") }); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
	wantRead(t, r, elsewhere, "B")
}

// A tombstone is believed only when no newer version has been committed.
func TestATombstoneIsConfirmed(t *testing.T) {
	w := newWorld(t)
	file := w.pack(version{name: "a", seq: 1, content: "A"})
	tombstone := w.pack(version{name: "a", seq: 2, kind: desformat.TypeTombstone})
	again := w.pack(version{name: "a", seq: 3, content: "again"})
	w.manifest.set(file, tombstone)

	t.Run("gone", func(t *testing.T) {
		r := w.retriever()
		wantError(t, r, "a", ErrGone)
		if w.manifest.confirmed() == 0 {
			t.Error("gone without a confirmation")
		}
	})
	t.Run("gone, whatever a source says", func(t *testing.T) {
		w.rows.set(row("a", source.Packed))
		defer w.rows.set()
		wantError(t, w.retriever(), "a", ErrGone)
	})
	t.Run("without a quorum", func(t *testing.T) {
		w.manifest.confirming(withoutQuorum)
		wantError(t, w.retriever(), "a", ErrUnconfirmed)
	})
	t.Run("archived again meanwhile", func(t *testing.T) {
		w.manifest.confirming(func(context.Context) (fakeView, error) { return fakeView{file, tombstone, again}, nil })
		wantRead(t, w.retriever(), "a", "again")
	})
}
