package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// quarantinePrefix begins the names of quarantined files. Walk leaves them out.
const quarantinePrefix = ".desnode-quarantine-"

// quarantineName is the name of the quarantined base, of fixed length so that
// a base name of the greatest length has one too.
func quarantineName(base string) string {
	sum := sha256.Sum256([]byte(base))
	return quarantinePrefix + hex.EncodeToString(sum[:8])
}

// folder is the folder of one original, open, and the two names in it.
type folder struct {
	at     place
	root   *os.Root
	dir    *os.File
	fd     int
	base   string
	hidden string
}

func (f *Folders) folderOf(ctx context.Context, path string) (*folder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := f.find(path)
	if err != nil {
		return nil, err
	}
	root, err := openRoot(p)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(filepath.Dir(p.rel))
	if err != nil {
		return nil, errors.Join(explain(root, p, err), root.Close())
	}
	base := filepath.Base(p.rel)
	return &folder{at: p, root: root, dir: dir, fd: int(dir.Fd()), base: base, hidden: quarantineName(base)}, nil
}

func (d *folder) close() error { return errors.Join(d.dir.Close(), d.root.Close()) }

// regular returns nil when name, in the folder, is a regular file and no link.
func (d *folder) regular(name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return explain(d.root, d.at.sibling(name), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s: %w", d.at.sibling(name).abs(), ErrNotRegular)
	}
	return nil
}

// rename renames within the folder and replaces nothing: fs.ErrExist.
func (d *folder) rename(from, to string) error {
	err := unix.Renameat2(d.fd, from, d.fd, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w", d.at.sibling(to).abs(), fs.ErrExist)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s: its file system can't rename without replacing, which deletion needs: %w", d.at.abs(), errors.ErrUnsupported)
	default:
		return explain(d.root, d.at.sibling(from), err)
	}
}

// step runs one step of the quarantine and flushes the folder, also when the
// step found its work done: an earlier one may have been cut before the flush.
func (f *Folders) step(ctx context.Context, what, path string, do func(*folder) error) (err error) {
	d, err := f.folderOf(ctx, path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := do(d); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := d.dir.Sync(); err != nil {
		return fmt.Errorf("%s: %s: flush the folder: %w", what, d.at.abs(), err)
	}
	return nil
}

// Hide renames the file to its quarantine name.
func (f *Folders) Hide(ctx context.Context, path string) error {
	return f.step(ctx, "hide", path, func(d *folder) error {
		err := d.regular(d.hidden)
		if err == nil || !errors.Is(err, ErrNoFile) {
			return err // taken by an earlier Hide, or by what can't be judged
		}
		held, err := d.hold(d.base)
		if err != nil {
			return err
		}
		defer held.release()
		if err := d.rename(d.base, d.hidden); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return d.regular(d.hidden)
			}
			return err
		}
		if err := d.regular(d.hidden); err != nil { // a link took the name in between
			return errors.Join(err, d.rename(d.hidden, d.base))
		}
		return nil
	})
}

// OpenHidden opens the quarantined file.
func (f *Folders) OpenHidden(ctx context.Context, path string) (o Original, err error) {
	d, err := f.folderOf(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open hidden: %w", err)
	}
	defer func() { _ = d.close() }() // a folder opened to read: nothing can be lost
	if err := d.regular(d.hidden); err != nil {
		return nil, fmt.Errorf("open hidden: %w", err)
	}
	return open(ctx, d.at.sibling(d.hidden))
}

// PutBack renames the quarantined file to its own name, or a kept one. When
// none is there but the file is, an earlier PutBack has done it.
func (f *Folders) PutBack(ctx context.Context, path string) (at string, err error) {
	at = path
	err = f.step(ctx, "put back", path, func(d *folder) error {
		if err := d.regular(d.hidden); err != nil {
			if errors.Is(err, ErrNoFile) && d.regular(d.base) == nil {
				return nil
			}
			return err
		}
		err := d.rename(d.hidden, d.base)
		for n := 1; errors.Is(err, fs.ErrExist) && n <= maxKept; n++ {
			kept := keptName(d.base, n)
			at = filepath.Join(filepath.Dir(path), kept)
			err = d.rename(d.hidden, kept)
		}
		return err
	})
	return at, err
}

const (
	maxKept = 1000
	maxName = 255 // bytes of a name in a folder
)

// keptName is the n-th name for a file whose own name, base, another has
// taken: one that Walk does not leave out.
func keptName(base string, n int) string {
	suffix := fmt.Sprintf(".desnode-kept-%d", n)
	end := min(len(base), maxName-len(suffix))
	for end < len(base) && end > 0 && !utf8.RuneStart(base[end]) {
		end--
	}
	return base[:end] + suffix
}

// Remove unlinks the quarantined file.
func (f *Folders) Remove(ctx context.Context, path string, judged Info) error {
	err := f.step(ctx, "remove", path, func(d *folder) error {
		held, err := d.hold(d.hidden)
		if errors.Is(err, ErrNoFile) {
			return nil
		}
		if err != nil {
			return err
		}
		defer held.release()
		if !held.seen.info().same(judged) {
			return fmt.Errorf("%s: it is not what was judged: %w", d.at.sibling(d.hidden).abs(), ErrChanged)
		}
		if err := unix.Unlinkat(d.fd, d.hidden, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", d.at.sibling(d.hidden).abs(), err)
		}
		return nil
	})
	if errors.Is(err, ErrNoFile) {
		return nil // the folder itself is gone
	}
	return err
}
