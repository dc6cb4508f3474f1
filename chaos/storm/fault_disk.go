package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// diskKinds are what happens to nodes' disks.
func diskKinds() []*kind {
	return []*kind{
		{
			name: "disk-full", lane: nodeLane, least: 8 * time.Second, most: 30 * time.Second, after: 5 * time.Second,
			picks: []pick{anyone, theLeader, thePacker}, inject: fillDisk,
			needs: func(w *world) error {
				if !w.disks {
					return errNoDisks
				}
				return nil
			},
		},
		{
			name: "fsync-errors", lane: nodeLane, least: 3 * time.Second, most: 12 * time.Second, after: 8 * time.Second,
			picks: []pick{anyone, theLeader, thePacker}, needs: needsTracing, met: hasTampered,
			inject: tampered("fsync,fdatasync", "fsync,fdatasync:error=EIO"),
		},
		{
			name: "leader-disk-stall", lane: nodeLane, least: 10 * time.Second, most: 30 * time.Second, after: 5 * time.Second,
			picks: []pick{theLeader}, needs: needsTracing, met: hasTampered,
			inject: tampered("fsync,fdatasync,pwrite64", "fsync,fdatasync,pwrite64:delay_enter=4000000"), // µs
		},
	}
}

// errNoTracing: strace cannot change what a process is told by its kernel.
var errNoTracing = errors.New("strace is not there, or may not trace")

// needsTracing tries on a process of our own.
func needsTracing(*world) error {
	sleeper := exec.Command("sleep", "10")
	if err := sleeper.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "strace", traceArgs(sleeper.Process.Pid, os.DevNull, "fsync", "fsync:error=EIO")...).CombinedOutput()
	_ = errors.Join(sleeper.Process.Kill(), sleeper.Wait()) // killed, as it should be
	if ctx.Err() == nil {                                   // it did not stay
		return fmt.Errorf("%w: %w: %s", errNoTracing, err, out)
	}
	return nil
}

// traceArgs attach strace to all threads of a process.
func traceArgs(pid int, log, calls, inject string) []string {
	return []string{"-f", "-qq", "-o", log, "-p", strconv.Itoa(pid), "-e", "trace=" + calls, "-e", "inject=" + inject}
}

// detachWithin is how long strace may take to let go of a process.
const detachWithin = 10 * time.Second

// tampered returns a fault that has some system calls of a node fail or wait.
func tampered(calls, inject string) func(context.Context, *world, planned, *member) (func(context.Context) error, error) {
	return func(_ context.Context, w *world, _ planned, m *member) (func(context.Context) error, error) {
		log := filepath.Join(w.dir, fmt.Sprintf("strace-%s-%d.log", m.name, time.Now().UnixNano()))
		m.trace = log
		tracer := exec.Command("strace", traceArgs(m.node.PID(), log, calls, inject)...)
		tracer.SysProcAttr = rig.DieWithParent()
		if err := tracer.Start(); err != nil {
			return nil, err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = tracer.Wait() // it ends with its process, or is told to
		}()
		return func(ctx context.Context) error {
			if err := tracer.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			select {
			case <-ended:
			case <-time.After(detachWithin):
				_ = tracer.Process.Kill() // the kernel lets go of what it held
				<-ended
			}
			w.logf("%s: %d calls were tampered with", m.name, tamperedCalls(log))
			return w.back(ctx, m)
		}, nil
	}
}

// tamperedCalls counts the calls in strace's log that were tampered with.
func tamperedCalls(log string) int {
	b, err := os.ReadFile(log)
	if err != nil { // it was never written to
		return 0
	}
	return bytes.Count(b, []byte("(INJECTED)")) + bytes.Count(b, []byte("(DELAYED)"))
}

// hasTampered reports whether any call of the member's was tampered with yet,
// or its process has ended, by which nothing is left to be.
func hasTampered(_ *world, m *member) func() bool {
	return func() bool { return tamperedCalls(m.trace) > 0 || !m.node.Running() }
}

// refillEvery is how often what a node has given up of its disk is taken.
const refillEvery = 100 * time.Millisecond

// fillDisk takes all that is left of a node's disk, again and again.
func fillDisk(ctx context.Context, w *world, _ planned, m *member) (func(context.Context) error, error) {
	filler, err := os.OpenFile(m.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := fill(filler); err != nil {
		return nil, errors.Join(err, filler.Close())
	}
	refill := rig.Begin(context.WithoutCancel(ctx), func(ctx context.Context) error {
		for rig.Pause(ctx, refillEvery) == nil {
			if err := fill(filler); err != nil {
				return err
			}
		}
		return nil
	})
	return func(ctx context.Context) error {
		refill.End()
		return errors.Join(refill.Wait(), filler.Close(), os.Remove(m.filler()), w.back(ctx, m))
	}, nil
}

// fill writes until the disk is full, to the last byte.
func fill(f io.Writer) error {
	for _, piece := range [][]byte{make([]byte, 1<<20), make([]byte, 4096), make([]byte, 1)} {
		for {
			_, err := f.Write(piece)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// back starts a node again that has ended by itself, as one may whose disk
// failed it.
func (w *world) back(ctx context.Context, m *member) error {
	if m.node.Running() {
		return nil
	}
	m.gone()
	w.logf("%s ended by itself: %s", m.name, m.lastError())
	return w.revive(ctx, m, "start")
}
