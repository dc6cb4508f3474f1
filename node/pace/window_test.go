package pace

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustWindow(t testing.TB, text string) Window {
	t.Helper()
	w, err := ParseWindow(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWindowsOpenAndClose(t *testing.T) {
	for _, tt := range []struct {
		name, window string
		open, closed []string // UTC
	}{
		{
			"of a day", "08:00-10:00",
			[]string{"2026-03-04T08:00:00Z", "2026-03-04T09:59:59Z", "2026-03-08T08:30:00Z"},
			[]string{"2026-03-04T07:59:59Z", "2026-03-04T10:00:00Z"},
		},
		{
			"over midnight belongs to the day it begins on", "Mon-Fri 22:00-06:00",
			[]string{"2026-03-06T22:00:00Z", "2026-03-07T05:59:59Z", "2026-03-03T00:00:00Z"}, // Friday, Saturday, Tuesday
			[]string{"2026-03-07T22:00:00Z", "2026-03-02T05:00:00Z", "2026-03-06T21:59:59Z", "2026-03-07T06:00:00Z"},
		},
		{
			"days round the week", "Sat-Mon 01:00-02:00",
			[]string{"2026-03-07T01:00:00Z", "2026-03-08T01:00:00Z", "2026-03-09T01:00:00Z"},
			[]string{"2026-03-10T01:00:00Z", "2026-03-06T01:00:00Z"},
		},
		{
			"whole days", "sat,SUN 00:00-24:00",
			[]string{"2026-03-07T00:00:00Z", "2026-03-08T23:59:59Z"},
			[]string{"2026-03-06T23:59:59Z", "2026-03-09T00:00:00Z"},
		},
		{
			"in a zone", "Mon 00:00-06:00 Asia/Tokyo",
			[]string{"2026-03-01T15:00:00Z", "2026-03-01T20:59:59Z"}, // Sunday in UTC
			[]string{"2026-03-02T00:00:00Z", "2026-03-01T14:59:59Z"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mustWindow(t, tt.window)
			for want, times := range map[bool][]string{true: tt.open, false: tt.closed} {
				for _, s := range times {
					at, err := time.Parse(time.RFC3339, s)
					if err != nil {
						t.Fatal(err)
					}
					if w.Open(at) != want {
						t.Errorf("open at %s: %v", s, !want)
					}
				}
			}
		})
	}
}

func TestWindowsThatMakeNoSense(t *testing.T) {
	for _, text := range []string{
		"", "Mon", "Mon-Fri", "22:00", "22-06", "24:00-06:00", "08:00-08:00", "08:00-24:01", "08:60-09:00", "8:00-9:00",
		"-1:00-02:00", "Mo 08:00-09:00", "Mon- 08:00-09:00", "Mon,,Tue 08:00-09:00", "08:00-09:00 Mars/Olympus",
		"08:00-09:00 Local", "08:00-09:00 UTC more", "Mon 08:00-09:00-10:00", "08:00-09:00 ../../etc/passwd",
	} {
		if w, err := ParseWindow(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, %v", text, w, err)
		}
	}
	if w := mustWindow(t, "  Mon   08:00-09:00 \t UTC"); w.String() != "Mon 08:00-09:00 UTC" {
		t.Errorf("written as %q", w)
	}
}

// openFor sums up how long a window is open within [from, to), minute by
// minute.
func openFor(w Window, from, to time.Time) time.Duration {
	var open time.Duration
	for t := from; t.Before(to); t = t.Add(time.Minute) {
		if w.Open(t) {
			open += time.Minute
		}
	}
	return open
}

// In Warsaw 02:00 becomes 03:00 on 29 March 2026, and 03:00 becomes 02:00 on
// 25 October.
func TestDaylightSavingBeginsWithinAWindow(t *testing.T) {
	from := time.Date(2026, 3, 28, 12, 0, 0, 0, zone(t, "Europe/Warsaw"))
	for text, want := range map[string]time.Duration{
		"22:00-06:00 Europe/Warsaw": 7 * time.Hour, // a night of 7 hours
		"02:00-03:00 Europe/Warsaw": 0,             // an hour that is not there
		"02:30-03:30 Europe/Warsaw": 30 * time.Minute,
		"01:00-02:00 Europe/Warsaw": time.Hour,
		"22:00-06:00 UTC":           8 * time.Hour,
	} {
		if got := openFor(mustWindow(t, text), from, from.Add(24*time.Hour)); got != want {
			t.Errorf("%s: open for %s, want %s", text, got, want)
		}
	}
	w := []Window{mustWindow(t, "02:30-03:30 Europe/Warsaw")}
	if next, want := nextChange(w, from), time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC); !next.Equal(want) {
		t.Errorf("opens at %s, want the change of the clocks, %s", next, want)
	}
}

func TestDaylightSavingEndsWithinAWindow(t *testing.T) {
	from := time.Date(2026, 10, 24, 12, 0, 0, 0, zone(t, "Europe/Warsaw"))
	for text, want := range map[string]time.Duration{
		"22:00-06:00 Europe/Warsaw": 9 * time.Hour, // a night of 9 hours
		"02:00-03:00 Europe/Warsaw": 2 * time.Hour, // an hour that comes twice
		"02:30-03:30 Europe/Warsaw": 90 * time.Minute,
		"22:00-06:00 UTC":           8 * time.Hour,
	} {
		if got := openFor(mustWindow(t, text), from, from.Add(25*time.Hour)); got != want {
			t.Errorf("%s: open for %s, want %s", text, got, want)
		}
	}
	// 02:30 comes, then 03:00 becomes 02:00, then 02:30 comes again.
	w := []Window{mustWindow(t, "02:30-03:30 Europe/Warsaw")}
	at := from
	for _, want := range []string{"2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"} {
		at = nextChange(w, at)
		if got := at.UTC().Format(time.RFC3339); got != want {
			t.Fatalf("changes at %s, want %s", got, want)
		}
	}
}

func TestDaylightSavingMakesLongAndShortDays(t *testing.T) {
	for _, tt := range []struct {
		zone string
		day  date
		want time.Duration
	}{
		{"Europe/Warsaw", date{2026, 3, 29}, 23 * time.Hour},
		{"Europe/Warsaw", date{2026, 10, 25}, 25 * time.Hour},
		{"Europe/Warsaw", date{2026, 7, 1}, 24 * time.Hour},
		{"Australia/Lord_Howe", date{2026, 4, 5}, 24*time.Hour + 30*time.Minute},
		{"America/Havana", date{2026, 3, 8}, 23 * time.Hour},  // midnight itself is skipped
		{"America/Havana", date{2026, 11, 1}, 25 * time.Hour}, // midnight comes twice
		{"Asia/Beirut", date{2026, 3, 29}, 23 * time.Hour},    // likewise
		{"Pacific/Apia", date{2011, 12, 29}, 24 * time.Hour},  // and the day after was skipped whole
		{"Pacific/Apia", date{2011, 12, 30}, 0},
	} {
		loc := zone(t, tt.zone)
		begins, ends := tt.day.begins(loc), tt.day.add(1).begins(loc)
		if got := ends.Sub(begins); got != tt.want {
			t.Errorf("%s in %s lasts %s, want %s", tt.day, tt.zone, got, tt.want)
		}
		if tt.want > 0 && (dateOf(begins.In(loc)) != tt.day || dateOf(begins.Add(-1).In(loc)) == tt.day) {
			t.Errorf("%s in %s begins at %s", tt.day, tt.zone, begins.In(loc))
		}
	}
}

// TestNextChangeIsTheFirst holds nextChange against a walk in steps of a
// minute, through clocks of all kinds.
func TestNextChangeIsTheFirst(t *testing.T) {
	zones := []string{"UTC", "Europe/Warsaw", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca", "Pacific/Chatham"}
	days := []string{"", "Mon-Fri ", "Sat,Sun ", "Wed ", "Fri-Mon "}
	rapid.Check(t, func(t *rapid.T) {
		clock := rapid.Custom(func(t *rapid.T) string {
			m := rapid.IntRange(0, minutesADay/15-1).Draw(t, "quarter") * 15
			return time.Date(2000, 1, 1, 0, m, 0, 0, time.UTC).Format("15:04")
		})
		var windows []Window
		for range rapid.IntRange(1, 3).Draw(t, "windows") {
			from := clock.Draw(t, "from")
			until := clock.Filter(func(c string) bool { return c != from }).Draw(t, "until")
			w, err := ParseWindow(rapid.SampledFrom(days).Draw(t, "days") + from + "-" + until + " " + rapid.SampledFrom(zones).Draw(t, "zone"))
			if err != nil {
				t.Fatal(err)
			}
			windows = append(windows, w)
		}
		// The changes of clocks lie in March, April, October and November.
		month := rapid.SampledFrom([]time.Month{2, 3, 4, 7, 10, 11}).Draw(t, "month")
		from := time.Date(2026, month, rapid.IntRange(1, 31).Draw(t, "day"), 0, rapid.IntRange(0, minutesADay-1).Draw(t, "minute"), 0, 0, time.UTC)
		open := anyOpen(windows, from)
		want := time.Time{}
		for at := from.Add(time.Minute); at.Before(from.Add(8 * 24 * time.Hour)); at = at.Add(time.Minute) {
			if anyOpen(windows, at) != open {
				want = at
				break
			}
		}
		if got := nextChange(windows, from); !got.Equal(want) {
			t.Fatalf("%v from %s: changes at %s, want %s", windows, from, got, want)
		}
	})
}

func FuzzParseWindow(f *testing.F) {
	for _, s := range []string{"Mon-Fri 22:00-06:00 Europe/Warsaw", "Sat,Sun 00:00-24:00", "01:30-05:00", "x", "Mon-Mon 00:00-00:01 UTC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWindow(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := ParseWindow(w.String())
		if err != nil || again.String() != w.String() || again.days != w.days || again.from != w.from || again.until != w.until {
			t.Fatalf("%q is written as %q, which is %+v, %v", text, w, again, err)
		}
		at := time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)
		if c := nextChange([]Window{w}, at); !c.IsZero() && w.Open(c) == w.Open(at) {
			t.Fatalf("%q does not change at %s", text, c)
		}
	})
}
