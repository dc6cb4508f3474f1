package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
)

// report is what one scenario found.
type report struct {
	Scenario string   `json:"scenario"`
	What     string   `json:"what"`
	Short    bool     `json:"short"` // seconds in place of minutes
	Seed     uint64   `json:"seed"`
	Seconds  float64  `json:"seconds"`
	Bars     []bar    `json:"bars"`
	Figures  []figure `json:"figures,omitempty"`
	Tables   []table  `json:"tables,omitempty"`
	Error    string   `json:"error,omitempty"` // why it could not go on
	Kept     string   `json:"kept,omitempty"`  // the folder, for who looks into it
	OK       bool     `json:"ok"`

	mu    sync.Mutex // guards all below, while a scenario runs
	wrong map[string]*wrong
	order []string
}

// bar is one thing that must hold.
type bar struct {
	What  string   `json:"what"`
	Want  string   `json:"want"`
	Got   string   `json:"got"`
	OK    bool     `json:"ok"`
	Cases []string `json:"cases,omitempty"` // the first few that broke it
}

// figure is one thing that was measured.
type figure struct {
	What string `json:"what"`
	Got  string `json:"got"`
}

// table is figures that belong together.
type table struct {
	Title string     `json:"title"`
	Head  []string   `json:"head"`
	Rows  [][]string `json:"rows"`
}

// wrong is one kind of thing that must not happen, and how often it did.
type wrong struct {
	count int
	cases []string
}

// maxCases is how many cases of one kind are shown.
const maxCases = 5

// never promises that something does not happen; with no call of wrongly for
// it the bar is met.
func (r *report) never(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kind(what)
}

func (r *report) kind(what string) *wrong {
	if r.wrong == nil {
		r.wrong = map[string]*wrong{}
	}
	w := r.wrong[what]
	if w == nil {
		w = &wrong{}
		r.wrong[what] = w
		r.order = append(r.order, what)
	}
	return w
}

// wrongly notes that something happened that must not.
func (r *report) wrongly(what, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.kind(what)
	if w.count++; len(w.cases) < maxCases {
		w.cases = append(w.cases, fmt.Sprintf(format, args...))
	}
}

// hold adds a bar.
func (r *report) hold(ok bool, what, want, got string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Bars = append(r.Bars, bar{What: what, Want: want, Got: fmt.Sprintf(got, args...), OK: ok})
}

// figure adds a figure.
func (r *report) figure(what, got string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Figures = append(r.Figures, figure{what, fmt.Sprintf(got, args...)})
}

func (r *report) fail(err error) {
	r.Error, r.OK = err.Error(), false
}

// judge turns what happened into bars and says whether all hold.
func (r *report) judge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, what := range r.order {
		w := r.wrong[what]
		r.Bars = append(r.Bars, bar{What: what, Want: "0", Got: fmt.Sprint(w.count), OK: w.count == 0, Cases: w.cases})
	}
	r.order = nil
	r.OK = r.Error == "" && len(r.Bars) > 0
	for _, b := range r.Bars {
		r.OK = r.OK && b.OK
	}
}

// print writes the report for people.
func (r *report) print(w io.Writer) {
	verdict := "PASSED"
	if !r.OK {
		verdict = "FAILED"
	}
	say(w, "\n%s %s: %s (%.1fs)\n", verdict, r.Scenario, r.What, r.Seconds)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range r.Bars {
		mark := "ok"
		if !b.OK {
			mark = "MISSED"
		}
		say(tw, "  %s\t%s\t%s\t(bar: %s)\n", mark, b.What, b.Got, b.Want)
		for _, c := range b.Cases {
			say(tw, "  \t  %s\t\t\n", c)
		}
	}
	_ = tw.Flush()
	for _, f := range r.Figures {
		say(w, "  %s: %s\n", f.What, f.Got)
	}
	for _, t := range r.Tables {
		t.print(w)
	}
	if r.Error != "" {
		say(w, "  ERROR %s\n", r.Error)
	}
	if r.Kept != "" {
		say(w, "  kept %s\n", r.Kept)
	}
}

func (t table) print(w io.Writer) {
	say(w, "  %s\n", t.Title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		say(tw, "    %s\n", strings.Join(row, "\t"))
	}
	_ = tw.Flush()
}
