package raftmeta

import (
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
)

// drawRange prefers a narrow part of the space, so that ranges meet.
func drawRange(t *rapid.T) desformat.Range {
	bits := rapid.SampledFrom([]uint8{0, 1, 2, 3, 4, 8, 31, 32}).Draw(t, "bits")
	v := uint64(rapid.SampledFrom([]uint32{0, 1, 0x12345678, 0x3a000000, 0x3fffffff, 0xffffffff}).Draw(t, "value"))
	r, err := desformat.NewRange(uint32(v>>(32-bits)), bits)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func hashAt(top uint32) (h desformat.NameHash) {
	binary.BigEndian.PutUint32(h[:4], top)
	return h
}

// TestTrieAgreesWithAList holds every answer of the trie against the same
// question put to a plain list of packs.
func TestTrieAgreesWithAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var root *rangeNode
		var list []*Pack
		added := uint64(0)
		check := func() {
			r := drawRange(t)
			h := hashAt(rapid.SampledFrom([]uint32{r.First(), r.Last(), 0x12345678}).Draw(t, "hash"))
			sorted := slices.SortedFunc(slices.Values(list), newerFirst)
			keep := func(f func(*Pack) bool) (out []*Pack) {
				for _, p := range sorted {
					if f(p) {
						out = append(out, p)
					}
				}
				return out
			}
			if got, want := root.covering(h, nil), keep(func(p *Pack) bool { return p.Range.Contains(h) }); !slices.Equal(got, want) {
				t.Fatalf("covering %s: got %v, want %v", h, got, want)
			}
			got := root.overlapping(r, nil)
			slices.SortFunc(got, newerFirst)
			if want := keep(func(p *Pack) bool { return p.Range.Overlaps(r) }); !slices.Equal(got, want) {
				t.Fatalf("overlapping %s: got %v, want %v", r, got, want)
			}
			if got, want := slices.Clone(root.at(r)), keep(func(p *Pack) bool { return p.Range == r }); !slices.Equal(got, want) {
				t.Fatalf("at %s: got %v, want %v", r, got, want)
			}
			unacked := keep(func(p *Pack) bool { return p.Range.Overlaps(r) && !p.Acknowledged })
			if got := root.anyUnacked(r); got != (len(unacked) > 0) {
				t.Fatalf("anyUnacked %s: got %v, want %v", r, got, unacked)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				seq := desformat.Token{Generation: 1, Index: rapid.Uint64Range(1, 5).Draw(t, "seq")}
				added++
				p := &Pack{ID: packID(added), Range: drawRange(t), MaxSeq: seq}
				before, was := root, root.all(nil)
				root = root.with(p.Range, nil, p)
				list = append(list, p)
				if !slices.Equal(before.all(nil), was) {
					t.Fatal("the old trie has changed")
				}
			},
			"acknowledge": func(t *rapid.T) {
				if len(list) == 0 {
					t.Skip("nothing to change")
				}
				i := rapid.IntRange(0, len(list)-1).Draw(t, "i")
				p := *list[i]
				p.Acknowledged = true
				root = root.with(p.Range, list[i], &p)
				list[i] = &p
			},
			"remove": func(t *rapid.T) {
				if len(list) == 0 {
					t.Skip("nothing to remove")
				}
				i := rapid.IntRange(0, len(list)-1).Draw(t, "i")
				root = root.with(list[i].Range, list[i], nil)
				list = slices.Delete(slices.Clone(list), i, i+1)
			},
			"": func(*rapid.T) { check() },
		})
		for _, p := range list {
			root = root.with(p.Range, p, nil)
		}
		if root != nil {
			t.Fatalf("emptied trie still has nodes: %+v", root)
		}
	})
}

func TestReplacedPacksDoNotCover(t *testing.T) {
	w := newWorld(t)
	w.acked("3a/8", packID(1))
	s := w.state().state
	old := w.state().Pack(packID(1))
	p := *old
	p.ReplacedBy = packID(2)
	s.put(old, &p)
	v := &View{state: s}
	if got := v.Covering(hashAt(0x3a000000), nil); len(got) != 0 {
		t.Errorf("covering: %v", got)
	}
	if v.Pack(packID(1)) != &p {
		t.Error("the manifest entry is gone")
	}
	again := p
	again.ModIndex++
	s.put(&p, &again)
	if got := s.ranges.all(nil); len(got) != 0 {
		t.Errorf("changing a replaced pack shows it again: %v", got)
	}
}

func TestTableAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab table[int]
		model := map[string]int{}
		key := rapid.StringN(0, 2, 4)
		for i := range rapid.IntRange(0, 300).Draw(t, "steps") {
			k := key.Draw(t, "key")
			if rapid.Bool().Draw(t, "delete") {
				tab = tab.delete(k)
				delete(model, k)
			} else {
				tab = tab.set(k, i)
				model[k] = i
			}
		}
		if tab.len() != len(model) {
			t.Fatalf("%d entries, want %d", tab.len(), len(model))
		}
		last, n := "", 0
		for k, v := range tab.all() {
			if n > 0 && k <= last || model[k] != v {
				t.Fatalf("entry %q=%d behind %q, want %d", k, v, last, model[k])
			}
			last, n = k, n+1
		}
		if n != len(model) {
			t.Fatalf("%d entries yielded, want %d", n, len(model))
		}
		first := key.Draw(t, "first")
		for k := range tab.from(first) {
			if k < first {
				t.Fatalf("%q is below %q", k, first)
			}
			n--
		}
		for k := range model {
			if k < first {
				n--
			}
		}
		if n != 0 {
			t.Fatalf("%d entries too few from %q", n, first)
		}
	})
}

func TestOrdinalsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfNDistinct(rapid.OneOf(rapid.Uint32Range(0, 40), rapid.Uint32()), 0, 60, rapid.ID[uint32]).Draw(t, "ordinals")
		slices.Sort(in)
		text, err := ordinals(in).MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var out ordinals
		if err := out.UnmarshalText(text); err != nil || !slices.Equal(out, in) {
			t.Fatalf("%v became %v: %v", in, out, err)
		}
	})
	all := make(ordinals, 5_000_000)
	for i := range all {
		all[i] = uint32(i)
	}
	if text, err := all.MarshalText(); err != nil || len(text) > 16 {
		t.Errorf("five million neighbours take %d bytes: %v", len(text), err)
	}
	for _, bad := range []ordinals{{1, 1}, {2, 1}} {
		_, err := bad.MarshalText()
		wantErr(t, err, ErrInvalid)
	}
	for _, text := range []string{"!", "gA==", "AIA=", "AP////8P", "/////w8B"} {
		var out ordinals
		if err := out.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q became %d ordinals", text, len(out))
		}
	}
}

// manyPacks is a manifest as a cluster without merging grows it: layers of
// packs, each covering the space once in ranges of the given number of bits.
func manyPacks(layers ...uint8) *View {
	var s state
	for layer, bits := range layers {
		for v := range uint32(1) << bits {
			r, err := desformat.NewRange(v, bits)
			if err != nil {
				panic(err)
			}
			id := packID(uint64(layer)<<32 | uint64(v))
			seq := desformat.Token{Generation: 1, Index: uint64(layer)*1_000_000 + uint64(v) + 1}
			s.put(nil, &Pack{ID: id, Range: r, MaxSeq: seq, Token: seq, Acknowledged: true})
		}
	}
	return &View{state: s}
}

func TestCoveringDoesNotAllocate(t *testing.T) {
	v := manyPacks(5, 5, 5)
	v.ranges = v.ranges.with(desformat.Range{}, nil, &Pack{ID: packID(1), Acknowledged: true})
	dst := make([]*Pack, 0, 16)
	n := testing.AllocsPerRun(100, func() { dst = v.Covering(hashAt(0x12345678), dst[:0]) })
	if n != 0 || len(dst) != 4 {
		t.Errorf("%v allocations for %d packs", n, len(dst))
	}
}

func BenchmarkCovering(b *testing.B) {
	for name, layers := range map[string][]uint8{
		"packs=1":               {0},
		"packs=100/layers=4":    {5, 5, 5, 2},
		"packs=10000/layers=1":  {13},
		"packs=10000/layers=10": {10, 10, 10, 10, 10, 10, 10, 10, 10, 10},
		"packs=10000/depths=8":  {13, 10, 9, 8, 6, 4, 2, 0},
	} {
		v := manyPacks(layers...)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			dst := make([]*Pack, 0, 64)
			h := hashAt(0)
			var top uint32
			for b.Loop() {
				top += 0x9e3779b9 // walks the whole space
				binary.BigEndian.PutUint32(h[:4], top)
				dst = v.Covering(h, dst[:0])
			}
			if len(dst) != len(layers) {
				b.Fatalf("%d packs, want %d", len(dst), len(layers))
			}
		})
	}
}

func BenchmarkAddToTrie(b *testing.B) {
	v := manyPacks(13)
	p := &Pack{ID: packID(1), Range: v.Overlapping(desformat.Range{})[77].Range}
	b.ReportAllocs()
	for b.Loop() {
		v.ranges.with(p.Range, nil, p)
	}
}
