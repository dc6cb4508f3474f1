package source_test

import (
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/source"
)

// goSource is a folder of files that nobody here wrote.
func goSource(b *testing.B) string {
	out, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

func BenchmarkWalk(b *testing.B) {
	dir := goSource(b)
	files := 0
	for b.Loop() {
		files = 0
		err := source.Walk(b.Context(), dir, func(source.File) error { files++; return nil }, func(string, string) {})
		if err != nil || files == 0 {
			b.Fatal(files, err)
		}
	}
	b.ReportMetric(float64(files*b.N)/b.Elapsed().Seconds(), "files/s")
}

func BenchmarkOpenAndRead(b *testing.B) {
	dir := goSource(b)
	var paths []string
	err := source.Walk(b.Context(), dir, func(f source.File) error { paths = append(paths, f.Path); return nil }, func(string, string) {})
	if err != nil {
		b.Fatal(err)
	}
	originals := source.NewFolders(func() []string { return []string{dir} })
	buf := make([]byte, 1<<20)
	var size int64
	for i := 0; b.Loop(); i++ {
		o, err := originals.Open(b.Context(), paths[i%len(paths)])
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, o, buf)
		if err != nil {
			b.Fatal(err)
		}
		size += n
		if err := o.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
	b.ReportMetric(float64(size)/1e6/b.Elapsed().Seconds(), "MB/s")
}
