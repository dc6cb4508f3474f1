package packer

import (
	"context"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

type faultyStore struct{ w *world }

func (s faultyStore) Put(ctx context.Context, key string, body store.Body, size int64) (o store.Object, err error) {
	s.w.mu.Lock()
	_, announced := s.w.uploads[key]
	s.w.mu.Unlock()
	if !announced {
		s.w.t.Errorf("object %s is sent before it was announced", key)
	}
	err = s.w.do("put", func() (err error) {
		o, err = s.w.store.Put(ctx, key, body, size)
		return err
	})
	return o, err
}

func (s faultyStore) Head(ctx context.Context, key, version string) (o store.Object, err error) {
	err = s.w.do("head", func() (err error) {
		o, err = s.w.store.Head(ctx, key, version)
		return err
	})
	return o, err
}

// faultyFolder is a spool whose steps can fail.
type faultyFolder struct {
	Spool
	w *world
}

func (f faultyFolder) Create(name string) (SpoolFile, error) {
	if f.w.step("create") != noFault {
		return nil, fmt.Errorf("create: %w", errInjected)
	}
	file, err := f.Spool.Create(name)
	return &faultySpool{file, f.w}, err
}

type faultySpool struct {
	SpoolFile
	w *world
}

func (f *faultySpool) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.w.do("write", func() (err error) {
		n, err = f.SpoolFile.WriteAt(b, off)
		return err
	})
	return n, err
}

func (f *faultySpool) Sync() error { return f.w.do("sync", f.SpoolFile.Sync) }

type faultyRows struct {
	source.Table
	w *world
}

func (r *faultyRows) Backlog(ctx context.Context, bits uint8, due source.Due) (b []source.Bucket, err error) {
	err = r.w.do("backlog", func() (err error) {
		b, err = r.Table.Backlog(ctx, bits, due)
		return err
	})
	return b, err
}

func (r *faultyRows) Marked(ctx context.Context, rng desformat.Range, after source.After, due source.Due, limit int) (rows []source.Row, err error) {
	err = r.w.do("list", func() (err error) {
		rows, err = r.Table.Marked(ctx, rng, after, due, limit)
		return err
	})
	return rows, err
}

// hookedFiles lets a test change files while they are packed.
type hookedFiles struct {
	source.Originals
	w      *world
	opened func(path string)               // after a file was opened
	read   func(path string, offset int64) // before each read
}

func (h *hookedFiles) Open(ctx context.Context, path string) (o source.Original, err error) {
	err = h.w.do("open", func() (err error) {
		o, err = h.Originals.Open(ctx, path)
		return err
	})
	if err != nil {
		return nil, err
	}
	if h.opened != nil {
		h.opened(path)
	}
	return &hookedFile{Original: o, h: h, path: path}, nil
}

type hookedFile struct {
	source.Original
	h      *hookedFiles
	path   string
	offset int64
}

func (f *hookedFile) Read(p []byte) (int, error) {
	if f.h.read != nil {
		f.h.read(f.path, f.offset)
	}
	n, err := f.Original.Read(p)
	f.offset += int64(n)
	return n, err
}
