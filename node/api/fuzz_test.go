package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
)

// askedFor are Files that have nothing and keep the name they were asked for.
type askedFor struct {
	failingFiles
	name *string
}

func (f askedFor) Open(_ context.Context, name string, _ retriever.Query) (retriever.File, error) {
	*f.name = name
	if err := desformat.CheckName(name); err != nil {
		return retriever.File{}, err
	}
	return retriever.File{}, f.err
}

// FuzzPath: whatever the path, the answer is documented, and a name is exactly
// what follows /files/, decoded once.
func FuzzPath(f *testing.F) {
	w := newWorld(f, 0)
	var name string
	cfg := w.config(f)
	cfg.Observer = fullObserver(f)
	cfg.Files = askedFor{failingFiles{err: retriever.ErrNotFound}, &name}
	s, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target, id string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return // net/http answers 400 itself
		}
		name = ""
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL, r.RequestURI = u, target
		r.Header["X-Request-Id"] = []string{id}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		res := rec.Result()
		res.Request = r
		documented(t, reply{Response: res, body: rec.Body.Bytes()})
		path, _, _ := strings.Cut(target, "?")
		rest, isFile := strings.CutPrefix(path, prefixFiles)
		if !isFile {
			return
		}
		want, err := url.PathUnescape(rest)
		if err != nil || want != name {
			t.Errorf("%q led to the name %q, want %q (%v)", target, name, want, err)
		}
	})
}

// FuzzRange: a part that is served lies within the file and is what the header
// says when it is as simple as can be.
func FuzzRange(f *testing.F) {
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		b, verdict := parseRange(header, size)
		if verdict != rangeServed {
			if b != (byteRange{}) {
				t.Errorf("%q of %d: verdict %d with %v", header, size, verdict, b)
			}
			return
		}
		if b.off < 0 || b.length <= 0 || b.off > size-b.length {
			t.Errorf("%q of %d: %v", header, size, b)
		}
		// Its own words lead to the same part.
		again, _, _ := strings.Cut(strings.TrimPrefix(b.contentRange(size), "bytes "), "/")
		if same, verdict := parseRange("bytes="+again, size); verdict != rangeServed || same != b {
			t.Errorf("%q of %d: %v, but %q is %v", header, size, b, again, same)
		}
	})
}

// FuzzPreconditions: what the header names is never told apart from what the
// rules name, whatever else stands in the list.
func FuzzPreconditions(f *testing.F) {
	const tag = `"0123abcd"`
	v := validators{etag: tag, modified: modified}
	f.Fuzz(func(t *testing.T, match, noneMatch, ifRange string) {
		if preconditions(http.Header{"If-None-Match": {tag + "," + noneMatch}}, v) != notModified {
			t.Errorf("If-None-Match %q behind the tag is not seen as a match", noneMatch)
		}
		if preconditions(http.Header{"If-Match": {tag + "," + match}}, v) != proceed {
			t.Errorf("If-Match %q behind the tag is not seen as a match", match)
		}
		if !strings.Contains(noneMatch, tag) && strings.TrimSpace(noneMatch) != "*" && preconditions(http.Header{"If-None-Match": {noneMatch}}, v) != proceed {
			t.Errorf("If-None-Match %q matches %s", noneMatch, tag)
		}
		if !strings.Contains(match, tag) && strings.TrimSpace(match) != "*" && preconditions(http.Header{"If-Match": {match}}, v) != preconditionFailed {
			t.Errorf("If-Match %q matches %s", match, tag)
		}
		if strings.TrimSpace(ifRange) != tag && rangeApplies(http.Header{"If-Range": {ifRange}}, v) {
			if at, ok := date([]string{ifRange}); !ok || !at.Equal(v.modified) {
				t.Errorf("If-Range %q holds", ifRange)
			}
		}
	})
}

// FuzzTraceparent: what is taken over is 32 hex digits of the header, and what
// is taken for a request id can't break a line or a header.
func FuzzTraceparent(f *testing.F) {
	f.Fuzz(func(t *testing.T, header string) {
		if id := traceID(header); id != "" && (len(id) != 32 || !lowerHex(id) || header[3:35] != id || zeros(id)) {
			t.Errorf("%q: %q", header, id)
		}
		if validRequestID(header) && (len(header) > maxRequestID || strings.ContainsAny(header, "\x00\r\n\t \"\\{}:;,=")) {
			t.Errorf("%q is taken for a request id", header)
		}
	})
}

// TestEveryFuzzTargetHasSeeds: a target without a corpus proves nothing in an
// ordinary run of the tests.
func TestEveryFuzzTargetHasSeeds(t *testing.T) {
	for _, target := range []string{"FuzzPath", "FuzzRange", "FuzzPreconditions", "FuzzTraceparent"} {
		seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", target))
		if err != nil || len(seeds) < 4 {
			t.Errorf("%s: %d seeds, %v", target, len(seeds), err)
		}
	}
}
