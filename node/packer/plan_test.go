package packer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

const mib = 1 << 20

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// spread puts rows of one size evenly over 2^bits buckets.
func spread(t interface{ Fatal(...any) }, bits uint8, rows, size int64, marked time.Time) []source.Bucket {
	n := int64(1) << bits
	var buckets []source.Bucket
	for i := range n {
		r, err := desformat.NewRange(uint32(i), bits)
		if err != nil {
			t.Fatal(err)
		}
		have := rows*(i+1)/n - rows*i/n
		if have > 0 {
			buckets = append(buckets, source.Bucket{Range: r, Rows: have, Bytes: have * size, Oldest: marked})
		}
	}
	return buckets
}

func planFor(buckets []source.Bucket, bits uint8) planning {
	return planning{
		buckets: buckets, bits: bits, packSize: 256 * mib, roundBytes: 32 * 256 * mib, maxWait: 24 * time.Hour,
		now: epoch, busy: func(desformat.Range) bool { return false },
	}
}

func ranges(cuts []cut) []string {
	var s []string
	for _, c := range cuts {
		s = append(s, c.rng.String())
	}
	return s
}

func TestPlanCutsIntoPacks(t *testing.T) {
	hour := func(n time.Duration) time.Time { return epoch.Add(-n * time.Hour) }
	eighths := []string{"0/3", "1/3", "2/3", "3/3", "4/3", "5/3", "6/3", "7/3"}
	var sixtyFourths []string
	for i := range 64 {
		sixtyFourths = append(sixtyFourths, fmt.Sprintf("%02x/6", i))
	}
	tests := []struct {
		name       string
		rows, size int64
		marked     time.Time
		change     func(*planning)
		want       []string
	}{
		{"nothing", 0, 0, hour(1), nil, nil},
		{"100,000 of 16 KiB are 8 packs", 100_000, 16 << 10, hour(1), func(p *planning) { p.flush = true }, eighths},
		{"1,000,000 of 16 KiB are 64 packs", 1_000_000, 16 << 10, hour(24), nil, sixtyFourths},
		{"less than a round waits", 100_000, 16 << 10, hour(23), nil, nil},
		{"until the oldest has waited long enough", 100_000, 16 << 10, hour(24), nil, eighths},
		{"or marking is at its limit", 100_000, 16 << 10, hour(1), func(p *planning) { p.full = true }, eighths},
		{"or the round is full", 100_000, 16 << 10, hour(1), func(p *planning) { p.roundBytes = 1500 * mib }, eighths},
		{"a small range waits even then", 10, 1 << 10, hour(1), func(p *planning) { p.roundBytes = 1 }, nil},
		{"unless flushed", 10, 1 << 10, hour(1), func(p *planning) { p.flush = true }, []string{"0/0"}},
		{"or nothing else would free marking", 10, 1 << 10, hour(1), func(p *planning) { p.full = true }, []string{"0/0"}},
		{"a million empty files are no single pack", 2_000_000, 0, hour(24), nil, []string{"0/1", "1/1"}},
		{
			"taken ranges are left out", 100_000, 16 << 10, hour(24),
			func(p *planning) {
				held, _ := desformat.ParseRange("1/2")
				p.busy = held.Overlaps
			},
			[]string{"0/3", "1/3", "4/3", "5/3", "6/3", "7/3"},
		},
		{
			"a range above a taken one is left out", 10, 1 << 10, hour(24),
			func(p *planning) {
				held, _ := desformat.ParseRange("1/2")
				p.busy = held.Overlaps
			},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := planFor(spread(t, 10, tt.rows, tt.size, tt.marked), 10)
			if tt.change != nil {
				tt.change(&p)
			}
			found := plan(p)
			cuts, tooCoarse := found.cuts, found.tooCoarse
			if tooCoarse {
				t.Error("buckets called too coarse")
			}
			if got := ranges(cuts); !slices.Equal(got, tt.want) {
				t.Errorf("cut %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPlanDoesNotCutHugeFilesToDust(t *testing.T) {
	const size = 256 * mib
	near := func(value uint32, rows int64) source.Bucket {
		r, _ := desformat.NewRange(value, 16)
		return source.Bucket{Range: r, Rows: rows, Bytes: rows * rowCap(size), Oldest: epoch}
	}
	p := planFor([]source.Bucket{near(0x1230, 1), near(0x1231, 1)}, 16)
	p.flush = true
	if found := plan(p); !slices.Equal(ranges(found.cuts), []string{"0/0"}) {
		t.Errorf("two huge files are cut into %v", ranges(found.cuts))
	}
	p.buckets = append(p.buckets, near(0xf000, 1))
	if found := plan(p); !slices.Equal(ranges(found.cuts), []string{"0/1", "1/1"}) {
		t.Errorf("three huge files are cut into %v", ranges(found.cuts))
	}
	p.buckets = []source.Bucket{near(0x1230, 3)}
	if found := plan(p); !found.tooCoarse || len(found.cuts) != 1 {
		t.Errorf("three huge files in one bucket: %v, too coarse %v", ranges(found.cuts), found.tooCoarse)
	}
	p.buckets = []source.Bucket{{Range: near(0x1230, 1).Range, Rows: 1, Bytes: 100 * size, Oldest: epoch}}
	if found := plan(p); found.tooCoarse || len(found.cuts) != 1 {
		t.Errorf("one row can't be split: %v, too coarse %v", ranges(found.cuts), found.tooCoarse)
	}
}

// Whatever the backlog: flushed ranges are disjoint, rise, hold every row once
// and at most one pack each, and none could be merged with its sibling.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const bits = 8
		var buckets []source.Bucket
		var rows int64
		for _, v := range rapid.SliceOfDistinct(rapid.Uint32Range(0, 255), func(v uint32) uint32 { return v }).Draw(t, "buckets") {
			r, _ := desformat.NewRange(v, bits)
			n := rapid.Int64Range(1, 5000).Draw(t, "rows")
			buckets = append(buckets, source.Bucket{Range: r, Rows: n, Bytes: n * rapid.Int64Range(0, 100_000).Draw(t, "size"), Oldest: epoch})
			rows += n
		}
		p := planFor(merge(buckets), bits)
		p.flush = true
		found := plan(p)
		cuts, tooCoarse := found.cuts, found.tooCoarse
		weight := make(map[desformat.Range]int64)
		for i, c := range cuts {
			rows -= c.rows
			weight[c.rng] = c.bytes
			if i > 0 && cuts[i-1].rng.Last() >= c.rng.First() {
				t.Fatalf("%v and %v overlap or fall", cuts[i-1].rng, c.rng)
			}
			if c.bytes > p.packSize && c.rows > 1 && (!tooCoarse || c.rng.Bits() < bits) {
				t.Fatalf("%v holds %d bytes", c.rng, c.bytes)
			}
		}
		if rows != 0 {
			t.Fatalf("%d rows are in no range", rows)
		}
		for _, c := range cuts {
			parent, _ := desformat.NewRange(c.rng.Value()>>1, max(c.rng.Bits(), 1)-1)
			low, high := parent.Halves()
			a, okA := weight[low]
			b, okB := weight[high]
			if c.rng.Bits() > 0 && okA && okB && a+b <= p.packSize {
				t.Fatalf("%v and %v fit one pack", low, high)
			}
		}
	})
}

func TestMergeSumsBucketsOfSources(t *testing.T) {
	bucket := func(v uint32, rows, bytes int64, age time.Duration) source.Bucket {
		r, _ := desformat.NewRange(v, 4)
		return source.Bucket{Range: r, Rows: rows, Bytes: bytes, Oldest: epoch.Add(-age)}
	}
	got := merge([]source.Bucket{
		bucket(1, 1, 10, time.Hour), bucket(9, 2, 20, time.Hour),
		bucket(0, 3, 30, 0), bucket(9, 4, 40, 2*time.Hour), bucket(15, 5, 50, 0),
	})
	want := []source.Bucket{
		bucket(0, 3, 30, 0), bucket(1, 1, 10, time.Hour), bucket(9, 6, 60, 2*time.Hour), bucket(15, 5, 50, 0),
	}
	if !slices.Equal(got, want) {
		t.Errorf("merged to %v, want %v", got, want)
	}
}
