package packer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/datavision/desnode/node/source"
)

// openOriginal opens the row's file if it still is the file that the row lists.
func openOriginal(ctx context.Context, at listed) (source.Original, error) {
	f, err := at.source.Files.Open(ctx, at.row.Path)
	if err != nil {
		return nil, err
	}
	info := f.Info()
	if info.Size != at.row.Size || info.Modified(at.row.ModTime, at.source.Rows.TimePrecision()) {
		err := fmt.Errorf("%w: %d bytes of %s, the row lists %d bytes of %s", source.ErrChanged,
			info.Size, info.ModTime.Format(time.RFC3339Nano), at.row.Size, at.row.ModTime.Format(time.RFC3339Nano))
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// modTime is the time that the record keeps: the file's own, unless it is less
// exact than the row's, as an object's is. The manifest is asked for the row's.
func modTime(it *item) time.Time {
	if it.info.TimeUnit > it.source.Rows.TimePrecision() {
		return it.row.ModTime.UTC()
	}
	return it.info.ModTime.UTC()
}

// sameTime reports whether a and b differ by less than one unit.
func sameTime(a, b time.Time, unit time.Duration) bool { return a.Sub(b).Abs() < unit }

// readWhole fills buf with the file's content and reads on to the end, where
// the file is checked for changes.
func readWhole(f io.Reader, buf []byte) error {
	_, err := io.ReadFull(f, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ended early", source.ErrChanged)
	}
	if err != nil {
		return err
	}
	n, err := io.CopyN(io.Discard, f, 1)
	switch {
	case n > 0:
		return fmt.Errorf("%w: it grew", source.ErrChanged)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// contentReader streams a large file into the writer. It ends with ctx and
// remembers its error, which tells a file's failure from the spool's.
type contentReader struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no place for it; lives for one Append
	file io.Reader
	err  error
}

func (r *contentReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, err
	}
	n, err := r.file.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
