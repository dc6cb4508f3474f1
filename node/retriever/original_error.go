package retriever

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/datavision/desnode/node/source"
)

// OriginalError says that a file that is not packed yet can't be served from
// its original. It matches ErrUnavailable.
type OriginalError struct {
	Row source.Row
	Err error
}

// Error says all that is known, for the log.
func (e *OriginalError) Error() string {
	return fmt.Sprintf("%v: original of row %s of source %s: %v", ErrUnavailable, e.Row.ID, e.Row.Source, e.Err)
}

// Unwrap returns the kind and the cause.
func (e *OriginalError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }

// Public says what a client may know: the row, its path as the row spells it,
// and the kind of trouble. Where the roots stand is nobody's business.
func (e *OriginalError) Public() string {
	return fmt.Sprintf("the original of row %q of source %q, at %q, can't be read: %s", e.Row.ID, e.Row.Source, e.Row.Path, e.cause())
}

func (e *OriginalError) cause() string {
	if _, ok := errors.AsType[*source.RootError](e.Err); ok {
		return "its root is out of reach"
	}
	for _, known := range []struct {
		err  error
		what string
	}{
		{source.ErrNoFile, "there is no such file"},
		{source.ErrChanged, "it is being written"},
		{source.ErrNotRegular, "it is not a regular file"},
		{source.ErrOutside, "it lies outside the source's roots"},
		{fs.ErrPermission, "permission denied"},
	} {
		if errors.Is(e.Err, known.err) {
			return known.what
		}
	}
	return "reading it failed; the log has more under this request id"
}
