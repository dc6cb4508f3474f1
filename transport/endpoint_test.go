package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func open(name string) Request { return Request{Kind: KindOpen, Name: name} }

func TestReadSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		for range 3 {
			got, data, err := a.ReadAll(t.Context(), "b", open("x/y.txt"))
			if err != nil || string(data) != "x/y.txt" || got.Node != "b" || got.Applied != 7 || got.Size != 7 {
				t.Fatalf("got %+v, %q, %v", got, data, err)
			}
		}
		if p := a.Peers(); len(p) != 1 || p[0].Node != "b" || p[0].Remote != "1.0.0.2:7947" || p[0].CallsOpen != 0 || p[0].Refused {
			t.Errorf("peers: %+v", p)
		}
		if _, err := a.Read(t.Context(), "a", open("x")); !errors.Is(err, ErrInvalid) {
			t.Errorf("a node that asks itself: %v", err)
		}
		b.halt()
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("a node that went away: %v", err)
		}
	})
}

func TestReadStreams(t *testing.T) {
	big := pattern(5<<20 + 17)
	for _, tt := range []struct {
		name string
		n    int
		data bool
	}{
		{"empty from memory", 0, true},
		{"empty stream", 0, false},
		{"one byte", 1, false},
		{"a chunk", chunkBytes, false},
		{"a chunk and a byte", chunkBytes + 1, true},
		{"5 MiB from memory", len(big), true},
		{"5 MiB streamed", len(big), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				closed := make(chan struct{})
				r := &fakeReader{serve: func(context.Context, string, *Request) (*Reply, error) {
					if tt.data {
						close(closed)
						return &Reply{Data: big[:tt.n]}, nil
					}
					return &Reply{Body: &slowBody{Reader: bytes.NewReader(big), closed: closed}, Length: int64(tt.n)}, nil
				}}
				a := w.start("a", 1, nil)
				w.start("b", 2, func(c *Config) { c.Reader = r })
				got, data, err := a.ReadAll(t.Context(), "b", open("big"))
				if err != nil || got.Payload != int64(tt.n) || !bytes.Equal(data, big[:tt.n]) {
					t.Fatalf("%d bytes, %v", len(data), err)
				}
				<-closed
			})
		})
	}
}

func TestStatusesCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var answer error
		r := &fakeReader{serve: func(context.Context, string, *Request) (*Reply, error) { return nil, answer }}
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) { c.Reader = r })
		for _, p := range statusErrors() {
			answer = p.err
			_, err := a.Read(t.Context(), "b", open("x"))
			var remote *RemoteError
			if !errors.Is(err, p.err) || !errors.As(err, &remote) || remote.Node != "b" || remote.Status != p.status {
				t.Errorf("%v came as %v", p.err, err)
			}
		}
		answer = &RemoteError{Status: StatusDeclined, Code: "behind", Detail: strings.Repeat("ü", 600), Applied: 12, RetryAfter: 1500 * time.Millisecond}
		_, err := a.Read(t.Context(), "b", open("x"))
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Code != "behind" || remote.Applied != 12 || remote.RetryAfter != 1500*time.Millisecond || len(remote.Detail) != 1024 {
			t.Errorf("a remote error came as %+v", remote)
		}
		answer = errors.New("secret of the database")
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrInternal) || strings.Contains(err.Error(), "secret") {
			t.Errorf("an inner error came as %v", err)
		}
		if !strings.Contains(w.logs.String(), "secret of the database") {
			t.Error("an inner error is not in the log")
		}
	})
}

func TestBodyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := &fakeReader{serve: func(_ context.Context, _ string, q *Request) (*Reply, error) {
			body := io.MultiReader(bytes.NewReader(pattern(100_000)), &failing{ErrCorrupt})
			if q.Name == "short" {
				body = bytes.NewReader(pattern(100_000))
			}
			return &Reply{Body: io.NopCloser(body), Length: 200_000}, nil
		}}
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) { c.Reader = r })
		if _, data, err := a.ReadAll(t.Context(), "b", open("x")); !errors.Is(err, ErrCorrupt) || data != nil {
			t.Errorf("a corrupt body: %d bytes, %v", len(data), err)
		}
		if _, data, err := a.ReadAll(t.Context(), "b", open("short")); !errors.Is(err, ErrInternal) || data != nil {
			t.Errorf("a short body: %d bytes, %v", len(data), err)
		}
	})
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestHopLoopIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start("a", 1, nil)
		c := &fakeReader{}
		w.start("c", 3, func(cfg *Config) { cfg.Reader = c })
		var b *node
		b = w.start("b", 2, func(cfg *Config) {
			cfg.Reader = &fakeReader{serve: func(ctx context.Context, _ string, q *Request) (*Reply, error) {
				_, err := b.Read(ctx, "c", *q)
				return nil, err
			}}
		})
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrHopLoop) {
			t.Errorf("a forwarded request forwarded again: %v", err)
		}
		if len(c.seen) != 0 {
			t.Error("the third node was asked")
		}
		// A node that does not count is refused by the one it asks.
		conn, _, err := a.connect(t.Context(), &mustPeer(t, a, "c").read, nil)
		if err != nil {
			t.Fatal(err)
		}
		q := Request{Kind: KindStat, Name: "x", Hops: 2, Timeout: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.call(ctx, ctx, conn, "c", &q, func() {}); !errors.Is(err, ErrHopLoop) || len(c.seen) != 0 {
			t.Errorf("two hops: %v", err)
		}
	})
}

func mustPeer(t *testing.T, n *node, name string) *peer {
	t.Helper()
	p, err := n.peerOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRemovedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		a.cfg.Allowed = func(string) bool { return true } // it has not heard of its removal
		if _, _, err := a.ReadAll(t.Context(), "b", open("x")); err != nil {
			t.Fatal(err)
		}
		raft := dialRaft(t, a, b)
		w.remove("a")
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrNotMember) {
			t.Errorf("on a connection that stands: %v", err)
		}
		b.Recheck()
		if _, err := raft.Read(make([]byte, 1)); err == nil {
			t.Error("the raft connection of a removed member stands")
		}
		time.Sleep(2 * time.Second)
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrNotMember) {
			t.Errorf("on a new connection: %v", err)
		}
		if _, err := a.Raft().Dial("b", 0); !errors.Is(err, ErrNotMember) {
			t.Errorf("raft: %v", err)
		}
		if _, err := b.Read(t.Context(), "a", open("x")); !errors.Is(err, ErrNotMember) {
			t.Errorf("the other way: %v", err)
		}
		if _, err := b.Raft().Dial("a", 0); !errors.Is(err, ErrNotMember) {
			t.Errorf("raft, the other way: %v", err)
		}
	})
}

func TestRestartedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		if _, _, err := a.ReadAll(t.Context(), "b", open("x")); err != nil {
			t.Fatal(err)
		}
		old := mustPeer(t, a, "b").read.conn
		w.hole(b.ip, true) // it dies without a goodbye
		b.halt()
		w.hole(b.ip, false)
		id, err := LoadIdentity(w.path("b"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.run(id, 2, nil)
		began := time.Now()
		_, data, err := a.ReadAll(t.Context(), "b", open("after"))
		if err != nil || string(data) != "after" {
			t.Fatalf("after a restart: %q, %v", data, err)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("it took %v to find out", took)
		}
		if old.Context().Err() == nil {
			t.Error("the dead connection is still kept")
		}
	})
}

func TestBlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		if _, _, err := a.ReadAll(t.Context(), "b", open("x")); err != nil {
			t.Fatal(err)
		}
		w.hole(b.ip, true)
		call := func() (time.Duration, error) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
			defer cancel()
			_, err := a.Read(ctx, "b", open("x"))
			return time.Since(began), err
		}
		for range 3 {
			if took, err := call(); !errors.Is(err, context.DeadlineExceeded) || took > 251*time.Millisecond {
				t.Fatalf("a call into nowhere: %v after %v", err, took)
			}
		}
		if took, err := call(); !errors.Is(err, ErrBreaker) || took > time.Millisecond {
			t.Errorf("with the breaker open: %v after %v", err, took)
		}
		if !a.Peers()[0].Refused {
			t.Error("the breaker is not shown")
		}
		time.Sleep(7 * time.Second)
		if p := a.Peers()[0]; p.Remote != "" {
			t.Errorf("a dead connection is kept: %+v", p)
		}
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("a dial into nowhere: %v", err)
		}
		w.hole(b.ip, false)
		time.Sleep(2 * time.Second)
		if _, _, err := a.ReadAll(t.Context(), "b", open("x")); err != nil {
			t.Errorf("after it is back: %v", err)
		}
	})
}

func TestCancelReachesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began, ended := make(chan struct{}), make(chan error, 1)
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) {
			c.Reader = &fakeReader{serve: func(ctx context.Context, _ string, _ *Request) (*Reply, error) {
				close(began)
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			}}
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-began
			cancel()
		}()
		start := time.Now()
		if _, err := a.Read(ctx, "b", open("x")); !errors.Is(err, context.Canceled) {
			t.Errorf("the caller got %v", err)
		}
		if err := <-ended; err == nil || time.Since(start) > time.Second {
			t.Errorf("the handler ended with %v after %v", err, time.Since(start))
		}
		if p := a.Peers()[0]; p.Refused || p.CallsOpen != 0 {
			t.Errorf("a call given up counts: %+v", p)
		}
	})
}

// Callers that take nothing of their answers hold up neither others on the same
// connection nor the server for ever.
func TestSlowReadersStarveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		big := pattern(4 << 20)
		const slow = 100
		var closed sync.WaitGroup
		closed.Add(slow)
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) {
			c.Reader = &fakeReader{serve: func(_ context.Context, _ string, q *Request) (*Reply, error) {
				if q.Name == "small" {
					return &Reply{Data: []byte("small")}, nil
				}
				body := &slowBody{Reader: bytes.NewReader(big), closed: make(chan struct{})}
				return &Reply{Body: &told{body, closed.Done}, Length: int64(len(big))}, nil
			}}
		})
		var stuck []*Answer
		for range slow {
			got, err := a.Read(t.Context(), "b", open("big"))
			if err != nil {
				t.Fatal(err)
			}
			stuck = append(stuck, got)
		}
		time.Sleep(time.Second) // every window is full by now
		began := time.Now()
		if _, data, err := a.ReadAll(t.Context(), "b", open("small")); err != nil || string(data) != "small" {
			t.Fatalf("a small read beside slow ones: %q, %v", data, err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("a small read beside slow ones took %v", took)
		}
		closed.Wait() // the server gives up by itself
		for _, s := range stuck {
			if _, err := io.Copy(io.Discard, s.Body); err == nil {
				t.Error("an answer that was cut off ended well")
			}
			_ = s.Body.Close()
		}
		if p := a.Peers()[0]; p.CallsOpen != 0 {
			t.Errorf("calls are left: %+v", p)
		}
	})
}

type told struct {
	io.ReadCloser
	done func()
}

func (c *told) Close() error {
	c.done()
	return c.ReadCloser.Close()
}

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hold := make(chan struct{})
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) {
			c.MaxRequests = 2
			c.Reader = &fakeReader{serve: func(context.Context, string, *Request) (*Reply, error) {
				<-hold
				return &Reply{}, nil
			}}
		})
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				if _, err := a.Read(t.Context(), "b", open("x")); err != nil {
					t.Errorf("a call within the limit: %v", err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrBusy) {
			t.Errorf("a call beyond the limit: %v", err)
		}
		close(hold)
		calls.Wait()
	})
}

func TestOversizeFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		conn, _, err := a.connect(t.Context(), &mustPeer(t, a, "b").read, nil)
		if err != nil {
			t.Fatal(err)
		}
		send := func(frame []byte) error {
			s, err := conn.OpenStreamSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer abandon(s)
			_ = s.SetDeadline(time.Now().Add(time.Second))
			if _, err := s.Write(frame); err != nil {
				return err
			}
			var buf []byte
			_, msg, err := readFrame(s, &buf, frameResponse)
			if err != nil {
				return err
			}
			h, err := parseResponse(msg)
			if err != nil {
				t.Fatal(err)
			}
			return h.status.err()
		}
		huge := []byte{0xff, 0xff, 0xff, 0xff, 1, 1, 0, 0, 0, 0, 0, 0}
		if err := send(huge); err == nil || errors.Is(err, ErrInternal) {
			t.Errorf("a frame of 4 GiB: %v", err)
		}
		newer, err := appendRequest(nil, &Request{Kind: KindStat, Name: "x", Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		newer[4] = 2
		if err := send(newer); !errors.Is(err, ErrUnsupported) {
			t.Errorf("a frame of version 2: %v", err)
		}
		long := open(strings.Repeat("n", maxName+1))
		if _, err := a.Read(t.Context(), "b", long); !errors.Is(err, ErrInvalid) {
			t.Errorf("a name too long: %v", err)
		}
		b.cfg.Reader.(*fakeReader).serve = func(context.Context, string, *Request) (*Reply, error) {
			return &Reply{Response: Response{Metadata: make([]byte, maxMetadata+1)}}, nil
		}
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrInternal) {
			t.Errorf("a reply too large: %v", err)
		}
	})
}

func dialRaft(t *testing.T, from, to *node) io.ReadWriteCloser {
	t.Helper()
	type accepted struct {
		conn io.ReadWriteCloser
		err  error
	}
	got := make(chan accepted, 1)
	go func() {
		c, err := to.Raft().Accept()
		if err == nil && c.RemoteAddr().String() != from.name {
			err = errors.New("accepted " + c.RemoteAddr().String())
		}
		got <- accepted{c, err}
	}()
	c, err := from.Raft().Dial(to.name, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = a.conn.Close()
	})
	go func() {
		_, _ = io.Copy(a.conn, a.conn)
	}()
	return c
}

func TestRaftLayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start("a", 1, nil), w.start("b", 2, nil)
		c := dialRaft(t, a, b)
		if _, err := c.Write([]byte("vote")); err != nil {
			t.Fatal(err)
		}
		var echo [4]byte
		if _, err := io.ReadFull(c, echo[:]); err != nil || string(echo[:]) != "vote" {
			t.Fatalf("%q, %v", echo, err)
		}
		if got := a.Raft().Addr().String(); got != "a" {
			t.Errorf("address %q", got)
		}
		w.hole(b.ip, true)
		began := time.Now()
		if _, err := a.Raft().Dial("b", 300*time.Millisecond); !errors.Is(err, ErrUnreachable) || time.Since(began) > time.Second {
			t.Errorf("a dial into nowhere: %v after %v", err, time.Since(began))
		}
		if err := b.Raft().Close(); err != nil {
			t.Error(err)
		}
		if _, err := b.Raft().Accept(); err == nil {
			t.Error("accepted after Close")
		}
		if _, err := c.Read(echo[:]); err == nil {
			t.Error("a connection of a closed layer stands")
		}
	})
}
