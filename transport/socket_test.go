package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// realConfig is for the machine's own sockets.
func realConfig(t *testing.T, ca *Authority, name string, addrs map[string]string) Config {
	t.Helper()
	id, err := FormIdentity(filepath.Join(t.TempDir(), "identity.pem"), ca, name, NewSecret(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Identity: id, Bind: "127.0.0.1:0", Reader: &fakeReader{}, Logger: slog.New(slog.DiscardHandler),
		Allowed: func(string) bool { return true },
		Resolve: func(node string) (string, bool) { a, ok := addrs[node]; return a, ok },
	}
}

// runReal runs an endpoint until the test ends.
func runReal(t *testing.T, cfg Config) *Endpoint {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestRealSockets(t *testing.T) {
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	addrs := map[string]string{}
	var ends []*Endpoint
	for _, name := range []string{"a", "b"} {
		e, err := New(realConfig(t, ca, name, addrs))
		if err != nil {
			t.Fatal(err)
		}
		addrs[name] = e.Addr()
		if udp := e.udp.LocalAddr().String(); udp != e.Addr() {
			t.Errorf("UDP at %s, TCP at %s", udp, e.Addr())
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := e.Run(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("run again: %v", err)
			}
		}()
		ends = append(ends, e)
	}
	if _, data, err := ends[0].ReadAll(t.Context(), "b", open("x")); err != nil || string(data) != "x" {
		t.Fatalf("%q, %v", data, err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ends[1].Raft().Accept() // nil fails below
		accepted <- c
	}()
	c, err := ends[0].Raft().Dial("b", 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-accepted
	defer s.Close()
	if _, err := s.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	var got [2]byte
	if _, err := io.ReadFull(c, got[:]); err != nil || string(got[:]) != "hi" {
		t.Errorf("%q, %v", got, err)
	}
	if size, want := ends[0].ReceiveBuffer(); size <= 0 || want != wantReceiveBuffer {
		t.Errorf("receive buffer %d, wanted %d", size, want)
	}
	cfg := realConfig(t, ca, "c", addrs)
	cfg.Bind = addrs["a"]
	if _, err := New(cfg); err == nil {
		t.Error("bound a port that is taken")
	}
}

func TestNeverRun(t *testing.T) {
	ca, err := NewAuthority(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(realConfig(t, ca, "a", nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := e.Read(t.Context(), "b", open("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := e.Raft().Dial("b", time.Second); !errors.Is(err, ErrClosed) {
		t.Errorf("dial: %v", err)
	}
	if _, err := e.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{MaxCalls: 5000, KeepAlive: -1})
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"Identity", "Allowed", "Resolve", "negative", "MaxCalls"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not speak of %s", err, want)
		}
	}
}
