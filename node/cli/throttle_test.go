package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
)

func TestParseUntil(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	for in, want := range map[string]time.Time{
		"":                          {},
		"2h30m":                     time.Date(2026, 3, 4, 7, 36, 7, 0, time.UTC),
		"2026-12-24T18:00:00+01:00": time.Date(2026, 12, 24, 17, 0, 0, 0, time.UTC),
	} {
		if got, err := parseUntil(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"tomorrow", "-1h", "0s", "18:00"} {
		var bad *usageError
		if _, err := parseUntil(in, now); !errors.As(err, &bad) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestThrottleSaysWhatStandsStill(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	var b bytes.Buffer
	err := writeThrottle(&b, api.Throttle{
		Limits: api.ThrottleLimits{FilesPerDay: 2_000_000, BytesPerSecond: 20 << 20, Windows: []string{"Mon-Fri 22:00-06:00 UTC"}, For: []string{"mark"}},
		Factor: 0.25, Reasons: []api.SlowReason{{Code: "replica-lag", Text: "replica a is 40s behind"}},
		Work: []api.WorkPace{
			{Work: "mark", Limited: true, Held: "pause", Reason: "back\x1bup", By: "anna", Until: at, UsedFiles: 7},
			{Work: "pack", Waiting: true},
			{Work: "delete", Limited: true, NextWindow: at},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2,000,000 files a day", "20.0 MiB a second", "Mon-Fri 22:00-06:00 UTC", "for mark", "(set)", "to 25 %", "replica-lag: replica a is 40s behind",
		"by anna, until 2026-03-04T05:06:07Z", "today 7 files", "waits for its pace", "not limited", "its window closes 2026-03-04T05:06:07Z",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("control characters reach the terminal")
	}
}
