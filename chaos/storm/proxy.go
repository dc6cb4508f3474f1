package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// mode is what a proxy does to the connections that it passes on.
type mode struct {
	way way

	// latency is added to each answer, and rate limits them, in bytes a second.
	latency time.Duration
	rate    int

	// odds of a connection being reset at one piece of an answer, or of an answer
	// to something applied being lost.
	odds float64
}

// way is the kind of a mode.
type way uint8

const (
	passing  way = iota // nothing is done
	refusing            // every connection is reset at once
	hanging             // connections are taken, nothing moves
	slowing             // answers are late, and drip
	breaking            // connections are reset in the middle of answers
	losing              // what was asked is done; the answer never comes
)

// proxy stands between the nodes and one server. What it does can be changed
// at any time, by any goroutine. It speaks no protocol: a listener of its own
// reads along to know when an answer is one to something that was applied.
type proxy struct {
	upstream string
	listen   func() listener // to one connection

	mu      sync.Mutex // guards what follows
	rnd     *rand.Rand
	mode    mode
	changed chan struct{}   // closed at the next change of mode or of cut
	cut     map[string]bool // whose connections are dead, by name
	conns   map[*link]bool
	ports   []net.Listener
	closed  bool
	lost    int // answers that were lost

	running sync.WaitGroup
}

// listener follows one connection. asked and answered are called with what
// passes, each by one goroutine; applied reports whether the last piece of an
// answer told that something was done that stays.
type listener interface {
	asked(b []byte)
	answered(b []byte) (applied bool)
}

// link is one connection through a proxy.
type link struct {
	from         string
	client, back net.Conn
}

// reset ends a link at both ends, without a word at the client's.
func (l *link) reset() {
	if tcp, ok := l.client.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it is closed below in any case
	}
	_ = l.client.Close() // it may be closed already
	_ = l.back.Close()
}

func newProxy(upstream string, seed uint64, listen func() listener) *proxy {
	return &proxy{
		upstream: upstream, listen: listen,
		rnd:     rand.New(rand.NewPCG(seed, 5)),
		changed: make(chan struct{}),
		cut:     map[string]bool{}, conns: map[*link]bool{},
	}
}

// serve passes connections on that come to a port, in the name of whoever is
// at its other end. It returns at once.
func (p *proxy) serve(port net.Listener, from string) {
	p.mu.Lock()
	p.ports = append(p.ports, port)
	p.mu.Unlock()
	p.running.Go(func() {
		for {
			conn, err := port.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // the client has gone again
			}
			p.running.Go(func() { p.pass(conn, from) })
		}
	})
}

// close ends all connections and waits for what passed them on.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	for _, port := range p.ports {
		_ = port.Close() // it is only listened to
	}
	p.change()
	for l := range p.conns {
		l.reset()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// set changes the mode. Where nothing may pass, what is open ends.
func (p *proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	p.change()
	for l := range p.conns {
		if m.way == refusing || m.way == breaking {
			l.reset()
		}
	}
}

// sever cuts whoever has that name off, or lets it in again. Its packets get
// lost, in silence.
func (p *proxy) sever(from string, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut[from] = cut
	p.change()
}

// change wakes who waits for one. p.mu is held.
func (p *proxy) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// lostAnswers returns how many answers were lost so far.
func (p *proxy) lostAnswers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// pass carries one connection until it ends.
func (p *proxy) pass(client net.Conn, from string) {
	l := &link{from: from, client: client}
	back, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.upstream)
	if err != nil { // the server is down
		l.back = client
		l.reset()
		return
	}
	l.back = back
	if !p.admit(l) {
		l.reset()
		return
	}
	defer func() {
		l.reset()
		p.mu.Lock()
		delete(p.conns, l)
		p.mu.Unlock()
	}()
	ear := p.listen()
	var asking sync.WaitGroup
	asking.Go(func() {
		defer l.back.Close()
		p.pump(l, l.back, client, func(b []byte) bool { ear.asked(b); return true })
	})
	p.pump(l, client, l.back, func(b []byte) bool { return p.answer(b, ear) })
	l.reset()
	asking.Wait()
}

// admit notes a new connection, unless there is none now.
func (p *proxy) admit(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.mode.way == refusing {
		return false
	}
	p.conns[l] = true
	return true
}

// answer decides whether a piece of an answer goes on, after a time.
func (p *proxy) answer(b []byte, ear listener) bool {
	applied := ear.answered(b)
	p.mu.Lock()
	m, luck := p.mode, p.rnd.Float64()
	if m.way == losing && applied && luck < m.odds {
		p.lost++
		p.mu.Unlock()
		return false
	}
	p.mu.Unlock()
	switch m.way {
	case breaking:
		return luck >= m.odds
	case slowing:
		wait := m.latency
		if m.rate > 0 {
			wait += time.Duration(len(b)) * time.Second / time.Duration(m.rate)
		}
		return p.delay(wait)
	default:
		return true
	}
}

// delay waits, but not beyond a change of mode. It reports whether the proxy is
// still open.
func (p *proxy) delay(wait time.Duration) bool {
	p.mu.Lock()
	changed, closed := p.changed, p.closed
	p.mu.Unlock()
	if closed {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	}
	return true
}

// pump carries one direction until either end is closed or let says no.
func (p *proxy) pump(l *link, dst io.Writer, src io.Reader, let func(b []byte) bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			if !p.open(l.from) || !let(b[:n]) {
				return
			}
			if _, err := dst.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// open waits as long as nothing may move, and reports whether the proxy is
// still there then.
func (p *proxy) open(from string) bool {
	for {
		p.mu.Lock()
		changed, closed := p.changed, p.closed
		stuck := p.mode.way == hanging || p.cut[from]
		p.mu.Unlock()
		if closed {
			return false
		}
		if !stuck {
			return true
		}
		<-changed
	}
}
