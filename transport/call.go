package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"
)

// Call has a member answer one call: method is 1 to 32 bytes of a-z and -, body
// and answer at most MaxCallBytes. It takes as long as ctx allows, CallTimeout
// where ctx has no deadline; the handler's context ends when the caller's does.
//
// A call is never repeated here once it may have been read, and it passes no
// circuit breaker: what it changes, and whether it may be tried again, only its
// caller knows. A connection that is known to be dead before anything was
// written is replaced. So after any error but those named "not sent" the outcome
// is unknown unless the node itself said it.
//
// Errors: *RemoteError, in which errors.Is finds what the node said. Not sent:
// ErrNotMember, ErrInvalid, ErrIdentity, ErrRefused. Else ErrUnreachable,
// ErrClosed, ErrTooLarge, ErrChecksum, ErrMalformed, ErrVersion, or the
// context's.
func (e *Endpoint) Call(ctx context.Context, node, method string, body []byte) ([]byte, error) {
	answer, err := e.callNode(ctx, node, method, body)
	if err != nil {
		return nil, fmt.Errorf("call %s of node %s: %w", method, node, err)
	}
	return answer, nil
}

func (e *Endpoint) callNode(ctx context.Context, node, method string, body []byte) ([]byte, error) {
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	p, err := e.peerOf(node)
	if err != nil {
		return nil, err
	}
	select {
	case p.calls <- struct{}{}:
		defer func() { <-p.calls }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var dead *quic.Conn
	for {
		conn, _, err := e.connect(ctx, &p.call, dead)
		if err != nil {
			return nil, late(ctx, err)
		}
		s, err := conn.OpenStreamSync(ctx)
		if err == nil {
			return e.callOn(ctx, conn, s, node, method, body)
		}
		if ctx.Err() != nil || dead != nil {
			return nil, late(ctx, streamError(conn, err))
		}
		dead = conn // nothing was written: the next connection is as good
	}
}

// bounded gives a context that has no end CallTimeout.
func (e *Endpoint) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, e.cfg.CallTimeout)
}

// CallAddr is Call for a node whose address, host:port, is known, but not which
// node it is: any of our cluster that is a member will do. It tells which one
// answered, as far as it came, with an error too. The connection is made for this
// call and closed after it; Peers does not show it. This node itself is
// ErrInvalid.
func (e *Endpoint) CallAddr(ctx context.Context, addr, method string, body []byte) (answer []byte, node string, err error) {
	answer, node, err = e.callAddr(ctx, addr, method, body)
	if err != nil {
		return nil, node, fmt.Errorf("call %s at %s: %w", method, addr, err)
	}
	return answer, node, nil
}

func (e *Endpoint) callAddr(ctx context.Context, addr, method string, body []byte) (answer []byte, node string, err error) {
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	if addr == e.Addr() { // lists of seeds hold this node too
		return nil, e.id.Node(), fmt.Errorf("%w: it is this node", ErrInvalid)
	}
	conn, err := e.dialQUIC(ctx, addr, alpnCall, "")
	if err != nil {
		return nil, "", late(ctx, err)
	}
	defer conn.CloseWithError(codeDone, "") //nolint:errcheck // the answer is here, or an error
	node, err = nodeOf(conn.ConnectionState().TLS.PeerCertificates[0], e.id.Cluster())
	switch {
	case err != nil:
		return nil, "", err
	case node == e.id.Node():
		return nil, node, fmt.Errorf("%w: it is this node", ErrInvalid)
	case !e.cfg.Allowed(node):
		return nil, node, ErrNotMember
	}
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, node, late(ctx, streamError(conn, err))
	}
	answer, err = e.callOn(ctx, conn, s, node, method, body)
	return answer, node, err
}

// callOn makes one call on one stream.
func (e *Endpoint) callOn(ctx context.Context, conn *quic.Conn, s *quic.Stream, node, method string, body []byte) (answer []byte, err error) {
	stop := context.AfterFunc(ctx, func() { abandon(s) })
	defer func() {
		stop()
		if err != nil {
			abandon(s)
		} else {
			s.CancelRead(streamCancelled) // all but the end of the stream has been read
		}
	}()
	deadline, _ := ctx.Deadline()
	h := callHead{method: method, timeout: time.Until(deadline), length: int64(len(body))}
	if err := h.validate(); err != nil {
		return nil, err
	}
	if err := s.SetDeadline(deadline); err != nil {
		return nil, err
	}
	e.m.call.requestsOut.Inc()
	buf := e.bufs.Get().(*[]byte)
	// A server that answers before it has seen the end of the call may stop
	// reading: then the answer tells what there is to tell.
	if err = sendCall(s, buf, &h, body); err == nil || stopped(err) {
		_ = s.Close()
		e.m.call.bytesOut.Add(float64(len(body)))
		var x *exchanged
		if x, err = e.receive(ctx, s, buf, MaxCallBytes); err == nil {
			answer, err = x.take(conn, node)
			e.m.call.bytesIn.Add(float64(len(answer)))
			return answer, err
		}
	} else {
		e.bufs.Put(buf)
	}
	return nil, late(ctx, streamError(conn, err))
}

// take returns the payload of an answer, all of it checked.
func (x *exchanged) take(conn *quic.Conn, node string) ([]byte, error) {
	var remote *RemoteError
	switch {
	case errors.As(x.err, &remote):
		remote.Node = node
		return nil, x.err
	case x.body == nil:
		return nil, nil
	}
	x.body.conn, x.body.done, x.Body = conn, func(bool) {}, x.body
	return payload(&x.Answer)
}

// unexpected is for an end where bytes were due.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
