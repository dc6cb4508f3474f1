package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		out  string
	}{
		{"no files", []string{"-files", "0"}, "bad arguments"},
		{"unknown store", []string{"-store", "tape"}, "bad arguments"},
		{"unknown form", []string{"-o", "xml"}, "bad arguments"},
		{"an argument too many", []string{"x"}, "bad arguments"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := realMain(t.Context(), tc.args, &out, &out); code != 2 || !strings.Contains(out.String(), tc.out) {
				t.Errorf("code %d, want 2, and %q in\n%s", code, tc.out, out.String())
			}
		})
	}
}

// Each bar is missed by what it forbids.
func TestBars(t *testing.T) {
	for _, tc := range []struct {
		name     string
		packs    bool
		got      string
		change   func(*report)
		missed   string
		previous string // state of all rows before
	}{
		{"all as it was", true, "a", func(*report) {}, "", "PACKED"},
		{"another manifest", false, "a", func(*report) {}, "manifest", "PACKED"},
		{"other columns", true, "b", func(*report) {}, "state columns", "PACKED"},
		{"not all were archived", true, "a", func(*report) {}, "before", "MARKED"},
		{"no read was served", true, "a", func(r *report) { r.Reads.Right = 0 }, "no read", "PACKED"},
		{"a read failed", true, "a", func(r *report) { r.Reads.Failed = 1 }, "1 reads", "PACKED"},
		{"payload was read", true, "a", func(r *report) { r.Bytes = r.ExtraBytes + 1 }, "beside payload", "PACKED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &report{Files: 3, Bytes: 10, ExtraBytes: 10, Reads: reads{Right: 1, Unavailable: 9}}
			tc.change(r)
			r.judge(tc.packs, table{Sum: tc.got}, table{Sum: "a", States: map[string]int{tc.previous: 3}})
			if missed := strings.Join(r.Missed, "\n"); !strings.Contains(missed, tc.missed) || (missed == "") != (tc.missed == "") {
				t.Errorf("missed %q, want %q", missed, tc.missed)
			}
		})
	}
}

func TestRebuildOfTwoThousandFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Postgres, an S3 server and a node")
	}
	dir, err := os.MkdirTemp("", "desnode-test-") // Postgres's user looks into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- the same
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "desnode")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../..").CombinedOutput(); err != nil { // #nosec G204 -- our own arguments
		t.Fatalf("%v\n%s", err, out)
	}
	var out, errs bytes.Buffer
	if code := realMain(t.Context(), []string{"-bin", bin, "-files", "2000", "-store", "s3", "-dir", filepath.Join(dir, "run"), "-o", "json"}, &out, &errs); code != 0 {
		t.Fatalf("code %d\n%s%s", code, out.String(), errs.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Rows != 2000 || r.States["PACKED"] != 2000 || r.Reads.Right == 0 || r.Requests == 0 {
		t.Errorf("%+v", r)
	}
}
