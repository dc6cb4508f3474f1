package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

// Handler answers calls of other nodes.
type Handler interface {
	// ServeCall answers one call of a member. ctx ends when the caller has gone or
	// its time is over; the answer is at most MaxCallBytes and is not changed
	// after. It is called by many goroutines at once and may keep body. Errors: a
	// *RemoteError, or any of the sentinels that Status stands for, ErrUnsupported
	// for an unknown method; others are ErrInternal to the caller and logged here.
	ServeCall(ctx context.Context, from, method string, body []byte) ([]byte, error)
}

const (
	// smallCall is a body that counts against the number of calls alone.
	smallCall = chunkBytes
	// callMemory bounds the larger bodies that are taken in at once, bytes; who
	// comes later waits.
	callMemory = 2 * MaxCallBytes
)

// serveCall answers the call of one stream.
func (e *Endpoint) serveCall(ctx context.Context, s *quic.Stream, node string) {
	began := time.Now()
	defer endRequest(s)
	buf := e.bufs.Get().(*[]byte)
	defer e.bufs.Put(buf)
	_ = s.SetReadDeadline(began.Add(requestPatience)) // a stream that takes none is broken: readFrame says so
	_, msg, err := readFrame(s, buf, frameCall)
	if err != nil {
		e.unreadable(s, buf, node, err)
		return
	}
	h, err := parseCall(msg)
	if err != nil {
		e.answerError(s, buf, node, notUnderstood(err))
		return
	}
	select {
	case e.callSlots <- struct{}{}:
		defer func() { <-e.callSlots }()
	default:
		e.answerError(s, buf, node, &RemoteError{Status: StatusBusy, Detail: "too many calls at once", RetryAfter: time.Second})
		return
	}
	// The stream's context ends when its reader stops reading.
	e.m.call.requestsIn.Inc()
	handling, cancel := context.WithDeadline(s.Context(), began.Add(h.timeout))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	answer, err := e.handle(handling, s, buf, node, h)
	if err == nil && len(answer) > MaxCallBytes {
		err = fmt.Errorf("%s: %w: an answer of %d bytes", h.method, ErrTooLarge, len(answer))
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && handling.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrTooLate, err)
		}
		e.answerError(s, buf, node, err)
		return
	}
	if err := e.answer(s, buf, node, &Reply{Data: answer}, &e.m.call); err != nil {
		s.CancelWrite(streamCut)
	}
}

// handle takes the body in and has it answered. The body's memory is given back
// when the handler has returned.
func (e *Endpoint) handle(ctx context.Context, s *quic.Stream, buf *[]byte, node string, h *callHead) ([]byte, error) {
	if h.length > smallCall {
		if err := e.callMemory.Acquire(ctx, h.length); err != nil {
			return nil, err
		}
		defer e.callMemory.Release(h.length)
	}
	deadline, _ := ctx.Deadline()
	body, err := readChunks(s, buf, h.length, func() error {
		return s.SetReadDeadline(earlier(deadline, time.Now().Add(e.cfg.StallTimeout)))
	})
	if err != nil {
		return nil, fmt.Errorf("%w: the call's body: %w", ErrInvalid, err)
	}
	e.m.call.bytesIn.Add(float64(len(body)))
	return e.cfg.Handler.ServeCall(ctx, node, h.method, body)
}
