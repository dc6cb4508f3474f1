package desformat

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// recordLen draws the length of a record of the design's workload: content
// log-normal with a median of 16 KiB and sigma 1, names of 16 to 80 bytes.
func recordLen(rng *rand.Rand) int64 {
	return int64(math.Exp(rng.NormFloat64())*(16<<10)) + 85 + 16 + rng.Int64N(65)
}

// risingKeys yields n uniform 64-bit numbers in rising order: sums of
// exponential gaps.
func risingKeys(rng *rand.Rand, n int, visit func(key uint64)) {
	gaps := make([]float32, n)
	total := rng.ExpFloat64()
	for i := range gaps {
		gaps[i] = float32(rng.ExpFloat64())
		total += float64(gaps[i])
	}
	sum := 0.0
	for _, gap := range gaps {
		sum += float64(gap)
		// Below 2^53 steps of the sum are coarse; the low bits are drawn.
		visit(uint64(sum/total*(1<<53))<<11 | rng.Uint64()>>53)
	}
}

// benchIndex builds the index of n records of the design's workload and
// returns it with `sample` of their hashes, shuffled.
func benchIndex(b *testing.B, n, sample int) (*Index, []NameHash) {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	build := newIndexBuilder(uint32(n), Range{})
	end := int64(packHeaderLen)
	hashes := make([]NameHash, 0, sample)
	risingKeys(rng, n, func(key uint64) {
		var h NameHash
		binary.BigEndian.PutUint64(h[:], key)
		end += recordLen(rng)
		build.add(h, end)
		if rng.IntN(n) < sample {
			hashes = append(hashes, h)
		}
	})
	built := build.finish()
	raw := make([]byte, len(built)) // as it is fetched: without the builder's spare room
	copy(raw, built)
	x, err := ParseIndex(raw, Section{Offset: end, Length: int64(len(raw)), CRC: crc32c(raw)})
	if err != nil {
		b.Fatal(err)
	}
	rng.Shuffle(len(hashes), func(i, j int) { hashes[i], hashes[j] = hashes[j], hashes[i] })
	return x, hashes
}

// BenchmarkIndex measures lookups of files that are there, the memory a file
// takes, and how often a name that is not there has a place all the same
// (bar: 2^-15 = 3.05e-05). warm is the index of one pack of 256 MiB, 40MB is
// larger than a core's caches.
func BenchmarkIndex(b *testing.B) {
	for _, bc := range []struct {
		name    string
		records int
	}{{"warm", 10_000}, {"40MB", 9_400_000}} {
		b.Run(bc.name, func(b *testing.B) {
			x, hashes := benchIndex(b, bc.records, min(bc.records, 1<<20))
			rate := falseRate(x, 1<<23)
			dst := make([]Location, 0, 16)
			found := 0
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				dst = x.Lookup(hashes[i], dst[:0])
				found += min(len(dst), 1)
				if i++; i == len(hashes) {
					i = 0
				}
			}
			if found != b.N {
				b.Fatalf("%d of %d found", found, b.N)
			}
			b.ReportMetric(float64(x.Bytes())/float64(x.Records()), "bytes/file")
			b.ReportMetric(rate, "false/lookup")
			b.ReportMetric(float64(x.Bytes())/1e6, "MB")
		})
	}
}

// falseRate looks n random hashes up.
func falseRate(x *Index, n int) float64 {
	rng := rand.New(rand.NewPCG(7, 7))
	var h NameHash
	dst := make([]Location, 0, 16)
	hits := 0
	for range n {
		binary.BigEndian.PutUint64(h[:], rng.Uint64())
		hits += len(x.Lookup(h, dst[:0]))
	}
	return float64(hits) / float64(n)
}

// BenchmarkIndexParse measures opening the index of a pack of 256 MiB.
func BenchmarkIndexParse(b *testing.B) {
	x, _ := benchIndex(b, 10_000, 0)
	s := Section{Offset: x.start, Length: int64(len(x.b)), CRC: crc32c(x.b)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseIndex(x.b, s); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/file")
}

// benchNames returns n names of a document archive in the order of a pack.
func benchNames(n int) []item {
	rng := rand.New(rand.NewPCG(3, 3))
	items := make([]item, n)
	for i := range items {
		items[i] = benchItem(rng, i)
	}
	return sortItems(items)
}

// BenchmarkWriter writes a pack of 16 KiB records into a file: content and
// pack are both hashed, catalog and index are written.
func BenchmarkWriter(b *testing.B) {
	const records, size = 4096, 16 << 10
	items := benchNames(records)
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	f := testFile(b)
	src := bytes.NewReader(nil)
	b.SetBytes(records * size)
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Truncate(0); err != nil {
			b.Fatal(err)
		}
		writeAll(b, f, items, func() *bytes.Reader { src.Reset(content); return src })
	}
}

func writeAll(b *testing.B, f *os.File, items []item, content func() *bytes.Reader) Footer {
	b.Helper()
	cfg := testConfig()
	cfg.ChunkSize, cfg.ChunkThreshold = 0, 0
	w, err := NewWriter(f, cfg)
	if err != nil {
		b.Fatal(err)
	}
	for i := range items {
		r := content()
		items[i].Size = int64(r.Len())
		if _, err := w.Append(items[i].Record, r); err != nil {
			b.Fatal(err)
		}
	}
	footer, err := w.Seal()
	if err != nil {
		b.Fatal(err)
	}
	return footer
}

// BenchmarkPackOverhead reports what a pack takes beyond the content and
// twice the names (bar: 150 bytes a file).
func BenchmarkPackOverhead(b *testing.B) {
	items := benchNames(20_000)
	rng := rand.New(rand.NewPCG(5, 5))
	f := testFile(b)
	names, size := 0, int64(0)
	for i := range items {
		names += len(items[i].Name)
	}
	var footer Footer
	for b.Loop() {
		size = 0
		if err := f.Truncate(0); err != nil {
			b.Fatal(err)
		}
		zeros := make([]byte, 1<<20)
		footer = writeAll(b, f, items, func() *bytes.Reader {
			n := min(recordLen(rng), int64(len(zeros)))
			size += n
			return bytes.NewReader(zeros[:n])
		})
	}
	n := float64(len(items))
	b.ReportMetric((float64(footer.Size-size)-2*float64(names))/n, "bytes/file")
	b.ReportMetric(float64(footer.Catalog.Length)/n, "catalog/file")
	b.ReportMetric(float64(names)/n, "name/file")
}
