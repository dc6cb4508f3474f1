package main

import (
	"bytes"
	_ "embed" // the page
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// report is what a run came to.
type report struct {
	Seed    uint64    `json:"seed"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // of load and faults, without what came after
	OK      bool      `json:"ok"`
	Error   string    `json:"error,omitempty"` // why it could not go on
	Setting []figure  `json:"setting"`         // versions, machine, shape of the cluster
	Bars    []bar     `json:"bars"`
	Figures []figure  `json:"figures"`
	Faults  []tally   `json:"faults"`
	Reads   table     `json:"reads"` // outcomes by kind of read
	Picture picture   `json:"picture"`
}

// tally is how often a kind of fault was there, and for how long.
type tally struct {
	Kind    string  `json:"kind"`
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"` // all of them together
}

// newReport sums a run up. It is called once, after the checker's finish; ended
// is when load and faults had ended, failed why the run could not go on, or
// nil. setting is the versions, the machine and the shape of the cluster.
func newReport(s *scene, l *load, c *checker, setting []figure, ended time.Time, failed error) *report {
	length := ended.Sub(s.timeline.start)
	l.sumUp(length)
	r := &report{
		Seed: s.ledger.seed, Started: s.timeline.start.UTC().Truncate(time.Second), Seconds: length.Seconds(), Setting: setting,
		Reads: l.outcomes(), Faults: s.timeline.tallies(ended), Picture: newPicture(s, l, c, length),
	}
	r.Bars, r.OK = s.verdict.judge()
	r.Figures = s.verdict.allFigures()
	if failed != nil {
		r.Error, r.OK = failed.Error(), false
	}
	return r
}

//go:embed report.html
var page string

// write makes report.json and report.html in a folder.
func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	html, err := r.html()
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), // #nosec G301 G306 -- reports are for everybody
		os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "report.html"), html, 0o644))
}

// html is the report as one page that needs nothing else.
func (r *report) html() ([]byte, error) {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		*report
		Drawing drawing
	}{r, r.Picture.draw()})
	return b.Bytes(), err
}

// Verdict is one word.
func (r *report) Verdict() string {
	if r.OK {
		return "PASSED"
	}
	return "FAILED"
}

// Missed counts the bars that do not hold.
func (r *report) Missed() (n int) {
	for _, b := range r.Bars {
		if !b.OK {
			n++
		}
	}
	return n
}

// Length is how long load and faults lasted.
func (r *report) Length() string {
	return time.Duration(r.Seconds * float64(time.Second)).Round(time.Second).String()
}

// print writes the verdict for people.
func (r *report) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(tw, format, args...) } // nobody is there to be told
	say("\n%s seed %d, %s\n", r.Verdict(), r.Seed, r.Length())
	for _, b := range r.Bars {
		mark := "ok"
		if !b.OK {
			mark = "MISSED"
		}
		say("  %s\t%s\t%s\t(bar: %s)\n", mark, b.What, b.Got, b.Want)
	}
	for _, b := range r.Bars {
		for _, c := range b.Cases {
			say("  %s: %s\n", b.What, c)
		}
	}
	for _, f := range r.Figures {
		say("  %s: %s\n", f.What, f.Got)
	}
	r.Reads.print(say)
	faults := table{Title: "faults", Head: []string{"kind", "times", "seconds together"}}
	for _, f := range r.Faults {
		faults.Rows = append(faults.Rows, []string{f.Kind, fmt.Sprint(f.Count), fmt.Sprintf("%.0f", f.Seconds)})
	}
	faults.print(say)
	if r.Error != "" {
		say("  ERROR %s\n", r.Error)
	}
	_ = tw.Flush()
}

// tallies sums the faults up by kind.
func (t *timeline) tallies(now time.Time) (out []tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		i := slices.IndexFunc(out, func(a tally) bool { return a.Kind == s.kind })
		if i < 0 {
			i, out = len(out), append(out, tally{Kind: s.kind})
		}
		out[i].Count++
		out[i].Seconds += s.until(now).Sub(s.from).Seconds()
	}
	return out
}

// until is when a fault was healed; now when it is not yet. The caller holds
// of.mu.
func (s *span) until(now time.Time) time.Time {
	if s.to.IsZero() {
		return now
	}
	return s.to
}
