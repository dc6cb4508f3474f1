package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// shown is a plan as it is printed.
func shown(seed uint64, length time.Duration) string {
	var b bytes.Buffer
	show(&b, plan(seed, length, 5, kinds()))
	return b.String()
}

func TestSamePlanForSameSeed(t *testing.T) {
	for _, length := range []time.Duration{time.Minute, 5 * time.Minute, time.Hour} {
		if one, two := shown(7, length), shown(7, length); one != two {
			t.Errorf("%s: two plans of one seed:\n%s\n%s", length, one, two)
		}
		if shown(7, length) == shown(8, length) {
			t.Errorf("%s: two seeds have one plan", length)
		}
	}
}

func TestPlanHoldsEveryKind(t *testing.T) {
	for _, tc := range []struct {
		name        string
		length      time.Duration
		each, kills int
	}{
		{"make chaos", 5 * time.Minute, 1, 20},
		{"make chaos-long", time.Hour, longEach, longKills},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(200) {
				counts := map[string]int{}
				for _, f := range plan(seed, tc.length, 5, kinds()) {
					counts[f.kind.name]++
				}
				for _, k := range kinds() {
					if counts[k.name] < tc.each {
						t.Errorf("seed %d: %d times %s, want %d", seed, counts[k.name], k.name, tc.each)
					}
				}
				if counts["kill"] < tc.kills {
					t.Errorf("seed %d: %d kills, want %d", seed, counts["kill"], tc.kills)
				}
			}
		})
	}
}

func TestPlanKeepsItsBounds(t *testing.T) {
	for seed := range uint64(200) {
		length := 5 * time.Minute
		if seed%4 == 0 {
			length = time.Hour
		}
		faults := plan(seed, length, 5, kinds())
		var last time.Duration
		free := map[lane]time.Duration{}
		for _, f := range faults {
			if f.at < last || f.at+f.long > length {
				t.Errorf("seed %d: %s at %s for %s, after one at %s, in a run of %s", seed, f.kind.name, f.at, f.long, last, length)
			}
			if f.long < f.kind.least || f.long > f.kind.most || f.node < 0 || f.node >= 5 {
				t.Errorf("seed %d: %s for %s on %d", seed, f.kind.name, f.long, f.node)
			}
			on := f.kind.lane
			if on == wholeLane {
				on = nodeLane
			}
			if f.at < free[on] {
				t.Errorf("seed %d: %s begins at %s, its lane is free at %s", seed, f.kind.name, f.at, free[on])
			}
			last, free[on] = f.at, f.at+f.long+f.kind.after
			if f.kind.lane != wholeLane {
				continue
			}
			for _, other := range faults {
				if other.kind != f.kind && other.at < f.at+f.long+f.kind.after && f.at < other.at+other.long {
					t.Errorf("seed %d: %s at %s beside the power cut at %s", seed, other.kind.name, other.at, f.at)
				}
			}
		}
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name, names string
		want        int // kinds; -1: an error
	}{
		{"all", "", len(kinds())},
		{"some", "kill,s3-lost", 2},
		{"unknown", "kill,earthquake", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chosen, err := choose(tc.names)
			if (err != nil) != (tc.want < 0) || err == nil && len(chosen) != tc.want {
				t.Errorf("choose = %d kinds, %v", len(chosen), err)
			}
		})
	}
	seen := map[string]bool{}
	for _, k := range kinds() {
		if seen[k.name] || k.inject == nil || k.least <= 0 || k.most < k.least {
			t.Errorf("%+v", k)
		}
		seen[k.name] = true
	}
}

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		code int
		out  string // part of what is printed
	}{
		{"plan", []string{"-plan", "-for", "5m", "-seed", "3"}, 0, "power-cut"},
		{"plan of some", []string{"-plan", "-for", "1m", "-faults", "kill"}, 0, "kill"},
		{"no such fault", []string{"-faults", "earthquake"}, 2, "earthquake"},
		{"too few nodes", []string{"-nodes", "2"}, 2, "bad arguments"},
		{"no time", []string{"-for", "0s"}, 2, "bad arguments"},
		{"an argument too many", []string{"-plan", "kill"}, 2, "bad arguments"},
		{"no binary", []string{"-bin", "testdata/nothing"}, 2, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			if code := realMain(t.Context(), tc.args, io.Writer(&out), &out); code != tc.code || !strings.Contains(out.String(), tc.out) {
				t.Errorf("code %d, want %d, and %q in\n%s", code, tc.code, tc.out, out.String())
			}
		})
	}
}
