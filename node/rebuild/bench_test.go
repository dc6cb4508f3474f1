package rebuild

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/datavision/desnode/desformat"
)

// fill puts packs of one range each into the store, whose records stand for
// rows that the table does not have.
func (w *world) fill(packs, records int) {
	w.t.Helper()
	f := &memFile{}
	for i := range packs {
		token := desformat.Token{Generation: 1, Index: uint64(i + 100)}
		f.b = f.b[:0]
		dw, err := desformat.NewWriter(f, desformat.WriterConfig{Pack: w.newID(), Cluster: ofCluster(), Token: token, Created: w.clock.Now()})
		w.check(err)
		hashed := map[desformat.NameHash]string{}
		for n := range records {
			name := fmt.Sprintf("pack %d/file %d", i, n)
			hashed[desformat.HashName(name)] = name
		}
		for n, hash := range sortedHashes(hashed) {
			_, err := dw.Append(desformat.Record{
				Type: desformat.TypeFile, Name: hashed[hash], Seq: token, Source: "files", ID: fmt.Sprint(i*records + n + 1),
				Version: 1, ModTime: w.clock.Now(), SourceSize: 1024, SourceTime: w.clock.Now(),
			}, bytes.NewReader(make([]byte, 1024)))
			w.check(err)
		}
		footer, err := dw.Seal()
		w.check(err)
		w.put(desformat.PackKey(footer.Range, token, footer.Pack), string(f.b))
	}
}

// BenchmarkRebuild makes the manifest of 1,000 packs anew, on a store that
// answers at once: what LIST, footers and the state machine take; and with the
// rows of all of them looked for by their catalogs.
func BenchmarkRebuild(b *testing.B) {
	const packs, records = 1000, 64
	for _, rows := range []bool{false, true} {
		b.Run(map[bool]string{false: "manifest", true: "manifest and rows"}[rows], func(b *testing.B) {
			w := newWorld(b)
			w.fill(packs, records)
			generation, before := uint64(1), w.store.Counts()
			for b.Loop() {
				generation++
				w.begin("node-2", generation, nil)
				p := w.rebuild(func(c *Config) { c.Footers, c.RowWorkers, c.Acknowledge, c.Source = 0, 0, nil, rows })
				if p.Adopted != packs || rows && p.RowsMissing != packs*records {
					b.Fatalf("progress %+v", p)
				}
			}
			got := w.store.Counts().Sub(before)
			b.ReportMetric(float64(got.Requests())/float64(generation-1), "requests/op")
			b.ReportMetric(float64(got.BytesGot)/float64(generation-1)/1e6, "MB/op")
		})
	}
}

// sortedHashes yields the hashes in the order of a pack.
func sortedHashes(names map[desformat.NameHash]string) []desformat.NameHash {
	return slices.SortedFunc(maps.Keys(names), func(a, b desformat.NameHash) int { return bytes.Compare(a[:], b[:]) })
}
