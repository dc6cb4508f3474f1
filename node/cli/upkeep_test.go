package cli

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestVerifyTellsDamageFromAStoreThatIsAway(t *testing.T) {
	const id = "01000000000000000000000000000000"
	for _, tc := range []struct {
		name, body  string
		code        int
		out, stderr string
	}{
		{"whole", `{"pack":"` + id + `","ok":true}` + "\n" + `{"ok":true,"done":true}`, exitOK, "ok", ""},
		{"damaged", `{"pack":"` + id + `","damage":"record 3"}` + "\n" + `{"done":true}`, exitFailed, "DAMAGED: record 3", "1 pack damaged"},
		{"not read", `{"pack":"` + id + `","unread":"connection refused"}` + "\n" + `{"done":true}`, exitUnavailable, "not read: connection refused", "says nothing of damage"},
		{"both", `{"pack":"` + id + `","unread":"x"}` + "\n" + `{"pack":"` + id + `","damage":"y"}` + "\n" + `{"done":true}`, exitFailed, "not read: x", "1 pack damaged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tc.body) })
			code, stdout, stderr := run("verify")
			if code != tc.code || !strings.Contains(stdout, tc.out) || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("got %d, %q, %q; want %d, %q, %q", code, stdout, stderr, tc.code, tc.out, tc.stderr)
			}
			if tc.code == exitUnavailable && strings.Contains(stdout, "DAMAGED") {
				t.Errorf("called damaged: %q", stdout)
			}
		})
	}
}

func TestStatSaysWhatHeadLeavesOut(t *testing.T) {
	run := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	if code, _, stderr := run("stat", "a"); code != exitNotFound || !strings.Contains(stderr, "not-found: no such file") {
		t.Errorf("got %d, %q", code, stderr)
	}
}

func TestFailedSaysWhichCodesThereAre(t *testing.T) {
	run := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, `{"retried":0}`)
			return
		}
		_, _ = io.WriteString(w, `{"codes":[],"rows":[]}`)
	})
	for _, command := range []string{"failed", "retry"} {
		if code, _, stderr := run(command, "--code", "nofile"); code != exitUsage || !strings.Contains(stderr, "no-file") {
			t.Errorf("%s: got %d, %q", command, code, stderr)
		}
		if code, _, stderr := run(command, "--code", "no-file"); code != exitOK {
			t.Errorf("%s: got %d, %q", command, code, stderr)
		}
	}
}

func TestThrottleNeedsToBeToldWhat(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = io.WriteString(w, `{"limits":{"for":["mark"]},"work":[]}`)
	}))
	t.Cleanup(s.Close)
	t.Setenv("DESNODE_ADDR", s.URL)
	run := func(args ...string) (int, string) {
		var stderr bytes.Buffer
		return Main(append([]string{"throttle"}, args...), strings.NewReader(""), io.Discard, &stderr), stderr.String()
	}
	if code, stderr := run(); code != exitUsage || !strings.Contains(stderr, "show, set or clear") {
		t.Errorf("got %d, %q", code, stderr)
	}
	for _, args := range [][]string{{"set"}, {"set", "--zone", "Europe/Warsaw"}, {"set", "--for", "pack"}} {
		if code, stderr := run(args...); code != exitUsage || !strings.Contains(stderr, "say which limit") {
			t.Errorf("%q: got %d, %q", args, code, stderr)
		}
	}
	if asked > 0 {
		t.Errorf("the node was asked %d times", asked)
	}
	if code, stderr := run("set", "--files-per-day", "0"); code != exitOK || asked != 1 {
		t.Errorf("got %d, %q after %d requests", code, stderr, asked)
	}
}
