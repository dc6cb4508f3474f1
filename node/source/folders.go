package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Folders are the originals below local folders, the roots. A row's path is
// absolute below a root, or relative when there is one root only. Files are
// opened through os.Root: no "..", no absolute link and no link that leads out
// is followed.
//
// A root is opened for each call and let go: it may be mounted over, replaced
// or added while the node runs, and an idle node keeps no disk from being
// unmounted. A root that is missing, or empty as a mount point is whose disk is
// not there, says nothing about its files: it is an error, never ErrNoFile.
type Folders struct {
	roots func() []string
}

var _ Originals = (*Folders)(nil)

// NewFolders returns the originals below the folders that roots names at each
// call: absolute paths.
func NewFolders(roots func() []string) *Folders { return &Folders{roots: roots} }

// place is a path that was found below a root.
type place struct {
	root string // the root's path, clean
	rel  string // below root, clean
}

func (p place) abs() string { return filepath.Join(p.root, p.rel) }

// sibling is a file beside p.
func (p place) sibling(name string) place {
	return place{root: p.root, rel: filepath.Join(filepath.Dir(p.rel), name)}
}

// find finds the root that path is below: of nested ones the deepest.
func (f *Folders) find(path string) (place, error) {
	roots := f.roots()
	outside := fmt.Errorf("%q: %w", path, ErrOutside)
	if path == "" || strings.IndexByte(path, 0) >= 0 {
		return place{}, outside
	}
	if !filepath.IsAbs(path) {
		if len(roots) != 1 || !filepath.IsLocal(path) {
			return place{}, outside
		}
		return place{root: filepath.Clean(roots[0]), rel: filepath.Clean(path)}, nil
	}
	// Not cleaned away: behind a link, ".." is another folder than it seems.
	if slices.Contains(strings.Split(path, "/"), "..") {
		return place{}, outside
	}
	var best place
	for _, root := range roots {
		root = filepath.Clean(root)
		rel, err := filepath.Rel(root, path)
		if err == nil && filepath.IsLocal(rel) && rel != "." && len(root) > len(best.root) {
			best = place{root: root, rel: rel}
		}
	}
	if best.root == "" {
		return place{}, outside
	}
	return best, nil
}

// RootError says that a root can't be used, and so nothing about its files. It
// hides the file system's error: that a root is missing must not look like the
// absence of a file.
type RootError struct {
	Root string // its path, clean
	Why  string
	// EmptyID identifies, by device and inode, a root that is there and holds
	// nothing. To whoever knows it for the folder whose last file was removed,
	// and not the mount point of a missing disk, its files are absent.
	EmptyID string

	holds func(path string) bool // by the words of the rows; nil: by Root
}

// Holds reports whether the row with that path is one of those about whose
// files nothing is known.
func (e *RootError) Holds(path string) bool {
	if e.holds != nil {
		return e.holds(path)
	}
	// Relative paths are of a source with one root.
	return !filepath.IsAbs(path) || strings.HasPrefix(path, strings.TrimSuffix(e.Root, "/")+"/")
}

func (e *RootError) Error() string { return "root " + e.Root + " is out of reach: " + e.Why }

// openRoot opens the root of p; a *RootError when it can't.
func openRoot(p place) (*os.Root, error) {
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return nil, &RootError{Root: p.root, Why: err.Error()}
	}
	return root, nil
}

// escapes is what os.Root returns for a path that leads out. It has no name
// there, so it is taken from a call that must fail with it.
var escapes = sync.OnceValue(func() error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return errors.New("no root folder")
	}
	_, err = root.Lstat("../x")
	_ = root.Close() // nothing was written
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return errors.New("os.Root lets paths escape")
})

// explain turns an error met below root into one of this package's.
func explain(root *os.Root, p place, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if errRoot := inhabited(root, p); errRoot != nil {
			return fmt.Errorf("%s: %w", p.abs(), errRoot)
		}
		return fmt.Errorf("%s: %w", p.abs(), ErrNoFile)
	case errors.Is(err, escapes()):
		return fmt.Errorf("%s: leads out of root %s: %w", p.abs(), p.root, ErrOutside)
	case errors.Is(err, syscall.ENXIO): // a socket, or a device without a driver
		return fmt.Errorf("%s: %w", p.abs(), ErrNotRegular)
	}
	return fmt.Errorf("%s: %w", p.abs(), err)
}

// inhabited returns a *RootError when the root has no entry at all.
func inhabited(root *os.Root, p place) error {
	outOfReach := func(err error) error { return &RootError{Root: p.root, Why: err.Error()} }
	d, err := root.Open(".")
	if err != nil {
		return outOfReach(err)
	}
	defer func() { _ = d.Close() }() // a folder opened to read: nothing can be lost
	if names, err := d.Readdirnames(1); err == nil && len(names) > 0 {
		return nil
	} else if !errors.Is(err, io.EOF) {
		return outOfReach(err)
	}
	id, err := idOf(d)
	if err != nil {
		return outOfReach(err)
	}
	return &RootError{Root: p.root, Why: "the folder is empty: is its file system mounted?", EmptyID: id}
}

func idOf(file *os.File) (string, error) {
	var st unix.Stat_t
	if err := fstat(file, &st); err != nil {
		return "", err
	}
	return identityOf(&st).fileID(), nil
}

// RootID identifies the root of path by device and inode.
func (f *Folders) RootID(ctx context.Context, path string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p, err := f.find(path)
	if err != nil {
		return "", err
	}
	root, err := openRoot(p)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }() // a folder opened to read: nothing can be lost
	d, err := root.Open(".")
	if err != nil {
		return "", &RootError{Root: p.root, Why: err.Error()}
	}
	defer func() { _ = d.Close() }() // the same
	return idOf(d)
}

// FileID identifies what path leads to by device and inode. Links are followed
// out of the root as well, and absolute paths beside all roots: such a row
// can't be archived, but whoever reads its path reaches the file.
func (f *Folders) FileID(ctx context.Context, path string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	p, err := f.find(path)
	full := p.abs()
	if err != nil {
		if full = path; !filepath.IsAbs(path) {
			return "", err
		}
	}
	var st unix.Stat_t
	errStat := unix.Stat(full, &st)
	switch {
	case errStat == nil:
		return identityOf(&st).fileID(), nil
	case !slices.Contains(leadsNowhere, errStat):
		return "", fmt.Errorf("%s: %w", full, errStat)
	case err != nil:
		return "", err
	}
	root, err := openRoot(p)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }() // a folder opened to read: nothing can be lost
	return "", explain(root, p, fs.ErrNotExist)
}

// leadsNowhere are the errors of a path at which there is nothing.
var leadsNowhere = []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL}

// Open opens a regular file for reading.
func (f *Folders) Open(ctx context.Context, path string) (Original, error) {
	p, err := f.find(path)
	if err != nil {
		return nil, err
	}
	return open(ctx, p)
}

func open(ctx context.Context, p place) (Original, error) {
	root, err := openRoot(p)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // a folder opened to read: nothing can be lost
	// O_NONBLOCK: opening a pipe would wait for its writer.
	file, err := root.OpenFile(p.rel, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, explain(root, p, err)
	}
	seen, err := settled(ctx, file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.abs(), err), file.Close())
	}
	return &original{file: file, path: p.abs(), seen: seen}, nil
}

// identity is what must not change while a file is read.
type identity struct {
	dev, ino, links uint64
	size            int64
	mtime, ctime    unix.Timespec
}

func identityOf(st *unix.Stat_t) identity {
	return identity{
		dev: uint64(st.Dev), ino: st.Ino, links: uint64(st.Nlink), //nolint:unconvert // widths differ between platforms
		size: st.Size, mtime: st.Mtim, ctime: st.Ctim,
	}
}

func (i identity) fileID() string {
	return strconv.FormatUint(i.dev, 16) + ":" + strconv.FormatUint(i.ino, 10)
}

func (i identity) modTime() time.Time { return time.Unix(i.mtime.Unix()).UTC() }

func (i identity) info() Info {
	return Info{
		Size: i.size, ModTime: i.modTime(), ChangeTime: time.Unix(i.ctime.Unix()).UTC(),
		FileID: i.fileID(), Links: i.links,
	}
}

// The kernel stamps changes with a clock of one tick, at most 10 ms: a file
// changed twice within one has the same ctime after both. Only a ctime that is
// older vouches for what is read after it.
const (
	tick      = 20 * time.Millisecond
	maxSettle = 5 // looks at a file that is being written
)

// settled describes the file as soon as its ctime is older than a tick.
func settled(ctx context.Context, file *os.File) (identity, error) {
	for range maxSettle {
		var st unix.Stat_t
		if err := fstat(file, &st); err != nil {
			return identity{}, err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return identity{}, ErrNotRegular
		}
		id := identityOf(&st)
		age := time.Since(time.Unix(id.ctime.Unix()))
		if age >= tick || age < -tick { // behind a clock of its own the tick can't be waited for
			return id, nil
		}
		if err := pause(ctx, tick-age); err != nil {
			return identity{}, err
		}
	}
	return identity{}, fmt.Errorf("it is being written: %w", ErrChanged)
}

func fstat(file *os.File, st *unix.Stat_t) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var errStat error
	if err := raw.Control(func(fd uintptr) { errStat = unix.Fstat(int(fd), st) }); err != nil {
		return err
	}
	return errStat
}
