package keeper

import (
	"errors"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
)

// failingDisk is a folder whose steps fail as often as fail says, by name.
type failingDisk struct {
	folder
	fail map[string]int
}

var errDisk = errors.New("disk fault")

func (d *failingDisk) step(name string) error {
	if d.fail[name] > 0 {
		d.fail[name]--
		return errDisk
	}
	return nil
}

func (d *failingDisk) Open(name string) (DiskFile, error) {
	f, err := d.folder.Open(name)
	return failingFile{f, d}, errors.Join(d.step("open"), err)
}

func (d *failingDisk) Create(name string) (DiskFile, error) {
	f, err := d.folder.Create(name)
	return failingFile{f, d}, errors.Join(d.step("create"), err)
}

func (d *failingDisk) Rename(from, to string) error {
	return errors.Join(d.folder.Rename(from, to), d.step("rename"))
}

func (d *failingDisk) Sync() error { return errors.Join(d.step("sync names"), d.folder.Sync()) }

type failingFile struct {
	DiskFile
	disk *failingDisk
}

func (f failingFile) Write(b []byte) (int, error) {
	if err := f.disk.step("write"); err != nil {
		n, _ := f.DiskFile.Write(b[:len(b)/2])
		return n, err
	}
	return f.DiskFile.Write(b)
}

func (f failingFile) Sync() error { return errors.Join(f.disk.step("sync"), f.DiskFile.Sync()) }

// A log that failed goes on in another file, which knows what was promised and
// nothing else; and what is written then is what the next start reads.
func TestAuditLogGoesOnAfterAFault(t *testing.T) {
	pack := desformat.PackID{1}
	kept, lost, late := auditRecord{ID: "kept", Pack: pack}, auditRecord{ID: "lost", Pack: pack}, auditRecord{ID: "late", Pack: pack}
	for _, c := range []struct {
		name  string
		fail  map[string]int
		fails int // appends that fail, of the same record
	}{
		{"write", map[string]int{"write": 1}, 1},
		{"flush", map[string]int{"sync": 1}, 1},
		{"write, and the next log's", map[string]int{"write": 2}, 2},
		{"flush, and the next log's", map[string]int{"sync": 2}, 2},
		{"flush, and the next log's making", map[string]int{"sync": 1, "create": 1}, 2},
		{"flush, and the next log's name", map[string]int{"sync": 1, "rename": 1}, 2},
		{"flush, and the flush of names", map[string]int{"sync": 1, "sync names": 2}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := &failingDisk{folder: folder(t.TempDir())}
			l, err := openAudit(disk, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, auditIntent, kept)
			disk.fail = c.fail
			for range c.fails {
				if err := l.append(auditIntent, "", lost); !errors.Is(err, errDisk) {
					t.Errorf("append over a fault: %v", err)
				}
			}
			if l.isOpen(lost) {
				t.Error("what failed is believed to be written")
			}
			mustAppend(t, l, auditIntent, late)
			mustAppend(t, l, auditDeleted, kept)
			if err := l.close(); err != nil {
				t.Error(err)
			}
			again, err := openAudit(disk, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if again.isOpen(kept) || again.isOpen(lost) || !again.isOpen(late) {
				t.Errorf("the next start finds %v", again.open)
			}
			_ = again.close()
		})
	}
}

// A rotation that was cut at its last step leaves no log that is written and
// never read again.
func TestAuditLogGoesOnAfterACutRotation(t *testing.T) {
	for _, step := range []string{"create", "write", "sync", "rename", "sync names"} {
		t.Run(step, func(t *testing.T) {
			disk := &failingDisk{folder: folder(t.TempDir())}
			l, err := openAudit(disk, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			gone := auditRecord{ID: "gone", Root: "1:1"}
			mustAppend(t, l, auditIntent, gone)
			mustAppend(t, l, auditDeleted, gone)
			disk.fail = map[string]int{step: 1}
			if err := l.rotate(1); !errors.Is(err, errDisk) {
				t.Fatalf("rotate: %v", err)
			}
			late := auditRecord{ID: "late"}
			mustAppend(t, l, auditIntent, late)
			_ = l.close()
			again, err := openAudit(disk, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if !again.isOpen(late) || !again.emptied("1:1") {
				t.Errorf("the next start finds %v, roots %v", again.open, again.roots)
			}
			_ = again.close()
		})
	}
}
