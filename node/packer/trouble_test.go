package packer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// A store that can't answer leaves rows alone: no attempt is charged.
func TestUnansweredLookUpChargesNobody(t *testing.T) {
	w := newWorld(t)
	files := w.add(200, small)
	w.hook = func(step string) fault {
		if step == "find" {
			return notDone
		}
		return noFault
	}
	p := w.packer()
	res, err := p.Once(t.Context(), true)
	if !errors.Is(err, ErrLeft) || !errors.Is(err, errInjected) || res.Left != 200 || res.Packs != 0 || res.Failed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if p.Problem() == nil {
		t.Error("no problem to show")
	}
	for name := range files {
		if row := w.row(name); row.Attempts != 0 || row.State != source.Marked {
			t.Fatalf("%s is %s after %d attempts", name, row.State, row.Attempts)
		}
	}
	w.hook = nil
	w.drain(p)
	w.check(files)
	if err := p.Problem(); err != nil {
		t.Errorf("problem %v after recovery", err)
	}
}

func TestMissingRootChargesNobodyAndStopsNoOtherSource(t *testing.T) {
	w := newWorld(t, "a", "b")
	files := w.add(100, small)
	w.write("other", []byte("of b"))
	w.register("b", "other", "other")
	away := filepath.Join(t.TempDir(), "unmounted")
	w.sources[0].Files = source.NewFolders(func() []string { return []string{w.dir, away} })
	rows := &moved{Table: w.sources[0].Rows, from: w.dir, to: away}
	w.sources[0].Rows = rows
	p := w.packer()
	for _, empty := range []bool{false, true} { // not there, and an empty mount point
		if empty {
			if err := os.Mkdir(away, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		res, err := p.Once(t.Context(), true)
		if !errors.Is(err, ErrLeft) || res.Failed != 0 || res.Left != 100 {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	if b, _ := w.read("other"); string(b) != "of b" {
		t.Errorf("the other source's file reads %q", b)
	}
	rows.to = w.dir
	w.drain(p)
	files["other"] = []byte("of b")
	w.check(files)
}

// moved lists rows whose files lie elsewhere.
type moved struct {
	source.Table
	from, to string
}

func (m *moved) Marked(ctx context.Context, r desformat.Range, a source.After, d source.Due, n int) ([]source.Row, error) {
	rows, err := m.Table.Marked(ctx, r, a, d, n)
	for i := range rows {
		rows[i].Path = strings.Replace(rows[i].Path, m.from, m.to, 1)
	}
	return rows, err
}

func TestFullSpoolDiskChargesNobody(t *testing.T) {
	w := newWorld(t)
	files := w.add(50, func(i int) int { return 20_000 })
	disk := &limitedDisk{Spool: spoolFolder(w.spool), room: 300_000}
	p := w.packer(func(c *Config) { c.Spool = disk })
	res, err := p.Once(t.Context(), true)
	if !errors.Is(err, ErrSpoolFull) || !errors.Is(err, syscall.ENOSPC) || res.Failed != 0 || res.Packs != 0 || res.Rows != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	for name := range files {
		if row := w.row(name); row.Attempts != 0 || row.State != source.Marked {
			t.Fatalf("%s is %s after %d attempts", name, row.State, row.Attempts)
		}
	}
	if left, err := os.ReadDir(w.spool); err != nil || len(left) != 0 {
		t.Errorf("%d files on the full disk, %v", len(left), err)
	}
	disk.room = 1 << 30
	w.drain(p)
	w.check(files)
}

// limitedDisk is a spool on a disk with little room.
type limitedDisk struct {
	Spool
	room int64
}

func (l *limitedDisk) Create(name string) (SpoolFile, error) {
	f, err := l.Spool.Create(name)
	return &limitedSpool{f, l.room}, err
}

// limitedSpool is a file on such a disk.
type limitedSpool struct {
	SpoolFile
	room int64
}

func (l *limitedSpool) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > l.room {
		return 0, &fs.PathError{Op: "write", Path: "spool", Err: syscall.ENOSPC}
	}
	return l.SpoolFile.WriteAt(b, off)
}

func TestLeftoversOfACrashAreRemovedFromTheSpool(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll(w.spool, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0123" + spoolSuffix, "keep.txt"} {
		if err := os.WriteFile(filepath.Join(w.spool, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.packer().Once(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(w.spool)
	if err != nil || len(left) != 1 || left[0].Name() != "keep.txt" {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestLeaseAheadOfTheViewIsNotUsed(t *testing.T) {
	w := newWorld(t)
	files := w.add(3, small)
	w.behind = true
	p := w.packer()
	if _, err := p.Once(t.Context(), true); !errors.Is(err, ErrBehind) {
		t.Errorf("error %v", err)
	}
	w.behind = false
	w.drain(p)
	w.check(files)
}

func TestStaleTokenEndsTheBuildAtOnce(t *testing.T) {
	w := newWorld(t)
	files := w.add(3, small)
	w.stale = true
	p := w.packer()
	if _, err := p.Once(t.Context(), true); !errors.Is(err, raftmeta.ErrStale) {
		t.Errorf("error %v", err)
	}
	if len(w.uploads) != 1 {
		t.Errorf("%d announced uploads: the collector must know the object", len(w.uploads))
	}
	w.stale = false
	w.drain(p)
	w.check(files)
}

func TestTakenRangesAreNotPacked(t *testing.T) {
	w := newWorld(t)
	w.add(3, small)
	p := w.packer()
	half, _ := desformat.ParseRange("1/1")
	token := desformat.Token{Generation: 1, Index: 1}
	w.leases[token] = raftmeta.Lease{Token: token, Job: raftmeta.Job{Kind: raftmeta.JobPack, Range: half}}
	if res, err := p.Once(t.Context(), true); err != nil || res.Busy != 1 || res.Packs != 0 {
		t.Errorf("leased: %+v, %v", res, err)
	}
	clear(w.leases)
	w.packs[desformat.PackID{9}] = &raftmeta.Pack{ID: desformat.PackID{9}, Range: half}
	if res, err := p.Once(t.Context(), true); err != nil || res.Busy != 1 || res.Packs != 0 {
		t.Errorf("unacknowledged: %+v, %v", res, err)
	}
	if w.index != 0 {
		t.Errorf("a lease was asked for")
	}
}
