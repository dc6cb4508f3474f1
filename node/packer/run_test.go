package packer

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/node/source"
)

func TestAttemptsEndAndBackOff(t *testing.T) {
	w := newWorld(t)
	w.add(1, small)
	w.write("gone", []byte("x"))
	w.register("files", "gone", "gone")
	if err := os.Remove(filepath.Join(w.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	now := epoch
	w.now = func() time.Time { return now }
	p := w.packer(func(c *Config) { c.MaxAttempts, c.MaxWait, c.Backoff = 3, time.Nanosecond, time.Minute })
	for i, step := range []struct {
		after    time.Duration
		attempts int
		state    source.State
	}{
		{time.Second, 1, source.Marked},
		{30 * time.Second, 1, source.Marked}, // backs off for a minute
		{31 * time.Second, 2, source.Marked},
		{time.Minute, 2, source.Marked}, // backs off for two
		{time.Minute, 3, source.Failed},
		{time.Hour, 3, source.Failed},
	} {
		now = now.Add(step.after)
		if _, err := p.Once(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		row := w.row("gone")
		if row.Attempts != step.attempts || row.State != step.state || row.ErrorCode != source.CodeNoFile {
			t.Errorf("step %d: %s after %d attempts, %s; want %s after %d", i, row.State, row.Attempts, row.ErrorCode, step.state, step.attempts)
		}
	}
}

func TestFlushIgnoresTheBackOff(t *testing.T) {
	w := newWorld(t)
	w.write("gone", []byte("x"))
	w.register("files", "gone", "gone")
	w.write("other", []byte("x"))
	if err := os.Remove(filepath.Join(w.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	p := w.packer(func(c *Config) { c.MaxAttempts = 3 })
	for i := range 3 {
		if res, err := p.Once(t.Context(), true); err != nil || res.Failed != 1 {
			t.Fatalf("round %d: %+v, %v", i, res, err)
		}
	}
	if row := w.row("gone"); row.State != source.Failed {
		t.Errorf("row is %s", row.State)
	}
	if len(w.packs)+len(w.uploads) != 0 {
		t.Error("a build without a record left a pack or an upload")
	}
	if got := w.store.Counts().Put; got != 0 {
		t.Errorf("%d objects put", got)
	}
}

func TestRunFlushesOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		files := w.add(30, small)
		w.write("gone", nil)
		w.register("files", "gone", "gone")
		if err := os.Remove(filepath.Join(w.dir, "gone")); err != nil {
			t.Fatal(err)
		}
		w.now = time.Now
		var marking atomic.Bool
		p := w.packer(func(c *Config) { c.Marking = func() (bool, bool, bool) { return !marking.Load(), false, false } })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if len(w.packs) != 0 {
			t.Error("packed a small backlog before its time")
		}
		marking.Store(true)
		p.Flush()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.packs) != 0 {
			t.Error("packed while marking goes on")
		}
		marking.Store(false)
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		w.check(files)
		if row := w.row("gone"); row.State != source.Failed || row.Attempts != 5 {
			t.Errorf("the missing file's row is %s after %d attempts", row.State, row.Attempts)
		}
	})
}

func TestRunOutlivesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		files := w.add(30, small)
		var down atomic.Bool
		down.Store(true)
		w.hook = func(step string) fault {
			if down.Load() && step == "put" {
				return notDone
			}
			return noFault
		}
		p := w.packer()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		for range 600 { // an archive run asks again and again; that must not end the pauses
			p.Flush()
			time.Sleep(time.Second) // virtual
		}
		synctest.Wait()
		puts := len(w.uploads)
		if puts < 5 || puts > 30 {
			t.Errorf("%d builds in ten minutes of a broken store", puts)
		}
		down.Store(false)
		time.Sleep(5 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		w.check(files)
	})
}

func TestNewRefusesABadConfig(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name   string
		change func(*Config)
	}{
		{"no sources", func(c *Config) { c.Sources = nil }},
		{"no view", func(c *Config) { c.View = nil }},
		{"no manifest", func(c *Config) { c.Manifest = nil }},
		{"no store", func(c *Config) { c.Store = nil }},
		{"no finder", func(c *Config) { c.Finder = nil }},
		{"no acknowledger", func(c *Config) { c.Acks = nil }},
		{"no spool", func(c *Config) { c.SpoolDir, c.Spool = "", nil }},
		{"tiny packs", func(c *Config) { c.PackSize = 100 }},
		{"negative workers", func(c *Config) { c.Workers = -1 }},
		{"negative wait", func(c *Config) { c.MaxWait = -1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := w.packer().cfg
			tt.change(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}
