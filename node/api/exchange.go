package api

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/datavision/desnode/desformat"
)

// exchange is one request and what is known of its answer.
type exchange struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	route  route
	began  time.Time
	id     string    // X-Request-Id
	idLine [1]string // the same as a header's value; here, since it costs no allocation of its own
	trace  string    // trace id of the inbound traceparent; empty: none
	parent string    // that traceparent whole, for the node that is asked; empty: none
	status int       // 0 until the header is sent
	bytes  int64     // of the body
}

// route is an endpoint, for the metrics.
type route uint8

// The routes.
const (
	routeOther route = iota
	routeFiles
	routeIDs
	routeHealth
	routeMetrics
	routeOpenAPI
	routeCluster
	routes
)

var routeNames = [routes]string{"other", "files", "ids", "health", "metrics", "openapi", "cluster"}

// Prefixes that a name or an id follows.
const (
	prefixFiles   = "/files/"
	prefixIDs     = "/ids/"
	prefixCluster = "/cluster/"
)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchange{s: s, w: w, r: r, began: s.cfg.Now()}
	s.metrics.inFlight.Inc()
	defer x.end()
	x.identify()
	if r.ContentLength != 0 {
		x.limitBody()
	}
	x.dispatch()
}

// limitBody gives a body, wanted or not, BodyTimeout to come: the server sets
// no limit of its own, and reads what a handler leaves before it answers.
func (x *exchange) limitBody() {
	// Only a connection that is gone, or a test's recorder, refuses.
	_ = http.NewResponseController(x.w).SetReadDeadline(x.s.cfg.Now().Add(x.s.cfg.BodyTimeout))
}

// bodyRead takes the limit away once the body has been read. The connection
// goes on being watched for the client's leaving.
func (x *exchange) bodyRead() {
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Time{})
}

// maxUnwanted bounds a body that is read for nothing, in bytes.
const maxUnwanted = 64 << 10

// discardBody reads a body that means nothing. A client whose body is long or
// does not come loses the connection.
func (x *exchange) discardBody() {
	n, err := io.Copy(io.Discard, io.LimitReader(x.r.Body, maxUnwanted+1))
	if err == nil && n > maxUnwanted {
		err = errors.New("a long body where none is wanted")
	}
	if err != nil {
		x.abort(err)
	}
	x.bodyRead()
}

// dispatch finds the endpoint by the escaped path, since a decoded one can't
// tell a%2Fb from a/b; no path is cleaned and none is redirected.
func (x *exchange) dispatch() {
	path := x.r.URL.RawPath // as received, when decoding lost something
	if path == "" {
		path = x.r.URL.Path
	}
	switch {
	case strings.HasPrefix(path, prefixFiles):
		x.route = routeFiles
		x.file(x.r.URL.Path[len(prefixFiles):])
	case strings.HasPrefix(path, prefixIDs):
		x.route = routeIDs
		x.fileByID(x.r.URL.Path[len(prefixIDs):])
	case path == "/livez":
		x.route = routeHealth
		x.live()
	case path == "/readyz":
		x.route = routeHealth
		x.ready()
	case path == "/metrics":
		x.route = routeMetrics
		x.scrape()
	case path == "/openapi.yaml":
		x.route = routeOpenAPI
		x.openAPI()
	case strings.HasPrefix(path, prefixCluster):
		x.route = routeCluster
		x.cluster(path)
	default:
		x.problem(&Problem{Status: http.StatusNotFound, Code: CodeNotFound, Detail: "no such endpoint; /openapi.yaml lists them"})
	}
}

// identify takes over the ids that came with the request, if they are fit to
// stand in a header and in a log line, and sets the headers of every answer.
func (x *exchange) identify() {
	header := x.w.Header()
	if in := x.r.Header["X-Request-Id"]; len(in) == 1 && validRequestID(in[0]) {
		x.id = in[0]
		header["X-Request-Id"] = in
	} else {
		x.id = x.s.ids.next()
		x.idLine[0] = x.id
		header["X-Request-Id"] = x.idLine[:]
	}
	if in := x.r.Header["Traceparent"]; len(in) == 1 {
		if x.trace = traceID(in[0]); x.trace != "" && len(in[0]) <= maxTraceparent {
			x.parent = in[0]
		}
	}
	header["X-Des-Node"] = x.s.node
}

// end counts and logs the exchange, and turns a panic into an answer where
// there is still time for one.
func (x *exchange) end() {
	if p := recover(); p != nil {
		x.s.metrics.inFlight.Dec()
		x.panicked(p)
		return
	}
	x.s.metrics.inFlight.Dec()
	took := x.s.cfg.Now().Sub(x.began)
	x.s.metrics.done(x.route, x.status, x.bytes, took)
	// What went wrong has been logged where it was known why.
	if x.s.cfg.Logger.Enabled(x.r.Context(), slog.LevelDebug) {
		x.log(slog.LevelDebug, "http", slog.Duration("took", took))
	}
}

// panicked logs a panic. It answers 500 when nothing has been sent, and breaks
// the connection when something has.
func (x *exchange) panicked(p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		x.s.metrics.done(x.route, x.status, x.bytes, x.s.cfg.Now().Sub(x.began))
		x.s.metrics.aborted.Inc()
		panic(http.ErrAbortHandler)
	}
	x.log(slog.LevelError, "http handler panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	sent := x.status != 0
	if !sent {
		x.problem(&Problem{Status: http.StatusInternalServerError, Code: CodeInternal})
	}
	x.s.metrics.done(x.route, x.status, x.bytes, x.s.cfg.Now().Sub(x.began))
	if sent {
		panic(http.ErrAbortHandler)
	}
}

// abort breaks the connection, so that the client can't take what it has for
// the whole.
func (x *exchange) abort(err error) {
	level := slog.LevelWarn
	switch {
	case x.r.Context().Err() != nil:
		level = slog.LevelDebug // the client left
	case errors.Is(err, desformat.ErrCorrupt):
		level = slog.LevelError
	}
	if x.s.cfg.Logger.Enabled(x.r.Context(), level) {
		x.log(level, "answer cut short", slog.String("error", err.Error()))
	}
	panic(http.ErrAbortHandler)
}

// log writes one line about the exchange.
func (x *exchange) log(level slog.Level, message string, more ...slog.Attr) {
	attrs := append(make([]slog.Attr, 0, 8+len(more)),
		slog.String("request_id", x.id),
		slog.String("method", x.r.Method),
		slog.String("path", x.r.URL.EscapedPath()),
		slog.Int("status", x.status),
		slog.Int64("bytes", x.bytes),
		slog.String("peer", x.r.RemoteAddr),
	)
	if x.trace != "" {
		attrs = append(attrs, slog.String("trace_id", x.trace))
	}
	x.s.cfg.Logger.LogAttrs(x.r.Context(), level, message, append(attrs, more...)...)
}

// send sends the status and the header.
func (x *exchange) send(status int) {
	x.status = status
	x.w.WriteHeader(status)
}

// write sends part of a body. The first write sends the header.
func (x *exchange) write(b []byte) error {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.w.Write(b)
	x.bytes += int64(n)
	return err
}

// extend gives the client another StallTimeout to take what is written next.
func (x *exchange) extend() {
	// Only a connection that is gone, or a test's recorder, refuses.
	_ = http.NewResponseController(x.w).SetWriteDeadline(x.s.cfg.Now().Add(x.s.cfg.StallTimeout))
}

// allow answers 405 unless the method is one of those named.
func (x *exchange) allow(methods ...string) bool {
	for _, m := range methods {
		if x.r.Method == m {
			return true
		}
	}
	allowed := strings.Join(methods, ", ")
	x.w.Header().Set("Allow", allowed)
	x.problem(&Problem{Status: http.StatusMethodNotAllowed, Code: CodeMethodNotAllowed, Detail: "allowed here: " + allowed})
	return false
}

// body sends a whole body of a known type.
func (x *exchange) body(status int, contentType string, b []byte) {
	h := x.w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	h["X-Content-Type-Options"] = nosniff
	if _, set := h["Cache-Control"]; !set {
		h["Cache-Control"] = noStore
	}
	x.extend() // the work before may have taken long
	x.send(status)
	if x.r.Method == http.MethodHead {
		return
	}
	_ = x.write(b) // whoever does not take it is gone
}
