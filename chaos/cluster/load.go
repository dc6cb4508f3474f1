package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// load sends reads at a constant rate, whatever the answers do: each has its
// moment, and its latency counts from that moment on. A load that waits for
// answers would send least when the cluster is slowest and call it fast.
type load struct {
	files []*rig.File
	rate  int // reads a second over all targets together
	seed  uint64

	targets []*target
	samples []sample // one a read; each written by its own reader
}

// target is a node that reads are sent to until it is retired.
type target struct {
	node    *rig.Node
	retired atomic.Bool
	stop    context.CancelFunc // lets go of the reads under way
	ctx     context.Context
}

// sample is what became of one read.
type sample struct {
	at      time.Duration // its moment, from the start of the load
	took    time.Duration // from that moment to the last byte
	node    *rig.Node
	outcome outcome
	note    string // what went wrong
}

type outcome uint8

const (
	unsentRead outcome = iota // the load ended before its moment
	goodRead
	failedRead // no answer, or not 200
	wrongRead  // 200 with other bytes
	letRead    // under way to a node in the moment it was retired
)

// newLoad prepares a load on nodes.
func newLoad(ctx context.Context, files []*rig.File, rate int, seed uint64, nodes ...*rig.Node) *load {
	l := &load{files: files, rate: rate, seed: seed}
	for _, n := range nodes {
		t := &target{node: n}
		t.ctx, t.stop = context.WithCancel(ctx)
		l.targets = append(l.targets, t)
	}
	return l
}

// retire sends no more reads to a node and lets go of those under way. It is
// called right before the node is killed or frozen.
func (l *load) retire(n *rig.Node) {
	for _, t := range l.targets {
		if t.node == n {
			t.retired.Store(true)
			t.stop()
		}
	}
}

// event is something that is done at a moment of the load.
type event struct {
	at time.Duration
	do func() error
}

// run sends reads for length, does each event in its moment, and returns when
// every read has ended. Events are in the order of their moments.
func (l *load) run(ctx context.Context, length time.Duration, events ...event) error {
	defer func() {
		for _, t := range l.targets {
			t.stop()
		}
	}()
	count := int(length.Seconds() * float64(l.rate))
	l.samples = make([]sample, count)
	rnd := rand.New(rand.NewPCG(l.seed, 3))
	start := time.Now()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		err := l.happen(ctx, start, events)
		if err != nil {
			cancel(err)
		}
		done <- err
	}()
	var reads sync.WaitGroup
	for i := range count {
		at := time.Duration(float64(i) / float64(l.rate) * float64(time.Second))
		if wait := at - time.Since(start); wait > 0 && rig.Pause(ctx, wait) != nil {
			break
		}
		t, f := l.pick(i), l.files[rnd.IntN(len(l.files))]
		if t == nil {
			break
		}
		reads.Go(func() { l.samples[i] = t.read(start.Add(at), f) })
	}
	reads.Wait()
	for i := range l.samples {
		l.samples[i].at = time.Duration(float64(i) / float64(l.rate) * float64(time.Second))
	}
	return <-done
}

// happen does each event in its moment.
func (l *load) happen(ctx context.Context, start time.Time, events []event) error {
	for _, e := range events {
		if err := rig.Pause(ctx, e.at-time.Since(start)); err != nil {
			return err
		}
		if err := e.do(); err != nil {
			return err
		}
	}
	return nil
}

// pick returns the target of the i-th read: one after the other.
func (l *load) pick(i int) *target {
	for k := range l.targets {
		if t := l.targets[(i+k)%len(l.targets)]; !t.retired.Load() {
			return t
		}
	}
	return nil
}

func (t *target) read(moment time.Time, f *rig.File) sample {
	ctx, cancel := context.WithTimeout(t.ctx, rig.ReadWithin)
	defer cancel()
	a := t.node.Read(ctx, f)
	s := sample{took: time.Since(moment), node: t.node, outcome: goodRead}
	switch {
	case a.Wrong():
		s.outcome = wrongRead
	case a.Right:
		return s
	case t.retired.Load():
		s.outcome = letRead
	default:
		s.outcome = failedRead
	}
	s.note = fmt.Sprintf("%s through %s: %s after %s", f.Name, t.node.Name, a, s.took.Round(time.Millisecond))
	return s
}

// quantiles of some latencies.
type quantiles struct {
	count         int
	p50, p99, max time.Duration
}

// between sums up the good reads whose moments were from one time to another.
func (l *load) between(from, to time.Duration) quantiles {
	var took []time.Duration
	for _, s := range l.samples {
		if s.outcome == goodRead && s.at >= from && s.at < to {
			took = append(took, s.took)
		}
	}
	return quantilesOf(took)
}

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
	return quantiles{len(took), at(0.5), at(0.99), took[len(took)-1]}
}

// worstSecond returns the highest p99 of the whole seconds from one time to
// another.
func (l *load) worstSecond(from, to time.Duration) (worst quantiles) {
	for at := from; at < to; at += time.Second {
		worst = slices.MaxFunc([]quantiles{worst, l.between(at, at+time.Second)}, func(a, b quantiles) int { return cmp.Compare(a.p99, b.p99) })
	}
	return worst
}

// perSecond is the latencies of each second, as a table.
func (l *load) perSecond(title string, length time.Duration) table {
	t := table{Title: title, Head: []string{"second", "reads", "p50", "p99", "max"}}
	for at := time.Duration(0); at < length; at += time.Second {
		t.Rows = append(t.Rows, l.between(at, at+time.Second).row(fmt.Sprintf("%.0f", at.Seconds())))
	}
	return t
}

func (q quantiles) row(first string) []string {
	return []string{first, fmt.Sprint(q.count), ms(q.p50), ms(q.p99), ms(q.max)}
}

// ms writes a duration in milliseconds, so that columns compare.
func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
