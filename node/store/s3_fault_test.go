package store

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

func TestS3PutAnswerLost(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		lose func(*http.Request) bool
	}{
		{"one request", 1000, func(r *http.Request) bool { return r.Method == http.MethodPut }},
		{"a part", minPart + 1, func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }},
		{"the completion", minPart + 1, func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, f := s3Config(t), newFaulty(t)
			config.PartSize = minPart
			s := openTestS3(t, through(config, f.URL))
			var once atomic.Bool
			f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				if c.lose(r) && !once.Swap(true) {
					lost(r, pass)
				}
				pass.ServeHTTP(w, r)
			})
			content := bytesOf(c.size)
			o := putS3(t, s, "packs/0-0/a.des", content)
			if !once.Load() {
				t.Fatal("no answer was lost")
			}
			if o.Size != int64(c.size) || o.Version == "" {
				t.Errorf("put says %+v", o)
			}
			wantS3(t, s, "packs/0-0/a.des", content)
			wantUploads(t, s, 0)
		})
	}
}

func TestS3Upload(t *testing.T) {
	for _, versions := range []bool{false, true} {
		config := s3Config(t)
		config.PartSize, config.WriteTimeout = minPart, time.Minute
		if versions {
			enableVersions(t, config)
		}
		s := openTestS3(t, config)
		content := bytesOf(2*minPart + 12345)
		first := putS3(t, s, "k", content)
		again := putS3(t, s, "k", content)
		if again.Version != first.Version {
			t.Errorf("repeated: %+v, was %+v", again, first)
		}
		wantS3(t, s, "k", content)
		other := content[:len(content)-1] + "x"
		if _, err := s.Put(t.Context(), "k", strings.NewReader(other), int64(len(other))); !errors.Is(err, ErrExists) {
			t.Errorf("put over another object: %v", err)
		}
		wantUploads(t, s, 0)
		// A copy in one request has another ETag than what was put in parts.
		if err := s.Move(t.Context(), "k", "quarantine/k"); err != nil {
			t.Fatal(err)
		}
		wantS3(t, s, "quarantine/k", content)
		s.copyMax = minPart
		for range 2 {
			if err := s.Move(t.Context(), "quarantine/k", "l"); err != nil {
				t.Fatal(err)
			}
		}
		wantS3(t, s, "l", content)
		if _, err := s.Head(t.Context(), "quarantine/k", ""); !errors.Is(err, ErrNotFound) {
			t.Errorf("what was moved: %v", err)
		}
	}
}

func TestS3UploadThatFailsIsAborted(t *testing.T) {
	config := s3Config(t)
	config.PartSize, config.Parallel = minPart, 1
	s := openTestS3(t, config)
	broken := errors.New("broken disk")
	body := breaking{strings.NewReader(bytesOf(3 * minPart)), 2*minPart + 1, broken}
	if _, err := s.Put(t.Context(), "k", body, 3*minPart); !errors.Is(err, broken) {
		t.Errorf("%v, want the body's error", err)
	}
	wantUploads(t, s, 0)
	if _, err := s.Head(t.Context(), "k", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("head: %v", err)
	}
}

// breaking is a body that can't be read from some byte on.
type breaking struct {
	body Body
	at   int64
	err  error
}

func (b breaking) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.at {
		return 0, b.err
	}
	return b.body.ReadAt(p, off)
}

func TestS3OpenUploads(t *testing.T) {
	s := openTestS3(t, s3Config(t))
	for _, key := range []string{"packs/0-0/a", "packs/0-0/b", "other"} {
		u := upload{s: s, role: s.write, key: key, full: "p/" + key}
		if err := u.create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantUploads(t, s, 3)
	err := s.Uploads(t.Context(), "packs/", func(u Upload) error {
		if !strings.HasPrefix(u.Key, "packs/") || u.ID == "" || u.Begun.IsZero() {
			t.Errorf("%+v", u)
		}
		return errors.Join(s.Abort(t.Context(), u), s.Abort(t.Context(), u)) // the second finds nothing
	})
	if err != nil {
		t.Error(err)
	}
	if left := wantUploads(t, s, 1); len(left) == 1 && left[0].Key != "other" {
		t.Errorf("left: %+v", left)
	}
}

func TestS3BrokenDownloads(t *testing.T) {
	const size = 3 << 20
	content := bytesOf(size)
	for _, c := range []struct {
		name   string
		n      int64
		breaks int // answers that break
		ok     bool
	}{
		{"small, once", 1 << 20, 1, true},
		{"small, always", 1 << 20, 1000, false},
		{"a stream, now and then", size, 5, true},
		{"all, now and then", -1, 5, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t)
			s := openTestS3(t, through(s3Config(t), f.URL))
			putS3(t, s, "k", content)
			var broke atomic.Int64
			f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				if r.Method == http.MethodGet && broke.Add(1) <= int64(c.breaks) {
					w = &cutting{w, 300 << 10}
				}
				pass.ServeHTTP(w, r)
			})
			got, err := readS3(t, s, "k", "", 0, c.n)
			want := content
			if c.n >= 0 {
				want = content[:c.n]
			}
			if c.ok && (err != nil || got != want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if !c.ok && (err == nil || errors.Is(err, ErrNotFound)) {
				t.Errorf("%d bytes, %v; want an error", len(got), err)
			}
			if broke.Load() < int64(min(c.breaks, 2)) {
				t.Error("nothing broke")
			}
		})
	}
}

// A stream that always breaks without progress ends with an error after bytes
// that are right.
func TestS3StreamThatNeverResumes(t *testing.T) {
	const size = 3 << 20
	content := bytesOf(size)
	f := newFaulty(t)
	s := openTestS3(t, through(s3Config(t), f.URL))
	putS3(t, s, "k", content)
	var first atomic.Bool
	f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if first.Swap(true) {
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(&cutting{w, 1 << 20}, r)
	})
	got, err := readS3(t, s, "k", "", 0, -1)
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) || !strings.HasPrefix(content, got) || len(got) == size {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s.wire.reads.Close()
	// And one that was deleted meanwhile says that.
	first.Store(false)
	f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !first.Swap(true) {
			w = &cutting{w, 1 << 20}
		}
		pass.ServeHTTP(w, r)
	})
	r, err := s.Get(t.Context(), "k", "", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, ErrNotFound) {
		t.Errorf("the rest of a deleted object: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestS3LyingServer(t *testing.T) {
	content := bytesOf(1000)
	for _, c := range []struct {
		name string
		lie  func(r *http.Request)
	}{
		{"ranges are ignored", func(r *http.Request) { r.Header.Del("Range") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t)
			s := openTestS3(t, through(s3Config(t), f.URL))
			putS3(t, s, "k", content)
			f.set(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				c.lie(r)
				w.Header().Set("ETag", `"0"`)
				_, _ = io.WriteString(w, content)
			})
			if got, err := readS3(t, s, "k", "", 10, 20); err == nil {
				t.Errorf("%q", got)
			}
			if got, err := readS3(t, s, "k", `"1"`, 0, -1); !errors.Is(err, ErrReplaced) {
				t.Errorf("another version: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestS3SlowDown(t *testing.T) {
	f := newFaulty(t)
	config := through(s3Config(t), f.URL)
	s := openTestS3(t, config)
	config.Attempts = 1
	once := openTestS3(t, config)
	putS3(t, s, "k", "content")
	var left atomic.Int64
	left.Store(2)
	f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if left.Add(-1) >= 0 {
			slowDown(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
	wantS3(t, s, "k", "content") // by repetition

	f.set(slowDown)
	for range breakerRequests {
		if _, err := once.Get(t.Context(), "k", "", 0, 4); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
			t.Fatalf("%v, want ErrUnavailable", err)
		}
	}
	s = once
	before := f.requests()
	if _, err := s.Head(t.Context(), "k", ""); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errBreaker) {
		t.Errorf("%v, want what the breaker says", err)
	}
	if n := f.requests() - before; n != 0 {
		t.Errorf("%d requests while the breaker is open", n)
	}
	f.set(nil)
	s.wire.reads.HalfOpen() // as after its delay
	wantS3(t, s, "k", "content")
	if !s.wire.reads.IsClosed() {
		t.Error("the breaker stays open after a success")
	}
}

// One object that always fails keeps no other from being read, however often it
// is asked for; whether its answer breaks before or after it begins.
func TestBadObjectLeavesOthersReadable(t *testing.T) {
	for _, c := range []struct {
		name string
		hook hook
	}{
		{"refused", slowDown},
		{"cut", func(w http.ResponseWriter, r *http.Request, pass http.Handler) { pass.ServeHTTP(&cutting{w, 1}, r) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFaulty(t)
			config := through(s3Config(t), f.URL)
			config.Attempts = 1
			s := openTestS3(t, config)
			putS3(t, s, "bad", "content")
			putS3(t, s, "good", "content")
			f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
				if strings.HasSuffix(r.URL.Path, "/bad") {
					c.hook(w, r, pass)
					return
				}
				pass.ServeHTTP(w, r)
			})
			for i := range 5 * breakerRequests {
				if _, err := readS3(t, s, "bad", "", 0, 4); !errors.Is(err, ErrUnavailable) || errors.Is(err, errBreaker) {
					t.Fatalf("read %d of the bad one: %v", i, err)
				}
				if _, err := readS3(t, s, "good", "", 0, 4); err != nil {
					t.Fatalf("read %d of the good one: %v", i, err)
				}
			}
		})
	}
}

// A store that takes nothing any more is still read.
func TestStoreThatTakesNothingIsRead(t *testing.T) {
	f := newFaulty(t)
	config := through(s3Config(t), f.URL)
	config.Attempts = 1
	s := openTestS3(t, config)
	putS3(t, s, "k", "content")
	f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method == http.MethodPut {
			slowDown(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	})
	var err error
	for range breakerRequests + 1 {
		_, err = s.Put(t.Context(), "l", strings.NewReader("content"), 7)
	}
	if !errors.Is(err, errBreaker) {
		t.Errorf("put: %v, want what the breaker says", err)
	}
	if _, err := readS3(t, s, "k", "", 0, 4); err != nil {
		t.Errorf("get: %v", err)
	}
}

// toxic puts a TCP proxy before the real server.
func toxic(t *testing.T) *toxiproxy.Proxy {
	t.Helper()
	if testServer == nil {
		t.Skip("-short leaves out the S3 server")
	}
	log := zerolog.Nop()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), log)
	p := toxiproxy.NewProxy(server, "s3", "127.0.0.1:0", testServer.Addr())
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func poison(t *testing.T, p *toxiproxy.Proxy, kind, stream, attributes string) {
	t.Helper()
	json := `{"name":"x","type":"` + kind + `","stream":"` + stream + `","attributes":` + attributes + `}`
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(json)); err != nil {
		t.Fatal(err)
	}
}

func TestS3TroubledNetwork(t *testing.T) {
	content := bytesOf(3 << 20)
	for _, c := range []struct {
		name, kind, stream, attributes string
	}{
		{"hanging", "timeout", "downstream", `{"timeout":0}`},
		{"hanging uploads", "timeout", "upstream", `{"timeout":0}`},
		{"resetting", "reset_peer", "downstream", `{"timeout":0}`},
		{"answering slowly", "latency", "downstream", `{"latency":60000}`},
		{"dripping uploads", "bandwidth", "upstream", `{"rate":8}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := toxic(t)
			config := s3Config(t)
			patient := openTestS3(t, config) // past the proxy
			config = through(config, "http://"+p.Listen)
			config.ReadTimeout, config.WriteTimeout, config.Stall, config.Attempts = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond, 2
			s, err := newS3(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.conditional.Store(patient.conditional.Load())
			putS3(t, patient, "k", content)
			poison(t, p, c.kind, c.stream, c.attributes)
			uploads := strings.Contains(c.name, "uploads")
			if !uploads {
				if got, err := readS3(t, s, "k", "", 0, -1); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) || !strings.HasPrefix(content, got) {
					t.Errorf("get: %d bytes, %v", len(got), err)
				}
			}
			if _, err := s.Put(t.Context(), "l", strings.NewReader(content), int64(len(content))); !errors.Is(err, ErrUnavailable) {
				t.Errorf("put: %v", err)
			}
			// Whether or not it arrived, the same bytes may be put there now.
			putS3(t, patient, "l", content)
			wantS3(t, patient, "l", content)
		})
	}
}

func TestS3CancelledWhileHanging(t *testing.T) {
	f := newFaulty(t)
	s := openTestS3(t, through(s3Config(t), f.URL))
	putS3(t, s, "k", "content")
	arrived := make(chan struct{}, 10)
	f.set(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := s.Get(ctx, "k", "", 0, 5); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if s.wire.reads.Metrics().Failures() != 0 {
		t.Error("what the caller gave up counts against the store")
	}
}

// made is a body of any size that takes no memory.
type made struct{}

func (made) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

func TestS3MemoryOfUploads(t *testing.T) {
	// A server that takes everything, as the real one has memory of its own in
	// other processes, and this is about ours.
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("ETag", `"0"`)
		switch {
		case r.Method == http.MethodPost && r.URL.Query().Has("uploads"):
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
		case r.Method == http.MethodPost:
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	from := secret(t, "a", "b")
	s, err := newS3(t.Context(), S3Config{URL: "s3://bucket?endpoint=http://" + l.Addr().String(), Read: from, Write: from, Collect: from, PartSize: 16 << 20, Parallel: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.conditional.Store(conditionHeld)

	runtime.GC()
	var before, m runtime.MemStats
	runtime.ReadMemStats(&before)
	const size = 512 << 20
	if _, err := s.Put(t.Context(), "k", made{}, size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&m)
	// All that was ever allocated for 512 MiB, which bounds the peak.
	if allocated := m.TotalAlloc - before.TotalAlloc; allocated > 48<<20 {
		t.Errorf("%d MiB allocated for an upload of %d MiB", allocated>>20, size>>20)
	} else {
		t.Logf("%.1f MiB allocated for an upload of %d MiB in 32 parts", float64(allocated)/(1<<20), size>>20)
	}
}

// An object in a class that must be restored first is told from denied access,
// although both are a 403: credentials would not help.
func TestFrozenObject(t *testing.T) {
	f := newFaulty(t)
	s := openTestS3(t, through(s3Config(t), f.URL))
	content := bytesOf(2 << 20)
	o := putS3(t, s, "k", content)
	code := "InvalidObjectState"
	f.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if r.Method != http.MethodGet {
			pass.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>no</Message></Error>")
	})
	for _, n := range []int64{1, -1} {
		if _, err := readS3(t, s, "k", o.Version, 0, n); !errors.Is(err, ErrFrozen) || errors.Is(err, ErrAccess) || errors.Is(err, ErrNotFound) {
			t.Errorf("get of %d bytes: %v", n, err)
		}
	}
	code = "AccessDenied"
	if _, err := readS3(t, s, "k", o.Version, 0, -1); !errors.Is(err, ErrAccess) || errors.Is(err, ErrFrozen) {
		t.Errorf("denied: %v", err)
	}
}
