package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
)

// TestAFlippedByteIsNeverServed flips each byte of a pack in turn and reads
// every file of it, whole and in part: each answer has the right bytes, or is
// no success, or breaks.
func TestAFlippedByteIsNeverServed(t *testing.T) {
	files := map[string][]byte{
		"a": []byte("the first"), "b/c": nil, "long": pattern(300), // in chunks of 64 bytes
	}
	var records []packed
	for name, content := range files {
		records = append(records, packed{name: name, content: content})
	}
	records = append(records, packed{name: "removed", tombstone: true})
	w := newWorld(t, 64, records...)
	pack := w.manifest.packs[0]
	cfg := w.config(t)
	answered := map[int]int{}
	for at := range pack.Size {
		if testing.Short() && at%7 != 0 {
			continue
		}
		flip := func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b }
		w.store.Damage(pack.Copies[0].Key, flip)
		cfg.Files, cfg.Registerer = w.retriever(t), nil
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range files {
			for _, want := range []struct {
				span   string
				status int
				body   []byte
			}{{"", http.StatusOK, content}, {"bytes=70-130", http.StatusPartialContent, content[min(len(content), 70):min(len(content), 131)]}} {
				status, body, whole := s.record(t, name, want.span)
				answered[status]++
				switch {
				case status == http.StatusNotFound, status == http.StatusGone:
					t.Errorf("byte %d flipped: %s is answered %d", at, name, status)
				case status >= 400 || !whole:
				case status != want.status || !bytes.Equal(body, want.body):
					t.Errorf("byte %d flipped: %s %s: %d with wrong bytes %q", at, name, want.span, status, body)
				}
			}
		}
		w.store.Damage(pack.Copies[0].Key, flip)
	}
	if answered[http.StatusOK] == 0 || answered[http.StatusInternalServerError] == 0 {
		t.Errorf("answers %v: some flips must show and most must not", answered)
	}
}

func TestACorruptFileIsTold(t *testing.T) {
	content := pattern(300)
	w := newWorld(t, 0, packed{name: "a", content: content})
	pack := w.manifest.packs[0]
	w.store.Damage(pack.Copies[0].Key, func(b []byte) []byte {
		b[bytes.Index(b, content[:64])+17] ^= 4
		return b
	})
	s := w.serve(t)
	r := s.get(t, "/files/a")
	r.want(t, http.StatusInternalServerError, CodeCorrupt)
	var p Problem
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatal(err)
	}
	if p.Pack != pack.ID.String() || p.Offset == nil || *p.Offset <= 0 || *p.Offset >= pack.Size || p.RequestID != r.Header.Get("X-Request-Id") {
		t.Errorf("problem %s", r.body)
	}
	for _, key := range []string{"Etag", "Last-Modified", "Repr-Digest", "X-Des-Pack", "Content-Disposition", "Accept-Ranges"} {
		if r.Header.Get(key) != "" {
			t.Errorf("the problem has the file's %s", key)
		}
	}
	if !logged(t, w.log, "ERROR", p.RequestID) {
		t.Error("no error in the log")
	}
}

// TestACorruptChunkBreaksTheAnswer: what is sent before it is right, and what
// is sent is never taken for the whole.
func TestACorruptChunkBreaksTheAnswer(t *testing.T) {
	content := pattern(3 << 20)
	for _, chunk := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("chunk ", chunk), func(t *testing.T) {
			w := newWorld(t, 1<<20, packed{name: "large", content: content})
			w.store.Damage(w.manifest.packs[0].Copies[0].Key, func(b []byte) []byte {
				at := chunk<<20 + 12345
				b[bytes.Index(b, content[at:at+64])] ^= 4
				return b
			})
			s := w.serve(t)
			r := s.get(t, "/files/large")
			switch {
			case r.StatusCode == http.StatusOK && r.err == nil:
				t.Fatalf("200 that ends well, %d bytes", len(r.body))
			case r.StatusCode == http.StatusOK:
				if !bytes.HasPrefix(content, r.body) || len(r.body) > chunk<<20 {
					t.Errorf("%d bytes, not all of them verified", len(r.body))
				}
			default:
				r.want(t, http.StatusInternalServerError, CodeCorrupt)
			}
			// The parts that are sound are served.
			for i := range 3 {
				r := s.get(t, "/files/large", "Range", fmt.Sprintf("bytes=%d-%d", i<<20, i<<20+1<<20-1))
				if i == chunk {
					if r.StatusCode == http.StatusPartialContent && r.err == nil {
						t.Error("the corrupt chunk is served")
					}
					continue
				}
				r.want(t, http.StatusPartialContent, "")
				if !bytes.Equal(r.body, content[i<<20:i<<20+1<<20]) {
					t.Errorf("chunk %d differs", i)
				}
			}
		})
	}
}

func TestAStoreThatFailsIsUnavailable(t *testing.T) {
	w := newWorld(t, 0, packed{name: "a", content: []byte("x")})
	s := w.serve(t)
	w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault {
		return storetest.Fault{Err: fmt.Errorf("dial 10.1.2.3: %w", storetest.ErrInjected)}
	})
	for _, path := range []string{"/files/a", PathLocate + "a"} {
		r := s.get(t, path)
		r.want(t, http.StatusServiceUnavailable, CodeUnavailable)
		if bytes.Contains(r.body, []byte("10.1.2.3")) {
			t.Errorf("%s: an address is told: %s", path, r.body)
		}
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
		if !logged(t, w.log, "WARN", r.Header.Get("X-Request-Id")) {
			t.Errorf("%s: no warning in the log", path)
		}
	}
	w.store.SetHook(nil)
	s.get(t, "/files/a").want(t, http.StatusOK, "")
}

func TestALostObjectIsNeverNotFound(t *testing.T) {
	w := newWorld(t, 0, packed{name: "a", content: []byte("x")})
	s := w.serve(t)
	w.store.SetHook(func(context.Context, storetest.Call) storetest.Fault { return storetest.Fault{Err: store.ErrNotFound} })
	s.get(t, "/files/a").want(t, http.StatusInternalServerError, CodeCorrupt)
}
