package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// sumUp adds what the load came to, to the verdict.
func (l *load) sumUp(length time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(l.samples, func(a, b sample) int { return cmp.Compare(a.at, b.at) })
	v := l.verdict
	gap := longestGap(l.samples, length, func(o outcome) bool { return o == failedRead })
	v.hold(gap == 0, "longest unavailability of reads, store up and a node alive", "0 s", "%.1f s", gap.Seconds())
	v.hold(len(l.samples) > 0, "reads were sent", "> 0", "%d", len(l.samples))
	v.hold(l.wrote.files > 0, "files were written", "> 0", "%d files, %d changes", l.wrote.files, l.wrote.changes)
	v.figure("longest time without a right answer, whatever was down", "%.1f s",
		longestGap(l.samples, length, func(o outcome) bool { return !o.good() && o != droppedRead }).Seconds())
	var took []time.Duration
	for _, s := range l.samples {
		if s.outcome.good() {
			took = append(took, s.took)
		}
	}
	q := quantilesOf(took)
	v.figure("right answers, both tries together", "p50 %.1f ms, p99 %.0f ms, longest %.1f s", ms(q.p50), ms(q.p99), q.max.Seconds())
	v.figure("written by the customer", "%d files and %d changes of them, %.1f MiB; %d transactions tried again",
		l.wrote.files, l.wrote.changes, float64(l.wrote.bytes)/(1<<20), l.wrote.retries)
	v.figure("older versions served by nodes that were, or had just been, cut off, without saying that newer ones may exist", "%d", l.lagged.Load())
	v.figure("archive runs", "%d ended well, %d were cut or found nobody", l.archives[0].Load(), l.archives[1].Load())
}

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// longestGap is the longest time from a bad read's moment to that of the next
// good one. samples are in the order of their moments.
func longestGap(samples []sample, end time.Duration, bad func(outcome) bool) (longest time.Duration) {
	open, from := false, time.Duration(0)
	for _, s := range samples {
		switch {
		case bad(s.outcome) && !open:
			open, from = true, s.at
		case s.outcome.good() && open:
			open, longest = false, max(longest, s.at-from)
		}
	}
	if open {
		longest = max(longest, end-from)
	}
	return longest
}

// outcomes counts reads by kind and outcome.
func (l *load) outcomes() table {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := table{Title: "reads", Head: []string{"outcome"}}
	for k := readWhole; k <= readUnknown; k++ {
		t.Head = append(t.Head, k.String())
	}
	for o := goodRead; o < outcomeCount; o++ {
		row, any := []string{o.String()}, false
		for k := readWhole; k <= readUnknown; k++ {
			n := 0
			for _, s := range l.samples {
				if s.outcome == o && s.kind == k {
					n++
				}
			}
			row, any = append(row, fmt.Sprint(n)), any || n > 0
		}
		if any {
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// quantiles of some latencies.
type quantiles struct{ p50, p99, max time.Duration }

// quantilesOf sorts took.
func quantilesOf(took []time.Duration) quantiles {
	if len(took) == 0 {
		return quantiles{}
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		rank := int(share*float64(len(took)) + 0.9999999) // the smallest that so many do not exceed
		return took[min(max(rank, 1), len(took))-1]
	}
	return quantiles{at(0.5), at(0.99), took[len(took)-1]}
}
