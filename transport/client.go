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

// peer is a node that we ask: a link a plane, so that neither waits behind the
// other's bytes.
type peer struct {
	node    string
	breaker breaker       // of reads; calls have none
	reads   chan struct{} // one token a read under way
	calls   chan struct{} // one token a call under way
	read    link
	call    link
}

// drop ends the use of a peer and returns its connections.
func (p *peer) drop(why error) (conns []*quic.Conn) {
	for _, l := range []*link{&p.read, &p.call} {
		if c := l.drop(why); c != nil {
			conns = append(conns, c)
		}
	}
	return conns
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
			node: node, reads: make(chan struct{}, e.cfg.MaxCalls), calls: make(chan struct{}, e.cfg.MaxCalls),
			read: link{node: node, alpn: alpnRead}, call: link{node: node, alpn: alpnCall},
			breaker: breaker{limit: e.cfg.BreakerFailures, delay: e.cfg.BreakerDelay, now: e.id.now},
		}
		e.peers[node] = p
	}
	return p, nil
}

// PeerState is what an endpoint knows of a node that it calls.
type PeerState struct {
	Node      string
	Remote    string // host:port; empty: not connected
	Refused   bool   // the circuit breaker refuses reads now
	CallsOpen int    // reads and calls under way
}

// Peers returns the nodes that were called since they became members, in no
// order.
func (e *Endpoint) Peers() []PeerState {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]PeerState, 0, len(e.peers))
	for node, p := range e.peers {
		all = append(all, PeerState{
			Node: node, Refused: p.breaker.open(), CallsOpen: len(p.reads) + len(p.calls), Remote: or(p.read.remote(), p.call.remote()),
		})
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
	case p.reads <- struct{}{}:
	case <-head.Done():
		return nil, late(head)
	}
	release := sync.OnceFunc(func() { <-p.reads })
	var dead *quic.Conn
	for {
		conn, fresh, err := e.connect(head, &p.read, dead)
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
	e.m.read.requestsOut.Inc()
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
			e.m.read.bytesIn.Add(float64(a.body.want - a.body.left))
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
	if err == nil && s.TryWriteAll(out) != nil {
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
	return e.receive(ctx, s, buf, int64(e.cfg.Payload))
}

// receive reads the head of an answer, whose payload may be limit bytes long.
// buf goes back to the pool, now or with the body.
func (e *Endpoint) receive(ctx context.Context, s *quic.Stream, buf *[]byte, limit int64) (*exchanged, error) {
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
	case h.payload > limit:
		err = fmt.Errorf("%w: a payload of %d bytes, %d are taken", ErrTooLarge, h.payload, limit)
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

// trusted is how much memory a length is given before its bytes have come.
const trusted = 1 << 20

// payload returns a body's bytes, all checked.
func payload(a *Answer) ([]byte, error) {
	if a.Body == nil {
		return nil, nil
	}
	var all bytes.Buffer
	all.Grow(int(min(a.Payload, trusted)))
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
