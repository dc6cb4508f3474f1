package packer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkNodes packs one backlog with one node and with three, which share the
// machine, one SQLite file and one store, as several processes of one host do.
// Three must not be slower; what they ask of the table and of the cluster's log
// is reported for each 1000 files.
func BenchmarkNodes(b *testing.B) {
	const files, size = 12_000, 16 << 10
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d", nodes), func(b *testing.B) {
			var counts, pages, asked, refused, packs int64
			for range b.N {
				b.StopTimer()
				w := newWorld(b)
				w.add(files, func(int) int { return size / 5 })
				c := w.cluster(nodes, func(c *Config) { c.PackSize = 4 << 20 })
				b.StartTimer()
				c.runUntilPacked(b, files)
				b.StopTimer()
				counts += c.sum(func(m *member) int64 { return m.counts.Load() })
				pages += c.sum(func(m *member) int64 { return m.lists.Load() })
				refused += c.sum(func(m *member) int64 { return m.refused.Load() })
				asked += c.asked()
				packs += int64(len(w.packs))
			}
			each := float64(b.N) * files / 1000
			b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			b.ReportMetric(float64(counts)/each, "counts/kfile")
			b.ReportMetric(float64(pages)/each, "pages/kfile")
			b.ReportMetric(float64(asked)/each, "leases/kfile")
			b.ReportMetric(float64(refused)/each, "refused/kfile")
			b.ReportMetric(float64(packs)/float64(b.N), "packs")
		})
	}
}

// runUntilPacked flushes all nodes, and stops them when so many rows are PACKED.
func (c cluster) runUntilPacked(tb testing.TB, rows int64) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	var done atomic.Int64
	var all sync.WaitGroup
	for i, p := range c.packers {
		c.members[i].packed = func(n int64) {
			if done.Add(n) >= rows {
				cancel()
			}
		}
		p.Flush()
		all.Go(func() {
			if err := p.Run(ctx); err != nil {
				tb.Error(err)
			}
		})
	}
	all.Wait()
}
