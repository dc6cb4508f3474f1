package keeper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/datavision/desnode/node/source"
)

// How the deletion of one original ended, as the metric counts it.
const (
	outcomeDeleted  = "deleted"
	outcomeShared   = "shared-file"
	outcomeDiffers  = "content-differs"
	outcomeNoFile   = "no-file"
	outcomeMoved    = "row-moved"
	outcomeNoRecord = "no-record"
	outcomeError    = "error"
)

var outcomes = []string{
	outcomeDeleted, outcomeShared, outcomeDiffers, outcomeNoFile, outcomeMoved, outcomeNoRecord, outcomeError,
}

// original is one row's file on its way out.
type original struct {
	d   *deletion
	src source.Source
	c   *candidate
	rec auditRecord // its FileID: the file that was found to be nobody else's
}

// errHalfDone says that another row's original had this file's inode and its
// deletion is not over: until it is, its row seems to reach this file.
var errHalfDone = errors.New("the inode's former file is still being deleted")

// deleteOriginal takes one claimed row from PACKED to DELETED_SOURCE, or finds
// why its original must stay. An error leaves everything as it stands; a later
// pass goes on from whatever that is.
func (d *deletion) deleteOriginal(ctx context.Context, s source.Source, c *candidate) (string, error) {
	if !c.found {
		d.k.log.ErrorContext(ctx, "row is PACKED but its pack has no live record of it: original stays",
			"source", s.Name, "id", c.row.ID, "pack", d.pack)
		return outcomeNoRecord, nil
	}
	p, err := d.k.maySafelyDelete(d.pack)
	if err != nil {
		return "", err
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
	hidden, err := o.isHidden(ctx)
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

func (o *original) isHidden(ctx context.Context) (bool, error) {
	return isHidden(ctx, o.src.Files, o.c.row.Path)
}

func isHidden(ctx context.Context, q source.Quarantine, path string) (bool, error) {
	f, err := q.OpenHidden(ctx, path)
	if errors.Is(err, source.ErrNoFile) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the quarantined file: %w", err)
	}
	return true, f.Close()
}

// hide moves the original to its quarantine name, unless it is shared or gone;
// then it returns how that ended.
func (o *original) hide(ctx context.Context, earlier bool) (string, error) {
	f, err := o.src.Files.Open(ctx, o.c.row.Path)
	switch {
	case errors.Is(err, source.ErrNoFile) && earlier:
		// An earlier pass claimed the row and removed the file: only the row is left.
		return o.finish(ctx, "found gone under an earlier claim")
	case errors.Is(err, source.ErrNoFile):
		return outcomeNoFile, o.unclaim(ctx, source.CodeNoFile, "the original is gone; desnode did not delete it")
	case errors.Is(err, source.ErrNotRegular), errors.Is(err, source.ErrOutside):
		return outcomeDiffers, o.unclaim(ctx, source.CodeDiffers, err.Error())
	case err != nil:
		return "", fmt.Errorf("open the original: %w", err)
	}
	info := f.Info()
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("open the original: %w", err)
	}
	why, err := o.shared(ctx, info)
	if err != nil {
		return "", err
	}
	if why != "" {
		return outcomeShared, o.unclaim(ctx, source.CodeShared, why)
	}
	if err := o.d.k.audit.append(auditIntent, "", o.rec); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := o.src.Files.Hide(ctx, o.c.row.Path); err != nil {
		return "", fmt.Errorf("quarantine the original: %w", err)
	}
	return "", nil
}

// shared says why the file is reached by more than this row; "" if it is not.
func (o *original) shared(ctx context.Context, info source.Info) (string, error) {
	if info.Links != 1 {
		return fmt.Sprintf("the file has %d hard links", info.Links), nil
	}
	own, err := o.src.Files.Same(ctx, o.c.row.Path)
	if err != nil {
		return "", fmt.Errorf("look for rows that share the file: %w", err)
	}
	own = append(own, o.c.row.Path)
	rows := 0
	for _, s := range o.d.k.sources {
		paths := own
		if s.Name != o.src.Name {
			if paths, err = elsewhere(ctx, s.Files, own); err != nil {
				return "", fmt.Errorf("source %s: look for rows that share the file: %w", s.Name, err)
			}
		}
		n, err := s.Rows.Sharing(ctx, o.c.row, info.FileID, paths)
		if err != nil {
			return "", fmt.Errorf("source %s: look for rows that share the file: %w", s.Name, err)
		}
		rows += n
	}
	if rows == 0 {
		o.rec.FileID = info.FileID
		return "", nil
	}
	if o.d.k.audit.removing(info.FileID, o.rec) {
		return "", errors.Join(errHalfDone, o.unclaim(ctx, "", ""))
	}
	return fmt.Sprintf("%d other row(s) reach the same file", rows), nil
}

// elsewhere returns how rows of another source could spell one of paths. Only
// absolute paths mean the same to both.
func elsewhere(ctx context.Context, files source.Originals, paths []string) ([]string, error) {
	var out []string
	known := false
	for _, p := range paths {
		if !filepath.IsAbs(p) {
			continue
		}
		known = true
		same, err := files.Same(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, same...)
	}
	if !known {
		return nil, fmt.Errorf("no absolute path is known for %q", paths)
	}
	return out, nil
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
	if readErr != nil {
		return "", fmt.Errorf("read the quarantined file: %w", readErr)
	}
	if why != "" {
		return o.putBack(ctx, outcomeDiffers, source.CodeDiffers, why)
	}
	if info.FileID != o.rec.FileID || info.Links != 1 { // not the file that was looked at before
		if why, err = o.shared(ctx, info); err != nil {
			return "", err
		}
		if why != "" {
			return o.putBack(ctx, outcomeShared, source.CodeShared, why)
		}
	}
	return o.remove(ctx)
}

// compare says how the content differs from the archived one; "" if it is equal.
func (o *original) compare(ctx context.Context, f source.Original) (string, error) {
	if size := f.Info().Size; size != o.c.entry.Size {
		return fmt.Sprintf("the file has %d bytes, archived were %d", size, o.c.entry.Size), nil
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

func (o *original) putBack(ctx context.Context, outcome, code, why string) (string, error) {
	event := auditPutBack
	err := o.src.Files.PutBack(ctx, o.c.row.Path)
	switch {
	case errors.Is(err, fs.ErrExist):
		event = auditKept
		why += "; another file stands at its path, so it stays under its quarantine name"
	case err != nil:
		return "", fmt.Errorf("put the original back: %w", err)
	}
	if err := o.d.k.audit.append(event, why, o.rec); err != nil {
		return "", err
	}
	o.d.k.log.WarnContext(ctx, "original is kept", "source", o.src.Name, "id", o.c.row.ID, "path", o.c.row.Path, "why", why)
	return outcome, o.unclaim(ctx, code, why)
}

// remove unlinks the quarantined file: the one step that can't be undone.
func (o *original) remove(ctx context.Context) (string, error) {
	k := o.d.k
	if !k.audit.isOpen(o.rec) { // hidden by another node
		if err := k.audit.append(auditIntent, "", o.rec); err != nil {
			return "", err
		}
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
	if err := o.src.Files.Remove(ctx, o.c.row.Path); err != nil {
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
