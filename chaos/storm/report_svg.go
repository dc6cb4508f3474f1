package main

import (
	"fmt"
	"math"
	"strings"
)

// drawing is the picture as shapes of an SVG, in its units.
type drawing struct {
	Width, Height float64
	Left, Right   float64 // of all charts
	Lanes         []drawnLane
	Charts        []drawnChart
	Ticks         []tick // of time
	Bottom        float64
}

type drawnLane struct {
	Name       string
	Y, Base    float64
	Class      string
	Rectangles []rectangle
}

type rectangle struct {
	X, Y, W, H float64
	Title      string
}

type drawnChart struct {
	Name      string
	Top, Base float64
	Ticks     []tick // of the value
	Lines     []drawnLine
}

type drawnLine struct {
	Class, Path string
	Area        bool
}

// tick is a place on an axis.
type tick struct {
	At   float64
	Text string
}

// Measures of the drawing.
const (
	drawnWidth = 1120
	drawnLeft  = 210
	drawnRight = 1108
	laneHeight = 17
	chartHigh  = 84
	chartGap   = 30
)

// draw makes the shapes.
func (p picture) draw() drawing {
	d := drawing{Width: drawnWidth, Left: drawnLeft, Right: drawnRight}
	x := func(seconds float64) float64 { return drawnLeft + seconds/max(p.Seconds, 1)*(drawnRight-drawnLeft) }
	y := 18.0
	for _, l := range p.Lanes {
		one := drawnLane{Name: l.Kind, Y: y, Base: y + laneHeight - 5, Class: l.Class}
		for _, s := range l.Spans {
			w := max(x(s.To)-x(s.From), 2) // what lasts a moment is seen too
			one.Rectangles = append(one.Rectangles, rectangle{
				round(x(s.From)), y + 2, round(w), laneHeight - 4,
				strings.TrimSpace(fmt.Sprintf("%s %s", l.Kind, s.Target)) + fmt.Sprintf(", %.1f s to %.1f s", s.From, s.To),
			})
		}
		d.Lanes = append(d.Lanes, one)
		y += laneHeight
	}
	values := func(of func(point) float64) []float64 {
		out := make([]float64, len(p.Points))
		for i, one := range p.Points {
			out[i] = of(one)
		}
		return out
	}
	second := func(of func(point) float64) []float64 {
		out := values(of)
		for i := range out {
			from, to := p.stepAt(i)
			out[i] /= to - from
		}
		return out
	}
	y += chartGap
	add := func(c drawnChart) {
		d.Charts = append(d.Charts, c)
		y = c.Base + chartGap
	}
	add(p.linear("reads a second", y, x, series{"good", true, second(func(o point) float64 { return float64(o.Reads - o.Failed - o.Excused) })}))
	add(p.linear("failed reads a second", y, x,
		series{"excused", true, second(func(o point) float64 { return float64(o.Excused + o.Failed) })},
		series{"failed", true, second(func(o point) float64 { return float64(o.Failed) })}))
	add(p.logarithmic("latency, ms", y, x, series{"p50", false, values(func(o point) float64 { return o.P50 })},
		series{"p99", false, values(func(o point) float64 { return o.P99 })}))
	add(p.linear("files archived a second", y, x, series{"archived", true, second(func(o point) float64 { return o.Archived })}))
	d.Bottom = y - chartGap + 4
	d.Height = d.Bottom + 22
	unit, word := 1.0, "s"
	if p.Seconds > 180 {
		unit, word = 60, "min"
	}
	for _, at := range ticksTo(p.Seconds/unit, 10) {
		d.Ticks = append(d.Ticks, tick{round(x(at * unit)), fmt.Sprintf("%g %s", at, word)})
	}
	return d
}

// series is one line of a chart.
type series struct {
	class  string
	area   bool
	values []float64
}

// linear is a chart whose axis begins at 0.
func (p picture) linear(name string, top float64, x func(float64) float64, lines ...series) drawnChart {
	highest := 1.0
	for _, l := range lines {
		for _, v := range l.values {
			highest = max(highest, v)
		}
	}
	y := func(v float64) float64 { return top + chartHigh*(1-v/highest) }
	c := drawnChart{Name: name, Top: top, Base: top + chartHigh}
	for _, at := range ticksTo(highest, 3) {
		c.Ticks = append(c.Ticks, tick{round(y(at)), fmt.Sprintf("%g", at)})
	}
	for _, l := range lines {
		c.Lines = append(c.Lines, drawnLine{l.class, p.path(l, x, y, top+chartHigh, false), l.area})
	}
	return c
}

// logarithmic is a chart of powers of ten. A value of 0 is a gap.
func (p picture) logarithmic(name string, top float64, x func(float64) float64, lines ...series) drawnChart {
	low, high := 0.0, 1.0 // powers of ten
	for _, l := range lines {
		for _, v := range l.values {
			if v > 0 {
				low, high = min(low, math.Floor(math.Log10(v))), max(high, math.Ceil(math.Log10(v)))
			}
		}
	}
	y := func(v float64) float64 { return top + chartHigh*(high-math.Log10(v))/(high-low) }
	c := drawnChart{Name: name, Top: top, Base: top + chartHigh}
	for at := low; at <= high; at++ {
		c.Ticks = append(c.Ticks, tick{round(y(math.Pow(10, at))), fmt.Sprintf("%g", math.Pow(10, at))})
	}
	for _, l := range lines {
		c.Lines = append(c.Lines, drawnLine{l.class, p.path(l, x, y, top+chartHigh, true), l.area})
	}
	return c
}

// path is a line through the middle of each step, or the area below it.
func (p picture) path(l series, x, y func(float64) float64, base float64, gaps bool) string {
	var b strings.Builder
	pen := false
	for i, v := range l.values {
		if gaps && v <= 0 {
			pen = false
			continue
		}
		from, to := p.stepAt(i)
		at := round(x((from + to) / 2))
		switch {
		case pen:
			fmt.Fprintf(&b, "L%g %g", at, round(y(v)))
		case l.area:
			fmt.Fprintf(&b, "M%g %gL%g %gL%g %g", round(x(from)), base, round(x(from)), round(y(v)), at, round(y(v)))
		default:
			fmt.Fprintf(&b, "M%g %g", at, round(y(v)))
		}
		pen = true
	}
	if l.area && pen {
		fmt.Fprintf(&b, "L%g %gL%g %gZ", round(x(p.Seconds)), round(y(l.values[len(l.values)-1])), round(x(p.Seconds)), base)
	}
	return b.String()
}

// ticksTo returns round numbers from 0 to highest, about count of them.
func ticksTo(highest float64, count int) (out []float64) {
	unit := math.Pow(10, math.Floor(math.Log10(highest/float64(count))))
	for _, f := range []float64{1, 2, 5, 10} {
		if highest/(unit*f) <= float64(count) {
			unit *= f
			break
		}
	}
	for i := 0; float64(i)*unit <= highest; i++ {
		out = append(out, float64(i)*unit)
	}
	return out
}

// round keeps a tenth of a unit.
func round(v float64) float64 { return math.Round(v*10) / 10 }
