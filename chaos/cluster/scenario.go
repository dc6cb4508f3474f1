package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// scenario is one thing that is done to a cluster. An error of run means that
// the scenario could not go on; what did not hold is in the trial's report.
type scenario struct {
	name  string
	what  string
	limit time.Duration // it is given up after this long
	run   func(ctx context.Context, t *trial) error
	long  bool // it takes long even when it is short: leases must expire
}

// scenarios lists all, those that break something first.
func scenarios() []scenario {
	return []scenario{
		{name: "load", what: "one of three nodes is killed under load, another frozen: nobody else notices", limit: 6 * time.Minute, run: runLoad},
		{name: "quorum", what: "two of three nodes are killed: the last one serves, and judges nothing missing", limit: 6 * time.Minute, run: runQuorum},
		{name: "fence", what: "a node is frozen past its packing lease and goes on: it commits nothing", limit: 15 * time.Minute, run: runFence, long: true},
		{name: "restart", what: "all nodes end and start on other ports: they find one another", limit: 8 * time.Minute, run: runRestart},
		{name: "partition", what: "a node is cut off for longer than gossip remembers, another removed meanwhile", limit: 12 * time.Minute, run: runPartition},
		{name: "founder", what: "the node that formed the cluster dies for good and is removed", limit: 8 * time.Minute, run: runFounder},
		{name: "servers", what: "over Postgres and S3 a node is killed while it packs: the others finish its work", limit: 10 * time.Minute, run: runServers, long: true},
		{name: "pack", what: "the same files are archived with one node and with three", limit: 15 * time.Minute, run: runPack},
		{name: "hop", what: "files are read through their owner and through another node", limit: 10 * time.Minute, run: runHop},
	}
}

// trial is one run of a scenario.
type trial struct {
	bin   string
	dir   string // of this trial alone
	seed  uint64
	short bool
	rep   *report

	mu  sync.Mutex // guards log
	log io.Writer
}

// try runs a scenario in a folder of its own, which it removes when all held.
func (o options) try(ctx context.Context, s scenario, log io.Writer) (rep *report) {
	began := time.Now()
	rep = &report{Scenario: s.name, What: s.what, Short: o.short, Seed: o.seed}
	defer func() { rep.Seconds = time.Since(began).Seconds() }()
	dir, err := os.MkdirTemp(o.dir, "desnode-cluster-"+s.name+"-")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		rep.fail(err)
		return rep
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("given up after %s", s.limit))
	defer cancel()
	t := &trial{bin: o.bin, dir: dir, seed: o.seed, short: o.short, rep: rep, log: log}
	if err := s.run(ctx, t); err != nil {
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		rep.fail(err)
		t.logf("%v", err)
	}
	rep.judge()
	if o.keep || !rep.OK {
		t.logf("kept %s", dir)
		rep.Kept = dir
		return rep
	}
	if err := os.RemoveAll(dir); err != nil {
		rep.fail(err)
	}
	return rep
}

// logf tells whoever waits what is going on.
func (t *trial) logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	say(t.log, "  %s %s: %s\n", time.Now().Format("15:04:05.000"), t.rep.Scenario, fmt.Sprintf(format, args...))
}
