package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/datavision/desnode/chaos/rig"
	"github.com/datavision/desnode/chaos/rig/rigtest"
)

// TestScenarios runs the scenarios in seconds, all at once: they wait far more
// than they work. Two take longer than a test may and are left to
// `make cluster-test`: a lease's expiry alone takes half a minute.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out processes")
	}
	if rigtest.RanAsRoot(t) {
		return
	}
	o := options{bin: filepath.Join(t.TempDir(), "desnode"), seed: 1, short: true}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", o.bin, "github.com/datavision/desnode")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	type run struct {
		s    scenario
		log  bytes.Buffer // read after task
		rep  *report      // likewise
		task *rig.Task
	}
	var runs []*run
	for _, s := range scenarios() {
		if s.long {
			continue
		}
		r := &run{s: s}
		r.task = rig.Begin(t.Context(), func(ctx context.Context) error {
			r.rep = o.try(ctx, s, &r.log)
			return nil
		})
		defer r.task.End()
		runs = append(runs, r)
	}
	for _, r := range runs {
		t.Run(r.s.name, func(t *testing.T) {
			_ = r.task.Wait() // nil: what went wrong is in the report
			r.rep.print(&r.log)
			if t.Log(r.log.String()); !r.rep.OK {
				t.Fail()
			}
		})
	}
}
