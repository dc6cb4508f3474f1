package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// fakeHandler answers calls; without serve it echoes.
type fakeHandler struct {
	serve func(ctx context.Context, from, method string, body []byte) ([]byte, error)

	mu   sync.Mutex // guards seen
	seen []string   // from/method
}

func (f *fakeHandler) ServeCall(ctx context.Context, from, method string, body []byte) ([]byte, error) {
	f.mu.Lock()
	f.seen = append(f.seen, from+"/"+method)
	f.mu.Unlock()
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("a call without deadline")
	}
	if f.serve != nil {
		return f.serve(ctx, from, method, body)
	}
	return body, nil
}

func (f *fakeHandler) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// callPair runs a and b; b answers calls.
func callPair(t *testing.T, w *world, h Handler) (a, b *node) {
	t.Helper()
	return w.start("a", 1, nil), w.start("b", 2, func(c *Config) { c.Handler = h })
}

func TestCall(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    int
	}{
		{"empty", 0},
		{"one byte", 1},
		{"a chunk", chunkBytes},
		{"a chunk and a byte", chunkBytes + 1},
		{"5 MiB", 5 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				h := &fakeHandler{}
				a, _ := callPair(t, w, h)
				body := pattern(tt.n)
				for range 2 {
					got, err := a.Call(t.Context(), "b", "meta", body)
					if err != nil || !bytes.Equal(got, body) {
						t.Fatalf("%d bytes came back, %v", len(got), err)
					}
				}
				if strings.Join(h.seen, " ") != "a/meta a/meta" {
					t.Errorf("asked %v", h.seen)
				}
				if p := a.Peers(); len(p) != 1 || p[0].CallsOpen != 0 || p[0].Remote != "1.0.0.2:7947" {
					t.Errorf("peers %+v", p)
				}
			})
		})
	}
}

func TestCallIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := &fakeHandler{}
		a, b := callPair(t, w, h)
		for _, method := range []string{"", "Meta", "a/b", strings.Repeat("m", maxMethod+1)} {
			if _, err := a.Call(t.Context(), "b", method, nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("method %q: %v", method, err)
			}
		}
		if _, err := a.Call(t.Context(), "b", "meta", make([]byte, MaxCallBytes+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a body too large: %v", err)
		}
		if _, err := a.Call(t.Context(), "a", "meta", nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("this node: %v", err)
		}
		if _, err := a.Call(t.Context(), "z", "meta", nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("a node without an address: %v", err)
		}
		if _, err := b.Call(t.Context(), "a", "meta", nil); !errors.Is(err, ErrRefused) {
			t.Errorf("a node that serves no calls: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Call(ended, "b", "meta", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		if h.count() != 0 {
			t.Errorf("asked %v", h.seen)
		}
	})
}

func TestCallErrorsCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var answer error
		a, _ := callPair(t, w, &fakeHandler{serve: func(context.Context, string, string, []byte) ([]byte, error) { return nil, answer }})
		for _, p := range statusErrors() {
			answer = fmt.Errorf("wrapped: %w", p.err)
			_, err := a.Call(t.Context(), "b", "meta", []byte("x"))
			var remote *RemoteError
			if !errors.Is(err, p.err) || !errors.As(err, &remote) || remote.Node != "b" || remote.Status != p.status {
				t.Errorf("%v came as %v", p.err, err)
			}
		}
		answer = &RemoteError{Status: StatusBusy, Code: "not-leader", Detail: "ask c", Applied: 12, RetryAfter: time.Second}
		_, err := a.Call(t.Context(), "b", "meta", nil)
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Code != "not-leader" || remote.Detail != "ask c" || remote.Applied != 12 || remote.RetryAfter != time.Second {
			t.Errorf("a remote error came as %+v", remote)
		}
		answer = errors.New("secret of the database")
		if _, err := a.Call(t.Context(), "b", "meta", nil); !errors.Is(err, ErrInternal) || strings.Contains(err.Error(), "secret") {
			t.Errorf("an inner error came as %v", err)
		}
		if !strings.Contains(w.logs.String(), "secret of the database") {
			t.Error("an inner error is not in the log")
		}
	})
}

// The caller's end is the handler's, be it given up or late.
func TestCallEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		after time.Duration
		want  error
	}{
		{"given up", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(700*time.Millisecond, cancel)
			return ctx, cancel
		}, 700 * time.Millisecond, context.Canceled},
		{"its deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 40*time.Second)
		}, 40 * time.Second, context.DeadlineExceeded},
		{"the default", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return ctx, func() {}
		}, 5 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ended := make(chan time.Duration, 1)
				began := time.Now()
				a, _ := callPair(t, w, &fakeHandler{serve: func(ctx context.Context, _, _ string, _ []byte) ([]byte, error) {
					<-ctx.Done()
					ended <- time.Since(began)
					return nil, ctx.Err()
				}})
				ctx, cancel := tt.ctx(t.Context())
				defer cancel()
				_, err := a.Call(ctx, "b", "meta", []byte("x"))
				took := time.Since(began)
				if !errors.Is(err, tt.want) && !errors.Is(err, ErrTooLate) || took < tt.after || took > tt.after+10*time.Millisecond {
					t.Errorf("%v after %v", err, took)
				}
				if at := <-ended; at > tt.after+20*time.Millisecond {
					t.Errorf("the handler ended after %v", at)
				}
			})
		})
	}
}

// A call that may have been read is not sent again: its handler runs once,
// whatever becomes of the answer.
func TestCallIsNeverRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var b *node
		h := &fakeHandler{}
		h.serve = func(context.Context, string, string, []byte) ([]byte, error) {
			w.hole("1.0.0.2", true) // the answer is lost
			return nil, nil
		}
		a, b := callPair(t, w, h)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Call(ctx, "b", "meta", nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("a call whose answer is lost: %v", err)
		}
		if took := time.Since(began); took > 8*time.Second { // IdleTimeout after the last keep-alive
			t.Errorf("a peer that is gone was noticed after %v", took)
		}
		w.hole(b.ip, false)
		time.Sleep(time.Minute)
		if h.count() != 1 {
			t.Errorf("handled %d times", h.count())
		}
	})
}

// A restart is found out by the first call; a connection that is known to be
// dead is replaced, unseen.
func TestCallAfterARestart(t *testing.T) {
	for _, tt := range []struct {
		name  string
		n     int           // the address it comes back at
		pause time.Duration // until the next call
		fails int           // calls that may fail
	}{
		{"at once", 2, 0, 1},
		{"noticed meanwhile", 2, 8 * time.Second, 0},
		{"at another address, at once", 3, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				h := &fakeHandler{}
				a, b := callPair(t, w, h)
				if _, err := a.Call(t.Context(), "b", "meta", nil); err != nil {
					t.Fatal(err)
				}
				old := mustPeer(t, a, "b").call.conn
				w.hole(b.ip, true) // it dies without a goodbye
				b.halt()
				if tt.n == 2 {
					w.hole(b.ip, false)
				}
				id, err := LoadIdentity(w.path("b"), nil)
				if err != nil {
					t.Fatal(err)
				}
				w.run(id, tt.n, func(c *Config) { c.Handler = h })
				time.Sleep(tt.pause)
				began := time.Now()
				for fails := 0; ; fails++ {
					_, err := a.Call(t.Context(), "b", "meta", nil)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrUnreachable) || fails >= tt.fails {
						t.Fatalf("call %d after the restart: %v", fails+1, err)
					}
				}
				if took := time.Since(began); took > 200*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				if old.Context().Err() == nil {
					t.Error("the dead connection is still kept")
				}
			})
		})
	}
}

// Calls pass where reads do not: no breaker, slots and a connection of their
// own.
func TestReadsDoNotStarveCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hold := make(chan struct{})
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) {
			c.MaxRequests = 2
			c.Handler = &fakeHandler{}
			c.Reader = &fakeReader{serve: func(ctx context.Context, _ string, _ *Request) (*Reply, error) {
				select {
				case <-hold:
					return &Reply{}, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}}
		})
		var reads sync.WaitGroup
		for range 4 * 128 {
			reads.Go(func() { _, _ = a.Read(t.Context(), "b", open("x")) })
		}
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		if _, err := a.Call(t.Context(), "b", "meta", []byte("x")); err != nil || time.Since(began) > 20*time.Millisecond {
			t.Errorf("a call beside a flood of reads: %v after %v", err, time.Since(began))
		}
		close(hold)
		reads.Wait()
		for range 3 {
			mustPeer(t, a, "b").breaker.leave(failed)
		}
		if _, err := a.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrBreaker) {
			t.Errorf("a read with the breaker open: %v", err)
		}
		if _, err := a.Call(t.Context(), "b", "meta", nil); err != nil {
			t.Errorf("a call with the breaker open: %v", err)
		}
	})
}

func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hold := make(chan struct{})
		a := w.start("a", 1, nil)
		w.start("b", 2, func(c *Config) {
			c.MaxRequests = 2
			c.Handler = &fakeHandler{serve: func(context.Context, string, string, []byte) ([]byte, error) {
				<-hold
				return nil, nil
			}}
		})
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				if _, err := a.Call(t.Context(), "b", "meta", nil); err != nil {
					t.Errorf("a call within the limit: %v", err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		if _, err := a.Call(t.Context(), "b", "meta", nil); !errors.Is(err, ErrBusy) {
			t.Errorf("a call beyond the limit: %v", err)
		}
		close(hold)
		calls.Wait()
	})
}

// Large bodies that are taken in wait for memory, small ones pass them.
func TestCallMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hold := make(chan struct{})
		h := &fakeHandler{serve: func(_ context.Context, _, _ string, body []byte) ([]byte, error) {
			if len(body) > smallCall {
				<-hold
			}
			return nil, nil
		}}
		a, b := callPair(t, w, h)
		if !b.callMemory.TryAcquire(callMemory - 1<<20) { // others' bodies
			t.Fatal("no memory")
		}
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				if _, err := a.Call(t.Context(), "b", "large", make([]byte, 1<<20)); err != nil {
					t.Errorf("a large call: %v", err)
				}
			})
		}
		time.Sleep(3 * time.Second)
		if h.count() != 1 {
			t.Errorf("%d large bodies were taken in", h.count())
		}
		if _, err := a.Call(t.Context(), "b", "small", make([]byte, smallCall)); err != nil {
			t.Errorf("a small call beside large ones: %v", err)
		}
		close(hold)
		calls.Wait()
		if !b.callMemory.TryAcquire(1 << 20) {
			t.Error("memory was not given back")
		}
	})
}

// What no honest node sends.
func TestCallBadInput(t *testing.T) {
	frame := func(t *testing.T, h callHead, body []byte) []byte {
		var out wire
		var buf []byte
		if err := sendCall(&out, &buf, &h, body); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	changed := func(b []byte, at int) []byte {
		b[at] ^= 1
		return b
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := &fakeHandler{}
		a, _ := callPair(t, w, h)
		good := callHead{method: "meta", timeout: time.Second}
		for _, tt := range []struct {
			name string
			sent []byte
			want error
		}{
			{"another version", changed(frame(t, good, nil), 4), ErrUnsupported},
			{"a head cut", frame(t, good, nil)[:20], nil},
			{"a head flipped", changed(frame(t, good, nil), 14), nil},
			{"no method", frame(t, callHead{timeout: time.Second}, nil), ErrInvalid},
			{"no time", frame(t, callHead{method: "meta"}, nil), ErrTooLate},
			{"80 MiB and a byte announced", frame(t, callHead{method: "meta", timeout: time.Second, length: MaxCallBytes + 1}, nil), ErrInvalid},
			{"a body announced only", frame(t, callHead{method: "meta", timeout: time.Second, length: MaxCallBytes}, nil), ErrInvalid},
			{"a body cut", frame(t, callHead{method: "meta", timeout: time.Second, length: 10}, []byte("five!")), ErrInvalid},
			{"a body too long", frame(t, callHead{method: "meta", timeout: time.Second, length: 3}, []byte("five!")), ErrInvalid},
			{"a body flipped", changed(frame(t, callHead{method: "meta", timeout: time.Second, length: 5}, []byte("five!")), 60), ErrInvalid},
		} {
			conn, _, err := a.connect(t.Context(), &mustPeer(t, a, "b").call, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := sendRaw(t, conn, tt.sent); tt.want != nil && !errors.Is(err, tt.want) || err == nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if h.count() != 0 {
			t.Errorf("handled %v", h.seen)
		}
		if _, err := a.Call(t.Context(), "b", "meta", nil); err != nil {
			t.Errorf("an honest call afterwards: %v", err)
		}
	})
}

// wire is a stream's half in memory.
type wire struct{ bytes.Buffer }

func (w *wire) TryWriteAll([]byte) error { return quic.ErrWouldBlock }

// sendRaw sends bytes on a stream of their own and returns what is answered.
func sendRaw(t *testing.T, conn *quic.Conn, b []byte) error {
	t.Helper()
	s, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer abandon(s)
	_ = s.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := s.Write(b); err != nil {
		return err
	}
	_ = s.Close()
	var buf []byte
	_, msg, err := readFrame(s, &buf, frameResponse)
	if err != nil {
		return err
	}
	h, err := parseResponse(msg)
	if err != nil {
		t.Fatal(err)
	}
	if h.status == StatusOK {
		return nil
	}
	return h.status.err()
}

func TestCallAddr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := &fakeHandler{}
		a, b := callPair(t, w, h)
		w.mu.Lock()
		delete(w.addrs, "b")
		w.mu.Unlock()
		got, node, err := a.CallAddr(t.Context(), "1.0.0.2:7947", "hello", []byte("x"))
		if err != nil || node != "b" || string(got) != "x" {
			t.Errorf("%q from %q, %v", got, node, err)
		}
		if p := a.Peers(); len(p) != 0 {
			t.Errorf("kept in the books: %+v", p)
		}
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		b.mu.Lock()
		if len(b.inbound) != 0 {
			t.Error("the connection stands")
		}
		b.mu.Unlock()
		if _, node, err := a.CallAddr(t.Context(), a.Addr(), "hello", nil); !errors.Is(err, ErrInvalid) || node != "a" {
			t.Errorf("this node: %q, %v", node, err)
		}
		if _, _, err := a.CallAddr(t.Context(), "1.0.0.9:7947", "hello", nil); !errors.Is(err, ErrUnreachable) {
			t.Errorf("nobody there: %v", err)
		}
		h.serve = func(context.Context, string, string, []byte) ([]byte, error) { return nil, ErrUnavailable }
		if _, node, err := a.CallAddr(t.Context(), "1.0.0.2:7947", "hello", nil); !errors.Is(err, ErrUnavailable) || node != "b" {
			t.Errorf("a refusal by %q: %v", node, err)
		}
		w.remove("b")
		if _, node, err := a.CallAddr(t.Context(), "1.0.0.2:7947", "hello", nil); !errors.Is(err, ErrNotMember) || node != "b" {
			t.Errorf("a removed node %q: %v", node, err)
		}
	})
}
