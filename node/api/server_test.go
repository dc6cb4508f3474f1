package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory, so that a server and its clients live in
// virtual time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- fromLoopback{theirs}
	return ours
}

// fromLoopback is a connection whose peer is on this machine.
type fromLoopback struct{ net.Conn }

func (fromLoopback) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
}

// inVirtualTime runs a server with the default limits in a bubble.
func inVirtualTime(t *testing.T, files Files, op Operator, test func(t *testing.T, p *pipes, stop context.CancelFunc, ended <-chan error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := newWorld(t, 0).config(t)
		cfg.Files = files
		if op != nil {
			cfg.Operator = op
		}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		p, ended := newPipes(), make(chan error, 1)
		go func() { ended <- s.Run(ctx, p); close(ended) }()
		test(t, p, stop, ended)
		stop()
		for err := range ended {
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

const getA = "GET /files/a HTTP/1.1\r\nHost: localhost\r\n\r\n"

// closedAfter waits until the server closes a connection and returns how long
// that took.
func closedAfter(c net.Conn) time.Duration {
	began := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(began)
}

func TestAClientThatNeverEndsItsHeader(t *testing.T) {
	inVirtualTime(t, failingFiles{}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		send(t, c, "GET /files/a HTTP/1.1\r\nHost: local")
		if took := closedAfter(c); took != 10*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestAClientThatDripsItsHeader(t *testing.T) {
	inVirtualTime(t, failingFiles{}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		defer func() { _ = c.Close() }()
		sent := 0
		for began := time.Now(); time.Since(began) < time.Hour; sent++ {
			if _, err := io.WriteString(c, getA[sent%len(getA):sent%len(getA)+1]); err != nil {
				break
			}
			time.Sleep(time.Second) // of virtual time
		}
		if sent > 11 {
			t.Errorf("took %d bytes at one a second", sent)
		}
	})
}

func TestAConnectionThatIsIdle(t *testing.T) {
	inVirtualTime(t, oneOriginal{content: pattern(10)}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		in := bufio.NewReader(c)
		for range 2 {
			send(t, c, getA)
			readAnswer(t, in, pattern(10))
			time.Sleep(time.Minute) // less than the limit: kept
		}
		if took := closedAfter(c); took != time.Minute {
			t.Errorf("closed %v after two answers and a minute", took)
		}
	})
}

func readAnswer(t *testing.T, in *bufio.Reader, want []byte) {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(body, want) {
		t.Errorf("%d with %d bytes, %v", res.StatusCode, len(body), err)
	}
	_ = res.Body.Close()
}

func TestAClientThatStopsReading(t *testing.T) {
	content := pattern(4 * piece)
	inVirtualTime(t, oneOriginal{content: content}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		send(t, c, getA)
		time.Sleep(2 * time.Minute) // more than StallTimeout
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return // cut before anything was taken
		}
		defer func() { _ = res.Body.Close() }()
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%d bytes after a stall, and a good end", len(body))
		}
	})
}

// TestAClientThatReadsSlowly is served to the end, however long it takes in
// all.
func TestAClientThatReadsSlowly(t *testing.T) {
	content := pattern(4 * piece)
	inVirtualTime(t, oneOriginal{content: content}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		send(t, c, getA)
		began := time.Now()
		readAnswer(t, bufio.NewReaderSize(&slowly{c, piece / 4, 10 * time.Second}, piece/4), content)
		if took := time.Since(began); took < 2*time.Minute {
			t.Errorf("took %v: not slower than StallTimeout", took)
		}
		_ = c.Close()
	})
}

// slowly reads at most n bytes, then waits.
type slowly struct {
	io.Reader
	n    int
	wait time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.wait)
	return s.Reader.Read(p[:min(len(p), s.n)])
}

func TestABodyThatNeverComes(t *testing.T) {
	for name, head := range map[string]string{
		"wanted":             "POST " + PathArchive + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100",
		"wanted, in chunks":  "POST " + PathArchive + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked",
		"refused":            "POST " + PathArchive + " HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: 100",
		"of another type":    "POST " + PathArchive + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100",
		"not wanted":         "GET /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100",
		"by another method":  "PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100",
		"to another path":    "PUT /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked",
		"to a panicking end": "GET /ids/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100",
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, failingFiles{err: errors.New("x"), panics: true}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
				c := p.dial()
				send(t, c, head+"\r\n\r\n")
				if took := closedAfter(c); took > 31*time.Second {
					t.Errorf("closed after %v", took)
				}
			})
		})
	}
}

// TestABodyThatIsNotWanted is read, and the answer may take its time.
func TestABodyThatIsNotWanted(t *testing.T) {
	content := pattern(4 * piece)
	inVirtualTime(t, oneOriginal{content: content}, nil, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		send(t, c, "GET /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
		in := bufio.NewReaderSize(&slowly{c, piece / 4, 10 * time.Second}, piece/4)
		readAnswer(t, in, content)
		send(t, c, getA) // the connection is still good
		readAnswer(t, in, content)
		_ = c.Close()
	})
}

// TestWorkMayTakeLong: longer than any limit on the request that asked for it.
func TestWorkMayTakeLong(t *testing.T) {
	op := &taking{&operator{retried: 1}, time.Hour}
	inVirtualTime(t, failingFiles{}, op, func(t *testing.T, p *pipes, _ context.CancelFunc, _ <-chan error) {
		c := p.dial()
		in := bufio.NewReader(c)
		send(t, c, "POST "+PathRetry+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		readAnswer(t, in, []byte("{\"retried\":1}\n"))
		_ = c.Close()
	})
}

// taking is an Operator whose Retry takes long, unless its context ends.
type taking struct {
	*operator
	long time.Duration
}

func (o *taking) Retry(ctx context.Context, req RetryRequest) (RetryResponse, error) {
	select {
	case <-time.After(o.long):
		return o.operator.Retry(ctx, req)
	case <-ctx.Done():
		return RetryResponse{}, ctx.Err()
	}
}

func TestStoppingLetsAnswersFinish(t *testing.T) {
	content := pattern(4 * piece)
	inVirtualTime(t, oneOriginal{content: content}, nil, func(t *testing.T, p *pipes, stop context.CancelFunc, ended <-chan error) {
		c := p.dial()
		send(t, c, getA)
		synctest.Wait() // the answer is on its way
		stop()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("Run returned %v with an answer under way", err)
		default:
		}
		readAnswer(t, bufio.NewReader(c), content)
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestStoppingCutsWhatDoesNotFinish(t *testing.T) {
	inVirtualTime(t, oneOriginal{content: pattern(4 * piece)}, nil, func(t *testing.T, p *pipes, stop context.CancelFunc, ended <-chan error) {
		c := p.dial()
		send(t, c, getA)
		synctest.Wait()
		began := time.Now()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("Run returned after %v", took)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return
		}
		defer func() { _ = res.Body.Close() }()
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the answer ends well")
		}
	})
}

func TestRunReturnsWhatTheListenerSays(t *testing.T) {
	s, err := New(newWorld(t, 0).config(t))
	if err != nil {
		t.Fatal(err)
	}
	p := newPipes()
	_ = p.Close()
	if err := s.Run(t.Context(), p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

// raw sends bytes to a server over TCP and returns what comes back before the
// connection is closed.
func raw(t *testing.T, s *site, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	go func() { _, _ = io.WriteString(c, request) }() // ends with c
	answer, _ := io.ReadAll(c)
	return string(answer)
}

func TestRequestsThatAreNotHTTP(t *testing.T) {
	s := newWorld(t, 0, packed{name: "a", content: []byte("x")}).serve(t)
	for name, c := range map[string]struct{ request, status string }{
		"a header too large":  {"GET /files/a HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", maxHeaderBytes+8192) + "\r\n\r\n", "431"},
		"a path too large":    {"GET /files/" + strings.Repeat("x", maxHeaderBytes+8192) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "431"},
		"bad escape":          {"GET /files/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"},
		"control in the path": {"GET /files/a\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"},
		"no Host":             {"GET /files/a HTTP/1.1\r\n\r\n", "400"},
		"another protocol":    {"GET /files/a SPDY/3\r\n\r\n", "400"},
		"both lengths":        {"POST " + PathArchive + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "400"},
		"every asterisk":      {"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"a tunnel":            {"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n", "404"},
		"an absolute target":  {"GET http://localhost/files/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "200"},
		"HTTP/1.0":            {"GET /files/a HTTP/1.0\r\n\r\n", "200"},
		"a header split":      {"GET /files/a HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\nX-Evil: 1\r\nConnection: close\r\n\r\n", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := raw(t, s, c.request)
			line, rest, _ := strings.Cut(answer, "\r\n")
			if len(strings.Fields(line)) < 2 || strings.Fields(line)[1] != c.status {
				t.Errorf("%q, want %s", line, c.status)
			}
			if strings.Contains(rest, "X-Evil") {
				t.Errorf("a header came back: %q", rest)
			}
		})
	}
	s.get(t, "/files/"+strings.Repeat("%6e", 1024)).want(t, http.StatusNotFound, CodeNotFound) // the longest name passes
}

func TestClientsAreToldApartByHost(t *testing.T) {
	for peer, want := range map[string]string{"10.0.0.1:4711": "10.0.0.1", "[::1]:4711": "[::1]", "pipe": "pipe", "": ""} {
		if got := client(peer); got != want {
			t.Errorf("%q: %q, want %q", peer, got, want)
		}
	}
}
