package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/raftmeta"
)

func TestRequestIDs(t *testing.T) {
	w := newWorld(t, 0, packed{name: "a", content: []byte("x")})
	s := w.serve(t)
	for _, id := range []string{"a", "A-z_0.9", strings.Repeat("x", 64)} {
		if got := s.get(t, "/files/a", "X-Request-Id", id).Header.Get("X-Request-Id"); got != id {
			t.Errorf("%q was replaced by %q", id, got)
		}
	}
	seen := map[string]bool{}
	for _, pairs := range [][]string{
		nil,
		{"X-Request-Id", ""},
		{"X-Request-Id", strings.Repeat("x", 65)},
		{"X-Request-Id", "a b"},
		{"X-Request-Id", "a\tb"},
		{"X-Request-Id", `a"b`},
		{"X-Request-Id", "a{}b"},
		{"X-Request-Id", "żółw"},
		{"X-Request-Id", "a", "X-Request-Id", "b"},
	} {
		got := s.get(t, "/files/a", pairs...).Header.Get("X-Request-Id")
		if !validRequestID(got) || got == "a" || got == "b" || seen[got] {
			t.Errorf("%q: the answer has %q", pairs, got)
		}
		seen[got] = true
	}
}

func TestTraceIDs(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for header, want := range map[string]string{
		"00-" + trace + "-" + parent + "-01":                    trace,
		"00-" + trace + "-" + parent + "-ff":                    trace,
		"cc-" + trace + "-" + parent + "-01":                    trace,
		"cc-" + trace + "-" + parent + "-01-what-comes-later":   trace,
		"cc-" + trace + "-" + parent + "-01.what-comes-later":   "",
		"00-" + trace + "-" + parent + "-01-more":               "",
		"ff-" + trace + "-" + parent + "-01":                    "",
		"00-" + strings.ToUpper(trace) + "-" + parent + "-01":   "",
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01":  "",
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":   "",
		"00-" + trace + "-" + parent + "-0":                     "",
		"00-" + trace + "-" + parent + "-0g":                    "",
		"00-" + trace[:31] + "-" + parent + "-01":               "",
		"00_" + trace + "_" + parent + "_01":                    "",
		"":                                                      "",
		"00-" + trace + "-" + parent[:8] + "\n" + parent[9:]:    "",
		strings.Repeat("0", 1<<16) + "-" + trace + "-" + parent: "",
	} {
		if got := traceID(header); got != want {
			t.Errorf("%.80q: %q, want %q", header, got, want)
		}
	}
}

// TestTheLog: what came with a request stands in every line about it and can't
// break one; successful reads are told at debug only.
func TestTheLog(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	w := newWorld(t, 0, packed{name: "a", content: []byte("x")}, packed{name: "removed", tombstone: true})
	s := w.serve(t)
	for path, status := range map[string]int{
		"/files/a": 200, "/files/none": 404, "/files/removed": 410, "/files/a%0A%7B%22level%22:%22ERROR%22%7D%0D%0A": 400,
		"/files/%1B%5B31m": 400, "/files/a?q=%0A": 200, "/livez": 200, "/metrics": 200, "/nothing": 404,
	} {
		id := fmt.Sprint("r", len(w.log.lines(t)))
		s.get(t, path, "X-Request-Id", id, "traceparent", "00-"+trace+"-00f067aa0ba902b7-01").want(t, status, "")
		found := 0
		for _, line := range w.log.lines(t) {
			if line["level"] != "DEBUG" {
				t.Errorf("%s: %v", path, line)
			}
			if line["request_id"] == id && line["trace_id"] == trace && line["status"] == float64(status) && line["method"] == "GET" && line["path"] != nil {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: %d lines with its ids, want 1", path, found)
		}
	}
}

func TestErrorsAreAnsweredByTheirKind(t *testing.T) {
	w := newWorld(t, 0)
	for _, c := range []struct {
		err    error
		status int
		code   Code
		level  string
	}{
		{retriever.ErrNotFound, http.StatusNotFound, CodeNotFound, ""},
		{retriever.ErrGone, http.StatusGone, CodeGone, ""},
		{retriever.ErrBusy, http.StatusTooManyRequests, CodeBusy, ""},
		{retriever.ErrUnavailable, http.StatusServiceUnavailable, CodeUnavailable, "WARN"},
		{retriever.ErrUnconfirmed, http.StatusServiceUnavailable, CodeUnconfirmed, "WARN"},
		{fmt.Errorf("%w: %w", retriever.ErrUnconfirmed, context.DeadlineExceeded), http.StatusServiceUnavailable, CodeUnconfirmed, "WARN"},
		// A store or a source that fails never looks like an absence.
		{fmt.Errorf("%w: %w", retriever.ErrUnavailable, retriever.ErrNotFound), http.StatusServiceUnavailable, CodeUnavailable, "WARN"},
		{fmt.Errorf("%w: %w", retriever.ErrNotFound, retriever.ErrUnavailable), http.StatusServiceUnavailable, CodeUnavailable, "WARN"},
		{&retriever.CorruptError{Offset: 3, Err: retriever.ErrNotFound}, http.StatusInternalServerError, CodeCorrupt, "ERROR"},
		{context.DeadlineExceeded, http.StatusServiceUnavailable, CodeUnavailable, "WARN"},
		{errors.New("password=hunter2"), http.StatusInternalServerError, CodeInternal, "ERROR"},
		{&Problem{Status: http.StatusConflict, Code: CodeConflict}, http.StatusConflict, CodeConflict, ""},
	} {
		cfg := w.config(t)
		cfg.Files = failingFiles{err: fmt.Errorf("open: %w", c.err)}
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		status, body, whole := s.record(t, "a", "")
		if status != c.status || !whole || !strings.Contains(string(body), fmt.Sprintf(`"code":%q`, c.code)) || strings.Contains(string(body), "hunter2") {
			t.Errorf("%v: %d %s", c.err, status, body)
		}
		lines := w.log.lines(t)
		var told []any
		for _, line := range lines[max(0, len(lines)-2):] {
			if line["msg"] == "request failed" {
				told = append(told, line["level"])
			}
		}
		if c.level == "" && len(told) != 0 || c.level != "" && (len(told) != 1 || told[0] != c.level) {
			t.Errorf("%v: told at %v, want %q", c.err, told, c.level)
		}
	}
}

func TestAPanicIsAnswered(t *testing.T) {
	w := newWorld(t, 0)
	cfg := w.config(t)
	cfg.Files = failingFiles{err: errors.New("secret"), panics: true}
	s := serve(t, cfg)
	for _, path := range []string{"/files/a", "/ids/a", PathLocate + "a"} {
		r := s.get(t, path)
		r.want(t, http.StatusInternalServerError, CodeInternal)
		if strings.Contains(string(r.body), "secret") {
			t.Errorf("%s: the panic is told: %s", path, r.body)
		}
		if !logged(t, w.log, "ERROR", r.Header.Get("X-Request-Id")) {
			t.Errorf("%s: no error in the log", path)
		}
	}
	s.get(t, "/livez").want(t, http.StatusOK, "") // the server lives on
}

// TestAPanicAfterTheFirstByteBreaksTheAnswer: a clean end would say that all
// is there.
func TestAPanicAfterTheFirstByteBreaksTheAnswer(t *testing.T) {
	cfg := newWorld(t, 0).config(t)
	cfg.Operator = panicking{&operator{}}
	r := serve(t, cfg).post(t, PathArchive, "{}")
	if r.StatusCode != http.StatusOK || r.err == nil {
		t.Errorf("%d %q ends well", r.StatusCode, r.body)
	}
}

func TestHealth(t *testing.T) {
	cfg := newWorld(t, 0).config(t)
	var why error
	cfg.Ready = func(context.Context) error { return why }
	s := serve(t, cfg)
	s.get(t, "/readyz").want(t, http.StatusOK, "")
	s.head(t, "/readyz").want(t, http.StatusOK, "")
	why = errors.New("catching up")
	r := s.get(t, "/readyz")
	r.want(t, http.StatusServiceUnavailable, CodeUnavailable)
	if !strings.Contains(string(r.body), "catching up") {
		t.Errorf("not told why: %s", r.body)
	}
	s.get(t, "/livez").want(t, http.StatusOK, "")
	s.head(t, "/livez").want(t, http.StatusOK, "")
}

func TestTheContractIsServed(t *testing.T) {
	s := newWorld(t, 0).serve(t)
	r := s.get(t, "/openapi.yaml")
	r.want(t, http.StatusOK, "")
	if string(r.body) != string(openAPI) {
		t.Error("other bytes")
	}
	s.head(t, "/openapi.yaml").want(t, http.StatusOK, "")
}

func TestMetrics(t *testing.T) {
	s := newWorld(t, 0, packed{name: "a", content: []byte("four")}).serve(t)
	s.get(t, "/files/a")
	s.get(t, "/files/none")
	for _, accept := range []string{"", "application/openmetrics-text"} {
		r := s.get(t, "/metrics", "Accept", accept)
		r.want(t, http.StatusOK, "")
		for _, want := range []string{
			`des_router_requests_total{route="files",status="2xx"} 1`, `des_router_requests_total{route="files",status="4xx"} 1`,
			`des_router_request_seconds_count{route="files"} 2`, `des_router_requests_in_flight 1`,
		} {
			if !strings.Contains(string(r.body), want) {
				t.Errorf("%q: no %s", accept, want)
			}
		}
	}
	s.get(t, "/metrics", "Accept-Encoding", "gzip").want(t, http.StatusOK, "")
	s.head(t, "/metrics").want(t, http.StatusOK, "")
}

func TestTheConfigIsChecked(t *testing.T) {
	good := newWorld(t, 0).config(t)
	for name, change := range map[string]func(c *Config){
		"no Files":       func(c *Config) { c.Files = nil },
		"no Operator":    func(c *Config) { c.Operator = nil },
		"no Observer":    func(c *Config) { c.Observer = nil },
		"no Node":        func(c *Config) { c.Node = "" },
		"negative limit": func(c *Config) { c.StallTimeout = -1 },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good.Logger = slog.New(slog.DiscardHandler)
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	if _, err := New(good); err == nil {
		t.Error("the same metrics registered twice")
	}
}

// asking is a Files that keeps how it was asked and has nothing.
type asking struct {
	failingFiles
	queries *[]retriever.Query
}

func (a asking) Open(_ context.Context, _ string, q retriever.Query) (retriever.File, error) {
	*a.queries = append(*a.queries, q)
	return retriever.File{}, a.err
}

func (a asking) OpenID(_ context.Context, _, _ string, q retriever.Query) (retriever.File, error) {
	*a.queries = append(*a.queries, q)
	return retriever.File{}, a.err
}

// TestIDsOfARequestGoOn: whoever is asked for a file learns the ids by which the
// request is known here, as far as they are fit to be passed on.
func TestIDsOfARequestGoOn(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	later := "01" + parent[2:] + "-" + strings.Repeat("x", maxTraceparent-len(parent)-1)
	for _, c := range []struct {
		name              string
		header            http.Header
		wantID, wantTrace string // an empty id: one that was made here
	}{
		{"none", header(), "", ""},
		{"both", header("X-Request-Id", "abc", "Traceparent", parent), "abc", parent},
		{"bad ones", header("X-Request-Id", "a b", "Traceparent", parent[1:]), "", ""},
		{"the longest of a later version", header("Traceparent", later), "", later},
		{"too long for another node", header("Traceparent", later+"x"), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newWorld(t, 0).config(t)
			var asked []retriever.Query
			cfg.Files = asking{failingFiles{err: retriever.ErrNotFound}, &asked}
			s := serve(t, cfg)
			for _, path := range []string{"/files/a", "/ids/7"} {
				r := s.do(t, http.MethodGet, path, c.header, "")
				r.want(t, http.StatusNotFound, CodeNotFound)
				want := retriever.Query{Client: "127.0.0.1", RequestID: r.Header.Get("X-Request-Id"), Traceparent: c.wantTrace}
				if got := asked[len(asked)-1]; got != want || c.wantID != "" && got.RequestID != c.wantID {
					t.Errorf("%s: asked %+v, want %+v", path, got, want)
				}
			}
		})
	}
}

// TestLocatedOwners: the ring's names come through.
func TestLocatedOwners(t *testing.T) {
	l := located("a", &retriever.Place{Owner: "n1", Fallbacks: []string{"n2", "n3"}})
	if l.Owner != "n1" || !slices.Equal(l.Fallbacks, []raftmeta.NodeID{"n2", "n3"}) {
		t.Errorf("got %+v", l)
	}
}
