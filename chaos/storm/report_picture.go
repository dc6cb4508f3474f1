package main

import (
	"slices"
	"time"
)

// picture is the run over time.
type picture struct {
	Seconds float64     `json:"seconds"`
	Step    float64     `json:"step_seconds"`
	Points  []point     `json:"points"` // one a step
	Lanes   []faultLane `json:"lanes"`  // one a kind of fault
}

// point is one step of the run.
type point struct {
	Reads    int     `json:"reads"`  // that were due
	Failed   int     `json:"failed"` // answered wrongly, or not though promised
	Excused  int     `json:"excused"`
	P50      float64 `json:"p50_ms"` // of right answers; 0: there were none
	P99      float64 `json:"p99_ms"`
	Archived float64 `json:"archived"` // versions
}

// faultLane is all faults of one kind.
type faultLane struct {
	Kind  string     `json:"kind"`
	Class string     `json:"class"` // what it touches: node, store, database, both
	Spans []laneSpan `json:"spans"`
}

// laneSpan is one fault.
type laneSpan struct {
	Target string  `json:"target,omitempty"`
	From   float64 `json:"from"` // seconds from the start
	To     float64 `json:"to"`
}

// maxPoints bounds the size of the page.
const maxPoints = 360

// newPicture arranges what happened in steps.
func newPicture(s *scene, l *load, c *checker, length time.Duration) picture {
	step := time.Second
	for _, s := range []time.Duration{2, 5, 10, 15, 30, 60, 120, 300} {
		if length/step > maxPoints {
			step = s * time.Second
		}
	}
	p := picture{Seconds: length.Seconds(), Step: step.Seconds(), Points: make([]point, max(1, int(length/step)))}
	l.mu.Lock()
	defer l.mu.Unlock()
	took := make([][]time.Duration, len(p.Points))
	for _, one := range l.samples {
		if one.outcome == droppedRead {
			continue
		}
		i := min(int(one.at/step), len(p.Points)-1)
		at := &p.Points[i]
		at.Reads++
		switch {
		case one.outcome.good():
			took[i] = append(took[i], one.took)
		case one.outcome == failedRead, one.outcome == wrongRead:
			at.Failed++
		default:
			at.Excused++
		}
	}
	for i := range took {
		q := quantilesOf(took[i])
		p.Points[i].P50, p.Points[i].P99 = ms(q.p50), ms(q.p99)
	}
	p.spread(c.rows.archived, s.timeline.start)
	p.Lanes = s.timeline.lanes(s.timeline.start.Add(length))
	return p
}

// stepAt is when a step begins and ends, in seconds. The last one takes what is
// left.
func (p *picture) stepAt(i int) (from, to float64) {
	if from = float64(i) * p.Step; i == len(p.Points)-1 {
		return from, max(p.Seconds, from+p.Step)
	}
	return from, from + p.Step
}

// spread puts what each look found new into the steps since the look before.
func (p *picture) spread(looks []moment, start time.Time) {
	before := start
	for _, m := range looks {
		from, to := before.Sub(start).Seconds(), m.at.Sub(start).Seconds()
		before = m.at
		if m.count == 0 || to <= from {
			continue
		}
		for i := range p.Points {
			begin, end := p.stepAt(i)
			left, right := max(from, begin), min(to, end)
			if right > left {
				p.Points[i].Archived += float64(m.count) * (right - left) / (to - from)
			}
		}
	}
}

// lanes arranges the faults by kind, in the order of their first ones.
func (t *timeline) lanes(end time.Time) (out []faultLane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		i := slices.IndexFunc(out, func(l faultLane) bool { return l.Kind == s.kind })
		if i < 0 {
			i, out = len(out), append(out, faultLane{Kind: s.kind, Class: s.touches.String()})
		}
		out[i].Spans = append(out[i].Spans, laneSpan{s.target, s.from.Sub(t.start).Seconds(), min(s.until(end).Sub(t.start), end.Sub(t.start)).Seconds()})
	}
	return out
}

// String is a word for what is touched.
func (t touches) String() string {
	switch t &^ sparesReads {
	case touchesNodes:
		return "node"
	case touchesStore:
		return "store"
	case touchesDatabase:
		return "database"
	}
	return "both"
}
