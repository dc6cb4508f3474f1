package transport

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// benchPair runs two endpoints on loopback.
func benchPair(b *testing.B, r *memory) (from *Endpoint, to string) {
	b.Helper()
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	addrs := map[string]string{}
	start := func(name string) *Endpoint {
		id, err := FormIdentity(filepath.Join(b.TempDir(), "identity.pem"), ca, name, NewSecret(), nil)
		if err != nil {
			b.Fatal(err)
		}
		e, err := New(Config{
			Identity: id, Bind: "127.0.0.1:0", Reader: r, Handler: r,
			Allowed: func(string) bool { return true },
			Resolve: func(node string) (string, bool) { a, ok := addrs[node]; return a, ok },
			Logger:  slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		addrs[name] = e.Addr()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		b.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
		})
		return e
	}
	start("b")
	return start("a"), "b"
}

// memory answers every read with the same bytes and a full header.
type memory struct{ reply Reply }

func (m *memory) ServeRead(context.Context, string, *Request) (*Reply, error) {
	r := m.reply
	return &r, nil
}

func (m *memory) ServeCall(context.Context, string, string, []byte) ([]byte, error) {
	return m.reply.Data, nil
}

func newMemory(n int) *memory {
	data := pattern(n)
	return &memory{Reply{Data: data, Response: Response{
		Applied: 1, Name: "documents/2024/invoice-000001.pdf", ID: "123456", Source: "docs", Size: int64(n), SHA256: sha256.Sum256(data),
		Modified: time.Unix(1_700_000_000, 0), ContentType: "application/pdf", Ordinal: 1, SeqGeneration: 1, SeqIndex: 1, ArchiveVersion: 1,
		Pack: [16]byte{1}, Origin: OriginPack,
	}}}
}

// BenchmarkRead is one hop on loopback, caller and answering node in one
// process: sequential is the latency, parallel the throughput.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		q := Request{Kind: KindOpen, Name: "documents/2024/invoice-000001.pdf", RequestID: "0123456789abcdef"}
		read := func(b *testing.B, e *Endpoint, to string) bool {
			a, err := e.Read(b.Context(), to, q)
			if err != nil {
				b.Error(err)
				return false
			}
			n, err := a.Body.(io.WriterTo).WriteTo(io.Discard)
			if err != nil || n != int64(size) {
				b.Errorf("%d bytes, %v", n, err)
			}
			return a.Body.Close() == nil
		}
		b.Run(fmt.Sprintf("sequential/%dKiB", size>>10), func(b *testing.B) {
			e, to := benchPair(b, newMemory(size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if !read(b, e, to) {
					return
				}
			}
		})
		b.Run(fmt.Sprintf("parallel/%dKiB", size>>10), func(b *testing.B) {
			e, to := benchPair(b, newMemory(size))
			b.SetBytes(int64(size))
			b.SetParallelism(16)
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !read(b, e, to) {
						return
					}
					n.Add(1)
				}
			})
			b.ReportMetric(float64(n.Load())/b.Elapsed().Seconds(), "reads/s")
		})
	}
}

func BenchmarkFrames(b *testing.B) {
	h := &answerHead{Response: newMemory(16 << 10).reply.Response, status: StatusOK, payload: 16 << 10, hasPayload: true}
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		out, err := appendResponse(buf[:0], h)
		if err != nil {
			b.Fatal(err)
		}
		buf = out
		if _, err := parseResponse(out[frameHeaderBytes:]); err != nil {
			b.Fatal(err)
		}
	}
}
