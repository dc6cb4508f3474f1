package packer

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// BenchmarkBuildTree builds a pack of the Go toolchain's own source tree, from
// rows in SQLite and real files to a synced spool file.
func BenchmarkBuildTree(b *testing.B) {
	w := newWorld(b)
	w.dir = runtime.GOROOT() + "/src" //nolint:staticcheck // the tree that is there while tests run
	var batch []source.File
	var bytes int64
	err := source.Walk(b.Context(), w.dir, func(f source.File) error {
		batch = append(batch, f)
		bytes += f.Size
		return nil
	}, func(string, string) {})
	if err != nil {
		b.Fatal(err)
	}
	w.mark("files", batch...)
	p := w.packer(func(c *Config) { c.Finder, c.Spool = nothingLives{}, spoolFolder(w.spool) })
	w.sources[0].Files = source.NewFolders(func() []string { return []string{w.dir} })
	if err := spoolFolder(w.spool).Clean(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(bytes)
	for b.Loop() {
		lease := raftmeta.Lease{Token: desformat.Token{Generation: 1, Index: 1}}
		bld, err := p.newBuild(lease, desformat.Range{}, source.Due{Now: epoch.Add(time.Hour)}, w.sources)
		if err != nil {
			b.Fatal(err)
		}
		err = bld.fill(b.Context(), w.sources)
		bld.remove()
		if err != nil || bld.Rows != int64(len(batch)) {
			b.Fatal(fmt.Errorf("%d of %d rows: %w", bld.Rows, len(batch), err))
		}
	}
	b.ReportMetric(float64(len(batch))*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
