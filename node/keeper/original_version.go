package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/node/source"
)

// versioned are originals of which some are versions of an object. Where the
// store keeps them all, deleting one uncovers the one before.
type versioned interface {
	// VersionGone reports whether that version of the object at path is gone.
	VersionGone(ctx context.Context, path, version string) (bool, error)
}

// uncovered reports whether the deletion of which cut is the intent was done
// and then cut: the version that was judged is gone, and an older one than the
// row lists stands at the path. A newer one is the customer's, who has replaced
// the original: that is no deletion of ours.
func uncovered(ctx context.Context, files source.Originals, cut auditRecord, listed time.Time) (bool, error) {
	v, ok := files.(versioned)
	if !ok || cut.Version == "" {
		return false, nil
	}
	f, err := files.Open(ctx, cut.Path)
	if errors.Is(err, source.ErrNoFile) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for an earlier version: %w", err)
	}
	now := f.Info()
	if err := f.Close(); err != nil {
		return false, fmt.Errorf("look for an earlier version: %w", err)
	}
	if now.Version == cut.Version || !now.Modified(listed, 0) || now.ModTime.After(listed) {
		return false, nil
	}
	gone, err := v.VersionGone(ctx, cut.Path, cut.Version)
	if err != nil {
		return false, fmt.Errorf("look for the version that was judged: %w", err)
	}
	return gone, nil
}
