package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/deploy/dev/devtest"
)

// TestSmoke makes a short run with a few kinds of faults: what the program
// itself needs to go wrong is there, and nothing is said to be wrong.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out processes, Postgres and S3")
	}
	chosen, err := choose("kill,restart,postgres-lost,postgres-reset,s3-lost,s3-reset")
	if err != nil {
		t.Fatal(err)
	}
	o := options{
		bin: filepath.Join(t.TempDir(), "desnode"), dir: devtest.Folder(t), report: t.TempDir(),
		length: 12 * time.Second, seed: 1, nodes: 3, kinds: chosen,
		load: loadConfig{Reads: 20, Files: 8, Changes: 2, Wave: 2 * time.Second, Archive: 5 * time.Second},
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", o.bin, "github.com/datavision/desnode")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var out bytes.Buffer
	code := o.run(t.Context(), &out, &out)
	if t.Log(out.String()); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
