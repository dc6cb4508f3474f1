package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// fakeDoor is a node that answers as a test says. Asking it anything that the
// test did not foresee fails the test.
type fakeDoor struct {
	t    *testing.T
	name string

	mu     sync.Mutex // guards what follows
	answer func(*http.Request) (*http.Response, error)
	fit    time.Time // zero: something is done to it
	asked  int
}

func (d *fakeDoor) Name() string { return d.name }

func (d *fakeDoor) Do(req *http.Request) (*http.Response, error) {
	if req.URL.Host != "" {
		d.t.Errorf("%s was asked for %s, a URL with a host", d.name, req.URL)
	}
	d.mu.Lock()
	d.asked++
	answer := d.answer
	d.mu.Unlock()
	if answer == nil {
		d.t.Errorf("%s was asked for %s", d.name, req.URL)
		return nil, errClosed
	}
	return answer(req)
}

func (d *fakeDoor) Fit() (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fit, !d.fit.IsZero()
}

func (d *fakeDoor) set(answer func(*http.Request) (*http.Response, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

func (d *fakeDoor) setFit(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fit = at
}

// handled answers as a handler does.
func handled(h http.HandlerFunc) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h(w, req)
		res := w.Result()
		res.ContentLength = int64(w.Body.Len())
		if n := w.Header().Get("Content-Length"); n != "" { // of a HEAD
			if _, err := fmt.Sscan(n, &res.ContentLength); err != nil {
				return nil, err
			}
		}
		return res, nil
	}
}

// closed is a node that is not there.
func closed(*http.Request) (*http.Response, error) { return nil, errClosed }

// problem answers with an error.
func problem(status int, code string) func(*http.Request) (*http.Response, error) {
	return handled(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"code": %q}`, code) // into memory
	})
}

// newScene makes a scene of so many nodes that are fit and foresee nothing.
func newScene(t *testing.T, nodes int) (*scene, []*fakeDoor) {
	t.Helper()
	dir := t.TempDir()
	l, err := newLedger(filepath.Join(dir, "ledger"), 7, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	s := &scene{
		timeline: newTimeline(), verdict: &verdict{}, ledger: l, src: filepath.Join(dir, "src"), incoming: dir,
		objects: filepath.Join(dir, "objects"), skew: func() time.Duration { return 0 }, logf: t.Logf,
	}
	var fakes []*fakeDoor
	for i := range nodes {
		d := &fakeDoor{t: t, name: fmt.Sprintf("n%d", i+1), fit: time.Now().Add(-time.Minute)}
		fakes, s.doors = append(fakes, d), append(s.doors, d)
	}
	return s, fakes
}

// placedFile makes a file with so many versions, all placed and listed.
func placedFile(t *testing.T, s *scene, versions int) *file {
	t.Helper()
	files, err := s.ledger.add(1)
	if err != nil {
		t.Fatal(err)
	}
	for v := range versions {
		if v > 0 {
			if _, err := s.ledger.change(files); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.ledger.place(files[0], s.src, s.incoming); err != nil {
			t.Fatal(err)
		}
		s.ledger.list(files[0], 1, time.Now())
	}
	return files[0]
}

// archived notes a version as archived, so long ago.
func archived(t *testing.T, s *scene, f *file, number int, pack string, ago time.Duration) {
	t.Helper()
	if news, err := s.ledger.archive(f, f.versions[number-1].sum, pack, time.Now().Add(-ago)); err != nil || !news {
		t.Fatal(news, err)
	}
}

// counts holds the verdict against what was to be found.
func counts(t *testing.T, v *verdict, want map[breach]int) {
	t.Helper()
	for _, what := range breaches {
		if got := v.count(what); got != want[what] {
			t.Errorf("%s: counted %d, want %d", what, got, want[what])
		}
	}
	if t.Failed() {
		bars, _ := v.judge()
		for _, b := range bars {
			for _, c := range b.Cases {
				t.Logf("%s: %s", b.What, c)
			}
		}
	}
}

var _ io.Reader = (*bodyThatBreaks)(nil)

// bodyThatBreaks gives some bytes and then an error.
type bodyThatBreaks struct{ left int }

func (b *bodyThatBreaks) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := min(b.left, len(p))
	clear(p[:n])
	b.left -= n
	return n, nil
}

func (*bodyThatBreaks) Close() error { return nil }
