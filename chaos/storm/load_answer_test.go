package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// serving answers with bytes as a node serves a file: whole, a range of it, or
// its header.
func serving(content []byte, etag string) func(*http.Request) (*http.Response, error) {
	return handled(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		var from, to int
		if n, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); n == 2 && err == nil {
			if from >= len(content) {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", len(content)))
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			part := content[from:min(to+1, len(content))]
			w.Header().Set("Content-Length", strconv.Itoa(len(part)))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+len(part)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			content := part
			_, _ = w.Write(content) // into memory
			return
		}
		if r.Method != http.MethodHead {
			_, _ = w.Write(content) // likewise
		}
	})
}

// strong is the ETag of a version in a pack.
func strong(v *version) string { return `"` + hex.EncodeToString(v.sum[:]) + `"` }

func TestEachAnswerIsJudged(t *testing.T) {
	other := func(b []byte) []byte {
		c := append([]byte(nil), b...)
		c[len(c)-1] ^= 1
		return c
	}
	old := int(staleAfter/time.Second) + 5
	for _, tc := range []struct {
		name     string
		kind     readKind
		versions int
		archived int // so many seconds ago the last version was; 0: never
		unknown  bool
		planned  bool // the file is not listed yet
		answer   func(f *file) func(*http.Request) (*http.Response, error)
		want     finding
		breach   breach
	}{
		{name: "whole", answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content(), strong(f.last()))
		}, want: rightAnswer},
		{name: "read through", answer: func(f *file) func(*http.Request) (*http.Response, error) { return serving(f.last().content(), `W/"x"`) }, want: rightAnswer},
		{name: "a bit is wrong", answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(other(f.last().content()), `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "a byte is missing, and nothing says so", answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content()[1:], `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "the ETag is of other bytes", answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content(), `"00"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "an older version before the newer is archived", versions: 2, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.versions[0].content(), strong(f.versions[0]))
		}, want: rightAnswer},
		{name: "an older version long after", versions: 2, archived: old, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.versions[0].content(), strong(f.versions[0]))
		}, want: wrongAnswer, breach: staleReads},
		{name: "an older version that is said to be so", versions: 2, archived: old, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return func(req *http.Request) (*http.Response, error) {
				res, err := serving(f.versions[0].content(), strong(f.versions[0]))(req)
				res.Header.Set("X-Des-Unconfirmed", "1")
				return res, err
			}
		}, want: rightAnswer},
		{name: "part", kind: readPart, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content(), strong(f.last()))
		}, want: rightAnswer},
		{name: "part with a wrong bit", kind: readPart, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			c := f.last().content()
			c[f.last().size/2] ^= 1
			return serving(c, `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "part of another length of the file", kind: readPart, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(append(f.last().content(), 0), `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "416 of a shorter file", kind: readPart, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content()[:f.last().size/2], `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "head", kind: readHead, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content(), strong(f.last()))
		}, want: rightAnswer},
		{name: "head of another length", kind: readHead, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(append(f.last().content(), 0), `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "by id", kind: readByID, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return func(req *http.Request) (*http.Response, error) {
				if req.URL.Path != "/ids/1" {
					return problem(http.StatusBadRequest, req.URL.Path)(req)
				}
				return serving(f.last().content(), strong(f.last()))(req)
			}
		}, want: rightAnswer},
		{name: "404 of a listed name", answer: always(problem(http.StatusNotFound, "not-found")), want: wrongAnswer, breach: deniedNames},
		{name: "410 of a listed name", answer: always(problem(http.StatusGone, "gone")), want: wrongAnswer, breach: deniedNames},
		{name: "404 of a name that is only planned", planned: true, answer: always(problem(http.StatusNotFound, "not-found")), want: rightAnswer},
		{name: "content of a name that is only planned", planned: true, answer: func(f *file) func(*http.Request) (*http.Response, error) {
			return serving(f.last().content(), `W/"x"`)
		}, want: wrongAnswer, breach: wrongBytes},
		{name: "503 of a listed name", answer: always(problem(http.StatusServiceUnavailable, "unavailable")), want: noAnswer},
		{name: "500", answer: always(problem(http.StatusInternalServerError, "corrupt")), want: noAnswer, breach: strangeAnswers},
		{name: "nobody is there", answer: always(closed), want: noAnswer},
		{name: "the answer breaks", answer: always(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: &bodyThatBreaks{5}}, nil
		}), want: noAnswer},
		{name: "404 of an unknown name", kind: readUnknown, unknown: true, answer: always(problem(http.StatusNotFound, "not-found")), want: rightAnswer},
		{name: "503 of an unknown name", kind: readUnknown, unknown: true, answer: always(problem(http.StatusServiceUnavailable, "unconfirmed")), want: rightAnswer},
		{name: "content of an unknown name", kind: readUnknown, unknown: true, answer: always(serving([]byte("x"), `"00"`)), want: wrongAnswer, breach: inventedNames},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 1)
			var f *file
			if tc.planned {
				files, err := s.ledger.add(1)
				if err != nil {
					t.Fatal(err)
				}
				f = files[0]
			} else {
				f = placedFile(t, s, max(tc.versions, 1))
			}
			if tc.archived > 0 {
				archived(t, s, f, len(f.versions), "p", time.Duration(tc.archived)*time.Second)
			}
			q := question{kind: tc.kind, name: f.name, file: f, off: f.last().size / 2, n: 100}
			if tc.unknown {
				q.file, q.name = nil, "a/00/000000-never.bin"
			}
			doors[0].set(tc.answer(f))
			l := newLoad(s, loadConfig{})
			if got := l.ask(t.Context(), doors[0], q, time.Second); got.found != tc.want {
				t.Errorf("%d (%s), want %d", got.found, got.note, tc.want)
			}
			want := map[breach]int{}
			if tc.breach != "" {
				want[tc.breach] = 1
			}
			counts(t, s.verdict, want)
		})
	}
}

// always is an answer that does not depend on the file.
func always(answer func(*http.Request) (*http.Response, error)) func(*file) func(*http.Request) (*http.Response, error) {
	return func(*file) func(*http.Request) (*http.Response, error) { return answer }
}

// TestOneTryAndOneRetry: what a read comes to, by what two nodes answer and
// what was done to them and to the servers.
func TestOneTryAndOneRetry(t *testing.T) {
	ok := func(f *file) func(*http.Request) (*http.Response, error) {
		return serving(f.last().content(), strong(f.last()))
	}
	no := always(problem(http.StatusServiceUnavailable, "unavailable"))
	for _, tc := range []struct {
		name          string
		first, second func(*file) func(*http.Request) (*http.Response, error)
		before        func(s *scene, doors []*fakeDoor)
		archived      bool
		kind          readKind
		want          outcome
		asked         [2]int
	}{
		{"the first answers", ok, nil, nil, true, readWhole, goodRead, [2]int{1, 0}},
		{"the second answers", always(closed), ok, nil, true, readWhole, savedRead, [2]int{1, 1}},
		{"neither", no, no, nil, true, readWhole, failedRead, [2]int{1, 1}},
		{"neither, of a young file", no, no, nil, false, readWhole, failedRead, [2]int{1, 1}},
		{"a wrong answer is not tried again", always(problem(http.StatusNotFound, "")), nil, nil, true, readWhole, wrongRead, [2]int{1, 0}},
		{"neither, and the store is away", no, no, func(s *scene, _ []*fakeDoor) { s.timeline.begin("S3 down", "", touchesStore) }, true, readWhole, stormStore, [2]int{1, 1}},
		{"neither, and the store is just back", no, no, func(s *scene, _ []*fakeDoor) {
			s.timeline.begin("S3 down", "", touchesStore).end()
		}, true, readWhole, stormStore, [2]int{1, 1}},
		{"neither, and the store has been back", no, no, func(s *scene, _ []*fakeDoor) {
			p := s.timeline.begin("S3 down", "", touchesStore)
			p.end()
			p.to = p.to.Add(-settles - time.Second)
		}, true, readWhole, failedRead, [2]int{1, 1}},
		{"an archived file needs no database", no, no, func(s *scene, _ []*fakeDoor) { s.timeline.begin("Postgres down", "", touchesDatabase) }, true, readWhole, failedRead, [2]int{1, 1}},
		{"a young file does", no, no, func(s *scene, _ []*fakeDoor) { s.timeline.begin("Postgres down", "", touchesDatabase) }, false, readWhole, stormSource, [2]int{1, 1}},
		{"an id does", no, no, func(s *scene, _ []*fakeDoor) { s.timeline.begin("Postgres down", "", touchesDatabase) }, true, readByID, stormSource, [2]int{1, 1}},
		{"an archived file needs no majority", no, no, func(_ *scene, d []*fakeDoor) { d[0].setFit(time.Time{}) }, true, readWhole, failedRead, [2]int{1, 1}},
		{"a young file does need it", no, no, func(_ *scene, d []*fakeDoor) { d[0].setFit(time.Time{}) }, false, readWhole, stormQuorum, [2]int{1, 1}},
		{"nobody is alive", always(closed), nil, func(_ *scene, d []*fakeDoor) { d[0].setFit(time.Time{}); d[1].setFit(time.Time{}) }, true, readWhole, stormNodes, [2]int{1, 0}},
		{"the only one alive is asked again", no, nil, func(_ *scene, d []*fakeDoor) { d[1].setFit(time.Time{}) }, true, readWhole, failedRead, [2]int{2, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 2)
			f := placedFile(t, s, 1)
			if tc.archived {
				archived(t, s, f, 1, "p", time.Second)
			}
			for i, answer := range []func(*file) func(*http.Request) (*http.Response, error){tc.first, tc.second} {
				if answer != nil {
					doors[i].set(answer(f))
				}
			}
			if tc.before != nil {
				tc.before(s, doors)
			}
			got := newLoad(s, loadConfig{}).read(t.Context(), question{kind: tc.kind, name: f.name, file: f}, 0, time.Now())
			if got.outcome != tc.want {
				t.Errorf("%s, want %s", got.outcome, tc.want)
			}
			if asked := [2]int{doors[0].asked, doors[1].asked}; asked != tc.asked {
				t.Errorf("the nodes were asked %v times, want %v", asked, tc.asked)
			}
			if n := s.verdict.count(failedReads); (n == 1) != (tc.want == failedRead) {
				t.Errorf("%d failed reads are counted", n)
			}
		})
	}
}

// TestRetryIsAtANodeThatStays: a retry at a node that is taken away meanwhile
// is none.
func TestRetryIsAtANodeThatStays(t *testing.T) {
	s, doors := newScene(t, 3)
	f := placedFile(t, s, 1)
	archived(t, s, f, 1, "p", time.Second)
	doors[0].set(closed)
	doors[1].set(func(req *http.Request) (*http.Response, error) {
		doors[1].setFit(time.Time{})
		return closed(req)
	})
	doors[2].set(serving(f.last().content(), strong(f.last())))
	if got := newLoad(s, loadConfig{}).read(t.Context(), question{name: f.name, file: f}, 0, time.Now()); got.outcome != savedRead {
		t.Errorf("%s, want %s", got.outcome, savedRead)
	}
	counts(t, s.verdict, nil)
}

func TestReadsLetGoAtTheEndAreNoFailures(t *testing.T) {
	s, doors := newScene(t, 2)
	f := placedFile(t, s, 1)
	ctx, cancel := context.WithCancel(t.Context())
	doors[0].set(func(*http.Request) (*http.Response, error) { cancel(); return nil, context.Canceled })
	if got := newLoad(s, loadConfig{}).read(ctx, question{name: f.name, file: f}, 0, time.Now()); got.outcome != droppedRead {
		t.Errorf("%s, want %s", got.outcome, droppedRead)
	}
	counts(t, s.verdict, nil)
}
