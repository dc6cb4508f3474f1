package router

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/raftmeta"
)

// face is the HTTP face over a node's router.
func (n *node) face(t *testing.T) http.Handler {
	t.Helper()
	s, err := api.New(api.Config{
		Files: n.router, Operator: struct{ api.Operator }{}, Observer: struct{ api.Observer }{},
		Node: raftmeta.NodeID(n.id), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// published are records of all kinds that HTTP tells apart.
func published() []version {
	created := time.Date(2001, 2, 3, 4, 5, 6, 7, time.FixedZone("east", 3600))
	return []version{
		{name: "plain.txt", seq: 1, content: "hello, world"},
		{name: "empty", seq: 1},
		{name: "faktury/zażółć gęślą.pdf", seq: 1, content: "%PDF", meta: desformat.Metadata{ContentType: "application/pdf"}},
		{name: "page.html", seq: 1, content: "<script>", meta: desformat.Metadata{ContentType: "Text/HTML; charset=utf-8"}},
		{name: "odd.bin", seq: 1, content: "x", meta: desformat.Metadata{ContentType: "not a type"}},
		{name: "rich", seq: 1, content: "rich", meta: desformat.Metadata{
			ContentType: "image/png", Created: created, Retention: "tax", Custom: []byte(`{"k":"v"}`),
		}},
		{name: "timeless", seq: 1, content: "x", mod: func() time.Time { return time.Time{} }},
		{name: "before 1970", seq: 1, content: "x", mod: func() time.Time { return time.Unix(-1, 5) }},
		{name: "elsewhere", seq: 1, content: "x", mod: func() time.Time { return created }},
		{name: "just under.bin", seq: 1, content: long("under", 1<<20)},
		{name: "just over.bin", seq: 1, content: long("over", 1<<20+1)},
		{name: "big.bin", seq: 1, content: big},
	}
}

// Through whichever node a file is read, the answer is the same byte for byte,
// but for the headers that name the node and the request.
func TestAnswerOverHTTPIsTheOwners(t *testing.T) {
	w := newWorld(t, "a", "b")
	records := published()
	w.add(records...)
	w.add(tombstone("gone", 2))
	own := [...]string{"Date", "X-Des-Node", "X-Request-Id"}
	type request struct {
		method string
		header map[string]string
	}
	requests := []request{
		{"GET", nil},
		{"HEAD", nil},
		{"GET", map[string]string{"Range": "bytes=1-3"}},
		{"GET", map[string]string{"Range": "bytes=-1"}},
		{"GET", map[string]string{"Range": "bytes=99999999-"}},
		{"HEAD", map[string]string{"Range": "bytes=0-0"}},
		{"GET", map[string]string{"If-None-Match": "ETAG"}},
		{"GET", map[string]string{"If-Match": `"other"`}},
		{"GET", map[string]string{"If-Modified-Since": epoch.Add(time.Hour).Format(http.TimeFormat)}},
		{"GET", map[string]string{"Range": "bytes=0-0", "If-Range": "ETAG"}},
	}
	names := []string{"gone", "absent", "bad//name"}
	for _, r := range records {
		names = append(names, r.name)
	}
	for _, name := range names {
		for _, q := range requests {
			// Each request finds nothing in memory, then what the one before left.
			owner, reader := w.start("a", nil).face(t), w.start("b", nil).face(t)
			for _, turn := range []string{"cold", "warm"} {
				t.Run(fmt.Sprintf("%s/%s %v/%s", name, q.method, q.header, turn), func(t *testing.T) {
					want, got := ask(t, owner, name, q.method, q.header), ask(t, reader, name, q.method, q.header)
					for _, h := range own {
						want.Header().Del(h)
						got.Header().Del(h)
					}
					if got.Code != want.Code || got.Code >= 500 {
						t.Errorf("status %d, the owner's is %d", got.Code, want.Code)
					}
					for key := range want.Header() {
						if !slices.Equal(got.Header()[key], want.Header()[key]) {
							t.Errorf("%s: %q, the owner's is %q", key, got.Header()[key], want.Header()[key])
						}
					}
					if len(got.Header()) != len(want.Header()) {
						t.Errorf("header %v, the owner's is %v", got.Header(), want.Header())
					}
					if want.Code < 400 && got.Body.String() != want.Body.String() {
						t.Errorf("%d bytes of body, the owner's has %d", got.Body.Len(), want.Body.Len())
					}
					if want.Code < 300 && got.Header().Get("X-Des-Pack") == "" {
						t.Error("no X-Des-Pack")
					}
				})
			}
			if a := w.nodes["a"]; a.asked.Load() == 0 && name != "bad//name" {
				t.Errorf("%s: the owner was not asked: nothing is shown", name)
			}
		}
	}
}

// ask makes one request of a face. ETAG in a header stands for the file's own.
func ask(t *testing.T, face http.Handler, name, method string, header map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/files/"+url.PathEscape(name), nil)
	for key, value := range header {
		if value == "ETAG" {
			value = `"none"`
			for _, v := range published() {
				if sum := desformat.HashName(v.content); v.name == name {
					value = `"` + hex.EncodeToString(sum[:]) + `"`
				}
			}
		}
		r.Header.Set(key, value)
	}
	out := httptest.NewRecorder()
	face.ServeHTTP(out, r)
	return out
}
