package store

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// These run against the real server on this machine, which takes as much of it
// as the store does: they bound what the driver costs from above.

func benchS3(b *testing.B, partSize int64) *S3 {
	c := s3Config(b)
	c.PartSize, c.ReadTimeout, c.WriteTimeout, c.Stall = partSize, time.Minute, 5*time.Minute, time.Minute
	return openTestS3(b, c)
}

func BenchmarkS3Put(b *testing.B) {
	for _, c := range []struct {
		name     string
		partSize int64
	}{{"one request", DefaultPartSize}, {"parts of 16 MiB", 16 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			s := benchS3(b, c.partSize)
			const size = 64 << 20
			content := strings.NewReader(bytesOf(size))
			b.SetBytes(size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				key := fmt.Sprintf("packs/%d", i)
				if _, err := s.Put(b.Context(), key, content, size); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Delete(b.Context(), key); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkS3Get(b *testing.B) {
	s := benchS3(b, DefaultPartSize)
	const object = 64 << 20
	o, err := s.Put(b.Context(), "k", strings.NewReader(bytesOf(object)), object)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int64{16 << 10, 1 << 20, object} {
		b.Run(fmt.Sprintf("%d KiB", size>>10), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.Get(b.Context(), "k", o.Version, 0, size)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != size {
					b.Fatalf("%d bytes, %v", n, err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
