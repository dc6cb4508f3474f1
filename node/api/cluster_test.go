package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
)

// commands are the paths that change something, each with a body that it
// takes.
var commands = map[string]string{PathImport: `{"dir":"/srv"}`, PathArchive: `{}`, PathVerify: `{}`, PathRetry: `{}`}

func TestCommandsAreForThisMachineAlone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *http.Request)
		status int
		code   Code
	}{
		{"as the command line", func(*http.Request) {}, http.StatusOK, ""},
		{"IPv6 loopback", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:4711", "[::1]:8080" }, http.StatusOK, ""},
		{"localhost", func(r *http.Request) { r.Host = "localhost:8080" }, http.StatusOK, ""},
		{"a charset", func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, http.StatusOK, ""},
		{"another machine", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:4711" }, http.StatusForbidden, CodeForbidden},
		{"another machine, IPv6", func(r *http.Request) { r.RemoteAddr = "[2001:db8::1]:4711" }, http.StatusForbidden, CodeForbidden},
		{"no address", func(r *http.Request) { r.RemoteAddr = "@" }, http.StatusForbidden, CodeForbidden},
		{"a page's Origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, http.StatusForbidden, CodeForbidden},
		{"an Origin of null", func(r *http.Request) { r.Header.Set("Origin", "null") }, http.StatusForbidden, CodeForbidden},
		{"an empty Origin", func(r *http.Request) { r.Header["Origin"] = []string{""} }, http.StatusForbidden, CodeForbidden},
		{"our own Origin", func(r *http.Request) { r.Header.Set("Origin", "http://127.0.0.1:8080") }, http.StatusForbidden, CodeForbidden},
		{"a rebound name", func(r *http.Request) { r.Host = "evil.example:8080" }, http.StatusForbidden, CodeForbidden},
		{"a name that begins like us", func(r *http.Request) { r.Host = "localhost.evil.example" }, http.StatusForbidden, CodeForbidden},
		{"no Host", func(r *http.Request) { r.Host = "" }, http.StatusForbidden, CodeForbidden},
		{"through a proxy", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }, http.StatusForbidden, CodeForbidden},
		{"through a standard proxy", func(r *http.Request) { r.Header.Set("Forwarded", "for=192.0.2.1") }, http.StatusForbidden, CodeForbidden},
		{"a form", func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, http.StatusUnsupportedMediaType, CodeMediaType},
		{"a form's text", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, http.StatusUnsupportedMediaType, CodeMediaType},
		{"no type", func(r *http.Request) { r.Header.Del("Content-Type") }, http.StatusUnsupportedMediaType, CodeMediaType},
		{"by GET", func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed, CodeMethodNotAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			for path, body := range commands {
				op := &operator{}
				cfg := newWorld(t, 0).config(t)
				cfg.Operator = op
				s, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
				r.RemoteAddr, r.Host = "127.0.0.1:4711", "127.0.0.1:8080"
				r.Header.Set("Content-Type", TypeJSON)
				c.change(r)
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				res := w.Result()
				res.Request = r
				answer := reply{Response: res, body: w.Body.Bytes()}
				documented(t, answer)
				answer.want(t, c.status, c.code)
				if done := op.last() != nil; done != (c.status == http.StatusOK) {
					t.Errorf("%s: answered %d, done %v", path, c.status, done)
				}
			}
		})
	}
}

func TestCommandsCheckTheirBody(t *testing.T) {
	w := newWorld(t, 0)
	cfg := w.config(t)
	op := &operator{}
	cfg.Operator = op
	s := serve(t, cfg)
	for path := range commands {
		for _, body := range []string{"", "[]", `"x"`, "{", "{}{}", "{} x", `{"unknown":1}`, `{"dir":1,"names":1,"packs":1,"dry_run":1}`, "null x"} {
			s.post(t, path, body).want(t, http.StatusBadRequest, CodeInvalidRequest)
		}
		s.post(t, path, `{"names":["`+strings.Repeat("x", maxBody)+`"]}`).want(t, http.StatusRequestEntityTooLarge, CodeTooLarge)
	}
	s.post(t, PathVerify, `{"packs":["zz"]}`).want(t, http.StatusBadRequest, CodeInvalidRequest)
	if op.last() != nil {
		t.Errorf("done all the same: %v", op.last())
	}
}

func TestCommandsHandOverWhatTheyWereAsked(t *testing.T) {
	cfg := newWorld(t, 0).config(t)
	op := &operator{retried: 7}
	cfg.Operator = op
	s := serve(t, cfg)
	for _, c := range []struct {
		path, body string
		want       any
	}{
		{
			PathImport, `{"dir":"/srv/a","prefix":"p/","files":[{"line":2,"path":"x","size":0,"sha256":"ab"}]}`,
			ImportRequest{Dir: "/srv/a", Prefix: "p/", Files: []ImportFile{{Line: 2, Path: "x", Size: new(int64), SHA256: "ab"}}},
		},
		{PathImport, `{"dir":"/srv/a","forget":true}`, ImportRequest{Dir: "/srv/a", Forget: true}},
		{PathArchive, `{"dry_run":true}`, ArchiveRequest{DryRun: true}},
		{PathArchive, `{}`, ArchiveRequest{}},
		{PathVerify, `{"packs":["01000000000000000000000000000000"]}`, VerifyRequest{Packs: []desformat.PackID{{1}}}},
		{PathRetry, `{"names":["a","b"]}`, RetryRequest{Names: []string{"a", "b"}}},
		{PathRetry, `{"code":"no-file","source":"files"}`, RetryRequest{Code: "no-file", Source: "files"}},
	} {
		r := s.post(t, c.path, c.body)
		r.want(t, http.StatusOK, "")
		if !reflect.DeepEqual(op.last(), c.want) {
			t.Errorf("%s %s: asked for %#v", c.path, c.body, op.last())
		}
		if c.path == PathRetry && string(r.body) != "{\"retried\":7}\n" {
			t.Errorf("retry: %s", r.body)
		}
	}
	for query, want := range map[string]FailedQuery{
		"": {Limit: 100}, "?code=no-file": {Code: "no-file", Limit: 100}, "?source=files&after=x%3A7&limit=3": {Source: "files", After: "x:7", Limit: 3}, "?limit=1000": {Limit: 1000},
	} {
		s.get(t, PathFailed+query).want(t, http.StatusOK, "")
		if op.last() != any(want) {
			t.Errorf("failed%s: asked for %#v", query, op.last())
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=x", "?limit=-1", "?limit=%zz", "?a;b"} {
		s.get(t, PathFailed+query).want(t, http.StatusBadRequest, CodeInvalidRequest)
	}
}

func TestStreamsOfEvents(t *testing.T) {
	pack := desformat.PackID{1}
	refused := []Refusal{{Line: 3, Name: "a//b", Reason: "empty segment"}}
	broken := errors.New("secret: 10.0.0.1 is down")
	for _, c := range []struct {
		name, path string
		op         *operator
		status     int
		last       string // the last line, as it begins
		lines      int
	}{
		{"import", PathImport, &operator{imports: []ImportEvent{{Files: 1}, {Files: 2, New: 1, Taken: []string{"x"}, Refused: refused}}}, 200, `{"files":2,"bytes":0,"new":1,`, 3},
		{"import of nothing", PathImport, &operator{}, 200, `{"files":0,`, 1},
		{"archive", PathArchive, &operator{archives: []ArchiveEvent{{Marked: 1}, {Marked: 1, Packed: 1}}}, 200, `{"marked":1,"packed":1,`, 3},
		{"dry run", PathArchive, &operator{archives: []ArchiveEvent{{DryRun: &DryRun{
			Rest:     []Rest{{Source: "files", Reason: "too young"}},
			Failures: []FailureCode{{Source: "files", Code: "no-file", Tally: Tally{Rows: 1, Oldest: time.Unix(1, 0).UTC()}}},
			Pauses:   []Pause{{Work: "mark", Reason: "outside its windows", Until: time.Unix(1, 0).UTC()}},
		}}}}, 200, `{"marked":0,`, 2},
		{"dry run without a rest", PathArchive, &operator{archives: []ArchiveEvent{{DryRun: &DryRun{}}}}, 200, `{"marked":0,`, 2},
		{"verify", PathVerify, &operator{verifies: []VerifyEvent{{Pack: pack, OK: true, Records: 3, Bytes: 4}}}, 200, `{"ok":true,"done":true}`, 2},
		{"verify finds damage", PathVerify, &operator{verifies: []VerifyEvent{{Pack: pack, Damage: "record 3"}, {Pack: pack, OK: true}}}, 200, `{"ok":false,"done":true}`, 3},
		{"refused at once", PathImport, &operator{err: ErrInvalidRequest}, 400, `{"type":"about:blank"`, 1},
		{"under way already", PathArchive, &operator{err: ErrConflict}, 409, `{"type":"about:blank"`, 1},
		{"no such pack", PathVerify, &operator{err: retriever.ErrNotFound}, 404, `{"type":"about:blank"`, 1},
		{"fails at once", PathArchive, &operator{err: broken}, 500, `{"type":"about:blank"`, 1},
		{"fails later", PathArchive, &operator{archives: []ArchiveEvent{{Marked: 1}}, err: broken}, 200, `{"marked":1,`, 2},
		{"unavailable later", PathVerify, &operator{verifies: []VerifyEvent{{Pack: pack, OK: true}}, err: retriever.ErrUnavailable}, 200, `{"ok":false,"done":true,"error":{`, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newWorld(t, 0).config(t)
			cfg.Operator = c.op
			r := serve(t, cfg).post(t, c.path, commands[c.path])
			r.want(t, c.status, "")
			lines := strings.Split(strings.TrimSuffix(string(r.body), "\n"), "\n")
			last := lines[len(lines)-1]
			if len(lines) != c.lines || !strings.HasPrefix(last, c.last) {
				t.Errorf("%d lines, the last %s", len(lines), last)
			}
			if strings.Contains(string(r.body), "secret") {
				t.Errorf("the text of an unexpected error is told: %s", r.body)
			}
			if failed := c.op.err != nil; c.status == 200 && strings.Contains(last, `"error"`) != failed {
				t.Errorf("error told: %v, failed: %v: %s", !failed, failed, last)
			}
			if c.op.imports != nil && strings.Contains(last, "refused") {
				t.Errorf("the lists are sent again: %s", last)
			}
		})
	}
}

// TestEventsAreSentAtOnce: an event arrives while the work goes on, and the
// work learns that its client has left.
func TestEventsAreSentAtOnce(t *testing.T) {
	cfg := newWorld(t, 0).config(t)
	left := make(chan error, 1)
	op := &operator{archives: []ArchiveEvent{{Marked: 1}}, block: make(chan struct{})}
	cfg.Operator = &leaving{op, left}
	s := serve(t, cfg)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+PathArchive, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", TypeJSON)
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(res.Body).ReadBytes('\n')
	var e ArchiveEvent
	if err != nil || json.Unmarshal(line, &e) != nil || e.Marked != 1 || e.Done {
		t.Errorf("first line %q, %v", line, err)
	}
	_ = res.Body.Close() // the client leaves
	select {
	case err := <-left:
		if err == nil {
			t.Error("the work ended well")
		}
	case <-time.After(time.Minute):
		t.Fatal("the work goes on for a client that has left")
	}
}

func TestWhatObserversTell(t *testing.T) {
	cfg := newWorld(t, 0).config(t)
	for name, o := range map[string]*observer{"full": fullObserver(t), "empty": {
		status: Status{Node: testNode, ShardBits: 10, Store: "x", Version: "x", Sources: []SourceStatus{{Name: "x"}}},
		packs:  PackList{[]PackInfo{}}, backlog: Backlog{[]SourceBacklog{{Source: "x"}}},
	}} {
		t.Run(name, func(t *testing.T) {
			cfg.Observer, cfg.Registerer = o, nil
			s := serve(t, cfg)
			for path, want := range map[string]any{
				PathStatus: &o.status, PathPacks: &o.packs, PathLeases: &o.leases, PathBacklog: &o.backlog,
			} {
				r := s.get(t, path)
				r.want(t, http.StatusOK, "")
				if strings.Contains(string(r.body), "null") {
					t.Errorf("%s: %s", path, r.body)
				}
				got := reflect.New(reflect.TypeOf(want).Elem())
				if err := json.Unmarshal(r.body, got.Interface()); err != nil {
					t.Errorf("%s: %v", path, err)
				}
				if name == "full" && !reflect.DeepEqual(got.Interface(), want) {
					t.Errorf("%s: told %+v, want %+v", path, got.Elem(), reflect.ValueOf(want).Elem())
				}
				s.head(t, path).want(t, http.StatusOK, "")
			}
		})
	}
	cfg.Observer, cfg.Registerer = &observer{err: fmt.Errorf("status: %w", retriever.ErrUnavailable)}, nil
	s := serve(t, cfg)
	for _, path := range []string{PathStatus, PathPacks, PathLeases, PathBacklog} {
		s.get(t, path).want(t, http.StatusServiceUnavailable, CodeUnavailable)
	}
}

func TestFailedRowsAreListed(t *testing.T) {
	cfg := newWorld(t, 0).config(t)
	cfg.Operator = &operator{failed: FailedPage{Next: "files:7", Codes: []FailureCode{{Source: "files", Code: "no-file", Tally: Tally{Rows: 8}}}, Rows: []FailedRow{
		{Source: sourceName, ID: "7", Name: "a//b", Path: "/a//b", State: "FAILED", Attempts: 3, LastAttempt: modified, Code: "invalid-name", Text: "empty segment"},
	}}}
	r := serve(t, cfg).get(t, PathFailed)
	r.want(t, http.StatusOK, "")
	var page FailedPage
	if err := json.Unmarshal(r.body, &page); err != nil || len(page.Rows) != 1 || page.Next != "files:7" {
		t.Errorf("%s: %v", r.body, err)
	}
}

func TestLocate(t *testing.T) {
	content := pattern(100)
	w := newWorld(t, 0, packed{name: "a/b", id: "7", content: content})
	w.waiting("new", content)
	s := w.serve(t)
	read := func(path string) (l Located) {
		t.Helper()
		r := s.get(t, path)
		r.want(t, http.StatusOK, "")
		if err := json.Unmarshal(r.body, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	p := w.manifest.packs[0]
	l := read(PathLocate + "a%2Fb")
	if l.Name != "a/b" || l.In != InPack || l.Pack != p.ID || l.Key != p.Copies[0].Key || l.ID != "7" || l.Size != 100 ||
		`"`+l.SHA256+`"` != etagOf(content) || l.Seq != p.Token || l.Length <= 100 || l.Offset <= 0 {
		t.Errorf("packed: %+v", l)
	}
	l = read(PathLocate + "new")
	if l.In != InSource || l.State != "ACTIVE" || l.Size != 100 || !l.Pack.IsZero() {
		t.Errorf("not packed: %+v", l)
	}
}
