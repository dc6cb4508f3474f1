package node

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
)

// What a bucket says of an original: what is the object's own becomes its row's
// failure, what is not says nothing about it.
func TestWordsForOriginals(t *testing.T) {
	for _, tc := range []struct {
		err, want error
		code      string
	}{
		{store.ErrNotFound, source.ErrNoFile, source.CodeNoFile},
		{fmt.Errorf("%w: %w", store.ErrReplaced, store.ErrNotFound), source.ErrChanged, source.CodeChanged},
		{store.ErrFrozen, fs.ErrPermission, source.CodeReadError},
		{store.ErrAccess, source.ErrDenied, ""},
		{store.ErrUnavailable, store.ErrUnavailable, ""},
	} {
		err := originalError(fmt.Errorf("get k: %w", tc.err))
		if code := source.FileFault(err); !errors.Is(err, tc.want) || code != tc.code {
			t.Errorf("%v: %v, failure %q; want %v, %q", tc.err, err, code, tc.want, tc.code)
		}
	}
	if originalError(nil) != nil {
		t.Error("nil is an error")
	}
}
