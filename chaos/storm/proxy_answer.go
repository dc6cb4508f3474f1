package main

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
)

// postgresEar follows the answers of a Postgres server, which are messages of
// one byte of type and four of length. Something was applied when the server
// says that it is ready, outside of any transaction, after a statement that
// changes something or a COMMIT.
type postgresEar struct {
	head    []byte // of a message that is not whole yet
	rest    int    // bytes of a message's end that are still to come
	body    []byte // the beginning of its body
	kind    byte
	changed bool // since the server was ready last
}

func (*postgresEar) asked([]byte) {}

// tagBytes is as much of a message as is looked at.
const tagBytes = 16

func (e *postgresEar) answered(b []byte) (applied bool) {
	for len(b) > 0 {
		if e.rest > 0 {
			n := min(e.rest, len(b))
			e.body = append(e.body, b[:min(n, max(0, tagBytes-len(e.body)))]...)
			e.rest -= n
			b = b[n:]
			if e.rest == 0 {
				applied = e.message() || applied
			}
			continue
		}
		n := min(5-len(e.head), len(b))
		e.head = append(e.head, b[:n]...)
		b = b[n:]
		if len(e.head) < 5 {
			return applied
		}
		e.kind, e.rest = e.head[0], int(binary.BigEndian.Uint32(e.head[1:]))-4
		e.head, e.body = e.head[:0], e.body[:0]
		if e.rest <= 0 {
			e.rest = 0
			applied = e.message() || applied
		}
	}
	return applied
}

// message takes note of one whole message.
func (e *postgresEar) message() (applied bool) {
	switch e.kind {
	case 'C': // CommandComplete
		for _, tag := range []string{"COMMIT", "UPDATE", "INSERT", "DELETE"} {
			e.changed = e.changed || bytes.HasPrefix(e.body, []byte(tag))
		}
	case 'Z': // ReadyForQuery
		idle := len(e.body) > 0 && e.body[0] == 'I'
		applied = e.changed && idle
		if idle {
			e.changed = false
		}
	}
	return applied
}

// httpEar follows requests and answers over HTTP/1.1. A request begins with
// what is asked first after an answer, since nobody sends the next before.
type httpEar struct {
	writes atomic.Bool // the request under way changes something
	fresh  atomic.Bool // an answer came since
}

func newHTTPEar() *httpEar {
	e := &httpEar{}
	e.fresh.Store(true)
	return e
}

func (e *httpEar) asked(b []byte) {
	if !e.fresh.Swap(false) {
		return
	}
	writes := false
	for _, method := range []string{"PUT ", "POST ", "DELETE "} {
		writes = writes || bytes.HasPrefix(b, []byte(method))
	}
	e.writes.Store(writes)
}

// answered: 100 Continue is no answer yet.
func (e *httpEar) answered(b []byte) (applied bool) {
	if bytes.HasPrefix(b, []byte("HTTP/1.1 100")) {
		return false
	}
	e.fresh.Store(true)
	return bytes.HasPrefix(b, []byte("HTTP/1.1 2")) && e.writes.Load()
}
