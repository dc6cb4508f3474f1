package safety

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/packer"
)

// disk is a folder in memory that forgets, at a power cut, what was not flushed:
// bytes that no Sync of their file and names that no Sync of the folder has
// promised to keep.
type disk struct {
	mu      sync.Mutex // guards what follows
	names   map[string]*onDisk
	durable map[string]*onDisk // the names that a power cut leaves
}

// onDisk is a file: its bytes, and those that a power cut leaves.
type onDisk struct{ bytes, durable []byte }

func newDisk() *disk { return &disk{names: map[string]*onDisk{}, durable: map[string]*onDisk{}} }

// powerCut loses what was not flushed.
func (d *disk) powerCut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names = maps.Clone(d.durable)
	for _, f := range d.names {
		f.bytes = slices.Clone(f.durable)
	}
}

func (d *disk) open(name string, empty bool) *handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[name]
	if f == nil {
		f = &onDisk{}
		d.names[name] = f
	}
	if empty {
		f.bytes = nil
	}
	return &handle{disk: d, file: f}
}

func (d *disk) Open(name string) (keeper.DiskFile, error) { return d.open(name, false), nil }

func (d *disk) Create(name string) (keeper.DiskFile, error) { return d.open(name, true), nil }

func (d *disk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.names[from] == nil:
		return fs.ErrNotExist
	case d.names[to] != nil:
		return fs.ErrExist
	}
	d.names[to] = d.names[from]
	return nil
}

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[from] == nil {
		return fs.ErrNotExist
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = maps.Clone(d.names)
	return nil
}

// handle is an open file: read from its own place, written at the end.
type handle struct {
	disk *disk
	file *onDisk
	pos  int
}

func (h *handle) Read(p []byte) (int, error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.pos >= len(h.file.bytes) {
		return 0, io.EOF
	}
	n := copy(p, h.file.bytes[h.pos:])
	h.pos += n
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.file.bytes = append(h.file.bytes, p...)
	return len(p), nil
}

func (h *handle) Truncate(size int64) error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.file.bytes = h.file.bytes[:min(int(size), len(h.file.bytes))]
	return nil
}

func (h *handle) Sync() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.file.durable = slices.Clone(h.file.bytes)
	return nil
}

func (h *handle) Close() error { return nil }

// spool is a packer.Spool in memory. Nothing in it need survive anything.
type spool struct {
	mu    sync.Mutex
	files map[string]*spooled // guarded by mu
}

func newSpool() *spool { return &spool{files: map[string]*spooled{}} }

func (s *spool) Clean() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.files)
	return nil
}

func (s *spool) Create(name string) (packer.SpoolFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[name] != nil {
		return nil, fs.ErrExist
	}
	f := &spooled{}
	s.files[name] = f
	return f, nil
}

func (s *spool) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[name] == nil {
		return fs.ErrNotExist
	}
	delete(s.files, name)
	return nil
}

// spooled is a file that one goroutine uses.
type spooled struct{ bytes []byte }

func (f *spooled) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.bytes)) {
		return 0, io.EOF
	}
	n := copy(p, f.bytes[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *spooled) WriteAt(p []byte, off int64) (int, error) {
	if off > int64(len(f.bytes)) {
		return 0, errors.New("a hole in the spool file")
	}
	f.bytes = append(f.bytes[:off], append(slices.Clone(p), f.bytes[min(off+int64(len(p)), int64(len(f.bytes))):]...)...)
	return len(p), nil
}

func (f *spooled) Truncate(size int64) error {
	f.bytes = f.bytes[:min(size, int64(len(f.bytes)))]
	return nil
}

func (f *spooled) Sync() error { return nil }

func (f *spooled) Close() error { return nil }
