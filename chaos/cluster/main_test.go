package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/chaos/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		code int
		out  string // part of what is printed
	}{
		{"list", []string{"-list"}, 0, "load"},
		{"list of some", []string{"-list", "-run", "^quorum$"}, 0, "quorum"},
		{"no such scenario", []string{"-run", "nothing"}, 2, "no such scenario"},
		{"no regexp", []string{"-run", "("}, 2, "missing closing"},
		{"unknown form", []string{"-list", "-o", "xml"}, 2, "bad arguments"},
		{"an argument too many", []string{"-list", "load"}, 2, "bad arguments"},
		{"no binary", []string{"-bin", "testdata/nothing"}, 2, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := realMain(t.Context(), tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.out) {
				t.Errorf("code %d, want %d, and %q in\n%s", code, tc.code, tc.out, out.String())
			}
		})
	}
}

func TestReportIsMissedByOneWrong(t *testing.T) {
	for _, tc := range []struct {
		name string
		fill func(r *report)
		ok   bool
		text string
	}{
		{"nothing was looked at", func(*report) {}, false, "FAILED"},
		{"nothing wrong", func(r *report) { r.never("lost files") }, true, "PASSED"},
		{"one wrong", func(r *report) { r.never("lost files"); r.wrongly("lost files", "a/%d", 7) }, false, "a/7"},
		{"wrong without a promise", func(r *report) { r.hold(true, "x", "y", "z"); r.wrongly("lost files", "a") }, false, "lost files"},
		{"bar missed", func(r *report) { r.never("lost files"); r.hold(false, "speed", "1", "0.5") }, false, "MISSED"},
		{"could not go on", func(r *report) { r.never("lost files"); r.fail(rig.ErrTimeout) }, false, "waited in vain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &report{Scenario: "s"}
			tc.fill(r)
			r.judge()
			var out bytes.Buffer
			r.print(&out)
			if r.OK != tc.ok || !strings.Contains(out.String(), tc.text) {
				t.Errorf("OK = %t, want %t, and %q in\n%s", r.OK, tc.ok, tc.text, out.String())
			}
			var again report
			if b, err := json.Marshal(r); err != nil || json.Unmarshal(b, &again) != nil || again.OK != tc.ok {
				t.Errorf("as JSON: %s, %v", b, err)
			}
		})
	}
}

func TestReportShowsSomeOfManyCases(t *testing.T) {
	r := &report{}
	for i := range 100 {
		r.wrongly("lost files", "%d", i)
	}
	r.judge()
	if b := r.Bars[0]; b.Got != "100" || len(b.Cases) != maxCases {
		t.Errorf("%+v", b)
	}
}
