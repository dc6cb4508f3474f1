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

// script says how a node answers when it is asked for a file.
type script func(*file) func(*http.Request) (*http.Response, error)

// always is an answer that does not depend on the file.
func always(answer func(*http.Request) (*http.Response, error)) script {
	return func(*file) func(*http.Request) (*http.Response, error) { return answer }
}

// packed serves a version from a pack: the last one, or one so many before.
func packed(before int) script {
	return func(f *file) func(*http.Request) (*http.Response, error) {
		v := f.versions[len(f.versions)-1-before]
		return serving(v.content(), strong(v))
	}
}

// through serves the last version as edit leaves it, with an ETag.
func through(etag string, edit func([]byte) []byte) script {
	return func(f *file) func(*http.Request) (*http.Response, error) {
		return serving(edit(f.last().content()), etag)
	}
}

// onlyAt answers at one path alone.
func onlyAt(path string, of script) script {
	return func(f *file) func(*http.Request) (*http.Response, error) {
		return func(req *http.Request) (*http.Response, error) {
			if req.URL.Path != path {
				return problem(http.StatusBadRequest, "not "+path)(req)
			}
			return of(f)(req)
		}
	}
}

// Ways to change content.
func asItIs(b []byte) []byte     { return b }
func lengthened(b []byte) []byte { return append(b, 0) }
func shorter(b []byte) []byte    { return b[:len(b)/2] }
func flipped(b []byte) []byte    { b[len(b)/2] ^= 1; return b }

// saidToBeOld serves the version before the last and says that a newer one may
// exist.
func saidToBeOld(f *file) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		res, err := packed(1)(f)(req)
		res.Header.Set("X-Des-Unconfirmed", "1")
		return res, err
	}
}

// broken is an answer whose body ends before it should.
func broken(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: &bodyThatBreaks{5}}, nil
}

func TestEachAnswerIsJudged(t *testing.T) {
	const (
		fresh   = iota // one version, listed
		changed        // two versions, only the first archived
		again          // two versions, both archived long ago
		planned        // one version, not placed yet
	)
	for _, tc := range []struct {
		name   string
		kind   readKind
		life   int
		answer script
		want   finding
		breach breach
	}{
		{"whole", readWhole, fresh, packed(0), rightAnswer, ""},
		{"read through", readWhole, fresh, through(`W/"x"`, asItIs), rightAnswer, ""},
		{"a bit is wrong", readWhole, fresh, through(`W/"x"`, flipped), wrongAnswer, wrongBytes},
		{"half is missing, and nothing says so", readWhole, fresh, through(`W/"x"`, shorter), wrongAnswer, wrongBytes},
		{"the ETag is of other bytes", readWhole, fresh, through(`"00"`, asItIs), wrongAnswer, wrongBytes},
		{"an older version before the newer is archived", readWhole, changed, packed(1), rightAnswer, ""},
		{"the newer version before it is archived", readWhole, changed, through(`W/"x"`, asItIs), rightAnswer, ""},
		{"an older version long after", readWhole, again, packed(1), wrongAnswer, staleReads},
		{"an older version that is said to be so", readWhole, again, saidToBeOld, rightAnswer, ""},
		{"head of an older version long after", readHead, again, packed(1), wrongAnswer, staleReads},
		{"part", readPart, fresh, packed(0), rightAnswer, ""},
		{"part with a wrong bit", readPart, fresh, through(`W/"x"`, flipped), wrongAnswer, wrongBytes},
		{"part of a longer file", readPart, fresh, through(`W/"x"`, lengthened), wrongAnswer, wrongBytes},
		{"416 of a shorter file", readPart, fresh, through(`W/"x"`, shorter), wrongAnswer, wrongBytes},
		{"head", readHead, fresh, packed(0), rightAnswer, ""},
		{"head of a longer file", readHead, fresh, through(`W/"x"`, lengthened), wrongAnswer, wrongBytes},
		{"by id", readByID, fresh, onlyAt("/ids/1", packed(0)), rightAnswer, ""},
		{"404 of a listed name", readWhole, fresh, always(problem(http.StatusNotFound, "not-found")), wrongAnswer, deniedNames},
		{"410 of a listed name", readHead, fresh, always(problem(http.StatusGone, "gone")), wrongAnswer, deniedNames},
		{"404 of a name that is only planned", readWhole, planned, always(problem(http.StatusNotFound, "")), rightAnswer, ""},
		{"content of a name that is only planned", readWhole, planned, packed(0), wrongAnswer, wrongBytes},
		{"503 of a listed name", readWhole, fresh, always(problem(http.StatusServiceUnavailable, "unavailable")), noAnswer, ""},
		{"500", readWhole, fresh, always(problem(http.StatusInternalServerError, "corrupt")), noAnswer, strangeAnswers},
		{"nobody is there", readWhole, fresh, always(closed), noAnswer, ""},
		{"the answer breaks", readWhole, fresh, always(broken), noAnswer, ""},
		{"404 of an unknown name", readUnknown, fresh, always(problem(http.StatusNotFound, "not-found")), rightAnswer, ""},
		{"503 of an unknown name", readUnknown, fresh, always(problem(http.StatusServiceUnavailable, "unconfirmed")), rightAnswer, ""},
		{"content of an unknown name", readUnknown, fresh, packed(0), wrongAnswer, inventedNames},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 1)
			f := fileIn(t, s, tc.life == planned, tc.life == changed || tc.life == again, tc.life == again)
			q := question{kind: tc.kind, name: f.name, file: f, off: f.last().size / 2, n: 100}
			if tc.kind == readUnknown {
				q.file, q.name = nil, "a/00/000000-never.bin"
			}
			doors[0].set(tc.answer(f))
			if got := newLoad(s, loadConfig{}).ask(t.Context(), doors[0], q, time.Second); got.found != tc.want {
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

// fileIn makes a file that is only planned, or that is placed and listed, or
// changed after its first version was archived, and archived again long ago.
func fileIn(t *testing.T, s *scene, planned, changed, again bool) *file {
	t.Helper()
	if planned {
		files, err := s.ledger.add(1)
		if err != nil {
			t.Fatal(err)
		}
		return files[0]
	}
	if !changed {
		return placedFile(t, s, 1)
	}
	f := placedFile(t, s, 2)
	archived(t, s, f, 1, "p", time.Hour)
	if again {
		archived(t, s, f, 2, "q", staleAfter+5*time.Second)
	}
	return f
}

// TestOneTryAndOneRetry: what a read comes to, by what two nodes answer and
// what was done to them and to the servers.
func TestOneTryAndOneRetry(t *testing.T) {
	ok, no := packed(0), always(problem(http.StatusServiceUnavailable, "unavailable"))
	for _, tc := range []struct {
		name          string
		first, second script
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
		{"neither, and the store loses answers to changes", no, no, func(s *scene, _ []*fakeDoor) {
			s.timeline.begin("S3 lost", "", touchesStore|sparesReads)
		}, true, readWhole, failedRead, [2]int{1, 1}},
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
			for i, answer := range []script{tc.first, tc.second} {
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

// TestNoMajorityExcusesYoungFilesOnly: for an election's time after a majority is
// back, and only for what no pack holds.
func TestNoMajorityExcusesYoungFilesOnly(t *testing.T) {
	const away, long = time.Duration(-1), time.Hour
	for _, tc := range []struct {
		name     string
		fit      [5]time.Duration // so long before the last try each node was left alone
		archived bool
		unknown  bool
		want     outcome
	}{
		{"all are there", [5]time.Duration{long, long, long, long, long}, false, false, failedRead},
		{"three are", [5]time.Duration{long, long, long, away, away}, false, false, failedRead},
		{"three have been for an election", [5]time.Duration{elects, elects, elects, away, away}, false, false, failedRead},
		{"the third not quite so long", [5]time.Duration{long, long, elects - time.Millisecond, away, away}, false, false, stormQuorum},
		{"one away, one cut off, two just back", [5]time.Duration{long, 2 * time.Second, 7 * time.Second, away, away}, false, false, stormQuorum},
		{"the same, and a pack holds the file", [5]time.Duration{long, 2 * time.Second, 7 * time.Second, away, away}, true, false, failedRead},
		{"the same, and the name is unknown", [5]time.Duration{long, 2 * time.Second, 7 * time.Second, away, away}, false, true, stormQuorum},
		{"the third was back while the last try went on", [5]time.Duration{long, long, -time.Second, away, away}, false, false, stormQuorum},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 5)
			f := placedFile(t, s, 1)
			if tc.archived {
				archived(t, s, f, 1, "p", time.Second)
			}
			now := time.Now()
			for i, d := range doors {
				d.setFit(now.Add(-tc.fit[i]))
				if tc.fit[i] == away {
					d.setFit(time.Time{})
				}
			}
			q := question{name: f.name, file: f}
			if tc.unknown {
				q = question{kind: readUnknown, name: "never"}
			}
			if got := newLoad(s, loadConfig{}).excuse(q, now, now, now.Add(5*time.Second)); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
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

// TestANodeThatWasCutOffMayLag: an older version from it is no breach, and is
// told apart.
func TestANodeThatWasCutOffMayLag(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fit    time.Duration // so long ago nothing is done to it any more
		lagged int64
	}{
		{"for long", staleAfter + 5*time.Second, 0},
		{"for a moment", time.Second, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, doors := newScene(t, 1)
			f := fileIn(t, s, false, true, true)
			doors[0].set(packed(1)(f))
			doors[0].setFit(time.Now().Add(-tc.fit))
			l := newLoad(s, loadConfig{})
			l.ask(t.Context(), doors[0], question{name: f.name, file: f}, time.Second)
			if got := l.lagged.Load(); got != tc.lagged || s.verdict.count(staleReads) != 1-int(tc.lagged) {
				t.Errorf("%d lagged, %d stale", got, s.verdict.count(staleReads))
			}
		})
	}
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
