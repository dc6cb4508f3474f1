package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// makeDir makes the folder dir and those above it, and has their names on disk
// when it returns nil.
func (f *Folder) makeDir(dir string) error {
	if dir == "." {
		return nil
	}
	f.mu.Lock()
	_, known := f.durable[dir]
	f.mu.Unlock()
	if known {
		return nil
	}
	if err := f.makeDir(path.Dir(dir)); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when it was there: whoever made it may not have come to its flush.
	if err := f.syncDir(path.Dir(dir)); err != nil {
		return err
	}
	f.mu.Lock()
	f.durable[dir] = struct{}{}
	f.mu.Unlock()
	return nil
}

// forgetDirs makes the next makeDir look again: someone removed a folder.
func (f *Folder) forgetDirs() {
	f.mu.Lock()
	clear(f.durable)
	f.mu.Unlock()
}

// syncDir flushes the names in dir to disk.
func (f *Folder) syncDir(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *Folder) readDir(dir string) ([]fs.DirEntry, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	return entries, errors.Join(err, d.Close())
}

// List calls fn for each object whose key begins with prefix and is greater
// than after. It reads only folders that can hold such keys.
func (f *Folder) List(ctx context.Context, prefix, after string, fn func(Object) error) error {
	if err := f.inPlace(); err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	l := listing{folder: f, prefix: prefix, after: after, each: fn}
	return l.walk(ctx, ".")
}

// listing is one call of List.
type listing struct {
	folder        *Folder
	prefix, after string
	each          func(Object) error
}

func (l *listing) walk(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := l.folder.readDir(dir)
	if err != nil {
		return fmt.Errorf("list %q: %w", l.prefix, err)
	}
	for _, e := range entries {
		key := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && key != tmpDir && l.mayHold(key+"/"):
			err = l.walk(ctx, key)
		case e.Type().IsRegular() && strings.HasPrefix(key, l.prefix) && key > l.after:
			err = l.visit(e, key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// mayHold tells whether a key that begins with dir can be one of the wanted.
func (l *listing) mayHold(dir string) bool {
	inPrefix := strings.HasPrefix(dir, l.prefix) || strings.HasPrefix(l.prefix, dir)
	return inPrefix && (dir > l.after || strings.HasPrefix(l.after, dir))
}

func (l *listing) visit(e fs.DirEntry, key string) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return fmt.Errorf("list %q: %w", l.prefix, err)
	}
	return l.each(object(key, info))
}
