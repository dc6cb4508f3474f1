package desformat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// keyed is a hash whose bits behind the range are key.
func keyed(r Range, key uint64) (h NameHash) {
	hi, lo := uint64(r.prefix)<<32, uint64(0)
	hi |= key >> r.bits
	lo |= key << (64 - r.bits)
	binary.BigEndian.PutUint64(h[:8], hi)
	binary.BigEndian.PutUint64(h[8:16], lo)
	return h
}

// indexOf builds and parses the index of records with these keys, which it
// sorts, and lengths.
func indexOf(t testing.TB, r Range, keys []uint64, length func(i int) int64) (*Index, []Location) {
	t.Helper()
	slices.Sort(keys)
	build := newIndexBuilder(uint32(len(keys)), r)
	locs := make([]Location, len(keys))
	end := int64(packHeaderLen)
	for i, key := range keys {
		locs[i] = Location{Ordinal: uint32(i), Offset: end, Length: length(i)}
		end += locs[i].Length
		build.add(keyed(r, key), end)
	}
	b := build.finish()
	x, err := ParseIndex(b, Section{Offset: end, Length: int64(len(b)), CRC: crc32c(b)})
	if err != nil {
		t.Fatal(err)
	}
	if x.Records() != len(keys) || x.Bytes() < int64(len(b)) {
		t.Fatalf("%d records in %d bytes, want %d in %d at least", x.Records(), x.Bytes(), len(keys), len(b))
	}
	return x, locs
}

// TestIndexFindsEverything: every record is among the candidates of its hash,
// with its very place, whatever the spread of hashes and lengths.
func TestIndexFindsEverything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		n := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(100, 130), rapid.IntRange(0, 2000)).Draw(rt, "records")
		mask := ^uint64(0) << rapid.SampledFrom([]int{0, 0, 30, 50, 58, 63}).Draw(rt, "equal bits") // few distinct hashes
		shift := rapid.SampledFrom([]int{0, 0, 8, 40}).Draw(rt, "crowded bits")                     // all in few pages
		maxLen := rapid.SampledFrom([]int64{1, 1000, 1 << 20, 1 << 36}).Draw(rt, "lengths")
		keys := make([]uint64, n)
		for i := range keys {
			keys[i] = rng.Uint64() & mask >> shift
		}
		length := func(i int) int64 {
			if i%50 == 3 {
				return minHeader + rng.Int64N(maxLen*2)
			}
			return minHeader + rng.Int64N(min(maxLen, 5000))
		}
		r := drawRange(rt)
		x, locs := indexOf(t, r, keys, length)
		for i, key := range keys {
			got := x.Lookup(keyed(r, key), nil)
			if !slices.Contains(got, locs[i]) {
				rt.Fatalf("record %d of %d: %v not in %v", i, n, locs[i], got)
			}
			for j, loc := range got {
				if locs[loc.Ordinal] != loc || j > 0 && loc.Ordinal != got[j-1].Ordinal+1 {
					rt.Fatalf("record %d: candidate %v, want %v", i, loc, locs[loc.Ordinal])
				}
			}
		}
	})
}

// TestIndexCandidatesOfEqualHashes: all records of one hash are candidates, in
// their order, also when they are more than a page, and nothing else is.
func TestIndexCandidatesOfEqualHashes(t *testing.T) {
	for _, n := range []int{1, 2, 57, 64, 111, 112, 113, 1000, 20_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			keys := []uint64{0, 1, 1 << 62, 1 << 63, ^uint64(0)}
			const same = uint64(0x7777_7777_7777_7777)
			for range n {
				keys = append(keys, same)
			}
			x, locs := indexOf(t, Range{}, keys, func(i int) int64 { return minHeader + int64(i%3) })
			first := slices.Index(keys, same)
			if got := x.Lookup(keyed(Range{}, same), nil); !slices.Equal(got, locs[first:first+n]) {
				t.Errorf("%d candidates, want %d", len(got), n)
			}
		})
	}
}

// TestIndexFalseRate counts: at most 2^-15 of the names that are not there
// have a candidate, at the sizes where the pages are fullest and emptiest too.
func TestIndexFalseRate(t *testing.T) {
	const lookups = 1 << 20
	for _, n := range []int{1, 3, 64, 112, 113, 20_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(9, uint64(n)))
			keys := make([]uint64, n)
			for i := range keys {
				keys[i] = rng.Uint64()
			}
			x, _ := indexOf(t, Range{}, keys, func(int) int64 { return 1000 })
			// 32 are expected at the bar; 58 is 4.6 sigma above it.
			if rate := falseRate(x, lookups); rate*lookups > 58 {
				t.Errorf("false rate %.3g, want at most %.3g", rate, 1.0/(1<<15))
			}
		})
	}
}

func TestIndexLookupDoesNotAllocate(t *testing.T) {
	keys := make([]uint64, 10_000)
	for i := range keys {
		keys[i] = rand.Uint64()
	}
	x, _ := indexOf(t, Range{}, keys, func(i int) int64 { return 100 + int64(i) })
	dst := make([]Location, 0, 8)
	if n := testing.AllocsPerRun(1000, func() { dst = x.Lookup(keyed(Range{}, keys[77]), dst[:0]) }); n != 0 {
		t.Errorf("%v allocations a lookup", n)
	}
}

// TestParseIndexRefuses: an index whose checksum is right and whose content is
// not, as no Writer makes it, is refused, for every bit there is.
func TestParseIndexRefuses(t *testing.T) {
	keys := make([]uint64, 130)
	for i := range keys {
		keys[i] = uint64(i) * 0x0123_4567_89ab_cdef
	}
	x, _ := indexOf(t, Range{}, keys, func(i int) int64 { return 100 + int64(i*i) })
	accepted := 0
	for i := range x.b {
		for bit := range 8 {
			b := slices.Clone(x.b)
			b[i] ^= 1 << bit
			y, err := ParseIndex(b, Section{Offset: x.start, Length: int64(len(b)), CRC: crc32c(b)})
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("bit %d of byte %d: %v", bit, i, err)
				}
				continue
			}
			// A forged remainder or end can be plausible; no lookup may leave the pack.
			accepted++
			for _, key := range keys {
				for _, loc := range y.Lookup(keyed(Range{}, key), nil) {
					if loc.Offset < packHeaderLen || loc.Length < minHeader || loc.Offset+loc.Length > x.start {
						t.Fatalf("bit %d of byte %d: a lookup yields %v", bit, i, loc)
					}
				}
			}
		}
	}
	if total := len(x.b) * 8; accepted > total*3/4 {
		t.Errorf("%d of %d forged indexes accepted", accepted, total)
	}
	b := slices.Clone(x.b)
	p := x.page(0) // its last record behind the last quotient there is
	last := selectOne(b, p.quotients, p.n-1)
	b[p.quotients+last/8] &^= 1 << (last % 8)
	last = p.n + 1<<x.geo.quotients - 1
	b[p.quotients+last/8] |= 1 << (last % 8)
	if _, err := ParseIndex(b, Section{Offset: x.start, Length: int64(len(b)), CRC: crc32c(b)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("quotient without an end: %v, want ErrCorrupt", err)
	}
	for n := range x.b {
		if _, err := ParseIndex(x.b[:n], Section{Offset: x.start, Length: int64(n), CRC: crc32c(x.b[:n])}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("first %d bytes: %v", n, err)
		}
	}
}
