package packer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
)

// fakePace grants what it is told to, and no more.
type fakePace struct {
	pace.Free
	held  *pace.Held
	grant pace.Amount // of each step; zero: all
	wants []pace.Want
}

func (f *fakePace) Held() error {
	if f.held == nil {
		return nil
	}
	return f.held
}

func (f *fakePace) Parallel(int) int { return 1 } // so that wants needs no lock

func (f *fakePace) Take(_ context.Context, want pace.Want) (*pace.Grant, error) {
	f.wants = append(f.wants, want)
	if f.grant == (pace.Amount{}) {
		return &pace.Grant{Amount: want.Amount}, nil
	}
	return &pace.Grant{Amount: pace.Amount{Files: min(want.Files, f.grant.Files), Bytes: min(want.Bytes, f.grant.Bytes)}}, nil
}

func TestAHeldPackerPacksNothingAndTellsWhy(t *testing.T) {
	w := newWorld(t)
	files := w.add(10, small)
	f := &fakePace{held: &pace.Held{Kind: pace.Pack, Cause: pace.CausePause, Text: "backup"}}
	p := w.packer(func(c *Config) { c.Pace = f })
	res, err := p.Once(t.Context(), true)
	if err != nil || res.Held != f.held || res.Packs != 0 || res.progress() || len(f.wants) != 0 {
		t.Errorf("%+v, %v after %d questions", res, err, len(f.wants))
	}
	if !errors.Is(p.Problem(), pace.ErrHeld) {
		t.Errorf("problem %v", p.Problem())
	}
	f.held = nil
	w.drain(p)
	w.check(files)
	if p.Problem() != nil {
		t.Errorf("problem %v", p.Problem())
	}
}

func TestAPackHoldsNoMoreThanIsGranted(t *testing.T) {
	for _, grant := range []pace.Amount{{Files: 3, Bytes: 1 << 30}, {Files: 100, Bytes: 450}} {
		w := newWorld(t)
		files := w.add(10, func(int) int { return 100 }) // of 200 bytes
		f := &fakePace{grant: grant}
		p := w.packer(func(c *Config) { c.Pace = f })
		for range 10 {
			res, err := p.Once(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if res.Rows > grant.Files || res.Bytes > grant.Bytes {
				t.Errorf("packed %d rows of %d bytes, granted were %+v", res.Rows, res.Bytes, grant)
			}
			if res.Due == 0 {
				break
			}
		}
		w.check(files)
		if first := f.wants[0]; first.Files != 10 || first.Bytes != 2000 || !first.Whole {
			t.Errorf("asked for %+v", first)
		}
	}
}

func TestRowsThatMayNotBeTouchedArePackedAgainAfterABackOff(t *testing.T) {
	w := newWorld(t)
	now := epoch
	w.now = func() time.Time { return now }
	w.write("bad", []byte("content of bad"))
	w.register("files", "bad", "bad")
	w.trigger("files", `BEFORE UPDATE ON files BEGIN SELECT RAISE(ABORT, 'read only'); END`)
	p := w.packer(func(c *Config) { c.Backoff = time.Minute })
	packs := func(step string, want int, waiting int64) {
		t.Helper()
		res, err := p.Once(t.Context(), true)
		if err != nil || res.Packs != want || res.Waiting != waiting {
			t.Errorf("%s: %+v, %v; want %d packs, %d rows waiting", step, res, err, want, waiting)
		}
		if !errors.Is(p.Problem(), ErrRefused) {
			t.Errorf("%s: problem %v", step, p.Problem())
		}
	}
	packs("first", 1, 0)
	packs("at once", 0, 1)
	now = now.Add(59 * time.Second)
	packs("before the back-off ends", 0, 1)
	now = now.Add(time.Second)
	packs("after the back-off", 1, 0)
	now = now.Add(time.Minute)
	packs("it has doubled", 0, 1)
	p.Kick()
	packs("asked for", 1, 0)
}

func TestHeldBackRowsAreBounded(t *testing.T) {
	s := stubborn{backoff: time.Minute}
	now := epoch
	key := func(i int) rowKey { return rowKey{"files", fmt.Sprint(i), 1} }
	for i := range maxStubborn + 10 {
		s.refused(key(i), 0, now)
	}
	if len(s.rows) != maxStubborn {
		t.Fatalf("%d rows are held back", len(s.rows))
	}
	s.refused(key(maxStubborn+20), 0, now.Add(3*time.Minute)) // the others are over
	if len(s.rows) != 1 {
		t.Errorf("%d rows are held back after all but one were over", len(s.rows))
	}
	row := source.Row{Source: "files", ID: fmt.Sprint(maxStubborn + 20), Version: 1}
	if !s.holds(row, now.Add(3*time.Minute)) {
		t.Error("the newest is not held back")
	}
	row.Attempts = 1
	if s.holds(row, now.Add(3*time.Minute)) || len(s.rows) != 0 {
		t.Error("held back although its attempts are counted")
	}
}

func TestRowsOfAMissingRootAreToldAsStuckUntilItIsBack(t *testing.T) {
	w := newWorld(t)
	away := filepath.Join(t.TempDir(), "unmounted")
	w.sources[0].Files = source.NewFolders(func() []string { return []string{w.dir, away} })
	modified := time.Unix(1_000_000_000, 0)
	var lost []source.File
	for i := range 60 {
		name := fmt.Sprint("lost", i)
		lost = append(lost, source.File{Name: name, Path: filepath.Join(away, name), Size: 2, ModTime: modified})
	}
	w.mark("files", lost...)
	w.add(20, small)
	p := w.packer()
	if _, err := p.Once(t.Context(), true); !errors.Is(err, ErrLeft) {
		t.Fatal(err)
	}
	rows, bytes, below := p.Stuck("files")
	if rows != 60 || bytes != 120 {
		t.Errorf("%d rows of %d bytes are stuck, want 60 of 120", rows, bytes)
	}
	if !below(filepath.Join(away, "x")) || below(filepath.Join(w.dir, "x")) {
		t.Error("the wrong root is missing")
	}
	if rows, _, _ := p.Stuck("other"); rows != 0 {
		t.Errorf("%d rows of another source are stuck", rows)
	}
	if err := os.Mkdir(away, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range lost {
		if err := errors.Join(os.WriteFile(f.Path, []byte("ab"), 0o600), os.Chtimes(f.Path, modified, modified)); err != nil {
			t.Fatal(err)
		}
	}
	w.drain(p)
	if rows, bytes, below := p.Stuck("files"); rows != 0 || bytes != 0 || below(filepath.Join(away, "x")) {
		t.Errorf("%d rows of %d bytes are stuck after the root came back", rows, bytes)
	}
}
