package retriever

import (
	"fmt"
	"testing"
)

// hot is a retriever over the real manifest whose one pack of n files, of size
// bytes each, has been read into memory, and the files' names.
func hot(b *testing.B, n, size int) (r *Retriever, names []string) {
	b.Helper()
	m := startMeta(b)
	w := newWorld(b)
	versions := make([]version, n)
	for i := range versions {
		versions[i] = version{name: fmt.Sprintf("documents/2026/03/%06d.pdf", i), content: long(fmt.Sprint(i), size)}
		names = append(names, versions[i].name)
	}
	w.commit(b, m, nil, versions...)
	r = w.retriever(func(c *Config) { c.Manifest = FromMeta(m) })
	for i, name := range names {
		wantRead(b, r, name, versions[i].content)
	}
	return r, names
}

// BenchmarkLocate finds records whose headers are in memory.
func BenchmarkLocate(b *testing.B) {
	r, names := hot(b, 1000, 1<<10)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f, err := r.Open(b.Context(), names[i%len(names)], Query{Want: WantHeader})
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// BenchmarkHotOpen opens records whose content is in memory.
func BenchmarkHotOpen(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			r, names := hot(b, 1000, size)
			ctx := b.Context()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f, err := r.Open(ctx, names[i%len(names)], Query{})
				if err != nil {
					b.Fatal(err)
				}
				if content, whole := f.Content(); !whole || len(content) != size {
					b.Fatal("not in memory")
				}
				f.Close()
			}
		})
	}
}

// BenchmarkHotOpenParallel is BenchmarkHotOpen from all cores.
func BenchmarkHotOpenParallel(b *testing.B) {
	r, names := hot(b, 1000, 1<<10)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			f, err := r.Open(ctx, names[i%len(names)], Query{})
			if err != nil {
				b.Error(err)
				return
			}
			f.Close()
		}
	})
}
