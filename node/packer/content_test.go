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
	"syscall"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

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
