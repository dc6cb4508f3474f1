package api

import (
	"net/http"
	"testing"
	"time"
)

const (
	before = "Tue, 30 Apr 2019 11:59:59 GMT"
	after  = "Tue, 30 Apr 2019 12:00:01 GMT"
)

// TestPreconditions holds every step of RFC 9110 §13.2.2, and their order,
// against answers over HTTP. ETAG stands for the file's own tag.
func TestPreconditions(t *testing.T) {
	content := pattern(100)
	s := newWorld(t, 0, packed{name: "a", content: content}).serve(t)
	const ok, part, same, failed = http.StatusOK, http.StatusPartialContent, http.StatusNotModified, http.StatusPreconditionFailed
	for _, c := range []struct {
		name   string
		header []string
		want   int
	}{
		{"If-Match, the tag", []string{"If-Match", "ETAG"}, ok},
		{"If-Match, any", []string{"If-Match", "*"}, ok},
		{"If-Match, another", []string{"If-Match", `"x"`}, failed},
		{"If-Match, the tag made weak", []string{"If-Match", "W/ETAG"}, failed},
		{"If-Match, in a list", []string{"If-Match", `"x", ETAG`}, ok},
		{"If-Match, in a list with gaps", []string{"If-Match", `,, "x" ,	ETAG,`}, ok},
		{"If-Match, on a second line", []string{"If-Match", `"x"`, "If-Match", "ETAG"}, ok},
		{"If-Match, a comma inside a tag", []string{"If-Match", `"a,b", ETAG`}, ok},
		{"If-Match, unquoted", []string{"If-Match", "x"}, failed},
		{"If-Match, empty", []string{"If-Match", ""}, failed},
		{"If-Unmodified-Since, before", []string{"If-Unmodified-Since", before}, failed},
		{"If-Unmodified-Since, the time", []string{"If-Unmodified-Since", lastModified}, ok},
		{"If-Unmodified-Since, after", []string{"If-Unmodified-Since", after}, ok},
		{"If-Unmodified-Since, no date", []string{"If-Unmodified-Since", "yesterday"}, ok},
		{"If-Unmodified-Since does not count beside If-Match", []string{"If-Match", "ETAG", "If-Unmodified-Since", before}, ok},
		{"If-None-Match, the tag", []string{"If-None-Match", "ETAG"}, same},
		{"If-None-Match, the tag made weak", []string{"If-None-Match", "W/ETAG"}, same},
		{"If-None-Match, any", []string{"If-None-Match", "*"}, same},
		{"If-None-Match, another", []string{"If-None-Match", `"x"`}, ok},
		{"If-None-Match, in a list", []string{"If-None-Match", `"x", ETAG`}, same},
		{"If-None-Match, behind bad syntax", []string{"If-None-Match", `x, ETAG`}, ok},
		{"If-None-Match, cut", []string{"If-None-Match", `"x`}, ok},
		{"If-Modified-Since, before", []string{"If-Modified-Since", before}, ok},
		{"If-Modified-Since, the time", []string{"If-Modified-Since", lastModified}, same},
		{"If-Modified-Since, after", []string{"If-Modified-Since", after}, same},
		{"If-Modified-Since, in the form of RFC 850", []string{"If-Modified-Since", "Tuesday, 30-Apr-19 12:00:00 GMT"}, same},
		{"If-Modified-Since, no date", []string{"If-Modified-Since", "1"}, ok},
		{"If-Modified-Since, two dates", []string{"If-Modified-Since", after, "If-Modified-Since", after}, ok},
		{"If-Modified-Since does not count beside If-None-Match", []string{"If-None-Match", `"x"`, "If-Modified-Since", after}, ok},
		{"If-Match fails first", []string{"If-Match", `"x"`, "If-None-Match", "ETAG"}, failed},
		{"If-Match holds, then If-None-Match", []string{"If-Match", "ETAG", "If-None-Match", "ETAG"}, same},
		{"If-Unmodified-Since fails first", []string{"If-Unmodified-Since", before, "If-None-Match", "ETAG"}, failed},
		{"both dates, both hold", []string{"If-Unmodified-Since", after, "If-Modified-Since", before}, ok},
		{"Range after the preconditions", []string{"If-Match", "ETAG", "Range", "bytes=0-9"}, part},
		{"304 before Range", []string{"If-None-Match", "ETAG", "Range", "bytes=0-9"}, same},
		{"304 before 416", []string{"If-None-Match", "ETAG", "Range", "bytes=500-"}, same},
		{"412 before 416", []string{"If-Match", `"x"`, "Range", "bytes=500-"}, failed},
		{"If-Range, the tag", []string{"If-Range", "ETAG", "Range", "bytes=0-9"}, part},
		{"If-Range, another", []string{"If-Range", `"x"`, "Range", "bytes=0-9"}, ok},
		{"If-Range, the tag made weak", []string{"If-Range", "W/ETAG", "Range", "bytes=0-9"}, ok},
		{"If-Range, two tags", []string{"If-Range", "ETAG, ETAG", "Range", "bytes=0-9"}, ok},
		{"If-Range, twice", []string{"If-Range", "ETAG", "If-Range", "ETAG", "Range", "bytes=0-9"}, ok},
		{"If-Range, the time", []string{"If-Range", lastModified, "Range", "bytes=0-9"}, part},
		{"If-Range, later", []string{"If-Range", after, "Range", "bytes=0-9"}, ok},
		{"If-Range, earlier", []string{"If-Range", before, "Range", "bytes=0-9"}, ok},
		{"If-Range, nonsense", []string{"If-Range", "x", "Range", "bytes=0-9"}, ok},
		{"If-Range fails: no 416", []string{"If-Range", `"x"`, "Range", "bytes=500-"}, ok},
		{"If-Range without Range", []string{"If-Range", `"x"`}, ok},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pairs []string
			for _, v := range c.header {
				pairs = append(pairs, replaceETag(v, etagOf(content)))
			}
			code := Code("")
			if c.want == failed {
				code = CodePrecondition
			}
			r := s.get(t, "/files/a", pairs...)
			r.want(t, c.want, code)
			switch c.want {
			case same:
				if r.Header.Get("Etag") != etagOf(content) || r.Header.Get("Last-Modified") != lastModified || len(r.body) != 0 {
					t.Errorf("304 with %v and %q", r.Header, r.body)
				}
			case failed:
				if r.Header.Get("Etag") != "" || r.Header.Get("X-Des-Pack") != "" {
					t.Errorf("412 describes the file: %v", r.Header)
				}
			}
			want := c.want
			if want == part {
				want = ok // Range is for GET
			}
			s.head(t, "/files/a", pairs...).want(t, want, "")
		})
	}
}

func replaceETag(v, etag string) string {
	for i := 0; i+4 <= len(v); i++ {
		if v[i:i+4] == "ETAG" {
			return v[:i] + etag + replaceETag(v[i+4:], etag)
		}
	}
	return v
}

func TestPreconditionsWithoutATime(t *testing.T) {
	v := validators{etag: `"x"`}
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since"} {
		if got := preconditions(header(name, time.Unix(0, 0).UTC().Format(http.TimeFormat)), v); got != proceed {
			t.Errorf("%s: %d, but the file's time is not known", name, got)
		}
	}
	if rangeApplies(header("If-Range", lastModified), v) {
		t.Error("If-Range holds, but the file's time is not known")
	}
}
