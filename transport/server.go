package transport

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/quic-go/quic-go"
)

// Reader answers requests of other nodes.
type Reader interface {
	// ServeRead answers one request of a member. Its Hops are 1: whoever passes
	// it to Endpoint.Read again gets ErrHopLoop. ctx ends when the caller has lost
	// interest or its time is over. It is called by many goroutines at once, and
	// what it returns is sent by the one that called. Errors: a *RemoteError, or
	// any of the sentinels that Status stands for; others are ErrInternal to the
	// caller and logged here.
	ServeRead(ctx context.Context, from string, q *Request) (*Reply, error)
}

// Reply is an answer that is OK: with a payload in memory, one to be streamed,
// or none.
type Reply struct {
	Response
	// Data is the payload, when it is in memory already; it is not changed, and
	// not kept after it has been sent. An empty payload is not nil.
	Data []byte
	// Body is the payload otherwise, Length bytes of it. It is closed when it has
	// been sent or the caller has gone.
	Body   io.ReadCloser
	Length int64
}

// requestPatience is how long a stream may take to send its request.
const requestPatience = 5 * time.Second

// serveMember serves a member's connection, each stream by a task of its own,
// until it ends.
func (e *Endpoint) serveMember(ctx context.Context, conn *quic.Conn, node, plane string, serve func(context.Context, *quic.Stream, string)) {
	if !e.note(conn, node) {
		// Who is told that it is no member believes it, and ends for ever.
		if e.cfg.Allowed(node) {
			_ = conn.CloseWithError(codeDone, "the node shuts down")
		} else {
			_ = conn.CloseWithError(codeNotMember, "not a member of the cluster")
		}
		return
	}
	defer e.forget(conn)
	for {
		s, err := conn.AcceptStream(ctx)
		if err != nil {
			_ = conn.CloseWithError(codeDone, "the node shuts down") // of a broken one, nothing more
			return
		}
		if !e.cfg.Allowed(node) {
			e.refusals.tell(conn.RemoteAddr(), plane, fmt.Errorf("node %s: %w", node, ErrNotMember))
			_ = conn.CloseWithError(codeNotMember, "removed from the cluster")
			return
		}
		if !e.spawn(func() { serve(ctx, s, node) }) {
			abandon(s)
		}
	}
}

// serveRead answers the request of one stream. The number of streams of a
// connection is bounded, so is that of these goroutines.
func (e *Endpoint) serveRead(ctx context.Context, s *quic.Stream, node string) {
	began := time.Now()
	defer endRequest(s)
	buf := e.bufs.Get().(*[]byte)
	defer e.bufs.Put(buf)
	_ = s.SetReadDeadline(began.Add(requestPatience)) // a stream that takes none is broken: readFrame says so
	_, msg, err := readFrame(s, buf, frameRequest)
	if err != nil {
		e.unreadable(s, buf, node, err)
		return
	}
	q, err := parseRequest(msg)
	if err == nil && q.Hops > MaxHops {
		err = ErrHopLoop
	}
	if err != nil {
		e.answerError(s, buf, node, notUnderstood(err))
		return
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		e.answerError(s, buf, node, &RemoteError{Status: StatusBusy, Detail: "too many requests at once", RetryAfter: time.Second})
		return
	}
	// The stream's context ends when its reader stops reading. q holds no part
	// of buf: its texts are copies.
	e.m.read.requestsIn.Inc()
	handling, cancel := context.WithDeadline(s.Context(), began.Add(q.Timeout))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	reply, err := e.cfg.Reader.ServeRead(handling, node, q)
	if err == nil {
		err = reply.check()
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && handling.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrTooLate, err)
		}
		e.answerError(s, buf, node, err)
		return
	}
	if err := e.answer(s, buf, node, reply, &e.m.read); err != nil {
		s.CancelWrite(streamCut)
	}
}

// unreadable ends a stream whose first frame could not be read.
func (e *Endpoint) unreadable(s *quic.Stream, buf *[]byte, node string, err error) {
	if errors.Is(err, ErrVersion) {
		e.answerError(s, buf, node, fmt.Errorf("%w: %w", ErrUnsupported, err))
		return
	}
	s.CancelRead(streamBadInput)
	s.CancelWrite(streamBadInput)
}

// notUnderstood says what a message that was read, but not understood, is to its
// sender.
func notUnderstood(err error) error {
	switch {
	case errors.Is(err, ErrVersion):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.Is(err, ErrTooLate), errors.Is(err, ErrHopLoop):
		return err
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

// endRequest reads the end of the request, which has come by now as a rule; a
// stream that goes on is stopped.
func endRequest(s *quic.Stream) {
	_ = s.SetReadDeadline(time.Now().Add(requestPatience)) // a stream that takes none is broken: Read says so
	var more [1]byte
	if n, err := s.Read(more[:]); n > 0 || !errors.Is(err, io.EOF) {
		s.CancelRead(streamCancelled)
	}
}

// check holds a reply against what can be sent, and closes what will not be.
func (r *Reply) check() error {
	err := r.validate()
	if err == nil && (r.Body != nil || r.Data != nil) && r.Location != nil {
		err = fmt.Errorf("%w: a location and a payload", ErrMalformed)
	}
	if err == nil && (r.Body != nil && r.Data != nil || r.Length < 0) {
		err = fmt.Errorf("%w: two payloads, or one of negative length", ErrMalformed)
	}
	if err != nil && r.Body != nil {
		err = errors.Join(err, r.Body.Close())
	}
	if err != nil {
		return fmt.Errorf("the reply cannot be sent: %w", err)
	}
	return nil
}

// describe turns a Reader's or Handler's error into what is sent; what it keeps to itself is
// logged.
func (e *Endpoint) describe(node string, err error) *RemoteError {
	var said *RemoteError
	if errors.As(err, &said) && said.Status != StatusOK {
		return said
	}
	status := statusOf(err)
	if status == StatusInternal && !errors.Is(err, context.Canceled) {
		e.log.Error("an answer to another node went wrong", "node", node, "error", err)
		return &RemoteError{Status: status}
	}
	return &RemoteError{Status: status, Detail: err.Error()}
}

func (e *Endpoint) answerError(s *quic.Stream, buf *[]byte, node string, err error) {
	said := e.describe(node, err)
	out, err := appendResponse((*buf)[:0], &answerHead{
		Response: Response{Applied: said.Applied}, status: said.Status,
		code: cut(said.Code, maxCode), detail: cut(said.Detail, maxDetail), retryAfter: said.RetryAfter,
	})
	*buf = out[:0]
	if err == nil {
		err = e.writeLast(s, out)
	}
	if err != nil {
		s.CancelWrite(streamCut)
	}
}

// write sends bytes, as long as the reader takes some.
func (e *Endpoint) write(s *quic.Stream, b []byte) error {
	if err := s.SetWriteDeadline(time.Now().Add(e.cfg.StallTimeout)); err != nil {
		return err
	}
	_, err := s.Write(b)
	return err
}

// lastBytes is how much may wait in a stream after its end was said; the reader's
// window has room for it many times over.
const lastBytes = 32 << 10

// writeLast sends a stream's last bytes and its end. Together they take one
// packet less, and the stream is done with without waiting for the network.
func (e *Endpoint) writeLast(s *quic.Stream, b []byte) error {
	if len(b) > lastBytes || s.TryWriteAll(b) != nil {
		if err := e.write(s, b); err != nil {
			return err
		}
	}
	return s.Close()
}

// answer sends a reply that check has passed.
func (e *Endpoint) answer(s *quic.Stream, buf *[]byte, node string, r *Reply, m *planeMetrics) error {
	if r.Body != nil {
		defer r.Body.Close()
	}
	h := answerHead{Response: r.Response, status: StatusOK}
	switch {
	case r.Data != nil:
		h.payload, h.hasPayload = int64(len(r.Data)), true
	case r.Body != nil:
		h.payload, h.hasPayload = r.Length, true
	}
	out, err := appendResponse((*buf)[:0], &h)
	defer func() { *buf = out[:0] }()
	if err != nil {
		return err
	}
	if h.hasPayload {
		end := trailer{status: StatusOK}
		if r.Data != nil {
			out, err = e.sendData(s, out, r.Data, &end)
		} else {
			out, err = e.sendBody(s, out, r, &end, node)
		}
		if err != nil {
			return err
		}
		m.bytesOut.Add(float64(end.sent))
		if out, err = appendTrailer(out, &end); err != nil {
			return err
		}
	}
	return e.writeLast(s, out)
}

// sendData frames a payload in memory; what is small leaves in one write with
// all the rest.
func (e *Endpoint) sendData(s *quic.Stream, out, data []byte, end *trailer) (rest []byte, err error) {
	end.sum, end.sent = crc32.Checksum(data, castagnoli()), int64(len(data))
	for len(data) > 0 {
		if len(out) >= chunkBytes {
			if err := e.write(s, out); err != nil {
				return out, err
			}
			out = out[:0]
		}
		n := min(len(data), chunkBytes)
		if out, err = appendChunk(out, data[:n]); err != nil {
			return out, err
		}
		data = data[n:]
	}
	return out, nil
}

// sendBody frames a payload as it is read. What goes wrong with it stands in the
// trailer, so that the caller learns why.
func (e *Endpoint) sendBody(s *quic.Stream, out []byte, r *Reply, end *trailer, node string) (rest []byte, err error) {
	for left := r.Length; left > 0; {
		var at int
		out, at = openFrame(out)
		start := len(out)
		n := int(min(left, chunkBytes))
		out = append(out, make([]byte, n)...)
		m, readErr := io.ReadFull(r.Body, out[start:])
		out = out[:start+m]
		if m == 0 {
			out = out[:at]
		} else {
			end.sum = crc32.Update(end.sum, castagnoli(), out[start:])
			end.sent += int64(m)
			if out, err = sealFrame(out, at, frameChunk); err != nil {
				return out, err
			}
		}
		if readErr != nil {
			if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
				readErr = fmt.Errorf("the payload ended %d bytes early: %w", left-int64(m), readErr)
			}
			said := e.describe(node, readErr)
			end.status, end.code, end.detail = said.Status, cut(said.Code, maxCode), cut(said.Detail, maxDetail)
			return out, nil
		}
		left -= int64(m)
		if len(out) >= chunkBytes {
			if err := e.write(s, out); err != nil {
				return out, err
			}
			out = out[:0]
		}
	}
	return out, nil
}
