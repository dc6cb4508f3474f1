package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// tmpDir holds the objects that are being written. No key leads into it.
	tmpDir = "tmp"
	// tmpMaxAge is how long a temporary file may be untouched before a process
	// that opens the store takes it for a dead writer's. Several processes share
	// the folder, and a live writer touches its file at every write.
	tmpMaxAge = 24 * time.Hour

	dirMode  = 0o750
	fileMode = 0o640
)

// Folder is a Store in a local folder, each object a file at its key. Any
// number of processes of one host may use the folder at once; a network file
// system may not be below it, as its links and its flushes promise less.
//
// An object's bytes are flushed before its name appears, and names appear and
// move by link, which never replaces: so a key holds a whole object or none.
// All access goes through os.Root: no key and no link leads out of the folder.
type Folder struct {
	path string
	root *os.Root

	mu      sync.Mutex
	durable map[string]struct{} // guarded by mu: folders whose names are on disk
}

var _ Store = (*Folder)(nil)

// OpenFolder opens the store in the folder at path, which it creates when it
// is missing, and removes the temporary files that dead writers left.
func OpenFolder(path string) (*Folder, error) {
	return openFolder(path, time.Now())
}

func openFolder(path string, now time.Time) (*Folder, error) {
	if err := os.MkdirAll(path, dirMode); err != nil {
		return nil, fmt.Errorf("open store folder: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open store folder: %w", err)
	}
	f := &Folder{path: path, root: root, durable: map[string]struct{}{}}
	if err := f.prepare(now); err != nil {
		return nil, errors.Join(fmt.Errorf("open store folder %s: %w", path, err), root.Close())
	}
	return f, nil
}

// prepare makes the folder for temporary files and clears out old ones.
func (f *Folder) prepare(now time.Time) error {
	if err := f.makeDir(tmpDir); err != nil {
		return err
	}
	left, err := f.readDir(tmpDir)
	if err != nil {
		return err
	}
	for _, e := range left {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its writer, or another process opening the store, was quicker
		}
		if err != nil {
			return err
		}
		if now.Sub(info.ModTime()) < tmpMaxAge {
			continue
		}
		if err := f.root.Remove(path.Join(tmpDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close releases the folder. Streams that Get returned stay readable.
func (f *Folder) Close() error { return f.root.Close() }

// ConditionalCreate is true: a link is made only where no name is.
func (f *Folder) ConditionalCreate(context.Context) (bool, error) { return true, nil }

// checkKey refuses keys that are not plain relative paths, and the folder of
// temporary files.
func checkKey(key string) error {
	if !fs.ValidPath(key) || key == "." || strings.IndexByte(key, 0) >= 0 {
		return fmt.Errorf("%q: %w", key, ErrBadKey)
	}
	if key == tmpDir || strings.HasPrefix(key, tmpDir+"/") {
		return fmt.Errorf("%q: the store's own folder: %w", key, ErrBadKey)
	}
	return nil
}

// version is the text form of the file's time, in nanoseconds, which copying
// with `cp -a` keeps.
func version(info fs.FileInfo) string { return strconv.FormatInt(info.ModTime().UnixNano(), 10) }

func object(key string, info fs.FileInfo) Object {
	return Object{Key: key, Size: info.Size(), Version: version(info), Modified: info.ModTime()}
}

// absent tells whether err, met on the way to key, is the file system's answer
// that nothing is there: a name missing, or a file where a folder would be.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// explain turns a file system's error into one of this package's. The absence
// of a file is an answer only while the store's folder itself is in place: in
// a folder that was removed, everything is absent and nothing is known.
func (f *Folder) explain(op, key string, err error) error {
	switch {
	case absent(err):
		if errRoot := f.inPlace(); errRoot != nil {
			return fmt.Errorf("%s %s: %w", op, key, errRoot)
		}
		return fmt.Errorf("%s %s: %w", op, key, ErrNotFound)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s %s: the disk that holds the store folder %s is full: %w", op, key, f.path, err)
	default:
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
}

// inPlace returns an error when the store's folder was removed, or another
// file system was mounted over it or taken away from under its path. It hides
// the file system's errors, which speak of absence.
func (f *Folder) inPlace() error {
	opened, err := f.root.Stat(".")
	if err != nil {
		return fmt.Errorf("store folder %s: %s", f.path, err.Error())
	}
	named, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("store folder is out of reach: %s", err.Error())
	}
	if !os.SameFile(opened, named) {
		return fmt.Errorf("store folder %s was replaced by another since it was opened", f.path)
	}
	return nil
}

// stat describes the regular file at key. Folders and links are no objects.
func (f *Folder) stat(key string) (fs.FileInfo, error) {
	info, err := f.root.Lstat(key)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "stat", Path: key, Err: fs.ErrNotExist}
	}
	return info, nil
}

// Head describes the object at key.
func (f *Folder) Head(ctx context.Context, key, wanted string) (Object, error) {
	if err := ready(ctx, key); err != nil {
		return Object{}, err
	}
	info, err := f.stat(key)
	if err != nil {
		return Object{}, f.explain("head", key, err)
	}
	if wanted != "" && wanted != version(info) {
		return Object{}, fmt.Errorf("head %s: version %s, the folder holds %s: %w: %w", key, wanted, version(info), ErrReplaced, ErrNotFound)
	}
	return object(key, info), nil
}

func ready(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return checkKey(key)
}

// Get streams a part of the object at key.
func (f *Folder) Get(ctx context.Context, key, wanted string, off, n int64) (io.ReadCloser, error) {
	if err := ready(ctx, key); err != nil {
		return nil, err
	}
	file, err := f.open(key)
	if err != nil {
		return nil, f.explain("get", key, err)
	}
	r, err := f.section(ctx, file, key, wanted, off, n)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

// open opens the regular file at key for reading.
func (f *Folder) open(key string) (*os.File, error) {
	if _, err := f.stat(key); err != nil {
		return nil, err
	}
	// Without O_NONBLOCK the opening of a pipe put here would wait for a writer.
	return f.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func (f *Folder) section(ctx context.Context, file *os.File, key, wanted string, off, n int64) (io.ReadCloser, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, f.explain("get", key, err)
	}
	if !info.Mode().IsRegular() {
		return nil, f.explain("get", key, fs.ErrNotExist)
	}
	if wanted != "" && wanted != version(info) {
		return nil, fmt.Errorf("get %s: version %s, the folder holds %s: %w: %w", key, wanted, version(info), ErrReplaced, ErrNotFound)
	}
	if n, err = checkRange(key, info.Size(), off, n); err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, key: key, file: file, off: off, left: n}, nil
}

// checkRange resolves n < 0 and refuses what lies beyond the object's end.
func checkRange(key string, size, off, n int64) (int64, error) {
	if n < 0 {
		n = size - off
	}
	if off < 0 || off > size || n < 0 || n > size-off {
		return 0, fmt.Errorf("get %s: %d bytes from %d of %d: %w", key, n, off, size, ErrBeyond)
	}
	return n, nil
}

// stream is the part of an object that one Get asked for. It ends with io.EOF
// after exactly that many bytes, and fails when the file has fewer.
type stream struct {
	ctx  context.Context // the stream belongs to the Get that made it
	key  string
	file *os.File
	off  int64
	left int64
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.file.ReadAt(p, s.off)
	s.off += int64(n)
	s.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && n < len(p):
		err = fmt.Errorf("get %s: the file became shorter: %w", s.key, io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		err = nil
	case err != nil:
		err = fmt.Errorf("get %s: %w", s.key, err)
	}
	return n, err
}

func (s *stream) Close() error { return s.file.Close() }

// tempName returns a name for a temporary file that no other writer uses.
func tempName() string { return tmpDir + "/" + rand.Text() }
