package store

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// known returns a hedging that has seen many GETs of 10 ms and has so much
// budget.
func known(budget float64) *hedging {
	h := newHedging()
	for range hedgeSamples {
		h.learn(10*time.Millisecond, false)
	}
	h.left = budget
	return h
}

func TestHedge(t *testing.T) {
	failed := errors.New("failed")
	for _, c := range []struct {
		name    string
		hedging *hedging
		first   time.Duration // how long the first GET takes, and the second
		second  time.Duration
		errs    [2]error
		want    string
		wantErr error
		took    time.Duration
		calls   int
	}{
		{"quick", known(5), 9 * time.Millisecond, 0, [2]error{}, "first", nil, 9 * time.Millisecond, 1},
		{"the hedge wins", known(5), time.Second, 20 * time.Millisecond, [2]error{}, "second", nil, 30 * time.Millisecond, 2},
		{"the first wins after all", known(5), 50 * time.Millisecond, time.Second, [2]error{}, "first", nil, 50 * time.Millisecond, 2},
		{"no budget", known(0), time.Second, 0, [2]error{}, "first", nil, time.Second, 1},
		{"nothing known", newHedging(), time.Second, 0, [2]error{}, "first", nil, time.Second, 1},
		{"one fails", known(5), 50 * time.Millisecond, 100 * time.Millisecond, [2]error{failed, nil}, "second", nil, 110 * time.Millisecond, 2},
		{"both fail", known(5), 50 * time.Millisecond, 100 * time.Millisecond, [2]error{failed, io.EOF}, "", failed, 110 * time.Millisecond, 2},
		{"fails before it is hedged", known(5), time.Millisecond, 0, [2]error{failed}, "", failed, time.Millisecond, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &S3{hedge: c.hedging}
				calls := make(chan int, 2)
				calls <- 0
				n := 0
				start := time.Now()
				b, err := s.hedged(t.Context(), func(ctx context.Context) ([]byte, error) {
					i := <-calls
					n++
					calls <- i + 1
					timer := time.NewTimer([]time.Duration{c.first, c.second}[i])
					defer timer.Stop()
					select {
					case <-timer.C:
						return []byte([]string{"first", "second"}[i]), c.errs[i]
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				})
				if took := time.Since(start); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				if !errors.Is(err, c.wantErr) || err == nil && string(b) != c.want {
					t.Errorf("%q, %v; want %q, %v", b, err, c.want, c.wantErr)
				}
				s.inflight.Wait() // the loser was ended, else this bubble would go on to its time
				if time.Since(start) != c.took {
					t.Errorf("the loser went on until %s", time.Since(start))
				}
				if n != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
			})
		})
	}
}

func TestHedgeBudget(t *testing.T) {
	h := known(0)
	sent := 0
	const gets = 10000
	for range gets {
		h.delay()
		if h.take() {
			sent++
		}
	}
	if sent < gets*4/100 || sent > gets*5/100 {
		t.Errorf("%d hedges of %d GETs that all were slow, want 5 %%", sent, gets)
	}
}

func TestRetryBudget(t *testing.T) {
	b := newRetryBudget()
	retries := func() (n int) {
		for {
			if _, err := b.GetToken(t.Context(), 0); err != nil {
				return n
			}
			n++
		}
	}
	if n := retries(); n != retryCap/retryCost {
		t.Errorf("%d retries at first", n)
	}
	for range 100 {
		_ = b.AddTokens(1)
	}
	if n := retries(); n != 100*retryEarns/retryCost {
		t.Errorf("%d retries after 100 requests that went well", n)
	}
	_ = b.AddTokens(1)
	_ = b.AddTokens(1)
	for range 3 {
		for range 5 {
			_ = b.AddTokens(1)
		}
		release, err := b.GetToken(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = release() // it went well, so it cost nothing
	}
}

// answering is a transport whose answers come as a test says.
type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pausing is a body of so many reads, with a pause before each, that ends when
// its context does.
type pausing struct {
	ctx   context.Context
	reads int
	size  int
	pause time.Duration
}

func (p *pausing) Read(b []byte) (int, error) {
	if p.reads == 0 {
		return 0, io.EOF
	}
	p.reads--
	timer := time.NewTimer(p.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return copy(b[:min(p.size, len(b))], strings.Repeat("x", p.size)), nil
	case <-p.ctx.Done():
		return 0, p.ctx.Err()
	}
}

func (p *pausing) Close() error { return nil }

func TestWireEndsWhatStandsStill(t *testing.T) {
	const answer, stall = 10 * time.Second, 5 * time.Second
	for _, c := range []struct {
		name     string
		upload   time.Duration // pause between the reads of a request's body of 10 reads; 0: none
		answers  time.Duration // until the answer begins
		download pausing
		reader   time.Duration // the caller's own pause before each read
		stalls   string        // in the error; empty: none
		after    time.Duration
	}{
		{name: "an answer in time", answers: 9 * time.Second, after: 9 * time.Second},
		{name: "no answer", answers: time.Hour, stalls: "no answer for 10s", after: answer},
		{name: "a slow upload that moves", upload: 4 * time.Second, answers: 9 * time.Second, after: 49 * time.Second},
		{name: "an upload that stands still", upload: 6 * time.Second, stalls: "the upload stood still for 5s", after: stall},
		{name: "a slow download that moves", download: pausing{reads: 20, size: stallBytes, pause: 4 * time.Second}, after: 80 * time.Second},
		{name: "a download that stands still", download: pausing{reads: 1, size: 1, pause: time.Hour}, stalls: "the download stood still for 5s", after: stall},
		{name: "a drip", download: pausing{reads: 1000, size: 10, pause: time.Second}, stalls: "the download stood still for 5s", after: stall},
		{name: "a slow reader", download: pausing{reads: 5, size: 10, pause: time.Millisecond}, reader: time.Hour, after: 6*time.Hour + 5*time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := S3Config{WriteTimeout: answer, ReadTimeout: answer, Stall: stall}.withDefaults()
				w := newWire(config, &http.Client{Transport: answering(func(r *http.Request) (*http.Response, error) {
					for range 10 {
						if c.upload == 0 {
							break
						}
						if _, err := r.Body.Read(make([]byte, 1)); err != nil {
							return nil, err
						}
						if err := sleep(r.Context(), c.upload); err != nil {
							return nil, err
						}
					}
					if c.upload > 0 {
						_, _ = io.ReadAll(r.Body)
					}
					if err := sleep(r.Context(), c.answers); err != nil {
						return nil, err
					}
					d := c.download
					d.ctx = r.Context()
					return &http.Response{StatusCode: http.StatusOK, Body: &d}, nil
				})})
				start := time.Now()
				req, err := http.NewRequestWithContext(as(t.Context(), KindPut, ClassPut), http.MethodPut, "http://store", strings.NewReader("0123456789"))
				if err != nil {
					t.Fatal(err)
				}
				res, err := w.Do(req)
				if err == nil {
					for err == nil {
						if err = sleep(t.Context(), c.reader); err == nil {
							_, err = res.Body.Read(make([]byte, 32<<10))
						}
					}
					_ = res.Body.Close()
				}
				var stalled *stallError
				if c.stalls == "" && !errors.Is(err, io.EOF) {
					t.Errorf("ended by %v", err)
				}
				if c.stalls != "" && (!errors.As(err, &stalled) || err.Error() != c.stalls) {
					t.Errorf("ended by %v, want %s", err, c.stalls)
				}
				if took := time.Since(start); took != c.after {
					t.Errorf("after %s, want %s", took, c.after)
				}
			})
		})
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestContentRange(t *testing.T) {
	for _, c := range []struct {
		header     string
		from, size int64
		ok         bool
	}{
		{"bytes 0-0/1", 0, 1, true},
		{"bytes 10-19/12345678901", 10, 12345678901, true},
		{"", 0, 0, false},
		{"bytes */10", 0, 0, false},
		{"bytes 1-2/*", 0, 0, false},
		{"bytes 1-2", 0, 0, false},
	} {
		from, size, err := contentRange(c.header)
		if c.ok != (err == nil) || c.ok && (from != c.from || size != c.size) {
			t.Errorf("%q: %d of %d, %v", c.header, from, size, err)
		}
	}
}

// A server that takes requests and never answers does not hold up the opening:
// what it can do is asked later.
func TestOpenDoesNotWaitForAMuteServer(t *testing.T) {
	c := s3Config(t)
	c.WriteTimeout = time.Hour
	f := newFaulty(t)
	f.set(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	s := openTestS3(t, through(c, f.URL))
	f.set(nil)
	if held, err := s.ConditionalCreate(t.Context()); err != nil || !held {
		t.Errorf("asked again: %v, %v", held, err)
	}
}
