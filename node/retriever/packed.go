package retriever

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
)

// ErrBehind: this node's view is older than the question asks for.
var ErrBehind = errors.New("this node has not caught up")

// OpenPacked finds the live record of a name in this node's own view, at Raft
// index minIndex or later. It asks neither a quorum nor a source, and limits no
// client: it is for other nodes, which judge by their own views. applied is the
// index of the view that it looked in. WantPart brings all of a small record.
//
// Errors: ErrBehind, ErrNotFound and ErrGone, both of which hold for that view
// and no more, ErrUnavailable, *CorruptError, and ctx's.
func (r *Retriever) OpenPacked(ctx context.Context, k Key, want Want, minIndex uint64) (file File, applied uint64, err error) {
	v := r.cfg.Manifest.View()
	if v.Applied() < minIndex {
		return File{}, v.Applied(), fmt.Errorf("%w: at index %d", ErrBehind, v.Applied())
	}
	l := lookup{Key: k, want: want, keep: true}
	f, err := r.walk(ctx, v, &l)
	if errors.Is(err, errMissing) {
		if now := r.cfg.Manifest.View(); now.Applied() > v.Applied() {
			v = now
			f, err = r.walk(ctx, v, &l)
		}
		err = r.missing(err)
	}
	switch {
	case err != nil:
		return File{}, v.Applied(), err
	case f.rec == nil:
		return File{}, v.Applied(), ErrNotFound
	case f.rec.Header.Type == desformat.TypeTombstone:
		return File{}, v.Applied(), ErrGone
	}
	return r.file(f, v, &l), v.Applied(), nil
}
