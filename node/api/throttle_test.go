package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// fullThrottle tells something in every field.
func fullThrottle(at time.Time) Throttle {
	return Throttle{
		Limits: ThrottleLimits{
			FilesPerSecond: 1, FilesPerDay: 2, BytesPerSecond: 3, BytesPerDay: 4,
			Windows: []string{"Mon-Fri 22:00-06:00 Europe/Warsaw"}, Zone: "Europe/Warsaw", For: []string{"mark", "pack"},
		},
		Configured: true, Factor: 1.0 / 64,
		Reasons: []SlowReason{{Code: "replica-lag", Text: "replica a is 40s behind", Since: at}, {Code: "recovering", Text: "at 50 %"}},
		Work: []WorkPace{
			{
				Work: "mark", Limited: true, Held: "pause", Reason: "backup", By: "anna", Until: at, Waiting: true,
				UsedFiles: 5, UsedBytes: 6, NextWindow: at,
			},
			{Work: "pack", Held: "settings"},
		},
	}
}

// throttler is a Throttler that keeps what it was asked for.
type throttler struct {
	err error

	mu    sync.Mutex
	asked []any // guarded by mu
}

func (o *throttler) ask(req any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, req)
	return o.err
}

func (o *throttler) all() []any {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

func (o *throttler) Throttle(context.Context) (Throttle, error) {
	return fullThrottle(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), o.err
}
func (o *throttler) SetThrottle(_ context.Context, l ThrottleLimits) error { return o.ask(l) }
func (o *throttler) ClearThrottle(context.Context) error                   { return o.ask("clear") }
func (o *throttler) Pause(_ context.Context, req PauseRequest) error       { return o.ask(req) }
func (o *throttler) Resume(_ context.Context, req ResumeRequest) error     { return o.ask(req) }

// throttled answers one request from this machine and holds the answer against
// the contract.
func throttled(t *testing.T, o Throttler, method, path, body string, change func(*http.Request)) reply {
	t.Helper()
	cfg := newWorld(t, 0).config(t)
	cfg.Throttler = o
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:4711", "127.0.0.1:8080"
	r.Header.Set("Content-Type", TypeJSON)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	res := w.Result()
	res.Request = r
	answer := reply{Response: res, body: w.Body.Bytes()}
	documented(t, answer)
	return answer
}

var pacing = []struct {
	method, path, body string
	want               any // nil: nothing is changed
}{
	{http.MethodGet, PathThrottle, "", nil},
	{http.MethodHead, PathThrottle, "", nil},
	{
		http.MethodPut, PathThrottle, `{"files_per_day":7,"windows":["22:00-06:00"],"for":["mark","delete"]}`,
		ThrottleLimits{FilesPerDay: 7, Windows: []string{"22:00-06:00"}, For: []string{"mark", "delete"}},
	},
	{http.MethodDelete, PathThrottle, "", "clear"},
	{
		http.MethodPost, PathPause, `{"reason":"backup","by":"anna","until":"2026-01-02T03:04:05Z","work":["pack"]}`,
		PauseRequest{Reason: "backup", By: "anna", Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Work: []string{"pack"}},
	},
	{http.MethodPost, PathResume, `{"work":["mark"]}`, ResumeRequest{Work: []string{"mark"}}},
	{http.MethodPost, PathResume, `{}`, ResumeRequest{}},
}

func TestThePaceIsToldAndSet(t *testing.T) {
	for _, c := range pacing {
		t.Run(c.method+" "+c.path+c.body, func(t *testing.T) {
			o := &throttler{}
			answer := throttled(t, o, c.method, c.path, c.body, nil)
			answer.want(t, http.StatusOK, "")
			if c.method != http.MethodHead && !strings.Contains(string(answer.body), `"replica-lag"`) {
				t.Errorf("answered %s", answer.body)
			}
			want := []any{c.want}
			if c.want == nil {
				want = nil
			}
			if !reflect.DeepEqual(o.all(), want) {
				t.Errorf("asked for %#v, want %#v", o.all(), want)
			}
		})
	}
}

func TestThePaceIsSetFromThisMachineAlone(t *testing.T) {
	for _, c := range pacing {
		if c.want == nil {
			continue
		}
		for name, change := range map[string]func(*http.Request){
			"another machine": func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" },
			"a page":          func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:8080") },
			"a proxy":         func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		} {
			t.Run(fmt.Sprint(c.method, c.path, " ", name), func(t *testing.T) {
				o := &throttler{}
				throttled(t, o, c.method, c.path, c.body, change).want(t, http.StatusForbidden, CodeForbidden)
				if len(o.all()) > 0 {
					t.Errorf("done all the same: %v", o.all())
				}
			})
		}
	}
}

func TestBadRequestsOfThePace(t *testing.T) {
	o := &throttler{}
	throttled(t, o, http.MethodPost, PathThrottle, "{}", nil).want(t, http.StatusMethodNotAllowed, CodeMethodNotAllowed)
	throttled(t, o, http.MethodGet, PathPause, "", nil).want(t, http.StatusMethodNotAllowed, CodeMethodNotAllowed)
	throttled(t, o, http.MethodPut, PathThrottle, `{"more":1}`, nil).want(t, http.StatusBadRequest, CodeInvalidRequest)
	form := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
	throttled(t, o, http.MethodPut, PathThrottle, `{}`, form).want(t, http.StatusUnsupportedMediaType, CodeMediaType)
	if len(o.all()) > 0 {
		t.Errorf("asked for %v", o.all())
	}
	o.err = fmt.Errorf("%w: no such zone", ErrInvalidRequest)
	throttled(t, o, http.MethodPut, PathThrottle, `{}`, nil).want(t, http.StatusBadRequest, CodeInvalidRequest)
	o.err = errors.New("boom")
	throttled(t, o, http.MethodDelete, PathThrottle, "", nil).want(t, http.StatusInternalServerError, CodeInternal)
	throttled(t, nil, http.MethodGet, "/cluster/throttles", "", nil).want(t, http.StatusNotFound, CodeNotFound)
}
