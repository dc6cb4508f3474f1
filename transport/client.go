package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// peer is a node that we call: one connection, made when it is needed.
type peer struct {
	node    string
	breaker breaker
	calls   chan struct{} // one token a call under way

	mu      sync.Mutex // guards what follows
	conn    *quic.Conn
	dialing *dialing
	dead    error // the peer has been dropped
}

// dialing is one attempt that all callers wait for.
type dialing struct {
	done chan struct{}
	conn *quic.Conn
	err  error
}

// drop ends the use of a peer and returns its connection.
func (p *peer) drop(why error) *quic.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = why
	c := p.conn
	p.conn = nil
	return c
}

// peerOf returns the peer of a member.
func (e *Endpoint) peerOf(node string) (*peer, error) {
	if node == e.id.Node() {
		return nil, fmt.Errorf("%w: it is this node", ErrInvalid)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing:
		return nil, ErrClosed
	case !e.cfg.Allowed(node):
		return nil, ErrNotMember
	}
	p := e.peers[node]
	if p == nil {
		p = &peer{
			node: node, calls: make(chan struct{}, e.cfg.MaxCalls),
			breaker: breaker{limit: e.cfg.BreakerFailures, delay: e.cfg.BreakerDelay, now: e.id.now},
		}
		e.peers[node] = p
	}
	return p, nil
}

// connect returns the peer's connection, which may be a new one and is never
// not, which turned out dead. fresh: it was made for this call.
func (e *Endpoint) connect(ctx context.Context, p *peer, not *quic.Conn) (conn *quic.Conn, fresh bool, err error) {
	p.mu.Lock()
	if p.dead != nil {
		p.mu.Unlock()
		return nil, false, p.dead
	}
	if p.conn != nil && p.conn != not && p.conn.Context().Err() == nil {
		conn = p.conn
		p.mu.Unlock()
		return conn, false, nil
	}
	d := p.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing = d
		p.mu.Unlock() // spawn takes the endpoint's lock, which comes before a peer's
		if !e.spawn(func() { e.dialPeer(p, d) }) {
			p.dialed(d, nil, ErrClosed)
		}
	} else {
		p.mu.Unlock()
	}
	select {
	case <-d.done:
		return d.conn, true, d.err
	case <-ctx.Done():
		return nil, true, context.Cause(ctx)
	}
}

// dialPeer dials for all who wait. No caller's context ends it: the next caller
// gains from it too. DialTimeout bounds it, and Close ends it.
func (e *Endpoint) dialPeer(p *peer, d *dialing) {
	addr, ok := e.cfg.Resolve(p.node)
	if !ok {
		p.dialed(d, nil, fmt.Errorf("%w: its address is not known", ErrUnreachable))
		return
	}
	conn, err := e.dialQUIC(context.Background(), addr, e.id.dialling(alpnRead, p.node))
	p.dialed(d, conn, err)
}

// dialed gives an attempt's outcome to all who wait.
func (p *peer) dialed(d *dialing, conn *quic.Conn, err error) {
	p.mu.Lock()
	p.dialing = nil
	if err == nil && p.dead != nil {
		_ = conn.CloseWithError(codeDone, "not needed any more")
		conn, err = nil, p.dead
	}
	p.conn, d.conn, d.err = conn, conn, err
	p.mu.Unlock()
	close(d.done)
}

// PeerState is what an endpoint knows of a node that it calls.
type PeerState struct {
	Node      string
	Remote    string // host:port; empty: not connected
	Refused   bool   // the circuit breaker refuses calls now
	CallsOpen int
}

// Peers returns the nodes that were called since they became members, in no
// order.
func (e *Endpoint) Peers() []PeerState {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]PeerState, 0, len(e.peers))
	for node, p := range e.peers {
		s := PeerState{Node: node, Refused: p.breaker.open(), CallsOpen: len(p.calls)}
		p.mu.Lock()
		if p.conn != nil && p.conn.Context().Err() == nil {
			s.Remote = p.conn.RemoteAddr().String()
		}
		p.mu.Unlock()
		all = append(all, s)
	}
	return all
}

// Answer is an answer that is OK.
type Answer struct {
	Response
	Node    string
	Payload int64         // length of Body, bytes
	Body    io.ReadCloser // nil: none was asked for, or there is a Location
}

// Read asks a node. The request's Hops are counted up and its Timeout is
// replaced by the time that ctx leaves, CallTimeout at most for the head of the
// answer; the body takes as long as ctx allows and bytes keep coming. Who gets a
// Body closes it; io.EOF from it means that every byte was checked.
//
// Errors: *RemoteError, in which errors.Is finds what the node said; else
// ErrBreaker, ErrUnreachable, ErrNotMember, ErrRefused, ErrIdentity, ErrClosed,
// ErrHopLoop, ErrInvalid, ErrChecksum, ErrMalformed, ErrTooLarge, ErrVersion, or
// the context's. A connection that turns out dead before an answer is replaced
// once, unseen.
func (e *Endpoint) Read(ctx context.Context, node string, q Request) (*Answer, error) {
	a, err := e.read(ctx, node, &q)
	if err != nil {
		return nil, fmt.Errorf("read from node %s: %w", node, err)
	}
	return a, nil
}

func (e *Endpoint) read(ctx context.Context, node string, q *Request) (*Answer, error) {
	if q.Hops >= MaxHops {
		return nil, ErrHopLoop
	}
	q.Hops++
	head, cancelHead := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancelHead()
	deadline, _ := head.Deadline()
	q.Timeout = time.Until(deadline)
	if err := q.validate(); err != nil {
		return nil, err
	}
	p, err := e.peerOf(node)
	if err != nil {
		return nil, err
	}
	if !p.breaker.enter() {
		return nil, ErrBreaker
	}
	a, err := e.attempts(ctx, head, p, q)
	p.breaker.leave(judge(ctx, err))
	return a, err
}

// judge tells what an error says of the peer.
func judge(ctx context.Context, err error) outcome {
	var remote *RemoteError
	switch {
	case err == nil, errors.As(err, &remote):
		return succeeded
	case errors.Is(context.Cause(ctx), context.Canceled), errors.Is(err, ErrClosed):
		return givenUp
	}
	return failed
}

// attempts makes a call, and once more if the connection was an old one that
// turned out dead. Requests only read, so repeating one is harmless.
func (e *Endpoint) attempts(ctx, head context.Context, p *peer, q *Request) (*Answer, error) {
	select {
	case p.calls <- struct{}{}:
	case <-head.Done():
		return nil, late(head)
	}
	release := sync.OnceFunc(func() { <-p.calls })
	var dead *quic.Conn
	for {
		conn, fresh, err := e.connect(head, p, dead)
		if err != nil {
			release()
			return nil, late(head, err)
		}
		a, err := e.call(ctx, head, conn, p.node, q, release)
		if err == nil {
			return a, nil
		}
		var remote *RemoteError
		if errors.As(err, &remote) {
			release()
			return nil, err
		}
		if !errors.Is(err, net.ErrClosed) || !errors.Is(err, ErrUnreachable) || fresh || dead != nil || head.Err() != nil {
			release()
			return nil, late(head, err)
		}
		dead = conn
	}
}

// late prefers the end of a context to the errors that follow from it.
func late(ctx context.Context, errs ...error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// A stream's own deadline may be a moment ahead of the context's timer.
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return errors.Join(errs...)
}

// call makes one request on one connection. release gives the call's place
// back; the answer's body takes it over.
func (e *Endpoint) call(ctx, head context.Context, conn *quic.Conn, node string, q *Request, release func()) (*Answer, error) {
	s, err := conn.OpenStreamSync(head)
	if err != nil {
		return nil, streamError(conn, err)
	}
	stop := context.AfterFunc(ctx, func() { abandon(s) })
	done := func(whole bool) {
		stop()
		if whole {
			s.CancelRead(streamCancelled) // all but the end of the stream has been read
		} else {
			abandon(s)
		}
	}
	a, err := e.exchange(ctx, head, s, q)
	if err != nil {
		done(false)
		return nil, streamError(conn, err)
	}
	a.Node = node
	var remote *RemoteError
	switch {
	case errors.As(a.err, &remote):
		remote.Node = node
		done(true)
		return nil, a.err
	case a.body == nil:
		done(true)
		release()
	default:
		a.body.conn = conn
		a.body.done = func(whole bool) {
			done(whole)
			release()
		}
		a.Body = a.body
	}
	return &a.Answer, nil
}

// abandon closes both halves of a stream: what is unread counts against the
// connection until then.
func abandon(s *quic.Stream) {
	s.CancelRead(streamCancelled)
	s.CancelWrite(streamCancelled)
}

// streamError turns an error of a stream into one of the connection, when that
// is what broke.
func streamError(conn *quic.Conn, err error) error {
	switch {
	case errors.Is(err, net.ErrClosed): // every error that ended the connection; its context may end a moment later
		return connError(err)
	case conn.Context().Err() != nil:
		return connError(context.Cause(conn.Context()))
	case stopped(err):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no byte in time: %w", ErrUnreachable, err)
	}
	return err
}

// stopped reports whether the other side has stopped reading a stream.
func stopped(err error) bool {
	var s *quic.StreamError
	return errors.As(err, &s) && s.Remote
}

// exchanged is an answer with what its caller has to finish.
type exchanged struct {
	Answer
	body *body
	err  error // *RemoteError
}

// exchange sends the request and reads the head of the answer.
func (e *Endpoint) exchange(ctx, head context.Context, s *quic.Stream, q *Request) (*exchanged, error) {
	deadline, _ := head.Deadline()
	if err := s.SetDeadline(deadline); err != nil {
		return nil, err
	}
	buf := e.bufs.Get().(*[]byte)
	out, err := appendRequest((*buf)[:0], q)
	if err == nil {
		_, err = s.Write(out)
	}
	// A server that answers before it has seen the end of the request may stop
	// reading: then the answer tells what there is to tell.
	if stopped(err) {
		err = nil
	}
	_ = s.Close()
	*buf = out[:0]
	if err != nil {
		e.bufs.Put(buf)
		return nil, err
	}
	_, msg, err := readFrame(s, buf, frameResponse)
	var h *answerHead
	if err == nil {
		h, err = parseResponse(msg)
	}
	if err != nil {
		e.bufs.Put(buf)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: no answer", ErrMalformed)
		}
		return nil, err
	}
	x := &exchanged{Answer: Answer{Response: h.Response}}
	switch {
	case h.status != StatusOK:
		x.err = &RemoteError{Status: h.status, Code: h.code, Detail: h.detail, Applied: h.Applied, RetryAfter: h.retryAfter}
	case h.payload > int64(e.cfg.Payload):
		err = fmt.Errorf("%w: a payload of %d bytes, %d are taken", ErrTooLarge, h.payload, e.cfg.Payload)
	case h.hasPayload:
		x.Payload = h.payload
		x.body = &body{e: e, s: s, ctx: ctx, buf: buf, left: h.payload, want: h.payload}
		return x, nil
	}
	e.bufs.Put(buf)
	return x, err
}

// body reads chunks and the trailer. Like any reader it has one user at a time.
type body struct {
	e    *Endpoint
	s    *quic.Stream
	conn *quic.Conn
	ctx  context.Context //nolint:containedctx // a stream's life, as with http.Request
	done func(whole bool)

	buf   *[]byte
	chunk []byte // not handed out yet, in buf
	left  int64
	want  int64
	sum   uint32
	err   error // sticks
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for len(b.chunk) == 0 {
		if b.err == nil {
			b.err = b.next()
		}
		if b.err != nil {
			return 0, b.err
		}
		if len(p) == 0 {
			return 0, nil
		}
	}
	n := copy(p, b.chunk)
	b.chunk = b.chunk[n:]
	return n, nil
}

// WriteTo implements io.WriterTo, without a copy.
func (b *body) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(b.chunk) > 0 {
			m, err := w.Write(b.chunk)
			n += int64(m)
			b.chunk = b.chunk[m:]
			if err != nil {
				return n, err
			}
		}
		if b.err == nil {
			b.err = b.next()
		}
		if errors.Is(b.err, io.EOF) {
			return n, nil
		}
		if b.err != nil {
			return n, b.err
		}
	}
}

// next reads a frame: a chunk to hand out, or the trailer, which is io.EOF.
func (b *body) next() error {
	if b.buf == nil {
		return ErrClosed
	}
	deadline, _ := b.ctx.Deadline()
	if err := b.s.SetReadDeadline(earlier(deadline, time.Now().Add(b.e.cfg.StallTimeout))); err != nil {
		return err
	}
	kind, msg, err := readFrame(b.s, b.buf, frameChunk, frameTrailer)
	switch {
	case err != nil && late(b.ctx) != nil:
		return late(b.ctx)
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return streamError(b.conn, err)
	case kind == frameTrailer:
		return b.finish(msg)
	case len(msg) == 0 || int64(len(msg)) > b.left:
		return fmt.Errorf("%w: a chunk of %d bytes where %d are left", ErrMalformed, len(msg), b.left)
	}
	b.left -= int64(len(msg))
	b.sum = crc32.Update(b.sum, castagnoli(), msg)
	b.chunk = msg
	return nil
}

// finish holds the trailer against what came.
func (b *body) finish(msg []byte) error {
	t, err := parseTrailer(msg)
	switch {
	case err != nil:
		return err
	case t.status != StatusOK:
		return &RemoteError{Status: t.status, Code: t.code, Detail: t.detail}
	case b.left != 0 || t.sent != b.want:
		return fmt.Errorf("%w: %d of %d payload bytes came, %d were sent", ErrMalformed, b.want-b.left, b.want, t.sent)
	case t.sum != b.sum:
		return fmt.Errorf("%w: the payload", ErrChecksum)
	}
	return io.EOF
}

// Close gives the stream back. It may be called again.
func (b *body) Close() error {
	if b.buf == nil {
		return nil
	}
	b.done(errors.Is(b.err, io.EOF))
	b.chunk, b.err = nil, ErrClosed
	b.e.bufs.Put(b.buf)
	b.buf = nil
	return nil
}

// payload returns a body's bytes, all checked.
func payload(a *Answer) ([]byte, error) {
	if a.Body == nil {
		return nil, nil
	}
	var all bytes.Buffer
	all.Grow(int(a.Payload))
	_, err := a.Body.(io.WriterTo).WriteTo(&all)
	return all.Bytes(), errors.Join(err, a.Body.Close())
}

// ReadAll is Read with the whole payload, every byte checked.
func (e *Endpoint) ReadAll(ctx context.Context, node string, q Request) (*Answer, []byte, error) {
	a, err := e.Read(ctx, node, q)
	if err != nil {
		return nil, nil, err
	}
	b, err := payload(a)
	if err != nil {
		return nil, nil, fmt.Errorf("read from node %s: %w", node, err)
	}
	return a, b, nil
}
