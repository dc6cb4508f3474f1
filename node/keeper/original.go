package keeper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// How the deletion of one original ended, as the metric counts it.
const (
	outcomeDeleted  = "deleted"
	outcomeShared   = "shared-file"
	outcomeDiffers  = "content-differs"
	outcomeNoFile   = "no-file"
	outcomeInUse    = "file-in-use"
	outcomeUnfit    = "file-unfit"
	outcomeMoved    = "row-moved"
	outcomeNoRecord = "no-record"
	outcomeNotHere  = "other-host" // left alone for the host that deletes files in folders
	outcomeError    = "error"
)

var outcomes = []string{
	outcomeDeleted, outcomeShared, outcomeDiffers, outcomeNoFile, outcomeInUse, outcomeUnfit,
	outcomeMoved, outcomeNoRecord, outcomeNotHere, outcomeError,
}

// original is one row's file on its way out.
type original struct {
	d   *deletion
	src source.Source
	c   *candidate
	rec auditRecord // its FileID: the file that was found to be nobody else's
	cut auditRecord // the intent that an earlier pass left open
}

// deleteOriginal takes one claimed row from PACKED to DELETED_SOURCE, or finds
// why its original must stay. An error leaves everything as it stands; a later
// pass goes on from whatever that is.
func (d *deletion) deleteOriginal(ctx context.Context, s source.Source, c *candidate) (string, error) {
	if !c.found {
		return d.noRecord(ctx, s, c)
	}
	p, err := d.k.maySafelyDelete(d.pack)
	if err != nil {
		return "", err
	}
	if may, err := d.k.mayDelete(ctx, s, c.row); err != nil || !may {
		return outcomeNotHere, err
	}
	earlier := c.row.Claim != ""
	ok, err := s.Rows.Claim(ctx, c.row, d.claim)
	if err != nil {
		return "", fmt.Errorf("claim: %w", err)
	}
	if !ok {
		return outcomeMoved, nil
	}
	o := &original{d: d, src: s, c: c, rec: auditRecord{
		Source: s.Name, ID: c.row.ID, Path: c.row.Path, Name: c.row.DesName, Pack: d.pack,
		Ordinal: c.entry.Ordinal, Size: c.entry.Size, SHA256: hexSum(c.entry.SHA256),
		VerifiedAt: verifiedAt(p), Claim: d.claim, Node: string(d.k.cfg.Node),
	}}
	o.cut = d.k.audit.intentOf(o.rec)
	o.rec.Root = o.cut.Root
	hidden, err := d.k.isHidden(ctx, s.Files, o.rec)
	if code := ownFault(err); code != "" {
		return outcomeUnfit, o.unclaim(ctx, code, err.Error())
	}
	if err != nil {
		return "", err
	}
	if !hidden {
		if outcome, err := o.hide(ctx, earlier); outcome != "" || err != nil {
			return outcome, err
		}
	}
	return o.judge(ctx)
}

// noRecord lets go of a row that no record vouches for, so that it does not
// come up again with every pass.
func (d *deletion) noRecord(ctx context.Context, s source.Source, c *candidate) (string, error) {
	ok, err := s.Rows.Claim(ctx, c.row, d.claim)
	if err != nil {
		return "", fmt.Errorf("claim: %w", err)
	}
	if !ok {
		return outcomeMoved, nil
	}
	d.k.log.ErrorContext(ctx, "row is PACKED but its pack has no live record of it: original stays",
		"source", s.Name, "id", c.row.ID, "pack", d.pack)
	o := &original{d: d, src: s, c: c}
	return outcomeNoRecord, o.unclaim(ctx, source.CodeNoRecord, "pack "+d.pack.String()+" has no live record of the row")
}

func (k *Keeper) isHidden(ctx context.Context, q source.Quarantine, rec auditRecord) (bool, error) {
	f, err := q.OpenHidden(ctx, rec.Path)
	if k.absent(err, rec.Root) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the quarantined file: %w", err)
	}
	return true, f.Close()
}

// absent reports whether err says that there is no file: also below a root
// that is empty, when it is the very folder below which the file stood, or one
// that deletions have emptied.
func (k *Keeper) absent(err error, root string) bool {
	if e, ok := errors.AsType[*source.RootError](err); ok {
		return e.EmptyID != "" && (e.EmptyID == root || k.Emptied(e.EmptyID))
	}
	return errors.Is(err, source.ErrNoFile)
}

// Emptied reports whether originals were deleted, by this node, below the root
// folder with that id (source.RootError): if it is empty, it is not the mount
// point of a missing disk.
func (k *Keeper) Emptied(rootID string) bool { return k.audit.emptied(rootID) }

// ownFault returns the failure code of an error that is this one original's
// and will be met by every pass; "" when it is its root's or its source's.
func ownFault(err error) string {
	switch code := source.FileFault(err); code {
	case source.CodeNotRegular, source.CodeInvalidPath, source.CodeReadError:
		return code
	}
	return ""
}

// undeletable reports whether an original's folder or store does not let it be
// deleted.
func undeletable(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission)
}

// hide moves the original to its quarantine name, unless it is another file by
// now, or shared, in use or gone; then it returns how that ended.
func (o *original) hide(ctx context.Context, earlier bool) (string, error) {
	f, err := o.src.Files.Open(ctx, o.c.row.Path)
	switch {
	case o.d.k.absent(err, o.rec.Root) && earlier:
		// An earlier pass claimed the row and removed the file: only the row is left.
		return o.finish(ctx, "found gone under an earlier claim")
	case o.d.k.absent(err, o.rec.Root):
		return outcomeNoFile, o.unclaim(ctx, source.CodeNoFile, "the original is gone; desnode did not delete it")
	case errors.Is(err, source.ErrChanged): // it is being written at this moment
		return outcomeInUse, o.unclaim(ctx, "", err.Error())
	case ownFault(err) != "":
		return outcomeUnfit, o.unclaim(ctx, ownFault(err), err.Error())
	case err != nil:
		return "", fmt.Errorf("open the original: %w", err)
	}
	info := f.Info()
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("open the original: %w", err)
	}
	if why := o.unlisted(info); why != "" {
		return outcomeDiffers, o.unclaim(ctx, source.CodeDiffers, why)
	}
	why, err := o.shared(ctx, info)
	if err != nil {
		return "", err
	}
	if why != "" {
		return outcomeShared, o.unclaim(ctx, source.CodeShared, why)
	}
	if o.rec.Root, err = o.src.Files.RootID(ctx, o.c.row.Path); err != nil {
		return "", fmt.Errorf("look at the original's root: %w", err)
	}
	if err := o.d.k.audit.append(auditIntent, "", o.rec); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	err = o.src.Files.Hide(ctx, o.c.row.Path)
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, source.ErrInUse):
		return outcomeInUse, o.leave(ctx, "", err.Error())
	case undeletable(err):
		return outcomeUnfit, o.leave(ctx, source.CodeUndeletable, err.Error())
	case ownFault(err) != "":
		return outcomeUnfit, o.leave(ctx, ownFault(err), err.Error())
	}
	return "", fmt.Errorf("quarantine the original: %w", err)
}

// leave gives up on an original that never left its path.
func (o *original) leave(ctx context.Context, code, why string) error {
	if err := o.d.k.audit.append(auditVoid, why, o.rec); err != nil {
		return err
	}
	return o.unclaim(ctx, code, why)
}

// unlisted says how the file is another than the one that the row lists, which
// the next import will tell; "" if it is not. Only the size and time are told
// here, not the content.
func (o *original) unlisted(info source.Info) string {
	row := &o.c.row
	if info.Size != row.Size {
		return fmt.Sprintf("the file has %d bytes, the row lists %d", info.Size, row.Size)
	}
	if info.Modified(row.ModTime, o.src.Rows.TimePrecision()) {
		return fmt.Sprintf("the file was modified at %s, the row lists %s",
			info.ModTime.Format(time.RFC3339Nano), row.ModTime.Format(time.RFC3339Nano))
	}
	return ""
}

// overtaken says which other content is served under the row's name; "" if it is
// this record's. The row then was put back to an older state, and its file with
// it: that a pack holds the bytes helps nobody who asks for the name.
func (o *original) overtaken(ctx context.Context) (string, error) {
	if o.d.k.cfg.Newer == nil {
		return "", nil
	}
	newer, err := o.d.k.cfg.Newer(ctx, o.c.entry.Name, o.c.entry.Seq)
	if err != nil {
		return "", fmt.Errorf("look for a newer version: %w", err)
	}
	if newer == nil || newer.Type == desformat.TypeFile && newer.SHA256 == o.c.entry.SHA256 {
		return "", nil
	}
	return fmt.Sprintf("version %s of the name is newer than the row's, %s, and is what is served: was the table put back from a backup? "+
		"Import the file with a new modification time to have it archived as the newest", newer.Seq, o.c.entry.Seq), nil
}

// judge reads the quarantined file and removes it if it is what was archived.
func (o *original) judge(ctx context.Context) (string, error) {
	f, err := o.src.Files.OpenHidden(ctx, o.c.row.Path)
	if err != nil {
		return "", fmt.Errorf("open the quarantined file: %w", err)
	}
	info := f.Info()
	why, readErr := o.compare(ctx, f)
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("read the quarantined file: %w", err)
	}
	if code := ownFault(readErr); code != "" {
		return o.putBack(ctx, outcomeUnfit, code, readErr.Error())
	}
	if readErr != nil {
		return "", fmt.Errorf("read the quarantined file: %w", readErr)
	}
	if why != "" {
		gone, err := uncovered(ctx, o.src.Files, o.cut, o.c.row.ModTime)
		if err != nil {
			return "", err
		}
		if gone {
			return o.finish(ctx, "found gone under an earlier claim; an earlier version stands at its path")
		}
		return o.putBack(ctx, outcomeDiffers, source.CodeDiffers, why)
	}
	if why, err = o.overtaken(ctx); err != nil {
		return "", err
	}
	if why != "" {
		return o.putBack(ctx, outcomeDiffers, source.CodeDiffers, why)
	}
	o.rec.Version = info.Version
	if info.FileID != o.rec.FileID || info.Links != 1 { // not the file that was looked at before
		if why, err = o.shared(ctx, info); err != nil {
			return "", err
		}
		if why != "" {
			return o.putBack(ctx, outcomeShared, source.CodeShared, why)
		}
	}
	return o.remove(ctx, info)
}

// compare says how the content differs from the archived one; "" if it is equal.
func (o *original) compare(ctx context.Context, f source.Original) (string, error) {
	if why := o.unlisted(f.Info()); why != "" {
		return why, nil
	}
	sum := sha256.New()
	n, err := io.Copy(sum, readerWithContext{ctx, f})
	switch {
	case errors.Is(err, source.ErrChanged):
		return "the file changes while it is read", nil
	case err != nil:
		return "", err
	case n != o.c.entry.Size || [sha256.Size]byte(sum.Sum(nil)) != o.c.entry.SHA256:
		return "the file's SHA-256 is not the archived one", nil
	}
	return "", nil
}

type readerWithContext struct {
	ctx context.Context //nolint:containedctx // lives for one io.Copy
	r   io.Reader
}

func (r readerWithContext) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// putBack gives the hidden file its path again. When another file stands there,
// the hidden one is kept beside it, and the verdict was on that one alone: a
// leftover, maybe, of an earlier version's deletion that was cut on another node.
// The row gets no code for it, and the next pass judges what stands at its path.
func (o *original) putBack(ctx context.Context, outcome, code, why string) (string, error) {
	at, err := o.src.Files.PutBack(ctx, o.c.row.Path)
	if err != nil {
		return "", fmt.Errorf("put the original back: %w", err)
	}
	event := auditPutBack
	if at != o.c.row.Path {
		event, code = auditKept, ""
		why += "; another file stands at its path, so it is kept as " + at
	}
	if err := o.d.k.audit.append(event, why, o.rec); err != nil {
		return "", err
	}
	o.d.k.log.WarnContext(ctx, "original is kept", "source", o.src.Name, "id", o.c.row.ID, "path", o.c.row.Path, "why", why)
	return outcome, o.unclaim(ctx, code, why)
}

// remove unlinks the quarantined file as it was judged: the one step that
// can't be undone.
func (o *original) remove(ctx context.Context, judged source.Info) (string, error) {
	k := o.d.k
	if !k.audit.isOpen(o.rec) { // hidden by another node, or an object, which nothing hides
		if err := k.audit.append(auditIntent, "", o.rec); err != nil {
			return "", err
		}
	}
	ok, err := o.src.Rows.Claim(ctx, o.c.row, o.d.claim)
	if err != nil {
		return "", fmt.Errorf("claim: %w", err)
	}
	if !ok {
		return o.putBack(ctx, outcomeMoved, "", "its row has moved on")
	}
	p, err := k.maySafelyDelete(o.d.pack)
	if err != nil {
		return "", err
	}
	if p.IsDead(o.c.entry.Ordinal) {
		return "", fmt.Errorf("record %d is dead: %w", o.c.entry.Ordinal, errNotSafe)
	}
	if err := ctx.Err(); err != nil { // the lease's end
		return "", err
	}
	err = o.src.Files.Remove(ctx, o.c.row.Path, judged)
	switch {
	case errors.Is(err, source.ErrInUse):
		return o.putBack(ctx, outcomeInUse, "", err.Error())
	case errors.Is(err, source.ErrChanged):
		return o.putBack(ctx, outcomeDiffers, source.CodeDiffers, err.Error())
	case undeletable(err):
		return o.putBack(ctx, outcomeUnfit, source.CodeUndeletable, err.Error())
	case err != nil:
		return "", fmt.Errorf("remove the original: %w", err)
	}
	return o.finish(ctx, "")
}

// finish moves the row on and records that the original is gone.
func (o *original) finish(ctx context.Context, note string) (string, error) {
	k := o.d.k
	ok, err := o.src.Rows.Deleted(ctx, o.c.row, o.d.claim, k.cfg.Now())
	if err != nil {
		return "", fmt.Errorf("move the row on: %w", err)
	}
	if err := k.recordDeleted(ctx, note, o.rec); err != nil {
		return "", err
	}
	if !ok {
		return outcomeMoved, nil
	}
	return outcomeDeleted, nil
}

func (k *Keeper) recordDeleted(ctx context.Context, note string, rec auditRecord) error {
	if err := k.audit.append(auditDeleted, note, rec); err != nil {
		return err
	}
	k.log.InfoContext(ctx, "source deleted", "source", rec.Source, "id", rec.ID, "path", rec.Path,
		"name", rec.Name, "pack", rec.Pack, "ordinal", rec.Ordinal, "sha256", rec.SHA256,
		"size", rec.Size, "verified_at", rec.VerifiedAt, "note", note)
	return nil
}

func (o *original) unclaim(ctx context.Context, code, text string) error {
	if err := o.src.Rows.Unclaim(ctx, o.c.row, o.d.claim, code, text, o.d.k.cfg.Now()); err != nil {
		return fmt.Errorf("unclaim: %w", err)
	}
	return nil
}
