package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// settle closes the intents of a pack that a whole pass has left open: their
// rows have moved on (a changed file, an operator's hand), or deletion is off
// for the pack. What is hidden is put back: a row that was changed while its
// file was in quarantine must find that file at its path.
func (k *Keeper) settle(ctx context.Context, pack desformat.PackID) error {
	var errs []error
	for _, rec := range k.audit.intents(pack) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := k.settleOne(ctx, rec); err != nil {
			errs = append(errs, fmt.Errorf("settle the deletion of %s row %s: %w", rec.Source, rec.ID, err))
		}
	}
	return errors.Join(errs...)
}

// settleUnknown settles for a pack that has left the manifest: no lease names
// such a pack any more.
func (k *Keeper) settleUnknown(ctx context.Context, pack desformat.PackID) error {
	v, err := k.cfg.Manifest.Confirm(ctx)
	if err != nil || v.Pack(pack) != nil {
		return err
	}
	return k.settle(ctx, pack)
}

func (k *Keeper) settleOne(ctx context.Context, rec auditRecord) error {
	s, ok := k.sources[rec.Source]
	if !ok {
		return ErrUnknownSource
	}
	row, err := s.Rows.ByID(ctx, rec.ID)
	known := err == nil
	if err != nil && !errors.Is(err, source.ErrNotFound) {
		return err
	}
	ours := known && row.State == source.Packed && row.Pack == rec.Pack && row.Path == rec.Path
	hidden, err := k.isHidden(ctx, s.Files, rec)
	if err != nil {
		return err
	}
	if hidden && known {
		gone, err := uncovered(ctx, s.Files, rec, row.ModTime)
		if err != nil {
			return err
		}
		if gone && row.State != source.DeletedSource {
			return k.audit.append(auditGone, "an earlier version stands at its path", rec)
		}
		hidden = !gone
	}
	if !hidden {
		return k.settleUnhidden(ctx, s, rec, known && row.State == source.DeletedSource && row.Pack == rec.Pack)
	}
	at, err := s.Files.PutBack(ctx, rec.Path)
	if err != nil {
		return err
	}
	event, note := auditPutBack, "its deletion was given up"
	if at != rec.Path {
		event, note = auditKept, "another file stands at its path; kept as "+at
		k.log.ErrorContext(ctx, "a quarantined original has another name: another file stands at its path",
			"source", rec.Source, "id", rec.ID, "path", rec.Path, "kept_as", at)
	}
	if ours && row.Claim != "" {
		if err := s.Rows.Unclaim(ctx, row, row.Claim, "", "", k.cfg.Now()); err != nil {
			return err
		}
	}
	return k.audit.append(event, note, rec)
}

// settleUnhidden closes the intent of an original that is not in quarantine:
// it was removed, or it never left its path. The row's claim stays: when the
// file is gone it tells the next pass by whom.
func (k *Keeper) settleUnhidden(ctx context.Context, s source.Source, rec auditRecord, deleted bool) error {
	if deleted {
		return k.recordDeleted(ctx, "its row was moved on already", rec)
	}
	f, err := s.Files.Open(ctx, rec.Path)
	switch {
	case k.absent(err, rec.Root):
		return k.audit.append(auditGone, "neither at its path nor in quarantine", rec)
	case errors.Is(err, source.ErrNotRegular), errors.Is(err, source.ErrOutside):
		return k.audit.append(auditVoid, err.Error(), rec)
	case err != nil:
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return k.audit.append(auditVoid, "it stands at its path", rec)
}
