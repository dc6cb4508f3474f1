package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// closeWithin is what the end of the processes may take.
const closeWithin = 20 * time.Second

// beside is what a run takes beside its length at most: the longer it was, the
// more there is to finish and to read back.
func beside(length time.Duration) time.Duration { return 3*time.Minute + length/10 }

// checking is how much of that is for the checks once all is archived.
func checking(length time.Duration) time.Duration { return 40*time.Second + length/20 }

// run makes one run in a folder of its own, and returns the exit code.
func (o options) run(ctx context.Context, stdout, stderr io.Writer) (code int) {
	dir, err := os.MkdirTemp(o.dir, "desnode-storm-")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		say(stderr, "storm: %v\n", err)
		return 1
	}
	within := o.length + beside(o.length) - closeWithin
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("given up after %s", within))
	defer cancel()
	rep, err := o.try(ctx, dir, logger(stderr))
	if rep == nil {
		say(stderr, "storm: %v\nstorm: kept %s\n", err, dir)
		return 1
	}
	rep.print(stdout)
	err = errors.Join(err, rep.write(o.report))
	say(stderr, "storm: the report is in %s\n", o.report)
	if err != nil {
		say(stderr, "storm: %v\n", err)
	}
	switch {
	case !rep.OK || err != nil:
		say(stderr, "storm: kept %s\n", dir)
		return 1
	case o.keep:
		return 0
	}
	if err := os.RemoveAll(dir); err != nil {
		say(stderr, "storm: %v\n", err)
		return 1
	}
	return 0
}

// logger prints lines with their time, for any goroutine.
func logger(w io.Writer) func(format string, args ...any) {
	var mu sync.Mutex // one line at a time
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		say(w, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
}

// try makes the run. Without a report it did not come as far as the load; else
// an error is one of ending it.
func (o options) try(ctx context.Context, dir string, logf func(string, ...any)) (rep *report, err error) {
	w, err := newWorld(ctx, o, dir, logf)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return nil, err
	}
	ledger, err := newLedger(filepath.Join(dir, "ledger.jsonl"), o.seed, time.Now())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ledger.close()) }()
	s := w.scene(ledger)
	l, c := newLoad(s, o.load), newChecker(s, true)
	setting := machine(ctx, s, "bin/versitygw")
	can, cannot := possible(w, o.kinds)
	setting = append(setting, figure{"cluster", fmt.Sprintf("%d nodes, hosts of their own %t, file systems of their own %t", o.nodes, w.network != nil, w.disks)})
	for _, name := range slices.Sorted(maps.Keys(cannot)) {
		logf("%s is left out: %v", name, cannot[name])
		setting = append(setting, figure{name + " is left out", cannot[name].Error()})
	}
	ended, failed := o.rage(ctx, w, l, c, plan(o.seed, o.length, o.nodes, can))
	if failed == nil {
		deadline, _ := ctx.Deadline()
		failed = errors.Join(l.finish(ctx), c.finish(ctx, time.Until(deadline)-checking(o.length)))
	}
	if failed != nil && ctx.Err() != nil {
		failed = errors.Join(context.Cause(ctx), failed)
	}
	o.judge(s.verdict, w, s.timeline, can)
	return newReport(s, l, c, setting, ended, failed), nil
}

// scene is what the load and the checker know of a world.
func (w *world) scene(ledger *ledger) *scene {
	s := &scene{
		timeline: newTimeline(), verdict: &verdict{}, ledger: ledger,
		database: w.servers.Postgres.URL, table: "desnode.files",
		src: w.source(), incoming: w.incoming(), objects: w.objects(), bin: w.bin,
		skew: w.largestSkew, logf: w.logf,
	}
	for _, m := range w.members {
		s.doors = append(s.doors, m)
	}
	return s
}

// rage has load, checks and faults go on together until the faults' time is
// over and all of them are healed.
func (o options) rage(ctx context.Context, w *world, l *load, c *checker, faults []planned) (ended time.Time, err error) {
	together, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline, _ := ctx.Deadline()
	st := &storm{world: w, timeline: l.timeline, deadline: deadline}
	watched := func(what string, run func(context.Context) error) *rig.Task {
		return rig.Begin(together, func(ctx context.Context) error {
			err := run(ctx)
			if err != nil {
				err = fmt.Errorf("%s: %w", what, err)
				cancel(err)
			}
			return err
		})
	}
	load, check := watched("load", l.run), watched("checker", c.run)
	storming, stop := context.WithDeadline(together, l.timeline.start.Add(o.length))
	st.perform(storming, faults)
	sleep(storming, l.timeline.start.Add(o.length))
	stop()
	for _, t := range []*rig.Task{load, check} {
		t.End()
		err = errors.Join(err, t.Wait())
	}
	if len(st.skipped) > 0 {
		w.logf("left out, since no member was free: %s", strings.Join(st.skipped, ", "))
		l.verdict.figure("faults left out, since no member was free", "%d: %s", len(st.skipped), strings.Join(st.skipped, ", "))
	}
	return time.Now(), err
}

// What a run of a certain length is to have done.
const (
	wholeRun  = 5 * time.Minute // each kind once
	longRun   = time.Hour       // and more often
	longKills = 200
	longEach  = 5
)

// judge adds the bars that the faults themselves have to meet.
func (o options) judge(v *verdict, w *world, t *timeline, can []*kind) {
	counts := t.counts()
	w.mu.Lock()
	for name, missed := range w.idle {
		counts[name] -= missed
		v.figure(name+" that hit nothing, and are not counted", "%d", missed)
	}
	w.mu.Unlock()
	rarest := len(counts) + 1<<20
	var names []string
	for _, k := range can {
		if counts[k.name] < rarest {
			rarest, names = counts[k.name], nil
		}
		if counts[k.name] == rarest {
			names = append(names, k.name)
		}
	}
	kills := int(w.kills.Load())
	switch {
	case o.length >= longRun:
		v.hold(kills >= longKills, "processes of nodes killed", fmt.Sprintf(">= %d", longKills), "%d", kills)
		v.hold(rarest >= longEach, "faults of the rarest kind", fmt.Sprintf(">= %d", longEach), "%d of %s", rarest, strings.Join(names, ", "))
	case o.length >= wholeRun:
		v.figure("processes of nodes killed", "%d", kills)
		v.hold(rarest >= 1, "faults of the rarest kind", ">= 1", "%d of %s", rarest, strings.Join(names, ", "))
	default:
		v.figure("processes of nodes killed", "%d", kills)
	}
	v.figure("answers lost after what was asked was done", "%d of Postgres, %d of S3", w.postgres.lostAnswers(), w.s3.lostAnswers())
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, what := range []string{notBack, byItself, badFault} {
		v.hold(len(w.wrong[what]) == 0, what, "0", "%d %s", len(w.wrong[what]), strings.Join(w.wrong[what][:min(len(w.wrong[what]), 3)], "; "))
	}
}
