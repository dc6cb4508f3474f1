package safety

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/store"
)

// gatedStore is a store whose calls pass the gate. A stream that fails is one
// whose Get has failed.
type gatedStore struct {
	store.Store
	life *life
}

func (s gatedStore) Get(ctx context.Context, key, version string, off, n int64) (r io.ReadCloser, err error) {
	err = s.life.do("store.Get", func() (err error) {
		r, err = s.Store.Get(ctx, key, version, off, n)
		return err
	})
	if err != nil && r != nil { // the answer was lost
		_ = r.Close()
		r = nil
	}
	return r, err
}

func (s gatedStore) Head(ctx context.Context, key, version string) (store.Object, error) {
	return ask(s.life, "store.Head", func() (store.Object, error) { return s.Store.Head(ctx, key, version) })
}

func (s gatedStore) List(ctx context.Context, prefix, after string, f func(store.Object) error) error {
	return s.life.do("store.List", func() error { return s.Store.List(ctx, prefix, after, f) })
}

func (s gatedStore) Put(ctx context.Context, key string, body store.Body, size int64) (store.Object, error) {
	return ask(s.life, "store.Put", func() (store.Object, error) { return s.Store.Put(ctx, key, body, size) })
}

func (s gatedStore) Move(ctx context.Context, from, to string) error {
	return s.life.do("store.Move", func() error { return s.Store.Move(ctx, from, to) })
}

func (s gatedStore) Delete(ctx context.Context, key string) error {
	return s.life.do("store.Delete", func() error { return s.Store.Delete(ctx, key) })
}

func (s gatedStore) ConditionalCreate(ctx context.Context) (bool, error) {
	return ask(s.life, "store.ConditionalCreate", func() (bool, error) { return s.Store.ConditionalCreate(ctx) })
}

// uploads are the open multipart uploads of a store in memory.
type uploads struct {
	mu   sync.Mutex
	open []store.Upload // guarded by mu
}

func (u *uploads) Uploads(_ context.Context, prefix string, f func(store.Upload) error) error {
	u.mu.Lock()
	open := slices.Clone(u.open)
	u.mu.Unlock()
	for _, one := range open {
		if len(one.Key) >= len(prefix) && one.Key[:len(prefix)] == prefix {
			if err := f(one); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *uploads) Abort(_ context.Context, one store.Upload) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open = slices.DeleteFunc(u.open, func(o store.Upload) bool { return o.ID == one.ID })
	return nil
}

// gatedUploads are open uploads behind the gate.
type gatedUploads struct {
	store.Uploader
	life *life
}

func (u gatedUploads) Uploads(ctx context.Context, prefix string, f func(store.Upload) error) error {
	return u.life.do("store.Uploads", func() error { return u.Uploader.Uploads(ctx, prefix, f) })
}

func (u gatedUploads) Abort(ctx context.Context, one store.Upload) error {
	return u.life.do("store.Abort", func() error { return u.Uploader.Abort(ctx, one) })
}

// gatedDisk is the disk of the audit log behind the gate.
type gatedDisk struct {
	keeper.Disk
	life *life
}

func (d gatedDisk) Open(name string) (keeper.DiskFile, error) {
	f, err := ask(d.life, "audit.Open", func() (keeper.DiskFile, error) { return d.Disk.Open(name) })
	return gatedLog{f, d.life}, err
}

func (d gatedDisk) Create(name string) (keeper.DiskFile, error) {
	f, err := ask(d.life, "audit.Create", func() (keeper.DiskFile, error) { return d.Disk.Create(name) })
	return gatedLog{f, d.life}, err
}

func (d gatedDisk) Link(from, to string) error {
	return d.life.do("audit.Link", func() error { return d.Disk.Link(from, to) })
}

func (d gatedDisk) Rename(from, to string) error {
	return d.life.do("audit.Rename", func() error { return d.Disk.Rename(from, to) })
}

func (d gatedDisk) Sync() error { return d.life.do("audit.SyncDir", d.Disk.Sync) }

// gatedLog is an open file of that disk.
type gatedLog struct {
	keeper.DiskFile
	life *life
}

func (f gatedLog) Read(p []byte) (n int, err error) {
	errGate := f.life.do("audit.Read", func() error {
		n, err = f.DiskFile.Read(p)
		return nil
	})
	if errGate != nil {
		return 0, errGate
	}
	return n, err
}

func (f gatedLog) Write(p []byte) (int, error) {
	return ask(f.life, "audit.Write", func() (int, error) { return f.DiskFile.Write(p) })
}

func (f gatedLog) Truncate(size int64) error {
	return f.life.do("audit.Truncate", func() error { return f.DiskFile.Truncate(size) })
}

func (f gatedLog) Sync() error { return f.life.do("audit.Sync", f.DiskFile.Sync) }

// gatedSpool is a spool behind the gate.
type gatedSpool struct {
	packer.Spool
	life *life
}

func (s gatedSpool) Clean() error { return s.life.do("spool.Clean", s.Spool.Clean) }

func (s gatedSpool) Create(name string) (packer.SpoolFile, error) {
	f, err := ask(s.life, "spool.Create", func() (packer.SpoolFile, error) { return s.Spool.Create(name) })
	return gatedSpooled{f, s.life}, err
}

func (s gatedSpool) Remove(name string) error {
	return s.life.do("spool.Remove", func() error { return s.Spool.Remove(name) })
}

// gatedSpooled is a file of that spool.
type gatedSpooled struct {
	packer.SpoolFile
	life *life
}

func (f gatedSpooled) ReadAt(p []byte, off int64) (n int, err error) {
	errGate := f.life.do("spool.Read", func() error {
		n, err = f.SpoolFile.ReadAt(p, off)
		return nil
	})
	if errGate != nil {
		return 0, errGate
	}
	return n, err
}

func (f gatedSpooled) WriteAt(p []byte, off int64) (int, error) {
	return ask(f.life, "spool.Write", func() (int, error) { return f.SpoolFile.WriteAt(p, off) })
}

func (f gatedSpooled) Truncate(size int64) error {
	return f.life.do("spool.Truncate", func() error { return f.SpoolFile.Truncate(size) })
}

func (f gatedSpooled) Sync() error { return f.life.do("spool.Sync", f.SpoolFile.Sync) }
