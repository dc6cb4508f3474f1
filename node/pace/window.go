package pace

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is a time of the week in which work may be done.
type Window struct {
	text  string
	days  [7]bool // on which it begins, by time.Weekday
	from  int     // minutes since midnight, by the clock on the wall
	until int     // likewise; up to from: on the next day
	loc   *time.Location
}

const minutesADay = 24 * 60

var weekdays = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// ParseWindow reads a window: days, hours and zone, as in
//
//	Mon-Fri 22:00-06:00 Europe/Warsaw
//	Sat,Sun 00:00-24:00
//	01:30-05:00
//
// The days are those on which it begins, every day when there are none; a
// window whose end is not after its begin ends on the next day. The zone is one
// of the IANA database; UTC when there is none.
func ParseWindow(text string) (Window, error) {
	w := Window{text: strings.Join(strings.Fields(text), " "), loc: time.UTC}
	bad := func(why string) (Window, error) {
		return Window{}, fmt.Errorf("%w: window %q: %s; write it as in \"Mon-Fri 22:00-06:00 Europe/Warsaw\"", ErrInvalid, text, why)
	}
	fields := strings.Fields(text)
	if len(fields) > 0 && !strings.Contains(fields[0], ":") {
		if err := w.parseDays(fields[0]); err != nil {
			return bad(err.Error())
		}
		fields = fields[1:]
	} else {
		w.days = [7]bool{true, true, true, true, true, true, true}
	}
	if len(fields) == 0 || len(fields) > 2 {
		return bad("it has days, hours and a zone, the hours at least")
	}
	from, until, ok := strings.Cut(fields[0], "-")
	if !ok {
		return bad("hours are two times with a - between")
	}
	var okFrom, okUntil bool
	w.from, okFrom = parseMinute(from)
	w.until, okUntil = parseMinute(until)
	switch {
	case !okFrom || !okUntil || w.from == minutesADay:
		return bad("times go from 00:00 to 23:59, the end to 24:00")
	case w.from == w.until:
		return bad("it begins when it ends; a whole day is 00:00-24:00")
	}
	if len(fields) == 2 {
		loc, err := loadZone(fields[1])
		if err != nil {
			return bad(err.Error())
		}
		w.loc = loc
	}
	return w, nil
}

func (w *Window) parseDays(text string) error {
	day := func(s string) (int, error) {
		i := slices.IndexFunc(weekdays[:], func(d string) bool { return strings.EqualFold(d, s) })
		if i < 0 {
			return 0, fmt.Errorf("%q is no day; days are Mon, Tue, Wed, Thu, Fri, Sat and Sun", s)
		}
		return i, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := day(first)
		if err != nil {
			return err
		}
		to := from
		if isRange {
			if to, err = day(last); err != nil {
				return err
			}
		}
		for d := from; ; d = (d + 1) % 7 {
			w.days[d] = true
			if d == to {
				break
			}
		}
	}
	return nil
}

// parseMinute reads HH:MM as minutes since midnight.
func parseMinute(s string) (int, bool) {
	h, m, ok := strings.Cut(s, ":")
	if !ok || len(h) != 2 || len(m) != 2 {
		return 0, false
	}
	hour, errH := strconv.ParseUint(h, 10, 8)
	minute, errM := strconv.ParseUint(m, 10, 8)
	at := int(hour)*60 + int(minute)
	return at, errH == nil && errM == nil && minute < 60 && at <= minutesADay
}

// loadZone finds a zone of the IANA database. "Local" is not one: it would be
// another on every node.
func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("%q is no zone of the IANA database", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no zone of the IANA database", name)
	}
	return loc, nil
}

// String returns the window as it was written, with single spaces.
func (w Window) String() string { return w.text }

// Open reports whether t lies in the window: whether the clock on the wall of
// its zone shows one of its hours. The begin belongs to it, the end does not.
func (w Window) Open(t time.Time) bool {
	local := t.In(w.loc)
	at, today := local.Hour()*60+local.Minute(), local.Weekday()
	if w.until > w.from {
		return w.days[today] && at >= w.from && at < w.until
	}
	yesterday := (today + 6) % 7
	return w.days[today] && at >= w.from || w.days[yesterday] && at < w.until
}

// changes returns the instants in (after, after + about nine days] at which
// the window may open or close: when its zone's clocks show its begin or its
// end, and when they are changed.
func (w Window) changes(after time.Time) []time.Time {
	var at []time.Time
	first := dateOf(after.In(w.loc))
	for n := range 10 {
		d := first.add(n - 1)
		at = append(at, d.instants(w.from, w.loc)...)
		at = append(at, d.instants(w.until%minutesADay, w.loc)...)
	}
	horizon := after.Add(9 * 24 * time.Hour)
	for t := after; ; {
		_, end := t.In(w.loc).ZoneBounds()
		if end.IsZero() || end.After(horizon) {
			break
		}
		at = append(at, end.UTC())
		t = end
	}
	return slices.DeleteFunc(at, func(t time.Time) bool { return !t.After(after) })
}

// anyOpen reports whether one of the windows is open; no windows: always.
func anyOpen(windows []Window, t time.Time) bool {
	return len(windows) == 0 || slices.ContainsFunc(windows, func(w Window) bool { return w.Open(t) })
}

// nextChange returns the first instant after t at which anyOpen is no longer
// what it is at t; zero: it stays so for more than a week, that is for ever.
func nextChange(windows []Window, t time.Time) time.Time {
	var at []time.Time
	for _, w := range windows {
		at = append(at, w.changes(t)...)
	}
	slices.SortFunc(at, time.Time.Compare)
	now := anyOpen(windows, t)
	for _, c := range at {
		if anyOpen(windows, c) != now {
			return c
		}
	}
	return time.Time{}
}
