package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/node/source"
)

// Originals serves the files as a source's originals. They can be read and
// identified; deleting one is errors.ErrUnsupported.
type Originals struct{ files Files }

var _ source.Originals = (*Originals)(nil)

// NewOriginals returns the originals that files describes.
func NewOriginals(files Files) *Originals { return &Originals{files} }

// Open opens a made-up file.
func (o *Originals) Open(ctx context.Context, path string) (source.Original, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	i, err := o.files.index(path)
	if err != nil {
		return nil, err
	}
	return &original{o.files.Content(i), i}, nil
}

// Same returns the one path that reaches the file.
func (o *Originals) Same(_ context.Context, other string) ([]string, error) {
	if _, err := o.files.index(other); err != nil {
		return nil, nil //nolint:nilerr // another source's file is none of these
	}
	return []string{other}, nil
}

// FileID identifies the file.
func (o *Originals) FileID(_ context.Context, path string) (string, error) {
	i, err := o.files.index(path)
	if err != nil {
		return "", err
	}
	return fileID(i), nil
}

// RootID identifies the folder that is nowhere.
func (o *Originals) RootID(context.Context, string) (string, error) { return "0:0", nil }

// Hide refuses: the bench deletes no originals.
func (o *Originals) Hide(_ context.Context, path string) error { return unsupported(path) }

// OpenHidden refuses likewise.
func (o *Originals) OpenHidden(_ context.Context, path string) (source.Original, error) {
	return nil, unsupported(path)
}

// PutBack refuses likewise.
func (o *Originals) PutBack(_ context.Context, path string) (string, error) {
	return "", unsupported(path)
}

// Remove refuses likewise.
func (o *Originals) Remove(_ context.Context, path string, _ source.Info) error {
	return unsupported(path)
}

func unsupported(path string) error {
	return fmt.Errorf("delete %s: made-up files are only read: %w", path, errors.ErrUnsupported)
}

// original is one opened file. Nothing can change it while it is read.
type original struct {
	*Content
	i int64
}

func (o *original) Info() source.Info {
	t := modTime(o.i)
	return source.Info{Size: o.size, ModTime: t, ChangeTime: t, FileID: fileID(o.i), Links: 1}
}

func (o *original) Close() error { return nil }
