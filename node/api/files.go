package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
)

// file answers GET and HEAD of /files/{name}.
func (x *exchange) file(name string) {
	if !x.readOnly() {
		return
	}
	f, err := x.s.cfg.Files.Open(x.r.Context(), name, x.query())
	if err != nil {
		if !errors.Is(err, desformat.ErrInvalidName) {
			x.shard(desformat.HashName(name).Shard(x.s.cfg.ShardBits()))
		}
		x.fail(err)
		return
	}
	defer f.Close()
	x.serve(&f)
}

// maxIDBytes is the length of the longest id.
const maxIDBytes = 64

// fileByID answers GET and HEAD of /ids/{id}.
func (x *exchange) fileByID(id string) {
	if !x.readOnly() {
		return
	}
	params, err := url.ParseQuery(x.r.URL.RawQuery)
	switch {
	case err != nil:
		x.fail(fmt.Errorf("%w: %w", ErrInvalidRequest, err))
		return
	case id == "", len(id) > maxIDBytes, !plainText(id), !plainText(params.Get("source")):
		x.fail(fmt.Errorf("%w: an id has 1 to %d bytes of UTF-8 and no NUL, and so has a source", ErrInvalidRequest, maxIDBytes))
		return
	}
	f, err := x.s.cfg.Files.OpenID(x.r.Context(), params.Get("source"), id, x.query())
	if err != nil {
		x.fail(err)
		return
	}
	defer f.Close()
	x.serve(&f)
}

// plainText reports whether every database takes s as text: another string
// would look like a database that is down.
func plainText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// readOnly is allow for GET and HEAD, without building a list.
func (x *exchange) readOnly() bool {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return x.allow(http.MethodGet, http.MethodHead)
	}
	if x.r.ContentLength != 0 {
		x.discardBody()
	}
	return true
}

// query says how much of the file this request will use.
func (x *exchange) query() retriever.Query {
	q := retriever.Query{Client: client(x.r.RemoteAddr), RequestID: x.id, Traceparent: x.parent}
	h := x.r.Header
	switch {
	case x.r.Method == http.MethodHead:
		q.Want = retriever.WantHeader
	case h["Range"] != nil, h["If-None-Match"] != nil, h["If-Modified-Since"] != nil, h["If-Match"] != nil, h["If-Unmodified-Since"] != nil:
		q.Want = retriever.WantPart
	}
	return q
}

// client returns the host of a peer's address.
func client(peer string) string {
	if i := strings.LastIndexByte(peer, ':'); i >= 0 {
		return peer[:i]
	}
	return peer
}

func (x *exchange) shard(shard uint32) { x.w.Header()["X-Des-Shard"] = shardLine(shard) }

func shardLine(shard uint32) []string { return []string{strconv.FormatUint(uint64(shard), 10)} }

// serve answers with a file that has been found.
func (x *exchange) serve(f *retriever.File) {
	var e *entity
	if f.Record != nil {
		e, _ = f.Record.Memo(x.s.describe).(*entity)
	} else {
		e = unpackedEntity(f)
	}
	h := x.w.Header()
	h["X-Des-Shard"] = e.shard
	if f.Record != nil && !x.s.cfg.Quorum() {
		h["X-Des-Unconfirmed"] = yes
	}
	switch preconditions(x.r.Header, e.validators) {
	case preconditionFailed:
		x.problem(&Problem{Status: http.StatusPreconditionFailed, Code: CodePrecondition})
		return
	case notModified:
		e.set(h)
		delete(h, "Content-Type")
		delete(h, "Content-Disposition")
		x.send(http.StatusNotModified)
		return
	}
	size := f.Size()
	part, status := byteRange{0, size}, http.StatusOK
	if f.Record != nil && x.r.Method == http.MethodGet {
		if ranges := x.r.Header["Range"]; len(ranges) == 1 && rangeApplies(x.r.Header, e.validators) {
			switch b, v := parseRange(ranges[0], size); v {
			case rangeServed:
				part, status = b, http.StatusPartialContent
			case rangeUnsatisfiable:
				x.unsatisfiable(size)
				return
			}
		}
	}
	e.set(h)
	if status == http.StatusPartialContent {
		h["Content-Range"] = []string{part.contentRange(size)}
		h["Content-Length"] = []string{strconv.FormatInt(part.length, 10)}
	} else {
		h["Content-Length"] = e.length
	}
	x.content(f, part, status)
}

// unsatisfiable answers 416.
func (x *exchange) unsatisfiable(size int64) {
	p := &Problem{Status: http.StatusRequestedRangeNotSatisfiable, Code: CodeRange, Detail: "the file has " + strconv.FormatInt(size, 10) + " bytes"}
	// problem takes away the headers of the file, so this one comes with it.
	x.problemWith(p, "Content-Range", "bytes */"+strconv.FormatInt(size, 10))
}

// content sends the header and the bytes.
func (x *exchange) content(f *retriever.File, part byteRange, status int) {
	if x.r.Method == http.MethodHead {
		x.send(status)
		return
	}
	if whole, ok := f.Content(); ok {
		x.send(status)
		x.fromMemory(whole[part.off : part.off+part.length])
		return
	}
	body, err := f.Open(x.r.Context(), part.off, part.length)
	if err != nil {
		x.fail(err)
		return
	}
	defer func() { _ = body.Close() }() // only read from
	x.stream(body, part.length, status)
}

// piece is how much is written to a client at once; each piece has StallTimeout
// to be taken.
const piece = 256 << 10

// fromMemory sends verified bytes.
func (x *exchange) fromMemory(b []byte) {
	for len(b) > piece {
		x.extend()
		if err := x.write(b[:piece]); err != nil {
			x.abort(err)
		}
		b = b[piece:]
		x.extend()
	}
	if err := x.write(b); err != nil {
		x.abort(err)
	}
}

// buffers are for the two pieces of a stream: the one that is sent and the one
// that is held back.
var buffers = sync.Pool{New: func() any { return new([2][piece]byte) }}

// stream sends exactly length bytes of body. What was read last is held back
// until more has come or body has ended as it should, since only then is the
// end of an original known to be right. The header is sent with the first
// piece, so that what fails before it still gets an answer that says so.
func (x *exchange) stream(body io.Reader, length int64, status int) {
	room, _ := buffers.Get().(*[2][piece]byte)
	defer buffers.Put(room)
	var held []byte
	for turn := 0; ; turn ^= 1 {
		n, err := io.ReadFull(body, room[turn][:])
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended || int64(n) > length || ended && int64(n) != length {
			x.broken(err)
			return
		}
		length -= int64(n)
		if held != nil {
			x.flush(held, status)
		}
		held = room[turn][:n]
		if ended {
			break
		}
	}
	x.flush(held, status)
}

// flush sends one piece.
func (x *exchange) flush(b []byte, status int) {
	if x.status == 0 {
		x.send(status)
	}
	x.extend()
	if err := x.write(b); err != nil {
		x.abort(err)
	}
}

// broken ends a stream that failed or did not have the length it should: with a
// problem when nothing has been sent, else by breaking the connection.
func (x *exchange) broken(err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: content of another length than announced", retriever.ErrUnavailable)
	}
	if x.status != 0 {
		x.abort(err)
	}
	x.fail(err)
}
