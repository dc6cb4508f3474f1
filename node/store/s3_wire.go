package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Class is what a request costs, in the words of price lists.
type Class uint8

// The classes of requests.
const (
	ClassPut  Class = iota // PUT, COPY, POST, LIST: the dear ones
	ClassGet               // GET, HEAD and all others
	ClassFree              // DELETE, and aborting an upload
	classes
)

// String returns the class in lower case, as metrics label it.
func (c Class) String() string { return [...]string{"put", "get", "free"}[c] }

// request is what one HTTP request is for. Its context carries it.
type request struct {
	kind  Kind
	class Class
	slow  bool // the server works before it answers: WriteTimeout
}

type requestKey struct{}

// as returns ctx for HTTP requests of one kind.
func as(ctx context.Context, k Kind, c Class) context.Context {
	return context.WithValue(ctx, requestKey{}, request{kind: k, class: c, slow: c == ClassPut && k != KindList})
}

// wire sends the SDK's HTTP requests, each attempt once: it counts and
// observes them, refuses them while their breaker is open, and ends those that
// stand still.
type wire struct {
	client         *http.Client
	read, write    time.Duration
	stall          time.Duration
	reads, changes breaker
	culprits       culprits
	tally          tally
	observe        func(Kind, time.Duration, error)
}

func newWire(c S3Config, client *http.Client) *wire {
	return &wire{
		client: client, read: c.ReadTimeout, write: c.WriteTimeout, stall: c.Stall, observe: c.Observe,
		reads: newBreaker("reads", c.Logger), changes: newBreaker("changes", c.Logger),
	}
}

// Do sends one request.
func (w *wire) Do(req *http.Request) (*http.Response, error) {
	what, ok := req.Context().Value(requestKey{}).(request)
	if !ok {
		what = request{kind: KindGet, class: ClassGet}
	}
	if !w.breaker(what.kind).TryAcquirePermit() {
		return nil, errBreaker
	}
	w.tally.add(req.Context(), what)
	ctx, cancel := context.WithCancelCause(req.Context())
	answer := w.read
	if what.slow {
		answer = w.write
	}
	d := newWatch(cancel, answer, w.stall)
	sent := req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		sent.Body = &watchedUpload{ReadCloser: req.Body, watch: d}
	}
	start := time.Now()
	res, err := w.client.Do(sent)
	took := time.Since(start)
	d.answered()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && req.Context().Err() == nil {
			err = cause // why we gave up says more than that we did
		}
		cancel(nil)
		w.record(req, what.kind, took, err)
		return nil, err
	}
	w.record(req, what.kind, took, blame(res.StatusCode))
	res.Body = &watchedDownload{ReadCloser: res.Body, wire: w, watch: d, ctx: ctx, req: req, kind: what.kind, failed: blame(res.StatusCode) != nil}
	return res, nil
}

// blame returns an error for the answers that are the server's fault.
func blame(status int) error {
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented || status == http.StatusTooManyRequests {
		return fmt.Errorf("the store answered %d %s", status, http.StatusText(status))
	}
	return nil
}

// record tells the breaker and the observer how a request went. One that the
// caller gave up says nothing about the store.
func (w *wire) record(req *http.Request, k Kind, took time.Duration, err error) {
	switch {
	case req.Context().Err() != nil:
		if b := w.breaker(k); b.IsHalfOpen() {
			b.RecordFailure() // gives back the permit, which else were lost for good
		}
		return
	case err != nil:
		w.failed(req, k)
	default:
		w.culprits.worked(req.URL.Path, false)
		w.breaker(k).RecordSuccess()
	}
	w.observe(k, took, err)
}

// failed tells the breaker, unless the object is to blame.
func (w *wire) failed(req *http.Request, k Kind) {
	b := w.breaker(k)
	if own := w.culprits.failed(req.URL.Path); !own || b.IsHalfOpen() {
		b.RecordFailure()
	}
}

// stallError: a request stood still.
type stallError struct {
	what string
	time time.Duration
}

func (e *stallError) Error() string   { return fmt.Sprintf("%s for %s", e.what, e.time) }
func (e *stallError) Timeout() bool   { return true }
func (e *stallError) Temporary() bool { return true }

// watch ends a request that stands still, by cancelling its context. A request
// is first sent, then answered; the answer's body is read by whoever asked, at
// their pace, so only the time inside their reads counts.
type watch struct {
	cancel        context.CancelCauseFunc
	answer, stall time.Duration
	timer         *time.Timer

	mu    sync.Mutex // guards what follows
	done  bool       // the answer began: uploading no longer matters
	ended bool
	why   *stallError
}

func newWatch(cancel context.CancelCauseFunc, answer, stall time.Duration) *watch {
	d := &watch{cancel: cancel, answer: answer, stall: stall}
	d.why = &stallError{"no answer", answer}
	d.timer = time.AfterFunc(answer, d.fire)
	return d
}

func (d *watch) fire() {
	d.mu.Lock()
	why := d.why
	d.mu.Unlock()
	if why != nil {
		d.cancel(why)
	}
}

// wait gives what comes next so much time; nil stops the clock.
func (d *watch) wait(why *stallError, upload bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if upload && d.done || d.ended {
		return
	}
	d.why = why
	if why == nil {
		d.timer.Stop()
		return
	}
	d.timer.Reset(why.time)
}

// answered stops the clock: the answer has begun, or none will come.
func (d *watch) answered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done, d.why = true, nil
	d.timer.Stop()
}

// end stops the clock for good.
func (d *watch) end() {
	d.mu.Lock()
	d.ended, d.why = true, nil
	d.timer.Stop()
	d.mu.Unlock()
	d.cancel(nil)
}

// watchedUpload is the body of a request: between two reads of it the bytes
// of the first are on their way.
type watchedUpload struct {
	io.ReadCloser
	watch *watch
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.watch.wait(nil, true)
	n, err := u.ReadCloser.Read(p)
	if err == nil {
		u.watch.wait(&stallError{"the upload stood still", u.watch.stall}, true)
	} else {
		u.watch.wait(&stallError{"no answer", u.watch.answer}, true)
	}
	return n, err
}

// stallBytes is what must come within the stall limit for a body not to stand
// still: a drip of single bytes is no progress.
const stallBytes = 16 << 10

// watchedDownload is the body of an answer.
type watchedDownload struct {
	io.ReadCloser
	wire   *wire
	watch  *watch
	ctx    context.Context // as it was sent
	req    *http.Request   // as it was asked for
	kind   Kind
	waited time.Duration // inside reads, since stallBytes last were complete
	moved  int           // bytes since then
	flowed bool          // stallBytes have come
	failed bool
}

func (b *watchedDownload) Read(p []byte) (int, error) {
	left := max(b.watch.stall-b.waited, 0)
	b.watch.wait(&stallError{"the download stood still", left}, false)
	start := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.watch.wait(nil, false)
	b.waited += time.Since(start)
	if b.moved += n; b.moved >= stallBytes {
		b.moved, b.waited, b.flowed = 0, 0, true
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	var stalled *stallError
	if errors.As(context.Cause(b.ctx), &stalled) {
		err = &stallError{stalled.what, b.watch.stall}
	}
	if !b.failed && b.req.Context().Err() == nil {
		b.failed = true
		if !b.flowed { // else it was of use, and is taken up where it broke
			b.wire.failed(b.req, b.kind)
		}
	}
	return n, err
}

func (b *watchedDownload) Close() error {
	err := b.ReadCloser.Close()
	b.watch.end()
	if !b.failed && b.req.Context().Err() == nil {
		b.wire.culprits.worked(b.req.URL.Path, true)
	}
	return err
}
