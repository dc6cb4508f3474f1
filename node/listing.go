package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
)

// errNotListed: a file is not what the list says.
var errNotListed = errors.New("not as listed")

// addListed registers the files that the request lists, below dir, the real
// path of req.Dir. One that is not there, or not as listed, is refused with its
// line, and the others go on.
func (im *importer) addListed(ctx context.Context, dir string, req api.ImportRequest) error {
	for _, listed := range req.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := lookUp(dir, req.Dir, listed)
		if err != nil {
			im.refuse(listed.Line, listed.Path, err.Error())
			continue
		}
		if err := im.add(ctx, f, listed.Line); err != nil {
			return err
		}
	}
	return nil
}

// lookUp finds one listed file. dir is the real path of given.
func lookUp(dir, given string, listed api.ImportFile) (source.File, error) {
	rel, err := below(dir, given, listed.Path)
	if err != nil {
		return source.File{}, err
	}
	f, err := source.Listed(dir, rel)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, source.ErrNotRegular):
		return f, errors.New("listed, but no regular file below the folder")
	case err != nil:
		return f, err
	}
	if listed.Size != nil && *listed.Size != f.Size {
		return f, fmt.Errorf("%w: %d bytes, listed with %d", errNotListed, f.Size, *listed.Size)
	}
	if listed.Modified != nil && !sameTime(f.ModTime, *listed.Modified) {
		return f, fmt.Errorf("%w: modified %s, listed with %s", errNotListed,
			f.ModTime.UTC().Format(time.RFC3339Nano), listed.Modified.UTC().Format(time.RFC3339Nano))
	}
	if listed.SHA256 != "" {
		sum, err := hex.DecodeString(listed.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return f, fmt.Errorf("%q is no SHA-256 in hex", listed.SHA256)
		}
		f.SHA256 = (*[sha256.Size]byte)(sum)
	}
	f.ContentType = listed.ContentType
	if listed.Name != "" {
		f.Name = listed.Name
	}
	return f, nil
}

// below returns a listed path relative to the folder.
func below(dir, given, path string) (string, error) {
	if strings.ContainsRune(path, 0) {
		return "", errors.New("a path has no zero byte")
	}
	if filepath.IsAbs(path) {
		for _, d := range []string{given, dir} {
			if path = filepath.Clean(path); config.Within(path, d) {
				return filepath.Rel(d, path)
			}
		}
		return "", fmt.Errorf("not below %s", given)
	}
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("leads out of %s", given)
	}
	return filepath.Clean(path), nil
}

// sameTime compares a file's time with a listed one at the precision that the
// latter is given in: equal when they differ by less than one unit of it.
func sameTime(file, listed time.Time) bool {
	unit := time.Nanosecond
	for _, u := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if listed.Nanosecond()%int(u) == 0 {
			unit = u
			break
		}
	}
	d := file.Sub(listed)
	return -unit < d && d < unit
}
