package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Reasons for which Walk skips an entry; any other is an error's text.
const (
	SkippedLink    = "symbolic link"
	SkippedSpecial = "special file"
)

// Walk calls found for every regular file below dir, in no promised order.
// Links are not followed; they, special files and what can't be read are told
// to skipped. Names are relative to dir, with "/", in whatever bytes the folder
// has; paths are absolute. Quarantined files are left out. An error that found
// returns ends the walk.
func Walk(ctx context.Context, dir string, found func(File) error, skipped func(path, reason string)) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("walk: %w", err)
	}
	w := walk{found: found, skipped: skipped}
	if err := w.folder(ctx, dir, "", 0); err != nil {
		return fmt.Errorf("walk %s: %w", dir, err)
	}
	return nil
}

type walk struct {
	found   func(File) error
	skipped func(path, reason string)
}

// folder walks one folder; prefix goes before the names in it. Its descriptor
// is closed before the folders below are opened, so that depth costs none.
func (w *walk) folder(ctx context.Context, path, prefix string, noFollow int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|noFollow, 0)
	if err != nil {
		return err
	}
	folders, err := w.files(dir, path, prefix)
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range folders {
		below := filepath.Join(path, name)
		err := w.folder(ctx, below, prefix+name+"/", unix.O_NOFOLLOW)
		var denied *fs.PathError
		if errors.As(err, &denied) && denied.Path == below {
			w.skipped(below, denied.Err.Error())
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// files reports the files of one folder and returns the folders in it. By
// rising name, for the sake of the table's indexes.
func (w *walk) files(dir *os.File, path, prefix string) (folders []string, err error) {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	fd := int(dir.Fd())
	for _, e := range entries {
		name := e.Name()
		full := filepath.Join(path, name)
		switch {
		case e.IsDir():
			folders = append(folders, name)
		case e.Type()&fs.ModeSymlink != 0:
			w.skipped(full, SkippedLink)
		case !e.Type().IsRegular():
			w.skipped(full, SkippedSpecial)
		case strings.HasPrefix(name, quarantinePrefix):
		default:
			err = w.file(fd, name, File{Name: prefix + name, Path: full})
		}
		if err != nil {
			return nil, err
		}
	}
	return folders, nil
}

func (w *walk) file(fd int, name string, f File) error {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // gone since the folder was read
	case err != nil:
		w.skipped(f.Path, err.Error())
		return nil
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		w.skipped(f.Path, SkippedSpecial) // another thing by now
		return nil
	}
	id := identityOf(&st)
	f.Size, f.ModTime, f.FileID = id.size, id.modTime(), id.fileID()
	return w.found(f)
}
