package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// barePair is quic-go alone, with our settings: a stream's 64 bytes are answered
// with n. What BenchmarkHop/read takes beyond BenchmarkHop/bare is ours.
func barePair(b *testing.B, n int) *quic.Conn {
	b.Helper()
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	conf := func(name string) (*Endpoint, *tls.Config, *quic.Transport) {
		id, err := FormIdentity(b.TempDir()+"/identity.pem", ca, name, NewSecret(), nil)
		if err != nil {
			b.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		tr := &quic.Transport{Conn: udp, ConnectionIDLength: 8}
		b.Cleanup(func() { _, _ = tr.Close(), udp.Close() })
		c := id.base("bare")
		c.InsecureSkipVerify = true
		return &Endpoint{cfg: Config{}.withDefaults()}, c, tr
	}
	e, c, tr := conf("b")
	ln, err := tr.Listen(c, e.serverConfig())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	b.Cleanup(func() {
		cancel()
		tasks.Wait()
	})
	data := pattern(n)
	tasks.Go(func() {
		conn, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		for {
			s, err := conn.AcceptStream(ctx)
			if err != nil {
				return
			}
			tasks.Go(func() {
				var q [64]byte
				_, _ = io.ReadFull(s, q[:]) // the caller counts what comes
				if s.TryWriteAll(data) != nil {
					panic(1)
				}
				_ = s.Close()
				_, _ = s.Read(q[:])
			})
		}
	})
	from, c2, tr2 := conf("a")
	conn, err := tr2.Dial(b.Context(), tr.Conn.LocalAddr(), c2, from.clientConfig())
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// BenchmarkHop is what one hop costs, beside the least that QUIC costs.
func BenchmarkHop(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("bare/%dKiB", size>>10), func(b *testing.B) {
			conn := barePair(b, size)
			q, got := make([]byte, 64), make([]byte, size)
			b.ReportAllocs()
			for b.Loop() {
				s, err := conn.OpenStreamSync(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if err = s.TryWriteAll(q); err == nil {
					err = s.Close()
				}
				if err == nil {
					_, err = io.ReadFull(s, got)
				}
				if err != nil {
					b.Fatal(err)
				}
				if n, err := s.Read(q[:1]); n != 0 || !errors.Is(err, io.EOF) {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(fmt.Sprintf("read/%dKiB", size>>10), func(b *testing.B) {
			e, to := benchPair(b, newMemory(size))
			q := Request{Kind: KindOpen, Name: "documents/2024/invoice-000001.pdf", RequestID: "0123456789abcdef"}
			b.ReportAllocs()
			for b.Loop() {
				if _, got, err := e.ReadAll(b.Context(), to, q); err != nil || len(got) != size {
					b.Fatalf("%d bytes, %v", len(got), err)
				}
			}
		})
		b.Run(fmt.Sprintf("call/%dKiB", size>>10), func(b *testing.B) {
			e, to := benchPair(b, newMemory(size))
			body := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				if got, err := e.Call(b.Context(), to, "meta", body); err != nil || len(got) != size {
					b.Fatalf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
}
