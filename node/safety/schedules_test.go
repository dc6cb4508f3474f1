package safety

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// scenario is what is run under every schedule.
type scenario struct {
	prepare func(w *world) // what there is before the first effect that counts
	run     func(w *world) // until the node has finished
	begins  bool           // the run itself says which effect is the first
	least   int            // schedules that there are at least
	pairs   int            // so many of the pairs are run; 0: all
}

// faults returns all faults of effects: four of each, but of those that change
// nothing two, for to them the other two are the same.
func faults(known map[string]bool, trace []effect) (all []fault) {
	for _, e := range trace {
		all = append(all, fault{e, errBefore}, fault{e, crashBefore})
		if known[e.name] == writes {
			all = append(all, fault{e, errAfter}, fault{e, crashAfter})
		}
	}
	return all
}

// distinct returns the faults of effects that differ in what they leave behind.
// A crash before an effect leaves what a crash after the last one that changed
// something does: a node that died remembers nothing. So one crash before the
// first effect stands for those before all others that change nothing.
func distinct(known map[string]bool, trace []effect) (all []fault) {
	for _, e := range trace {
		all = append(all, fault{e, errBefore})
		if known[e.name] == writes {
			all = append(all, fault{e, errAfter}, fault{e, crashAfter})
		}
	}
	return all
}

// all runs the scenario under every schedule of one fault and of two, the
// second anywhere in what follows the first, recovery included.
func (s scenario) all(t *testing.T) {
	t.Helper()
	known := effects()
	trace := s.once(t, known, nil, true).trace
	if t.Failed() {
		return
	}
	var ran, failed atomic.Int64
	run := func(t *testing.T, plan schedule, strict bool) result {
		t.Helper()
		r := s.inBubble(t, known, plan, strict)
		ran.Add(1)
		if r.failed {
			failed.Add(1)
		}
		return r
	}
	singles := faults(known, trace)
	follows := make(map[fault][]effect, len(singles))
	var mu sync.Mutex // guards follows
	inParallel(t, len(singles), &failed, func(t *testing.T, i int) {
		r := run(t, schedule{singles[i]}, true)
		mu.Lock()
		defer mu.Unlock()
		follows[singles[i]] = r.after
	})
	pairs := make([]schedule, 0, len(singles))
	for _, first := range append([]fault{{trace[0], crashBefore}}, distinct(known, trace)...) {
		for _, second := range distinct(known, follows[first]) {
			pairs = append(pairs, schedule{first, second})
		}
	}
	total := len(singles) + len(pairs)
	switch {
	case testing.Short() || raceEnabled:
		pairs = sample(pairs, sampled)
	case s.pairs > 0:
		pairs = sample(pairs, s.pairs)
	}
	if failed.Load() == 0 {
		inParallel(t, len(pairs), &failed, func(t *testing.T, i int) { run(t, pairs[i], false) })
	}
	if n := int(ran.Load()); n == total {
		t.Logf("%d effects, %d schedules", len(trace), n)
	} else {
		t.Logf("%d effects, %d of %d schedules", len(trace), n, total)
	}
	if total < s.least {
		t.Errorf("%d schedules, there were %d: have effects been lost?", total, s.least)
	}
}

// sampled is how many pairs are run where all would take too long.
const sampled = 400

// sample picks n of a list, the same ones every time.
func sample[T any](list []T, n int) []T {
	r := rand.New(rand.NewPCG(1, 2))
	list = slices.Clone(list)
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(n, len(list))]
}

// manyFailures ends a test: one more says nothing new.
const manyFailures = 10

// bubbleRuns is how many runs share a bubble: a new one each would cost time,
// and years pass in one.
const bubbleRuns = 64

// inParallel calls f for 0 to n-1, in a bubble of virtual time for each core.
func inParallel(t *testing.T, n int, failed *atomic.Int64, f func(t *testing.T, i int)) {
	t.Helper()
	var next atomic.Int64
	t.Run("", func(t *testing.T) { // ends when all in it have
		for range min(runtime.GOMAXPROCS(0), n) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for more := true; more; {
					synctest.Test(t, func(t *testing.T) {
						for range bubbleRuns {
							i := int(next.Add(1)) - 1
							if more = i < n && failed.Load() < manyFailures; !more {
								return
							}
							f(t, i)
						}
					})
				}
			})
		}
	})
}

// result is what a run tells.
type result struct {
	trace  []effect // all effects
	after  []effect // those behind the last fault of the schedule
	failed bool
}

// once runs the scenario under one schedule. Strict, every file is read at each
// effect.
func (s scenario) once(t *testing.T, known map[string]bool, plan schedule, strict bool) (r result) {
	t.Helper()
	if len(plan) == 0 {
		synctest.Test(t, func(t *testing.T) { r = s.inBubble(t, known, plan, strict) })
		return r
	}
	return s.inBubble(t, known, plan, strict)
}

func (s scenario) inBubble(t *testing.T, known map[string]bool, plan schedule, strict bool) result {
	t.Helper()
	w := newWorld(t, known, plan)
	w.strict = strict
	w.gate.stand(true)
	s.prepare(w)
	w.stop()
	w.gate.stand(s.begins)
	s.run(w)
	if !w.gate.done() && !w.judge.lost() {
		w.judge.Errorf("not all faults came to pass: the run is not the one that was recorded")
	}
	w.stop()
	failures := w.judge.end()
	if len(failures) > 0 {
		t.Errorf("%s:\n%s", plan, join(failures))
	}
	return result{trace: w.gate.trace, after: w.gate.trace[w.gate.cut:], failed: len(failures) > 0}
}

func join(lines []string) string {
	text := ""
	for i, l := range lines {
		if i == 5 {
			return text + fmt.Sprintf("  and %d more\n", len(lines)-i)
		}
		text += "  " + l + "\n"
	}
	return text
}
