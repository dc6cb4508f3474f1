package transport

import (
	"context"
	"fmt"
	"sync"

	"github.com/quic-go/quic-go"
)

// link is the connection to a peer on one plane, made when it is needed.
type link struct {
	alpn string
	node string

	mu      sync.Mutex // guards what follows
	conn    *quic.Conn
	addr    string   // that conn was dialled at
	dialing *dialing // the newest attempt
	dead    error    // the peer has been dropped
}

// dialing is one attempt that all callers wait for.
type dialing struct {
	addr string
	done chan struct{}
	conn *quic.Conn
	err  error // with neither, another attempt has taken its place
}

// drop ends the use of a link and returns its connection.
func (l *link) drop(why error) *quic.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = why
	c := l.conn
	l.conn = nil
	return c
}

// remote returns the peer's address while there is a connection.
func (l *link) remote() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil || l.conn.Context().Err() != nil {
		return ""
	}
	return l.conn.RemoteAddr().String()
}

// connect returns the link's connection, which may be a new one and is never
// not, which turned out dead. fresh: it was made for this call. A peer that is
// said to be at another address than before has restarted there: its old
// connection, or an attempt at the old address, would take its time to fail, so
// neither is waited for.
func (e *Endpoint) connect(ctx context.Context, l *link, not *quic.Conn) (conn *quic.Conn, fresh bool, err error) {
	for {
		addr, known := e.cfg.Resolve(l.node)
		conn, d, err := e.attempt(l, not, addr, known)
		if d == nil {
			return conn, false, err
		}
		select {
		case <-d.done:
			if d.conn != nil || d.err != nil {
				return d.conn, true, d.err
			}
		case <-ctx.Done():
			return nil, true, context.Cause(ctx)
		}
	}
}

// attempt returns the connection that is there, or the attempt to wait for.
func (e *Endpoint) attempt(l *link, not *quic.Conn, addr string, known bool) (*quic.Conn, *dialing, error) {
	l.mu.Lock()
	if l.dead != nil {
		l.mu.Unlock()
		return nil, nil, l.dead
	}
	if l.conn != nil && l.conn != not && l.conn.Context().Err() == nil && (!known || l.addr == addr) {
		defer l.mu.Unlock()
		return l.conn, nil, nil
	}
	if !known {
		l.mu.Unlock()
		return nil, nil, fmt.Errorf("%w: its address is not known", ErrUnreachable)
	}
	if d := l.dialing; d != nil {
		if d.addr == addr {
			l.mu.Unlock()
			return nil, d, nil
		}
		close(d.done) // its callers look again
	}
	d := &dialing{addr: addr, done: make(chan struct{})}
	l.dialing = d
	l.mu.Unlock() // spawn takes the endpoint's lock, which comes before a link's
	if !e.spawn(func() { e.dialLink(l, d) }) {
		l.dialed(d, nil, ErrClosed)
	}
	return nil, d, nil
}

// dialLink dials for all who wait. No caller's context ends it: the next caller
// gains from it too. DialTimeout bounds it, and Close ends it.
func (e *Endpoint) dialLink(l *link, d *dialing) {
	conn, err := e.dialQUIC(context.Background(), d.addr, l.alpn, l.node)
	l.dialed(d, conn, err)
}

// dialed gives an attempt's outcome to all who wait. The connection that it
// replaces is closed: the node answers at the new address.
func (l *link) dialed(d *dialing, conn *quic.Conn, err error) {
	l.mu.Lock()
	old := conn
	if l.dialing == d { // else nobody waits for it any more
		l.dialing = nil
		switch {
		case err == nil && l.dead != nil:
			err = l.dead
		case err == nil:
			old, l.conn, l.addr, d.conn = l.conn, conn, d.addr, conn
		}
		d.err = err
		close(d.done)
	}
	l.mu.Unlock()
	if old != nil {
		_ = old.CloseWithError(codeDone, "not needed any more")
	}
}
