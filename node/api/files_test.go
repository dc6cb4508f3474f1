package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
)

// pattern returns n bytes of which no two stretches are alike.
func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%x.", i)
	}
	return b[:n]
}

func etagOf(content []byte) string {
	sum := sha256.Sum256(content)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

const lastModified = "Tue, 30 Apr 2019 12:00:00 GMT"

func TestAFileIsServedWithAllItsHeaders(t *testing.T) {
	content := pattern(3000)
	sum := sha256.Sum256(content)
	w := newWorld(t, 0, packed{name: "invoices/2019/Rechnung März.pdf", content: content})
	s := w.serve(t)
	want := map[string]string{
		"Etag":                   etagOf(content),
		"Last-Modified":          lastModified,
		"Repr-Digest":            "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":",
		"Content-Type":           "application/pdf",
		"Content-Disposition":    `inline; filename="Rechnung M_rz.pdf"; filename*=UTF-8''Rechnung%20M%C3%A4rz.pdf`,
		"Content-Length":         "3000",
		"Accept-Ranges":          "bytes",
		"Cache-Control":          "no-cache",
		"X-Content-Type-Options": "nosniff",
		"X-Des-Node":             string(testNode),
		"X-Des-Shard":            fmt.Sprint(desformat.HashName("invoices/2019/Rechnung März.pdf").Shard(10)),
		"X-Des-Pack":             w.manifest.packs[0].ID.String(),
		"X-Des-Unconfirmed":      "",
		"Content-Range":          "",
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodGet} { // cold, then hot
		r := s.do(t, method, "/files/invoices/2019/Rechnung%20M%C3%A4rz.pdf", nil, "")
		r.want(t, http.StatusOK, "")
		for key, value := range want {
			if got := r.Header.Get(key); got != value {
				t.Errorf("%s: %s is %q, want %q", method, key, got, value)
			}
		}
		if method == http.MethodGet && !bytes.Equal(r.body, content) {
			t.Errorf("%d other bytes", len(r.body))
		}
	}
}

func TestAFileIsServedByItsID(t *testing.T) {
	w := newWorld(t, 0, packed{name: "a.txt", id: "17/4", content: []byte("seventeen")})
	w.rows.rows = []source.Row{{Source: sourceName, ID: "17/4", Name: "a.txt", DesName: "a.txt", State: source.Packed}}
	s := w.serve(t)
	for _, path := range []string{"/ids/17/4", "/ids/17%2F4", "/ids/17%2f4?source=files"} {
		r := s.get(t, path)
		r.want(t, http.StatusOK, "")
		if string(r.body) != "seventeen" || r.Header.Get("X-Des-Pack") == "" {
			t.Errorf("%s: %q %v", path, r.body, r.Header)
		}
	}
	s.get(t, "/ids/18").want(t, http.StatusNotFound, CodeNotFound)
	s.get(t, "/ids/").want(t, http.StatusBadRequest, CodeInvalidRequest)
	s.get(t, "/ids/"+strings.Repeat("x", 65)).want(t, http.StatusBadRequest, CodeInvalidRequest)
	s.get(t, "/ids/a%00b").want(t, http.StatusBadRequest, CodeInvalidRequest)
	s.get(t, "/ids/a%ff").want(t, http.StatusBadRequest, CodeInvalidRequest)
	s.get(t, "/ids/17%2F4?source=%zz").want(t, http.StatusBadRequest, CodeInvalidRequest)
	s.get(t, "/ids/17%2F4?source=other").want(t, http.StatusBadRequest, CodeInvalidRequest)
	w.rows.broken.Store(true)
	s.get(t, "/ids/17%2F4").want(t, http.StatusServiceUnavailable, CodeUnavailable)
}

func TestNamesAreTakenFromTheEscapedPath(t *testing.T) {
	names := []string{
		"a/b", "a+b", "a b", "a%b", "a?b", "a#b", "a;b", "a&b=c", "żółć/ł", "..a", "a..", ".a", "livez", "%2e%2e", "日本語", strings.Repeat("n", 1024),
	}
	var records []packed
	for _, n := range names {
		records = append(records, packed{name: n, content: []byte("content of " + n)})
	}
	s := newWorld(t, 0, records...).serve(t)
	for path, name := range map[string]string{
		"/files/a/b": "a/b", "/files/a%2Fb": "a/b", "/files/a%2fb": "a/b", "/files/%61%2F%62": "a/b",
		"/files/a+b": "a+b", "/files/a%2Bb": "a+b", "/files/a%20b": "a b", "/files/a%25b": "a%b", "/files/a%3Fb": "a?b", "/files/a%23b": "a#b",
		"/files/a;b": "a;b", "/files/a&b=c": "a&b=c", "/files/a/b?x=%zz": "a/b",
		"/files/%C5%BC%C3%B3%C5%82%C4%87/%c5%82": "żółć/ł", "/files/..a": "..a", "/files/a..": "a..", "/files/.a": ".a", "/files/livez": "livez",
		"/files/%252e%252e":                     "%2e%2e", // decoded once
		"/files/%E6%97%A5%E6%9C%AC%E8%AA%9E":    "日本語",
		"/files/" + strings.Repeat("n", 1024):   strings.Repeat("n", 1024),
		"/files/" + strings.Repeat("%6e", 1024): strings.Repeat("n", 1024),
	} {
		r := s.get(t, path)
		r.want(t, http.StatusOK, "")
		if string(r.body) != "content of "+name {
			t.Errorf("%s led to %q", path, r.body)
		}
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	s := newWorld(t, 0, packed{name: "a/b", content: []byte("x")}, packed{name: "b", content: []byte("x")}).serve(t)
	for name, path := range map[string]string{
		"empty":                  "/files/",
		"empty segment":          "/files/a//b",
		"empty segment, escaped": "/files/a/%2Fb",
		"leading slash":          "/files//a/b",
		"trailing slash":         "/files/a/b/",
		"dot":                    "/files/./b",
		"dot dot":                "/files/a/../b",
		"dot dot, escaped":       "/files/a/%2e%2e/b",
		"dot dot, all escaped":   "/files/a%2F%2e%2e%2Fb",
		"NUL":                    "/files/a%00b",
		"newline":                "/files/a%0Ab",
		"carriage return":        "/files/a%0D%0AX-Evil:%201",
		"delete":                 "/files/a%7F",
		"C1 control":             "/files/a%C2%85",
		"invalid UTF-8":          "/files/a%FFb",
		"overlong":               "/files/a%C0%AFb",
		"surrogate":              "/files/a%ED%A0%80",
		"NFD":                    "/files/e%CC%81",
		"backslash":              "/files/a%5Cb",
		"zero width":             "/files/a%E2%80%8Bb",
		"override":               "/files/a%E2%80%AEb",
		"private use":            "/files/a%EE%80%80",
		"unassigned":             "/files/a%CD%B8",
		"too long":               "/files/" + strings.Repeat("n", 1025),
	} {
		t.Run(name, func(t *testing.T) {
			r := s.get(t, path)
			r.want(t, http.StatusBadRequest, CodeInvalidName)
			if r.Header.Get("X-Des-Shard") != "" {
				t.Error("a shard for what is no name")
			}
			s.head(t, path).want(t, http.StatusBadRequest, "")
			s.get(t, PathLocate+strings.TrimPrefix(path, prefixFiles)).want(t, http.StatusBadRequest, CodeInvalidName)
		})
	}
}

func TestPathsOutsideTheContract(t *testing.T) {
	s := newWorld(t, 0, packed{name: "a", content: []byte("x")}).serve(t)
	for _, path := range []string{"/", "/files", "/ids", "/Files/a", "//files/a", "/%66iles/a", "/files%2Fa", "/x/../files/a", "/livez/", "/live%7A", "/cluster/", "/cluster/nothing", "/cluster/statu%73"} {
		s.get(t, path).want(t, http.StatusNotFound, CodeNotFound)
	}
}

func TestMethodsThatAreNotAllowed(t *testing.T) {
	s := newWorld(t, 0, packed{name: "a", content: []byte("x")}).serve(t)
	for path, allow := range map[string]string{
		"/files/a": "GET, HEAD", "/files/none": "GET, HEAD", "/ids/a": "GET, HEAD", "/livez": "GET, HEAD", "/readyz": "GET, HEAD", "/metrics": "GET, HEAD",
		"/openapi.yaml": "GET, HEAD", PathStatus: "GET, HEAD", PathLocate + "a": "GET, HEAD", PathPacks: "GET, HEAD",
		PathImport: "POST", PathArchive: "POST", PathVerify: "POST", PathRetry: "POST",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get"} {
			if strings.Contains(allow+", ", method+", ") {
				continue
			}
			r := s.do(t, method, path, header("Content-Type", TypeJSON), "{}")
			r.want(t, http.StatusMethodNotAllowed, CodeMethodNotAllowed)
			if got := r.Header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow %q, want %q", method, path, got, allow)
			}
		}
	}
}

func TestRanges(t *testing.T) {
	content := pattern(1000)
	large := pattern(10_000) // in chunks, not kept in memory
	w := newWorld(t, 4096, packed{name: "small", content: content}, packed{name: "large", content: large}, packed{name: "empty"})
	s := w.serve(t)
	type span struct{ off, n int }
	whole, none := &span{-1, 0}, (*span)(nil)
	for _, c := range []struct {
		name, header string
		small, empty *span // none: 416; whole: 200 with everything
	}{
		{"first bytes", "bytes=0-9", &span{0, 10}, none},
		{"one byte", "bytes=999-999", &span{999, 1}, none},
		{"open", "bytes=990-", &span{990, 10}, none},
		{"open, all", "bytes=0-", &span{0, 1000}, none},
		{"beyond the end", "bytes=990-5000", &span{990, 10}, none},
		{"far beyond the end", "bytes=990-99999999999999999999999", &span{990, 10}, none},
		{"suffix", "bytes=-10", &span{990, 10}, whole},
		{"suffix longer than the file", "bytes=-5000", &span{0, 1000}, whole},
		{"unit in capitals", "Bytes=0-9", &span{0, 10}, none},
		{"blanks", "bytes= 0-9 ,", &span{0, 10}, none},
		{"starts at the end", "bytes=1000-", none, none},
		{"starts behind the end", "bytes=5000-6000", none, none},
		{"starts far behind the end", "bytes=99999999999999999999999-", none, none},
		{"empty suffix", "bytes=-0", none, none},
		{"unknown unit", "lines=0-9", whole, whole},
		{"several", "bytes=0-1,3-4", whole, whole},
		{"last before first", "bytes=9-0", whole, whole},
		{"no dash", "bytes=9", whole, whole},
		{"only a dash", "bytes=-", whole, whole},
		{"nothing", "bytes=", whole, whole},
		{"no unit", "0-9", whole, whole},
		{"a sign", "bytes=+0-9", whole, whole},
		{"hex", "bytes=0x1-9", whole, whole},
		{"two dashes", "bytes=--9", whole, whole},
		{"blank inside", "bytes=0 -9", whole, whole},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(path string, content []byte, want *span) {
				r := s.get(t, path, "Range", c.header)
				switch want {
				case none:
					r.want(t, http.StatusRequestedRangeNotSatisfiable, CodeRange)
					if got, want := r.Header.Get("Content-Range"), fmt.Sprintf("bytes */%d", len(content)); got != want {
						t.Errorf("%s: Content-Range %q, want %q", path, got, want)
					}
					return
				case whole:
					r.want(t, http.StatusOK, "")
					if !bytes.Equal(r.body, content) {
						t.Errorf("%s: %d other bytes", path, len(r.body))
					}
					return
				}
				r.want(t, http.StatusPartialContent, "")
				if !bytes.Equal(r.body, content[want.off:want.off+want.n]) {
					t.Errorf("%s: %q", path, r.body)
				}
				if got, want := r.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", want.off, want.off+want.n-1, len(content)); got != want {
					t.Errorf("%s: Content-Range %q, want %q", path, got, want)
				}
				if got := r.Header.Get("Content-Length"); got != strconv.Itoa(want.n) {
					t.Errorf("%s: Content-Length %s, want %d", path, got, want.n)
				}
				if got := r.Header.Get("Etag"); got != etagOf(content) {
					t.Errorf("%s: ETag %s", path, got)
				}
			}
			check("/files/small", content, c.small)
			check("/files/empty", nil, c.empty)
			if r := s.head(t, "/files/small", "Range", c.header); r.StatusCode != http.StatusOK {
				t.Errorf("HEAD: %d; Range is for GET", r.StatusCode)
			}
		})
	}
	for _, at := range []span{{0, 1}, {4095, 2}, {4096, 4096}, {1, 9998}, {9999, 1}, {0, 10_000}} {
		r := s.get(t, "/files/large", "Range", fmt.Sprintf("bytes=%d-%d", at.off, at.off+at.n-1))
		r.want(t, http.StatusPartialContent, "")
		if !bytes.Equal(r.body, large[at.off:at.off+at.n]) {
			t.Errorf("%v of the large file: %d other bytes", at, len(r.body))
		}
	}
}

func TestSeveralRangeHeadersAreIgnored(t *testing.T) {
	s := newWorld(t, 0, packed{name: "a", content: pattern(100)}).serve(t)
	r := s.get(t, "/files/a", "Range", "bytes=0-1", "Range", "bytes=4-5")
	r.want(t, http.StatusOK, "")
	if len(r.body) != 100 {
		t.Errorf("%d bytes", len(r.body))
	}
}

func TestAnEmptyFile(t *testing.T) {
	s := newWorld(t, 0, packed{name: "empty.txt"}).serve(t)
	for range 2 {
		r := s.get(t, "/files/empty.txt")
		r.want(t, http.StatusOK, "")
		if len(r.body) != 0 || r.Header.Get("Content-Length") != "0" || r.Header.Get("Etag") != etagOf(nil) {
			t.Errorf("%q %v", r.body, r.Header)
		}
		r = s.head(t, "/files/empty.txt")
		r.want(t, http.StatusOK, "")
		if r.Header.Get("Content-Length") != "0" {
			t.Errorf("HEAD: %v", r.Header)
		}
		s.get(t, "/files/empty.txt", "If-None-Match", etagOf(nil)).want(t, http.StatusNotModified, "")
		s.get(t, "/files/empty.txt", "If-Match", `"x"`).want(t, http.StatusPreconditionFailed, CodePrecondition)
	}
}

func TestAFileThatIsNotPackedYet(t *testing.T) {
	for _, size := range []int{0, 1, 5000, piece - 1, piece, piece + 1, 3*piece + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			content := pattern(size)
			w := newWorld(t, 0)
			w.waiting("new/report.csv", content)
			s := w.serve(t)
			r := s.get(t, "/files/new/report.csv", "Range", "bytes=0-0")
			r.want(t, http.StatusOK, "")
			if !bytes.Equal(r.body, content) {
				t.Errorf("%d other bytes", len(r.body))
			}
			etag := r.Header.Get("Etag")
			for key, want := range map[string]string{
				"Cache-Control": "no-store", "Accept-Ranges": "none", "X-Des-Pack": "", "Repr-Digest": "", "Last-Modified": lastModified,
				"Content-Length": fmt.Sprint(size), "Content-Type": "text/csv",
			} {
				if got := r.Header.Get(key); got != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if !strings.HasPrefix(etag, "W/") {
				t.Errorf("ETag %s is not weak", etag)
			}
			s.head(t, "/files/new/report.csv").want(t, http.StatusOK, "")
			s.get(t, "/files/new/report.csv", "If-None-Match", etag).want(t, http.StatusNotModified, "")
			s.get(t, "/files/new/report.csv", "If-Match", etag).want(t, http.StatusPreconditionFailed, CodePrecondition)
			s.get(t, "/ids/row%20of%20new/report.csv").want(t, http.StatusOK, "")
		})
	}
}

// oneOriginal are Files whose one file is not packed yet.
type oneOriginal struct {
	Files
	content []byte
	changed bool // while it is read
}

func (c oneOriginal) Open(context.Context, string, retriever.Query) (retriever.File, error) {
	return retriever.File{Original: &original{bytes.NewReader(c.content), c.changed}, Row: source.Row{Name: "a"}}, nil
}

func TestAnOriginalThatChangesNeverEndsWell(t *testing.T) {
	for _, size := range []int{0, 10, piece, 3 * piece} {
		cfg := newWorld(t, 0).config(t)
		cfg.Files = oneOriginal{content: pattern(size), changed: true}
		r := serve(t, cfg).get(t, "/files/a")
		if r.err == nil && r.StatusCode < 500 {
			t.Errorf("%d bytes: %d, and %d bytes that end well", size, r.StatusCode, len(r.body))
		}
	}
}

func TestAbsence(t *testing.T) {
	w := newWorld(t, 0, packed{name: "removed", tombstone: true}, packed{name: "there", content: []byte("x")})
	s := w.serve(t)
	s.get(t, "/files/none").want(t, http.StatusNotFound, CodeNotFound)
	s.head(t, "/files/none").want(t, http.StatusNotFound, "")
	s.get(t, PathLocate+"none").want(t, http.StatusNotFound, CodeNotFound)
	s.get(t, "/files/removed").want(t, http.StatusGone, CodeGone)
	s.get(t, PathLocate+"removed").want(t, http.StatusGone, CodeGone)
	if got := s.get(t, "/files/none").Header.Get("X-Des-Shard"); got != fmt.Sprint(desformat.HashName("none").Shard(10)) {
		t.Errorf("shard %q", got)
	}

	w.manifest.unconfirmed.Store(true)
	for _, path := range []string{"/files/none", "/files/removed", "/ids/none", PathLocate + "none"} {
		r := s.get(t, path)
		r.want(t, http.StatusServiceUnavailable, CodeUnconfirmed)
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	s.get(t, "/files/there").want(t, http.StatusOK, "")
}

func TestAHitWithoutAQuorumSaysSo(t *testing.T) {
	cfg := newWorld(t, 0, packed{name: "a", content: []byte("x")}).config(t)
	cfg.Quorum = func() bool { return false }
	s := serve(t, cfg)
	for _, pairs := range [][]string{nil, {"Range", "bytes=0-0"}, {"If-None-Match", "*"}, {"If-Match", `"x"`}, {"Range", "bytes=7-"}} {
		if r := s.get(t, "/files/a", pairs...); r.Header.Get("X-Des-Unconfirmed") != "true" && r.StatusCode < 400 {
			t.Errorf("%v: %d without X-Des-Unconfirmed", pairs, r.StatusCode)
		}
	}
}

func TestMissesAreLimited(t *testing.T) {
	w := newWorld(t, 0, packed{name: "there", content: []byte("x")})
	w.limiter = NewMissLimiter(MissLimits{PerSecond: 1e-9, Burst: 2, Now: func() time.Time { return modified }})
	s := w.serve(t)
	s.get(t, "/files/none").want(t, http.StatusNotFound, CodeNotFound)
	s.get(t, "/ids/none").want(t, http.StatusNotFound, CodeNotFound)
	for _, path := range []string{"/files/none", "/files/other", "/ids/none"} {
		r := s.get(t, path)
		r.want(t, http.StatusTooManyRequests, CodeBusy)
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	s.get(t, "/files/there").want(t, http.StatusOK, "")
}

func TestContentTypes(t *testing.T) {
	for _, c := range []struct{ name, mapped, want, policy string }{
		{"a.txt", "", "text/plain", ""},
		{"a.PDF", "", "application/pdf", ""},
		{"a", "", "application/octet-stream", ""},
		{"dir.pdf/a", "", "application/octet-stream", ""},
		{"a.unheard-of", "", "application/octet-stream", ""},
		{"a.bin", "image/png", "image/png", ""},
		{"a.pdf", "not a type", "application/pdf", ""},
		{"a.pdf", "text/x\r\nX-Evil: 1", "application/pdf", ""},
		{"a.html", "", "text/html", "sandbox"},
		{"a.svg", "", "image/svg+xml", "sandbox"},
		{"a.bin", "Application/Atom+XML", "application/atom+xml", "sandbox"},
		{"b.bin", "text/html;charset=iso-8859-2", "text/html; charset=iso-8859-2", "sandbox"},
	} {
		s := newWorld(t, 0, packed{name: c.name, contentType: c.mapped, content: []byte("x")}).serve(t)
		r := s.get(t, "/files/"+c.name)
		r.want(t, http.StatusOK, "")
		if got := r.Header.Get("Content-Type"); !strings.EqualFold(got, c.want) {
			t.Errorf("%s mapped to %q: %q, want %q", c.name, c.mapped, got, c.want)
		}
		if got := r.Header.Get("Content-Security-Policy"); got != c.policy {
			t.Errorf("%s mapped to %q: policy %q, want %q", c.name, c.mapped, got, c.policy)
		}
		if r.Header.Get("X-Evil") != "" {
			t.Error("a header was smuggled in")
		}
	}
}

func TestContentDisposition(t *testing.T) {
	for name, want := range map[string]string{
		"a/b.txt":   `inline; filename="b.txt"; filename*=UTF-8''b.txt`,
		`a"b`:       `inline; filename="a_b"; filename*=UTF-8''a%22b`,
		"50%.txt":   `inline; filename="50_.txt"; filename*=UTF-8''50%25.txt`,
		"żółw; x=1": `inline; filename="___w; x=1"; filename*=UTF-8''%C5%BC%C3%B3%C5%82w%3B%20x%3D1`,
		"it's":      `inline; filename="it's"; filename*=UTF-8''it%27s`,
		"日本":        `inline; filename="__"; filename*=UTF-8''%E6%97%A5%E6%9C%AC`,
	} {
		if got := contentDisposition(name); got != want {
			t.Errorf("%q:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestTimesThatHTTPCannotSayAreLeftOut(t *testing.T) {
	w := newWorld(t, 0, packed{name: "old", content: []byte("x"), modified: time.Date(1955, 1, 1, 0, 0, 0, 0, time.UTC)})
	r := w.serve(t).get(t, "/files/old", "If-Modified-Since", lastModified)
	r.want(t, http.StatusOK, "")
	if got, ok := r.Header["Last-Modified"]; ok {
		t.Errorf("Last-Modified %q", got)
	}
}

// TestReadsOfALargeFileAreStreamed: more than the data cache could hold.
func TestReadsOfALargeFileAreStreamed(t *testing.T) {
	content := bytes.Repeat(pattern(1<<20), 5)
	w := newWorld(t, 0, packed{name: "large", content: content})
	w.dataBytes = 1 << 20
	r := w.serve(t).get(t, "/files/large")
	r.want(t, http.StatusOK, "")
	if !bytes.Equal(r.body, content) {
		t.Errorf("%d other bytes", len(r.body))
	}
}
