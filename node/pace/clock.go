package pace

import (
	"slices"
	"time"
)

// date is a day of the calendar.
type date struct {
	year  int
	month time.Month
	day   int
}

func dateOf(t time.Time) date {
	y, m, d := t.Date()
	return date{y, m, d}
}

// add returns the date n days later.
func (d date) add(n int) date {
	return dateOf(time.Date(d.year, d.month, d.day+n, 0, 0, 0, 0, time.UTC))
}

func (d date) String() string {
	return time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
}

func parseDate(s string) (date, error) {
	t, err := time.Parse(time.DateOnly, s)
	return dateOf(t), err
}

func (d date) before(o date) bool {
	return time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC).Before(time.Date(o.year, o.month, o.day, 0, 0, 0, 0, time.UTC))
}

// instants returns the instants, rising, at which the clocks of loc show that
// minute of the day: one, two when the clock was set back over it, and, when it
// was set forward over it, the instant of that change.
//
// The offsets in force a day and a half before and after bracket every change
// near d: no zone changes its clock twice within three days.
func (d date) instants(minute int, loc *time.Location) []time.Time {
	wall := time.Date(d.year, d.month, d.day, 0, minute, 0, 0, time.UTC)
	_, before := wall.Add(-36 * time.Hour).In(loc).Zone()
	_, after := wall.Add(36 * time.Hour).In(loc).Zone()
	var found []time.Time
	for _, offset := range []int{max(before, after), min(before, after)} {
		t := wall.Add(-time.Duration(offset) * time.Second)
		if _, o := t.In(loc).Zone(); o == offset {
			found = append(found, t)
		}
	}
	if len(found) == 0 {
		// The smaller offset leads past the change, which then began t's period.
		start, _ := wall.Add(-time.Duration(min(before, after)) * time.Second).In(loc).ZoneBounds()
		found = append(found, start.UTC())
	}
	return slices.CompactFunc(found, time.Time.Equal)
}

// begins returns the first instant of the day in loc.
func (d date) begins(loc *time.Location) time.Time { return d.instants(0, loc)[0] }
