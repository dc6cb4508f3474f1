package packer

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/node/source"
)

func small(i int) int { return i * 7 % 50 }

func TestPacksWhatIsMarked(t *testing.T) {
	w := newWorld(t)
	files := w.add(300, small)
	w.write("empty", nil)
	w.register("files", "empty", "empty")
	files["empty"] = nil
	reg := prometheus.NewRegistry()
	p := w.packer(func(c *Config) { c.Metrics = reg })
	res, err := p.Once(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if res.Packs != 1 || res.Rows != 301 || res.Due != 301 || res.Failed+res.Left+res.Again+res.Busy != 0 {
		t.Errorf("result %+v", res)
	}
	w.check(files)
	_, h := w.read("dir1/file-1.txt")
	row := w.row("dir1/file-1.txt")
	if h.ID != row.ID || h.Source != "files" || h.Version != row.Version || !h.ModTime.Equal(row.ModTime) || h.Seq.IsZero() {
		t.Errorf("header %+v for row %+v", h.Record, row)
	}
	if row.PackedAt.IsZero() || row.Pack.IsZero() {
		t.Errorf("row %+v", row)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP des_packer_rows_total Records in committed packs.
# TYPE des_packer_rows_total counter
des_packer_rows_total 301
# HELP des_packer_backlog_rows MARKED rows that were due at the last round.
# TYPE des_packer_backlog_rows gauge
des_packer_backlog_rows 301
`), "des_packer_rows_total", "des_packer_backlog_rows"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(p.metrics.wait); n != 1 {
		t.Errorf("%d histograms of the delay", n)
	}
	res, err = p.Once(t.Context(), true)
	if err != nil || res != (Result{}) {
		t.Errorf("a second round did %+v, %v", res, err)
	}
}

func TestSmallBacklogWaits(t *testing.T) {
	w := newWorld(t)
	files := w.add(3, small)
	now := epoch
	w.now = func() time.Time { return now }
	p := w.packer()
	for _, step := range []struct {
		name  string
		at    time.Time
		packs int
	}{
		{"fresh", epoch, 0},
		{"after almost a day", epoch.Add(24*time.Hour - 1), 0},
		{"after a day", epoch.Add(24 * time.Hour), 1},
	} {
		now = step.at
		if res, err := p.Once(t.Context(), false); err != nil || res.Packs != step.packs || res.Due != 3 {
			t.Errorf("%s: %+v, %v", step.name, res, err)
		}
	}
	w.check(files)
}

func TestPlansOnlyWhenMarkingIsAtRest(t *testing.T) {
	w := newWorld(t)
	w.add(3, small)
	rested, full := false, true
	p := w.packer(func(c *Config) { c.Marking = func() (bool, bool, bool) { return rested, full, false } })
	if res, err := p.Once(t.Context(), false); err != nil || res != (Result{}) {
		t.Errorf("packed while marking goes on: %+v, %v", res, err)
	}
	rested = true
	if res, err := p.Once(t.Context(), false); err != nil || res.Packs != 1 {
		t.Errorf("marking waits at its limit and nothing is packed: %+v, %v", res, err)
	}
}

func TestSpreadsOverSeveralRangesAndPages(t *testing.T) {
	w := newWorld(t, "a", "b")
	files := w.add(2500, func(int) int { return 1 })
	for i := range 700 {
		name := fmt.Sprintf("b/%d", i)
		files[name] = []byte(name)
		w.write(name, files[name])
	}
	var batch []source.File
	for i := range 700 {
		name := fmt.Sprintf("b/%d", i)
		info, err := os.Lstat(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, source.File{Name: name, Path: filepath.Join(w.dir, name), Size: info.Size(), ModTime: info.ModTime()})
	}
	w.mark("b", batch...)
	p := w.packer(func(c *Config) { c.PackSize = 128 << 10 })
	res, err := p.Once(t.Context(), true)
	if err != nil || res.Rows != 3200 {
		t.Fatalf("%+v, %v", res, err)
	}
	if res.Packs != 8 {
		t.Errorf("%d packs of 128 KiB for 3,200 rows with %d bytes each", res.Packs, rowOverhead)
	}
	w.check(files)
}

func TestLargeFilesAreStreamed(t *testing.T) {
	w := newWorld(t)
	files := w.add(20, func(i int) int { return i * 20_000 })
	p := w.packer(func(c *Config) { c.SmallFile, c.ReadAhead, c.Readers = 4096, 8192, 3 })
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 20 {
		t.Fatalf("%+v, %v", res, err)
	}
	w.check(files)
}

func TestAPackEndsEarlyWhenRowsAreHuge(t *testing.T) {
	w := newWorld(t)
	files := w.add(6, func(int) int { return 50_000 })
	p := w.packer(func(c *Config) { c.PackSize = 4096 })
	w.drain(p)
	w.check(files)
	for _, pack := range w.packs {
		if pack.Size > packLimit*4096+150_000 {
			t.Errorf("a pack of %d bytes", pack.Size)
		}
	}
}

func (unreadable) Open(context.Context, string) (source.Original, error) {
	return nil, &fs.PathError{Op: "open", Path: "x", Err: syscall.EIO}
}
