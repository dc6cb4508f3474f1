package packer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// errDown is why the rest of a root, or of a source, is left alone in a build.
var errDown = errors.New("left alone for this pack")

// prepare finds out what becomes of a row and opens its file. It runs in
// several goroutines at once.
func (b *build) prepare(ctx context.Context, it *item) {
	it.verdict, it.code, it.err = toLeave, "", ctx.Err()
	if it.err == nil {
		if _, down := b.state[it.source.Name].isDown(it.row.Path); down {
			it.err = errDown
		}
	}
	if it.err != nil {
		return
	}
	if b.p.stubborn.holds(it.row, b.due.Now) {
		it.verdict = toWait
		return
	}
	if it.err = desformat.CheckName(it.row.DesName); it.err != nil {
		it.verdict, it.code = toRefuse, source.CodeInvalidName
		return
	}
	// The manifest comes first, also when the file is missing: a restored
	// database lists originals that were archived and deleted long ago.
	found, err := b.p.cfg.Finder.Find(ctx, it.row.DesName)
	if err != nil && !errors.Is(err, ErrNotFound) {
		it.err = fmt.Errorf("ask the manifest: %w", err)
		return
	}
	live := err == nil && sameVersion(found, it.listed)
	if err == nil {
		it.found = found
		switch {
		case found.Source != it.row.Source || found.ID != it.row.ID:
			it.verdict, it.code = toRefuse, source.CodeDuplicateName
			it.err = fmt.Errorf("row %s of source %s lives under this name", found.ID, found.Source)
			return
		case live && it.row.Version == 1:
			it.verdict = toAgain
			return
		}
	}
	it.err = b.p.open(ctx, it)
	if live { // but marked before: a file may have come since that is alike in size and time alone
		var holds bool
		if it.err == nil {
			holds, it.err = it.holds(ctx, found.SHA256)
		}
		if holds || b.p.absent(it.err) {
			it.verdict = toAgain
			return
		}
	}
	if it.err == nil {
		it.verdict = toPack
		return
	}
	if it.code = source.FileFault(it.err); it.code != "" {
		it.verdict = toFail
	}
}

// absent reports whether err says that there is no file.
func (p *Packer) absent(err error) bool {
	if root, ok := errors.AsType[*source.RootError](err); ok {
		return root.EmptyID != "" && p.cfg.Emptied(root.EmptyID)
	}
	return errors.Is(err, source.ErrNoFile)
}

// sameVersion reports whether the live record is the version that the row
// lists. A row that brings a checksum of its own must agree in that too.
func sameVersion(found *Found, at listed) bool {
	return found.Size == at.row.Size &&
		sameTime(found.ModTime, at.row.ModTime, at.source.Rows.TimePrecision()) &&
		(at.row.SHA256 == nil || *at.row.SHA256 == found.SHA256)
}

// open opens the row's file, and reads it when it is small.
func (p *Packer) open(ctx context.Context, it *item) error {
	f, err := openOriginal(ctx, it.listed)
	if err != nil {
		return err
	}
	it.info = f.Info()
	if it.row.Size > p.cfg.SmallFile {
		it.file = f
		return nil
	}
	content := p.buffer(it.row.Size)
	err = errors.Join(readWhole(f, content), f.Close())
	if err != nil {
		p.release(content)
		return err
	}
	it.content = content
	return nil
}

// holds reports whether the opened file has that content, and leaves the file
// at its start.
func (it *item) holds(ctx context.Context, sum [sha256.Size]byte) (bool, error) {
	if it.file == nil {
		return sha256.Sum256(it.content) == sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, &contentReader{ctx: ctx, file: it.file}); err != nil {
		return false, err
	}
	_, err := it.file.Seek(0, io.SeekStart)
	return [sha256.Size]byte(h.Sum(nil)) == sum, err
}
