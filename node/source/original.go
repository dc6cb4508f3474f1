package source

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// original is an open file of Folders. It never gives out a byte behind the
// size that it had when it was opened.
type original struct {
	file *os.File
	path string
	seen identity
	pos  int64
}

func (o *original) Info() Info { return o.seen.info() }

func (o *original) Close() error { return o.file.Close() }

func (o *original) Seek(offset int64, whence int) (int64, error) {
	to, err := seekTo(offset, whence, o.pos, o.seen.size)
	if err != nil {
		return o.pos, fmt.Errorf("%s: %w", o.path, err)
	}
	o.pos = to
	return to, nil
}

// seekTo computes where Seek leads from pos in a file of that size.
func seekTo(offset int64, whence int, pos, size int64) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += pos
	case io.SeekEnd:
		offset += size
	default:
		return pos, fmt.Errorf("seek: whence %d", whence)
	}
	if offset < 0 {
		return pos, fmt.Errorf("seek to %d", offset)
	}
	return offset, nil
}

func (o *original) Read(p []byte) (int, error) {
	if o.pos >= o.seen.size {
		if err := o.unchanged(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	if left := o.seen.size - o.pos; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := o.file.ReadAt(p, o.pos)
	o.pos += int64(n)
	if errors.Is(err, io.EOF) {
		if n == len(p) {
			return n, nil // the end is judged by the next Read
		}
		return n, fmt.Errorf("%s: ends at %d of %d bytes: %w", o.path, o.pos, o.seen.size, ErrChanged)
	}
	return n, err
}

// unchanged holds the file, and what its path leads to now, against the file
// as it was opened. The path is followed freely: only the inode it ends at is
// compared, nothing there is opened.
func (o *original) unchanged() error {
	var st unix.Stat_t
	if err := fstat(o.file, &st); err != nil {
		return fmt.Errorf("%s: %w", o.path, err)
	}
	now := identityOf(&st)
	if now != o.seen {
		return fmt.Errorf("%s: %s: %w", o.path, now.difference(o.seen), ErrChanged)
	}
	err := unix.Stat(o.path, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s: removed while it was read: %w", o.path, ErrChanged)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.path, err)
	}
	if named := identityOf(&st); named.dev != now.dev || named.ino != now.ino {
		return fmt.Errorf("%s: replaced while it was read: %w", o.path, ErrChanged)
	}
	return nil
}

// difference says what of a file is not as it was.
func (i identity) difference(was identity) string {
	switch {
	case i.size != was.size:
		return fmt.Sprintf("size %d, was %d", i.size, was.size)
	case i.mtime != was.mtime:
		return "mtime is another"
	case i.links != was.links:
		return fmt.Sprintf("%d links, were %d", i.links, was.links)
	default:
		return "ctime is another"
	}
}
