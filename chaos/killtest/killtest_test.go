package main

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestRun(t *testing.T, files int) *run {
	t.Helper()
	r := newRun(&options{dir: t.TempDir(), files: files, seed: 7})
	if err := r.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := r.led.addWave(r.src, files); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLedgerIsWhatTheFilesHold(t *testing.T) {
	r := newTestRun(t, 60)
	again := newLedger(7, 60)
	for i, f := range r.led.files {
		if *f != *again.files[i] {
			t.Fatalf("file %d differs between two ledgers of one seed", i)
		}
		ok, err := f.whole(filepath.Join(r.src, filepath.FromSlash(f.name)))
		if !ok || err != nil {
			t.Fatalf("%q is not what the ledger says: %v", f.name, err)
		}
	}
}

// The checks are held against folders in which one thing is wrong.
func TestCheckOriginalsFindsWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, r *run, path string)
		want  string // part of the one violation; empty: none
		gone  int
	}{
		{name: "nothing", spoil: func(*testing.T, *run, string) {}},
		{name: "in quarantine", spoil: func(t *testing.T, _ *run, path string) { rename(t, path, quarantinePath(path)) }},
		{name: "gone", gone: 1, spoil: func(t *testing.T, _ *run, path string) { remove(t, path) }},
		{name: "cut", want: "bytes, not", spoil: func(t *testing.T, r *run, path string) { truncate(t, path, victim(r).size-1) }},
		{name: "cut in quarantine", want: "not what it was", spoil: func(t *testing.T, r *run, path string) {
			truncate(t, path, victim(r).size-1)
			rename(t, path, quarantinePath(path))
		}},
		{name: "back again", want: "is back", spoil: func(_ *testing.T, r *run, _ string) { victim(r).gone = true }},
		{name: "in both places", want: "both", spoil: func(t *testing.T, _ *run, path string) {
			if err := os.Link(path, quarantinePath(path)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newTestRun(t, 10)
			f := victim(r)
			tc.spoil(t, r, filepath.Join(r.src, filepath.FromSlash(f.name)))
			gone := r.checkOriginals(time.Now())
			if gone != tc.gone || len(r.missing) != tc.gone {
				t.Errorf("gone = %d, missing = %d, want %d", gone, len(r.missing), tc.gone)
			}
			switch bad := r.bad.list(); {
			case tc.want == "" && len(bad) != 0, tc.want != "" && (len(bad) != 1 || !strings.Contains(bad[0], tc.want)):
				t.Errorf("violations = %q, want %q", bad, tc.want)
			}
		})
	}
}

// victim is the first file that can be cut.
func victim(r *run) *file {
	return r.led.files[slices.IndexFunc(r.led.files, func(f *file) bool { return f.size > 0 })]
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownObjects(t *testing.T) {
	keys := []string{"cluster.json", "packs/0-0/1-2-a.des", "packs/0-0/1-3-b.des", "tmp/x", "generations/1", "quarantine/2026-01-01/packs/z", "stray"}
	got := unknownObjects(keys, map[string]bool{"cluster.json": true, "packs/0-0/1-2-a.des": true})
	if want := []string{"packs/0-0/1-3-b.des", "stray"}; !slices.Equal(got, want) {
		t.Errorf("unknownObjects = %q, want %q", got, want)
	}
}

func TestUnproven(t *testing.T) {
	by := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pack := func(edit func(*packInfo)) packInfo {
		p := packInfo{ID: "p", Copies: []copyInfo{{VerifiedAt: by.Add(-time.Second)}}}
		edit(&p)
		return p
	}
	for _, tc := range []struct {
		name string
		l    located
		p    packInfo
		ok   bool
	}{
		{"proven", located{In: "pack", Pack: "p"}, pack(func(*packInfo) {}), true},
		{"still in the source", located{In: "source"}, packInfo{}, false},
		{"pack not in the manifest", located{In: "pack", Pack: "q"}, packInfo{}, false},
		{"no copy", located{In: "pack", Pack: "p"}, packInfo{ID: "p"}, false},
		{"damaged", located{In: "pack", Pack: "p"}, pack(func(p *packInfo) { p.Copies[0].Damage = "x" }), false},
		{"never verified", located{In: "pack", Pack: "p"}, pack(func(p *packInfo) { p.Copies[0].VerifiedAt = time.Time{} }), false},
		{"verified afterwards", located{In: "pack", Pack: "p"}, pack(func(p *packInfo) { p.Copies[0].VerifiedAt = by.Add(1) }), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if why := unproven(tc.l, tc.p, by); (why == "") != tc.ok {
				t.Errorf("unproven = %q, want proven: %t", why, tc.ok)
			}
		})
	}
}

func TestCheckReadFindsWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name      string
		confirmed bool
		answer    func(w http.ResponseWriter, content []byte)
		want      string
	}{
		{"whole", true, func(w http.ResponseWriter, b []byte) { _, _ = w.Write(b) }, ""},
		{"not imported yet", false, func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusNotFound) }, ""},
		{"lost", true, func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusNotFound) }, "status 404"},
		{"unavailable", false, func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusServiceUnavailable) }, "status 503"},
		{"other bytes", false, func(w http.ResponseWriter, b []byte) { b[0]++; _, _ = w.Write(b) }, "other bytes"},
		{"cut", true, func(w http.ResponseWriter, b []byte) {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			_, _ = w.Write(b[:len(b)-1])
		}, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newTestRun(t, 10)
			f := victim(r)
			f.confirmed = tc.confirmed
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path != "/files/"+f.name {
					t.Errorf("asked for %q, want %q", req.URL.Path, f.name)
				}
				tc.answer(w, r.led.content(slices.Index(r.led.files, f), f.size))
			}))
			defer srv.Close()
			defer http.DefaultClient.CloseIdleConnections()
			if err := r.checkRead(t.Context(), client{srv.URL}, []*file{f}); err != nil {
				t.Fatal(err)
			}
			switch bad := r.bad.list(); {
			case tc.want == "" && len(bad) != 0, tc.want != "" && (len(bad) != 1 || !strings.Contains(bad[0], tc.want)):
				t.Errorf("violations = %q, want %q", bad, tc.want)
			}
		})
	}
}

func TestQuarantinePathIsBesideTheOriginal(t *testing.T) {
	got := quarantinePath("/a/b/c.bin")
	sum := sha256.Sum256([]byte("c.bin"))
	if filepath.Dir(got) != "/a/b" || !strings.HasSuffix(got, strings.ToLower(hexOf(sum[:8]))) {
		t.Errorf("quarantinePath = %s", got)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestParseListing(t *testing.T) {
	names, err := parseListing([]byte("{\"name\":\"a\",\"size\":1}\n{\"name\":\"b\"}\n"))
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("parseListing = %q, %v", names, err)
	}
	if _, err := parseListing([]byte("{\"size\":1}\n")); err == nil {
		t.Error("a record without a name was accepted")
	}
}
