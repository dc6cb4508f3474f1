package packer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
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

// A file that changes at any moment between its opening and its end is never
// packed, whether it is read whole or streamed, and is charged to the row.
func TestChangedFilesNeverEnterAPackHalfWay(t *testing.T) {
	const size = 30_000
	content := bytes.Repeat([]byte("x"), size)
	changes := []struct {
		name   string
		change func(path string) error
		codes  []string
	}{
		{"rewritten in place", func(p string) error { return overwrite(p, bytes.Repeat([]byte("y"), size)) }, []string{source.CodeChanged}},
		{"shrunk", func(p string) error { return os.Truncate(p, size/2) }, []string{source.CodeChanged}},
		{"extended", func(p string) error { return os.Truncate(p, size+1) }, []string{source.CodeChanged}},
		{"touched", func(p string) error { return os.Chtimes(p, time.Time{}, epoch) }, []string{source.CodeChanged}},
		{"removed", os.Remove, []string{source.CodeChanged, source.CodeNoFile}},
		{"replaced", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", bytes.Repeat([]byte("z"), size), 0o600), os.Rename(p+".new", p))
		}, []string{source.CodeChanged}},
		{"replaced by a folder", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, []string{source.CodeChanged, source.CodeNotRegular}},
	}
	moments := []string{"before opening", "after opening", "in the middle", "at the end"}
	for _, c := range changes {
		for _, moment := range moments {
			for _, streamed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/streamed=%v", c.name, moment, streamed), func(t *testing.T) {
					w := newWorld(t)
					files := w.add(5, small)
					w.write("victim", content)
					old := time.Now().Add(-time.Hour)
					if err := os.Chtimes(filepath.Join(w.dir, "victim"), old, old); err != nil {
						t.Fatal(err)
					}
					w.register("files", "victim", "victim")
					victim := w.row("victim")

					done := false
					change := func(path string) {
						if filepath.Base(path) != "victim" || done { // only the victim's one reader looks at done
							return
						}
						done = true
						if err := c.change(path); err != nil {
							t.Error(err)
						}
					}
					hooks := w.sources[0].Files.(*hookedFiles)
					switch moment {
					case "before opening":
						change(filepath.Join(w.dir, "victim"))
					case "after opening":
						hooks.opened = change
					case "in the middle":
						hooks.read = func(path string, offset int64) {
							if offset > 0 {
								change(path)
							}
						}
					case "at the end":
						hooks.read = func(path string, offset int64) {
							if offset == size {
								change(path)
							}
						}
					}
					p := w.packer(func(cfg *Config) {
						if streamed {
							cfg.SmallFile = 1
						}
					})
					res, err := p.Once(t.Context(), true)
					if err != nil || !done {
						t.Fatalf("%+v, changed %v, %v", res, done, err)
					}
					if res.Rows != 5 || res.Failed != 1 {
						t.Errorf("result %+v", res)
					}
					row := w.row("victim")
					found := false
					for _, code := range c.codes {
						found = found || row.ErrorCode == code
					}
					if row.State != source.Marked || row.Attempts != victim.Attempts+1 || !found {
						t.Errorf("row is %s after %d attempts: %s %s", row.State, row.Attempts, row.ErrorCode, row.ErrorText)
					}
					w.check(files)
				})
			}
		}
	}
}

func overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

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

func TestChecksumOfTheRowIsHeldAgainstTheContent(t *testing.T) {
	w := newWorld(t)
	files := w.add(4, small)
	good := sha256.Sum256(files["dir1/file-1.txt"])
	rows := &checksums{Table: w.sources[0].Rows, sums: map[string]*[32]byte{
		"dir1/file-1.txt": &good,
		"dir2/file-2.txt": {1, 2, 3},
	}}
	w.sources[0].Rows = rows
	for _, smallFile := range []int64{1 << 10, 1} { // read whole, and streamed
		p := w.packer(func(c *Config) { c.SmallFile = smallFile })
		if res, err := p.Once(t.Context(), true); err != nil || res.Failed != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		if row := w.row("dir2/file-2.txt"); row.ErrorCode != source.CodeChecksum || row.State != source.Marked {
			t.Errorf("row is %s, %s", row.State, row.ErrorCode)
		}
	}
	delete(files, "dir2/file-2.txt")
	w.check(files)
}

// checksums gives rows a mapped checksum.
type checksums struct {
	source.Table
	sums map[string]*[32]byte
}

func (c *checksums) Marked(ctx context.Context, r desformat.Range, a source.After, d source.Due, n int) ([]source.Row, error) {
	rows, err := c.Table.Marked(ctx, r, a, d, n)
	for i := range rows {
		rows[i].SHA256 = c.sums[rows[i].DesName]
	}
	return rows, err
}

func TestOneNameInTwoSources(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.write("one", []byte("first"))
	w.write("two", []byte("second"))
	w.register("a", "name", "one")
	w.register("b", "name", "two")
	p := w.packer()
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 1 || res.Failed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	refused := func() {
		t.Helper()
		row, err := w.tables["b"].ByName(t.Context(), "name")
		if err != nil || row.State != source.Failed || row.ErrorCode != source.CodeDuplicateName {
			t.Errorf("the second row is %s, %s, %v", row.State, row.ErrorCode, err)
		}
		if b, h := w.read("name"); string(b) != "first" || h.Source != "a" {
			t.Errorf("the name serves %q of source %s", b, h.Source)
		}
	}
	refused()
	// And again when the first lives already.
	if n, err := w.tables["b"].Retry(t.Context(), source.Selection{}, epoch); err != nil || n != 1 {
		t.Fatalf("retried %d, %v", n, err)
	}
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 0 || res.Failed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	refused()
}

func TestSecondRowOfANameIsPackedWhenTheFirstCannotBe(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.write("one", []byte("first"))
	w.write("two", []byte("second"))
	w.register("a", "name", "one")
	w.register("b", "name", "two")
	if err := os.Remove(filepath.Join(w.dir, "one")); err != nil {
		t.Fatal(err)
	}
	p := w.packer()
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 1 || res.Failed != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if b, _ := w.read("name"); string(b) != "second" {
		t.Errorf("the name serves %q", b)
	}
}

// A restored database lists as MARKED, or again as ACTIVE, what lives in packs
// already, and originals that may be deleted.
func TestRestoredDatabaseIsNotPackedTwice(t *testing.T) {
	w := newWorld(t)
	files := w.add(1200, small)
	w.drain(w.packer())
	before := len(w.packs)

	restored, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: filepath.Join(t.TempDir(), "old.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = restored.Close() })
	// The same rows under the same ids, in a database that knows of no pack.
	for _, batch := range rowsByID(t, w.tables["files"]) {
		if _, err := restored.Register(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	w.tables["files"] = restored
	w.sources[0].Rows = &faultyRows{restored, w}
	w.mark("files")
	for name := range files {
		if strings.HasPrefix(name, "dir1/") {
			if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := w.packer()
	res, err := p.Once(t.Context(), true)
	if err != nil || res.Again != 1200 || res.Rows+res.Failed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if len(w.packs) != before {
		t.Errorf("%d packs, were %d", len(w.packs), before)
	}
	w.check(files)
}

func rowsByID(t *testing.T, table source.Table) [][]source.File {
	t.Helper()
	var batches [][]source.File
	for id := 1; ; id++ {
		row, err := table.ByID(t.Context(), fmt.Sprint(id))
		if errors.Is(err, source.ErrNotFound) {
			return batches
		}
		if err != nil {
			t.Fatal(err)
		}
		if (id-1)%source.MaxBatch == 0 {
			batches = append(batches, nil)
		}
		last := len(batches) - 1
		batches[last] = append(batches[last], source.File{Name: row.Name, Path: row.Path, Size: row.Size, ModTime: row.ModTime})
	}
}

func TestChangedFileIsPackedAsANewerVersion(t *testing.T) {
	w := newWorld(t)
	files := w.add(3, small)
	p := w.packer()
	w.drain(p)
	_, before := w.read("dir1/file-1.txt")
	w.write("dir1/file-1.txt", []byte("changed"))
	w.register("files", "dir1/file-1.txt", "dir1/file-1.txt")
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != 1 || res.Again != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	got, after := w.read("dir1/file-1.txt")
	if string(got) != "changed" || after.Version != before.Version+1 || after.Seq.Compare(before.Seq) <= 0 {
		t.Errorf("reads %q, version %d after %d, seq %s after %s", got, after.Version, before.Version, after.Seq, before.Seq)
	}
	files["dir1/file-1.txt"] = got
	for name := range files {
		if row := w.row(name); row.State != source.Packed {
			t.Errorf("%s is %s", name, row.State)
		}
	}
}

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

func TestFaultsOfFiles(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"missing", fmt.Errorf("x: %w", source.ErrNoFile), source.CodeNoFile},
		{"changed", source.ErrChanged, source.CodeChanged},
		{"a folder", source.ErrNotRegular, source.CodeNotRegular},
		{"outside", source.ErrOutside, source.CodeInvalidPath},
		{"bad sector", &fs.PathError{Err: syscall.EIO}, source.CodeReadError},
		{"no permission", &fs.PathError{Err: syscall.EACCES}, source.CodeReadError},
		{"root missing", &fs.PathError{Err: syscall.ENOENT}, ""},
		{"mount gone", &fs.PathError{Err: syscall.ESTALE}, ""},
		{"too many open files", &fs.PathError{Err: syscall.EMFILE}, ""},
		{"stopped", context.Canceled, ""},
		{"no word of the file", errors.New("root is out of reach"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := source.FileFault(tt.err); got != tt.want {
				t.Errorf("code %q, want %q", got, tt.want)
			}
		})
	}
}

// Read errors of one file after the other mean a mount in trouble.
func TestReadErrorsInARowLeaveTheRestAlone(t *testing.T) {
	w := newWorld(t)
	w.add(100, small)
	w.sources[0].Files = unreadable{w.sources[0].Files}
	res, err := w.packer().Once(t.Context(), true)
	if !errors.Is(err, ErrLeft) || !errors.Is(err, syscall.EIO) {
		t.Errorf("error %v", err)
	}
	// Rows prepared before the verdict may still be charged.
	if res.Failed < maxUnread || res.Failed > maxUnread+64 || res.Failed+res.Left != 100 {
		t.Errorf("%+v", res)
	}
}

type unreadable struct{ source.Originals }

func (unreadable) Open(context.Context, string) (source.Original, error) {
	return nil, &fs.PathError{Op: "open", Path: "x", Err: syscall.EIO}
}

func TestFullSpoolDiskChargesNobody(t *testing.T) {
	w := newWorld(t)
	files := w.add(50, func(i int) int { return 20_000 })
	p := w.packer()
	room := int64(300_000)
	create := p.create
	p.create = func(path string) (spoolFile, error) {
		f, err := create(path)
		return &limitedSpool{f, room}, err
	}
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
	room = 1 << 30
	w.drain(p)
	w.check(files)
}

// limitedSpool is a file on a disk with little room.
type limitedSpool struct {
	spoolFile
	room int64
}

func (l *limitedSpool) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > l.room {
		return 0, &fs.PathError{Op: "write", Path: "spool", Err: syscall.ENOSPC}
	}
	return l.spoolFile.WriteAt(b, off)
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
		{"no spool", func(c *Config) { c.SpoolDir = "" }},
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
