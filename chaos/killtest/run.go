package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// phase is what the node is made to do when it is killed.
type phase string

const (
	whileStarting  phase = "starting"
	whileImporting phase = "importing"
	whilePacking   phase = "packing"
	whileDeleting  phase = "deleting"
	anyTime        phase = "any time"
)

// The phases in the shares in which they are picked.
var phases = []phase{
	whileStarting, whileImporting, whilePacking, whilePacking, whilePacking, whilePacking,
	whileDeleting, whileDeleting, whileDeleting, anyTime,
}

// run is one test: the node, the ledger, and what did not hold.
type run struct {
	o     *options
	src   string // the originals
	store string // the object store's folder
	led   *ledger
	node  *node
	rnd   *rand.Rand
	bad   violations

	// missing are originals that were gone when the node was dead, and when that
	// was: their packs must have been verified before.
	missing map[*file]time.Time
}

func newRun(o *options) *run {
	return &run{
		o:     o,
		src:   filepath.Join(o.dir, "src"),
		store: filepath.Join(o.dir, "store"),
		led:   newLedger(o.seed, o.files),
		node: &node{
			bin:    o.bin,
			config: filepath.Join(o.dir, "desnode.yaml"),
			log:    filepath.Join(o.dir, "node.log"),
		},
		rnd:     rand.New(rand.NewPCG(o.seed, 2)), // #nosec G404 -- repeatable on purpose
		missing: map[*file]time.Time{},
	}
}

func (r *run) prepare() error {
	for _, dir := range []string{r.src, r.store, filepath.Join(r.o.dir, "data")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	return writeConfig(r.node.config, r.o.dir)
}

// lives starts and kills the node as often as asked.
func (r *run) lives(ctx context.Context) error {
	// Nine lives of ten bring new files, a little more each than evenly: the
	// last few lives then only finish what others began.
	wave := max(1, r.o.files*10/(max(1, r.o.kills)*8))
	for i := 1; i <= r.o.kills; i++ {
		p := phases[r.rnd.IntN(len(phases))]
		began := time.Now()
		if err := r.life(ctx, p, wave); err != nil {
			return fmt.Errorf("life %d: %w", i, err)
		}
		gone := r.checkOriginals(time.Now())
		fmt.Printf("kill %3d/%d  %-9s after %5.2fs  %5d files made, %5d originals gone\n",
			i, r.o.kills, p, time.Since(began).Seconds(), r.led.made, gone)
		if r.bad.tooMany() {
			return errors.New("too many violations to go on")
		}
	}
	return nil
}

// life runs the node up to the moment at which it is to be killed, and kills it.
func (r *run) life(ctx context.Context, p phase, wave int) error {
	if err := r.node.start(); err != nil {
		return err
	}
	if p == whileStarting {
		err := r.wait(ctx, 300*time.Millisecond)
		r.kill(p)
		return err
	}
	if err := r.node.ready(ctx); err != nil {
		return err
	}
	c := client{"http://" + r.node.addr}
	if err := r.checkAlive(ctx, c); err != nil {
		return err
	}
	if err := r.led.addWave(r.src, wave); err != nil {
		return err
	}
	// What still runs when the node is killed fails then, as it should.
	work, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	imported := make(chan struct{})
	go func() { done <- r.work(work, c, imported) }()
	err := r.until(ctx, c, p, imported)
	r.kill(p) // before the cancelling: the node sees no client go away
	cancel()
	if workErr := <-done; errors.Is(workErr, errStatus) {
		r.bad.add("life %d: %v", r.node.lives, workErr)
	}
	return err
}

func (r *run) kill(p phase) {
	if !r.node.kill() {
		r.bad.add("life %d: %v before it was killed while %s; see the end of %s", r.node.lives, errEnded, p, r.node.log)
	}
}

// work imports all files there are and archives them.
func (r *run) work(ctx context.Context, c client, imported chan<- struct{}) error {
	made := r.led.made
	err := c.stream(ctx, "/cluster/import", map[string]string{"dir": r.src})
	if err == nil {
		r.led.confirm(made)
	}
	close(imported)
	if err != nil {
		return err
	}
	return c.stream(ctx, "/cluster/archive", struct{}{})
}

// until waits for the moment to kill.
func (r *run) until(ctx context.Context, c client, p phase, imported <-chan struct{}) error {
	if p == whileImporting {
		return r.wait(ctx, 120*time.Millisecond)
	}
	if p == anyTime {
		return r.wait(ctx, 3*time.Second)
	}
	select {
	case <-imported:
	case <-r.node.ended:
		return nil // the caller finds it dead
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p == whilePacking {
		return r.wait(ctx, 700*time.Millisecond)
	}
	before, err := r.deleted(ctx, c)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
		now, err := r.deleted(ctx, c)
		if err != nil {
			return err
		}
		if now != before {
			break
		}
	}
	return r.wait(ctx, 250*time.Millisecond)
}

// deleted returns how many originals the node has deleted, by its own account.
func (r *run) deleted(ctx context.Context, c client) (int64, error) {
	var s status
	if err := c.getJSON(ctx, "/cluster/status", &s); err != nil {
		return 0, err
	}
	var n int64
	for _, src := range s.Sources {
		n += src.States["DELETED_SOURCE"].Rows
	}
	return n, nil
}

// wait waits a random time up to most.
func (r *run) wait(ctx context.Context, most time.Duration) error {
	return pause(ctx, time.Duration(r.rnd.Int64N(int64(most))))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
