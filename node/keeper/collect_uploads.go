package keeper

import (
	"context"
	"fmt"

	"github.com/datavision/desnode/node/store"
)

// abortUploads ends the uploads to a key whose object is garbage, which a crash
// left open: their parts are billed, no listing of objects shows them, and one
// that were completed later would bring the object back.
func (k *Keeper) abortUploads(ctx context.Context, key string) error {
	if k.cfg.Uploads == nil {
		return nil
	}
	var open []store.Upload
	err := k.cfg.Uploads.Uploads(ctx, key, func(u store.Upload) error {
		if u.Key == key {
			open = append(open, u)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list open uploads: %w", err)
	}
	for _, u := range open {
		if err := k.abort(ctx, u); err != nil {
			return fmt.Errorf("abort upload %s: %w", u.ID, err)
		}
	}
	return nil
}

// abort ends one open upload; the audit log says so before.
func (k *Keeper) abort(ctx context.Context, u store.Upload) error {
	rec := auditRecord{Key: u.Key, Version: u.ID, Node: string(k.cfg.Node)}
	if err := k.audit.append(auditAborted, "", rec); err != nil {
		return err
	}
	if err := k.cfg.Uploads.Abort(ctx, u); err != nil {
		return err
	}
	k.log.InfoContext(ctx, "open upload aborted", "key", u.Key, "upload", u.ID, "begun", u.Begun)
	return nil
}
