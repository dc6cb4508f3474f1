package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// serve starts a server and runs the command line against it.
func serve(t *testing.T, h http.HandlerFunc) (run func(args ...string) (code int, stdout, stderr string)) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := Main(append([]string{args[0], "--addr", s.URL}, args[1:]...), strings.NewReader(""), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
}

func TestProblemsBecomeExitCodes(t *testing.T) {
	cases := []struct {
		name   string
		status int
		body   string
		code   int
		say    string
	}{
		{"not found", 404, `{"status":404,"code":"not-found","title":"Not Found","detail":"no such name"}`, exitNotFound, "not-found: no such name"},
		{"gone", 410, `{"status":410,"code":"gone","title":"Gone"}`, exitNotFound, "gone: Gone"},
		{"invalid name", 400, `{"status":400,"code":"invalid-name","detail":"empty segment"}`, exitUsage, "empty segment"},
		{"busy", 429, `{"status":429,"code":"busy","title":"Too Many Requests"}`, exitUnavailable, "busy"},
		{"unavailable", 503, `{"status":503,"code":"unavailable","title":"Service Unavailable"}`, exitUnavailable, "unavailable"},
		{"unconfirmed", 503, `{"status":503,"code":"unconfirmed","title":"Service Unavailable"}`, exitUnavailable, "unconfirmed"},
		{"corrupt", 500, `{"status":500,"code":"corrupt","title":"x","pack":"ab"}`, exitFailed, "corrupt"},
		{"forbidden", 403, `{"status":403,"code":"forbidden","title":"Forbidden"}`, exitFailed, "forbidden"},
		{"no problem body", 404, `<html>`, exitNotFound, "404"},
		{"not a node", 502, ``, exitFailed, "502"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			run := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			})
			for _, args := range [][]string{{"get", "a"}, {"status"}, {"archive"}, {"retry"}} {
				if code, stdout, stderr := run(args...); code != tc.code || stdout != "" || !strings.Contains(stderr, tc.say) {
					t.Errorf("%v: got %d, %q, %q; want %d and %q", args, code, stdout, stderr, tc.code, tc.say)
				}
			}
		})
	}
}

func TestStreamsEndOnlyWithTheEventThatSaysSo(t *testing.T) {
	cases := []struct {
		name, body string
		code       int
		say        string
	}{
		{"done", `{"packed":3}` + "\n" + `{"packed":4,"bytes":9,"done":true}`, exitOK, ""},
		{"done with failures", `{"packed":3,"failed":1,"done":true}`, exitFailed, "1 file could not be archived"},
		{"broken off", `{"packed":3}` + "\n", exitUnavailable, "broke off"},
		{"broken off inside a line", `{"packed":3}` + "\n" + `{"pac`, exitUnavailable, "broke off"},
		{"empty", ``, exitUnavailable, "broke off"},
		{"nothing to do", `{"done":true}`, exitOK, ""},
		{"ended early", `{"done":true,"error":{"code":"unavailable","detail":"the store does not answer"}}`, exitUnavailable, "the store does not answer"},
		{"not JSON", `hello`, exitUnavailable, "broke off"},
		{"not an event", `[1]`, exitFailed, "read the node's answer"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			run := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tc.body) })
			code, stdout, stderr := run("archive")
			if code != tc.code || !strings.Contains(stderr, tc.say) {
				t.Errorf("got %d, %q, %q", code, stdout, stderr)
			}
			if want := "4 files, 9 B archived"; tc.name == "done" && !strings.Contains(stdout, want) {
				t.Errorf("got %q, want %q", stdout, want)
			}
			if code, stdout, _ = run("archive", "-o", "json"); code != tc.code || code == exitOK && !strings.Contains(stdout, `"done": true`) {
				t.Errorf("as JSON: got %d, %q", code, stdout)
			}
		})
	}
}

func TestImportGathersTheListsOfAllEvents(t *testing.T) {
	run := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"files":1,"refused":[{"name":"a","reason":"r"}]}
{"files":2,"refused":[{"name":"b\u001b[31m","reason":"r"}]}
{"files":3,"bytes":1,"taken":["c"],"done":true}`)
	})
	code, stdout, _ := run("import", t.TempDir())
	want := "3 files, 1 B: 0 new, 0 changed, 0 as before\nrefused a: r\nrefused \"b\\x1b[31m\": r\ntaken c: a file elsewhere has this name\n"
	if code != exitFailed || stdout != want {
		t.Errorf("got %d, %q, want %q", code, stdout, want)
	}
}

func TestImportFailsWhenItLeavesOutWhatItShouldHaveTaken(t *testing.T) {
	cases := []struct {
		name, event string
		code        int
		say         string
	}{
		{"all taken", `{"files":1,"new":1,"done":true}`, exitOK, ""},
		{"a refused name", `{"files":1,"refused":[{"name":"a","reason":"` + desformat.CheckName("a//b").Error() + `"}],"done":true}`, exitOK, ""},
		{"an unreadable folder", `{"files":1,"refused":[{"name":"/a","reason":"permission denied"}],"done":true}`, exitFailed, "1 of the above"},
		{"both", `{"files":1,"taken":["b"],"refused":[{"name":"/a","reason":"permission denied"}],"done":true}`, exitFailed, "1 name taken"},
		{"a folder alone", `{"files":0,"refused":[{"name":"/a","reason":"permission denied"}]}` + "\n" + `{"done":true}`, exitFailed, "1 of the above"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			run := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tc.event) })
			if code, _, stderr := run("import", t.TempDir()); code != tc.code || !strings.Contains(stderr, tc.say) {
				t.Errorf("got %d, %q, want %d and %q", code, stderr, tc.code, tc.say)
			}
		})
	}
}

// file answers with content and the digest of announced.
func file(content, announced, pack string) http.HandlerFunc {
	sum := sha256.Sum256([]byte(announced))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
		w.Header().Set("X-Des-Pack", pack)
		w.Header().Set("Content-Length", strconv.Itoa(len(announced)))
		_, _ = io.WriteString(w, content)
	}
}

func TestGetNeverLeavesAWrongFile(t *testing.T) {
	cases := []struct {
		name, content, announced string
		code                     int
	}{
		{"whole", "alpha", "alpha", exitOK},
		{"empty", "", "", exitOK},
		{"wrong bytes", "alpha", "alphb", exitFailed},
		{"cut", "alp", "alpha", exitFailed},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			run := serve(t, file(tc.content, tc.announced, "p"))
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := run("get", "a", "-f", path)
			if code != tc.code {
				t.Errorf("got %d, %q, want %d", code, stderr, tc.code)
			}
			want := "before"
			if tc.code == exitOK {
				want = tc.content
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("the file holds %q, %v, want %q", got, err, want)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("the folder holds %v, %v", entries, err)
			}
			if code, _, _ := run("get", "a"); code != tc.code {
				t.Errorf("to stdout: got %d, want %d", code, tc.code)
			}
		})
	}
}

func TestNamesAreEscapedOnce(t *testing.T) {
	for _, name := range []string{"a", "a/b", "a b", "100%", "%2e%2e", "a?b#c", "zażółć.txt", "..", "a//b", "/"} {
		t.Run(name, func(t *testing.T) {
			var got string
			run := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.URL.Path })
			run("get", "--", name)
			if got != "/files/"+name {
				t.Errorf("got %q, want %q", got, "/files/"+name)
			}
		})
	}
}

func TestTheDemoFindsWhatIsWrong(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20000)
	cases := []struct {
		name     string
		original string
		h        http.HandlerFunc
		say      string // empty: identical
	}{
		{"identical", "alpha", file("alpha", "alpha", "p"), ""},
		{"identical and empty", "", file("", "", "p"), ""},
		{"identical and large", big, file(big, big, "p"), ""},
		{"another byte", "alpha", file("alphb", "alphb", "p"), "differ"},
		{"another byte far behind", big, file(big[:300000]+"x"+big[300001:], big, "p"), "differ near byte 262144"},
		{"shorter", "alpha", file("alp", "alp", "p"), "differ"},
		{"longer", "alpha", file("alphaa", "alphaa", "p"), "differ"},
		{"shorter by whole buffers", big, file(big[:131072], big[:131072], "p"), "differ"},
		{"broken off", big, file(big[:100], big, "p"), "differ"},
		{"from its source", "alpha", file("alpha", "alpha", ""), "not served from a pack"},
		{"missing", "alpha", http.NotFound, "not-found"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "a"), []byte(tc.original), 0o600); err != nil {
				t.Fatal(err)
			}
			s := httptest.NewServer(tc.h)
			defer s.Close()
			c, err := newClient(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			a := &app{stderr: io.Discard}
			got, err := compareAll(t.Context(), c, dir, []demoFile{{"a", int64(len(tc.original))}}, a.progress("read"))
			if err != nil {
				t.Fatal(err)
			}
			r := demoReport{Import: api.ImportEvent{Files: 1}}
			r.addReads("read", got, 0)
			if r.Identical != (tc.say == "") {
				t.Errorf("got identical %v, %v", r.Identical, got.wrong)
			}
			if tc.say != "" && (len(got.wrong) != 1 || !strings.Contains(got.wrong[0].What, tc.say)) {
				t.Errorf("got %v, want %q", got.wrong, tc.say)
			}
		})
	}
}

func TestAFileThatTheNodeNeverSawIsNotIdentical(t *testing.T) {
	r := demoReport{Import: api.ImportEvent{Files: 3, Refused: []api.Refusal{{Name: "x"}}}}
	r.addReads("read", comparison{identical: 1}, 0)
	if r.Identical {
		t.Error("1 of 2 files compared counts as identical")
	}
}

func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cases := []struct {
		name string
		ctx  context.Context
		err  error
		want int
	}{
		{"port in use", t.Context(), explain(syscall.EADDRINUSE, config.Default("/d")), exitInUse},
		{"data dir in use", t.Context(), explain(raftmeta.ErrLocked, config.Default("/d")), exitInUse},
		{"full disk", t.Context(), explain(syscall.ENOSPC, config.Default("/d")), exitFailed},
		{"configuration", t.Context(), config.ErrInvalid, exitUsage},
		{"interrupted", cancelled, context.Canceled, exitInterrupted},
		{"failed while interrupted", cancelled, errFailed, exitFailed},
		{"anything", t.Context(), errors.New("x"), exitFailed},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := exitCode(tc.ctx, tc.err); got != tc.want {
				t.Errorf("%v: got %d, want %d", tc.err, got, tc.want)
			}
		})
	}
	if got := exitCode(t.Context(), &fs.PathError{Op: "open", Path: "p", Err: fs.ErrNotExist}); got != exitFailed {
		t.Errorf("a missing local file: got %d, want %d", got, exitFailed)
	}
	if err := explain(syscall.ENOSPC, config.Default("/d")); !strings.Contains(err.Error(), "the disk is full; free space below /d") {
		t.Errorf("got %q", err)
	}
}
