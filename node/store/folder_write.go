package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// copyBuffer is the unit in which Put copies and compares bodies.
const copyBuffer = 256 << 10

// Put creates the object at key.
//
// Crash windows: before the link there is at most a temporary file, which a
// later opening removes; after the link but before the flush of the folder the
// object may or may not survive a power cut, and the repeated Put either finds
// it, compares it and flushes, or makes it again.
func (f *Folder) Put(ctx context.Context, key string, body Body, size int64) (Object, error) {
	if err := ready(ctx, key); err != nil {
		return Object{}, err
	}
	if size < 0 {
		return Object{}, fmt.Errorf("put %s: size %d", key, size)
	}
	if _, err := f.stat(key); err == nil {
		return f.settle(ctx, key, body, size)
	}
	temp := tempName()
	err := f.writeTemp(ctx, temp, body, size)
	if err == nil {
		err = f.link(temp, key)
	}
	if errRemove := f.root.Remove(temp); errRemove != nil && !errors.Is(errRemove, fs.ErrNotExist) {
		err = errors.Join(err, errRemove)
	}
	if errors.Is(err, fs.ErrExist) {
		return f.settle(ctx, key, body, size)
	}
	if err != nil {
		return Object{}, f.explainPut(key, err)
	}
	info, err := f.stat(key)
	if err != nil {
		return Object{}, f.explainPut(key, err)
	}
	return object(key, info), nil
}

// explainPut is explain for a write, to which a missing name is no answer.
func (f *Folder) explainPut(key string, err error) error {
	if err = f.explain("put", key, err); errors.Is(err, ErrNotFound) {
		return fmt.Errorf("put %s: a name on its way is missing or is no folder", key)
	}
	return err
}

// settle decides what a Put that found its key taken means: our own success,
// made durable now, when the object has the same bytes, else ErrExists.
func (f *Folder) settle(ctx context.Context, key string, body Body, size int64) (Object, error) {
	file, err := f.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Object{}, f.explainPut(key, err)
	}
	defer func() { _ = file.Close() }() // read only: nothing can be lost
	info, err := file.Stat()
	if err != nil {
		return Object{}, f.explainPut(key, err)
	}
	if !info.Mode().IsRegular() {
		return Object{}, fmt.Errorf("put %s: a folder or special file is there: %w", key, ErrExists)
	}
	same, err := sameBytes(ctx, file, info.Size(), body, size)
	if err != nil {
		return Object{}, fmt.Errorf("put %s: compare with the object there: %w", key, err)
	}
	if !same {
		return Object{}, fmt.Errorf("put %s: %w", key, ErrExists)
	}
	if err := errors.Join(f.makeDir(path.Dir(key)), f.syncDir(path.Dir(key))); err != nil {
		return Object{}, f.explainPut(key, err)
	}
	return object(key, info), nil
}

func (f *Folder) writeTemp(ctx context.Context, temp string, body Body, size int64) error {
	file, err := f.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	err = copyBody(ctx, file, body, size)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func copyBody(ctx context.Context, w io.Writer, body Body, size int64) error {
	buf := make([]byte, min(copyBuffer, max(size, 1)))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), size-off)]
		if err := readFull(body, b, off); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// readFull fills b from off; a body that ends early is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("body ends at %d: %w", off+int64(n), err)
}

func sameBytes(ctx context.Context, a io.ReaderAt, sizeA int64, b io.ReaderAt, sizeB int64) (bool, error) {
	if sizeA != sizeB {
		return false, nil
	}
	bufA := make([]byte, min(copyBuffer, max(sizeA, 1)))
	bufB := make([]byte, len(bufA))
	for off := int64(0); off < sizeA; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n := min(int64(len(bufA)), sizeA-off)
		if err := errors.Join(readFull(a, bufA[:n], off), readFull(b, bufB[:n], off)); err != nil {
			return false, err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			return false, nil
		}
		off += n
	}
	return true, nil
}

// link gives the file at from the further name to, durably; fs.ErrExist when
// to is taken.
func (f *Folder) link(from, to string) error {
	if err := f.makeDir(path.Dir(to)); err != nil {
		return err
	}
	if err := f.root.Link(from, to); err != nil {
		if absent(err) {
			f.forgetDirs()
		}
		return err
	}
	return f.syncDir(path.Dir(to))
}

// Move renames the object by a link and an unlink, so that nothing is ever
// replaced. Cut in between, both names lead to one file, by which the repeated
// Move knows its own work.
func (f *Folder) Move(ctx context.Context, from, to string) error {
	if err := errors.Join(ready(ctx, from), ready(ctx, to)); err != nil {
		return err
	}
	source, err := f.stat(from)
	if absent(err) {
		return f.moved(from, to)
	}
	if err != nil || from == to {
		return f.wrapMove(from, to, err)
	}
	err = f.link(from, to)
	if absent(err) { // another's repetition of this Move was quicker
		return f.moved(from, to)
	}
	if errors.Is(err, fs.ErrExist) {
		err = f.alreadyLinked(ctx, from, to, source)
	}
	if err == nil {
		err = f.root.Remove(from)
	}
	if err == nil || absent(err) {
		err = f.syncDir(path.Dir(from))
	}
	return f.wrapMove(from, to, err)
}

func (f *Folder) wrapMove(from, to string, err error) error {
	if err == nil {
		return nil
	}
	return f.explain("move to "+to, from, err)
}

// moved answers a Move whose origin is missing: done before, if the target is
// there.
func (f *Folder) moved(from, to string) error {
	if _, err := f.stat(to); err != nil {
		return f.wrapMove(from, to, err)
	}
	err := f.syncDir(path.Dir(to))
	if errFrom := f.syncDir(path.Dir(from)); !absent(errFrom) {
		err = errors.Join(err, errFrom)
	}
	return f.wrapMove(from, to, err)
}

// alreadyLinked decides what a taken target means: nil when it holds the same
// object, by an earlier Move that was cut.
func (f *Folder) alreadyLinked(ctx context.Context, from, to string, source fs.FileInfo) error {
	target, err := f.stat(to)
	if err != nil {
		return fmt.Errorf("%s: %w", to, ErrExists)
	}
	if os.SameFile(source, target) {
		again, err := f.stat(from) // its links were counted before there was the second
		if absent(err) {
			return nil // another's repetition of this Move was quicker
		}
		if err != nil {
			return err
		}
		// One file under one name: the two keys are one by way of a linked folder,
		// and unlinking one would be the loss of both.
		if st, ok := again.Sys().(*syscall.Stat_t); !ok || st.Nlink < 2 {
			return fmt.Errorf("%s is the same folder entry", to)
		}
		return f.syncDir(path.Dir(to))
	}
	a, err := f.open(from)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	b, err := f.open(to)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	same, err := sameBytes(ctx, a, source.Size(), b, target.Size())
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%s: %w", to, ErrExists)
	}
	return f.syncDir(path.Dir(to))
}

// Delete removes the object at key.
func (f *Folder) Delete(ctx context.Context, key string) error {
	if err := ready(ctx, key); err != nil {
		return err
	}
	_, err := f.stat(key) // Remove would take an empty folder too
	if err == nil {
		err = f.root.Remove(key)
	}
	if absent(err) {
		err = f.inPlace()
	}
	if err == nil {
		// Also when it was gone: an earlier Delete may have been cut before this.
		err = f.syncDir(path.Dir(key))
	}
	if err != nil && !absent(err) {
		return f.explain("delete", key, err)
	}
	return nil
}
