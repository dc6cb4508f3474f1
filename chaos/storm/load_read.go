package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// sample is what became of one read.
type sample struct {
	at      time.Duration // its moment, from the start of the run
	took    time.Duration // from that moment to the end of the last answer
	kind    readKind
	outcome outcome
}

// outcome is what a customer got, after one retry at another node.
type outcome uint8

const (
	goodRead     outcome = iota // the right answer at the first try
	savedRead                   // the right answer at the second
	wrongRead                   // an answer that must not be
	failedRead                  // none, though one was promised
	stormStore                  // none, while the store was taken away
	stormSource                 // none, while the database was, of what only it knows
	stormQuorum                 // none, while no majority was there, of what no pack holds
	stormNodes                  // none, while no node was left alone
	droppedRead                 // the run ended meanwhile
	outcomeCount                // how many there are
)

func (o outcome) String() string {
	return [outcomeCount]string{
		"answered at once", "answered at the second node", "answered wrongly", "failed",
		"failed, store down", "failed, database down and not yet archived", "failed, no majority and not yet archived",
		"failed, no node alive", "let go at the end",
	}[o]
}

func (o outcome) good() bool { return o == goodRead || o == savedRead }

// Limits of the customer's two tries.
const (
	firstWithin  = 5 * time.Second
	secondWithin = 15 * time.Second
)

// readAll sends reads at a constant rate.
func (l *load) readAll(ctx context.Context, rnd *rand.Rand) error {
	reads := newGroup(ctx)
	for n := 0; ; n++ {
		moment := l.timeline.start.Add(time.Duration(float64(n) / l.cfg.Reads * float64(time.Second)))
		if !sleep(ctx, moment) {
			return reads.wait()
		}
		q, first := l.question(rnd), rnd.IntN(len(l.doors))
		reads.start(func(ctx context.Context) error {
			s := l.read(ctx, q, first, moment)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.samples = append(l.samples, s)
			return nil
		})
	}
}

// question chooses what the next read asks for.
func (l *load) question(rnd *rand.Rand) question {
	recent := 0
	if rnd.IntN(4) == 0 {
		recent = recently
	}
	some := l.ledger.sample(rnd, 1, recent)
	if len(some) == 0 {
		return question{kind: readUnknown, name: unknownName(rnd)}
	}
	f := some[0]
	q := question{file: f, name: f.name}
	switch dice := rnd.IntN(100); {
	case dice < 8:
		return question{kind: readUnknown, name: unknownName(rnd)}
	case dice < 16:
		q.kind = readPart
		size := l.ledger.current(f).size
		q.off = rnd.Int64N(size)
		q.n = 1 + rnd.Int64N(min(size-q.off, maxPart))
	case dice < 24:
		q.kind = readHead
	case dice < 32:
		q.kind = readByID
	}
	return q
}

// unknownName is a name that looks like others and never is one.
func unknownName(rnd *rand.Rand) string {
	return fmt.Sprintf("%s/%02d/%06d-never.bin", folders[rnd.IntN(len(folders))], rnd.IntN(20), rnd.IntN(1e6))
}

// read asks one node and, when that comes to nothing, another one that nothing
// is done to.
func (l *load) read(ctx context.Context, q question, first int, moment time.Time) sample {
	s := sample{at: moment.Sub(l.timeline.start), kind: q.kind}
	door := l.doors[first]
	var notes string
	var tried time.Time // when the last try began
	for try := 0; ; try++ {
		within := firstWithin
		if try > 0 {
			within = secondWithin
		}
		before, fit := door.Fit()
		tried = time.Now()
		a := l.ask(ctx, door, q, within)
		s.took = time.Since(moment)
		switch {
		case a.found == rightAnswer:
			s.outcome = goodRead
			if try > 0 {
				s.outcome = savedRead
			}
			return s
		case a.found == wrongAnswer:
			s.outcome = wrongRead
			return s
		case ctx.Err() != nil:
			s.outcome = droppedRead
			return s
		}
		notes += fmt.Sprintf("; %s: %s", door.Name(), a.note)
		// A second try that something was done to meanwhile is no retry at a node
		// that is alive: the next one is.
		after, still := door.Fit()
		if spoilt := !fit || !still || !after.Equal(before); try > 0 && !spoilt || try == maxTries {
			break
		}
		next := pickFit(l.doors, first+1+try, door)
		if next == nil {
			s.outcome = stormNodes
			return s
		}
		door = next
	}
	if s.outcome = l.excuse(q, moment, tried, time.Now()); s.outcome == failedRead {
		l.verdict.breach(failedReads, "%s at %.1fs%s", q, s.at.Seconds(), notes)
	}
	return s
}

// maxTries bounds the retries at nodes that were taken away during them.
const maxTries = 4

// pickFit returns a node that nothing is done to, and has not been for a
// moment if there is such a one, beginning with the n-th; not is the last
// choice. nil: there is none.
func pickFit(doors []door, n int, not door) (best door) {
	var rank int
	for i := range doors {
		d := doors[(n+i)%len(doors)]
		since, ok := d.Fit()
		if !ok {
			continue
		}
		r := 2
		if time.Since(since) >= settles {
			r = 3
		}
		if d == not {
			r = 1
		}
		if r > rank {
			best, rank = d, r
		}
	}
	return best
}

// excuse says what kept a read from being answered, or failedRead when
// nothing was done that may. tried is when its last try began.
func (l *load) excuse(q question, from, tried, to time.Time) outcome {
	if l.timeline.touched(touchesStore, from, to, settles) {
		return stormStore
	}
	if q.file != nil && q.kind != readByID && l.ledger.state(q.file).archivedBefore(from) {
		return failedRead // it needs the store and one node, nothing else
	}
	if l.timeline.touched(touchesDatabase, from, to, settles) {
		return stormSource
	}
	if !l.majority(tried) {
		return stormQuorum
	}
	return failedRead
}

// elects is how long a majority that is back may take to have a leader.
const elects = 10 * time.Second

// majority reports whether most nodes have been left alone from an election's
// time before at until now: then there was a leader at that moment, who could
// say what no pack holds.
func (l *load) majority(at time.Time) bool {
	fit := 0
	for _, d := range l.doors {
		if since, ok := d.Fit(); ok && at.Sub(since) >= elects {
			fit++
		}
	}
	return fit*2 > len(l.doors)
}
