package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Listed looks at one file as Walk would have found it: rel, a clean path, is
// its name, and links are not followed. fs.ErrNotExist: there is no such file;
// ErrNotRegular: it is something else, or the path leads through a link.
func Listed(dir, rel string) (File, error) {
	path := filepath.Join(dir, rel)
	f := File{Name: filepath.ToSlash(rel), Path: path}
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return f, plain(err)
	}
	if real != filepath.Dir(path) {
		return f, fmt.Errorf("the path leads through a symbolic link: %w", ErrNotRegular)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return f, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || strings.HasPrefix(filepath.Base(path), quarantinePrefix) {
		return f, ErrNotRegular
	}
	id := identityOf(&st)
	f.Size, f.ModTime, f.FileID = id.size, id.modTime(), id.fileID()
	return f, nil
}

// plain leaves out the path, which whoever asked knows.
func plain(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
