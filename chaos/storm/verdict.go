package main

import (
	"fmt"
	"slices"
	"sync"
)

// breach is a kind of thing that must not happen.
type breach string

// The bars that are counted: each must be 0.
const (
	lostFiles      breach = "lost files"
	wrongBytes     breach = "wrong bytes served"
	doublePacks    breach = "versions in two live packs"
	earlyDeletions breach = "originals gone before their pack was verified"
	failedReads    breach = "reads failed after the retry, store up and a node alive"
	deniedNames    breach = "404 or 410 for a name that exists"
	inventedNames  breach = "content for a name that never was"
	staleReads     breach = "versions served after a newer one was archived"
	strangeAnswers breach = "answers of other kinds than the contract's"
	badRows        breach = "rows in states that they must not be in"
	unfinishedRows breach = "rows not archived in the end"
	strangeObjects breach = "objects in the bucket that nobody names"
	strangeRecords breach = "records in packs that nothing explains"
	leftovers      breach = "quarantined originals left behind"
	badPacks       breach = "packs that do not verify in the end"
	badBackups     breach = "backups that do not say what the manifest says"
)

var breaches = []breach{
	lostFiles, wrongBytes, doublePacks, earlyDeletions, failedReads, deniedNames, inventedNames, staleReads,
	strangeAnswers, badRows, unfinishedRows, strangeObjects, strangeRecords, leftovers, badPacks, badBackups,
}

// maxCases is how many cases of one kind are shown.
const maxCases = 10

// verdict collects what did not hold, and the bars beside. Its methods may be
// called by any goroutine.
type verdict struct {
	mu       sync.Mutex // guards what follows
	breaches map[breach]*cases
	bars     []bar
	figures  []figure
}

type cases struct {
	count int
	texts []string
}

// bar is one thing that must hold.
type bar struct {
	What  string   `json:"what"`
	Want  string   `json:"want"`
	Got   string   `json:"got"`
	OK    bool     `json:"ok"`
	Cases []string `json:"cases,omitempty"` // the first few that broke it
}

// figure is one thing that was counted or measured.
type figure struct {
	What string `json:"what"`
	Got  string `json:"got"`
}

// breach counts a thing that must not happen.
func (v *verdict) breach(what breach, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.breaches == nil {
		v.breaches = map[breach]*cases{}
	}
	c := v.breaches[what]
	if c == nil {
		c = &cases{}
		v.breaches[what] = c
	}
	if c.count++; len(c.texts) < maxCases {
		c.texts = append(c.texts, fmt.Sprintf(format, args...))
	}
}

// count returns how often a thing happened.
func (v *verdict) count(what breach) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.breaches[what]; c != nil {
		return c.count
	}
	return 0
}

// hold adds a bar that is no count of breaches.
func (v *verdict) hold(ok bool, what, want, got string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bars = append(v.bars, bar{What: what, Want: want, Got: fmt.Sprintf(got, args...), OK: ok})
}

// figure adds a figure.
func (v *verdict) figure(what, got string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.figures = append(v.figures, figure{what, fmt.Sprintf(got, args...)})
}

// judge returns all bars, and whether all of them hold.
func (v *verdict) judge() (bars []bar, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, what := range breaches {
		b := bar{What: string(what), Want: "0", Got: "0", OK: true}
		if c := v.breaches[what]; c != nil {
			b.Got, b.OK, b.Cases = fmt.Sprint(c.count), false, c.texts
		}
		bars = append(bars, b)
	}
	bars = append(bars, v.bars...)
	return bars, !slices.ContainsFunc(bars, func(b bar) bool { return !b.OK })
}

// allFigures returns the figures so far.
func (v *verdict) allFigures() []figure {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.figures)
}
