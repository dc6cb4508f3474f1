package retriever

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Errors of this package, returned wrapped. Names are also refused with
// desformat.ErrInvalidName, and corrupt bytes with *CorruptError.
var (
	// ErrNotFound: the confirmed manifest has no record of the name and no
	// source has a row for it.
	ErrNotFound = errors.New("no such file")
	// ErrGone: the newest record of the name is a tombstone; confirmed.
	ErrGone = errors.New("file was removed")
	// ErrUnavailable: the store or a source failed, or does not have what it should
	// and no quorum says that it should, or a record is of a newer format than
	// this node can read. It says nothing about the name.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnconfirmed: nothing was found, and without a quorum nobody can say
	// that there is nothing.
	ErrUnconfirmed = errors.New("absence not confirmed by a quorum")
	// ErrBusy: the client asked for too many names that do not exist.
	ErrBusy = errors.New("too many requests for names that do not exist")
	// ErrUnknownSource: no source has that name.
	ErrUnknownSource = errors.New("no such source")
	// ErrAmbiguous: several sources have a row with that id; name one.
	ErrAmbiguous = errors.New("several sources have that id")
)

// errMissing: the store says that a pack of the manifest is not there.
var errMissing = errors.New("object of a pack is missing")

// errOther: a record is sound in itself, and not the one that should be there.
var errOther = fmt.Errorf("%w: record of another pack", desformat.ErrCorrupt)

// CorruptError says that what is stored of a pack is not what was committed:
// bytes contradict their checksums or themselves, or provably are not there. It
// matches desformat.ErrCorrupt.
type CorruptError struct {
	Pack   desformat.PackID
	Offset int64 // bytes from the start of the pack: of the damage where known, else of the part that holds it
	Damage Damage
	Err    error
}

// Error names the pack, the kind of damage and the offset.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("pack %s %s at offset %d: %v", e.Pack, e.Damage, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// Is reports that it is ErrCorrupt, whatever the cause was.
func (e *CorruptError) Is(target error) bool { return target == desformat.ErrCorrupt }

// classify turns an error met while reading p at off into one of the errors
// above. Errors of the caller's own context stay as they are.
func (r *Retriever) classify(ctx context.Context, p *raftmeta.Pack, off int64, err error) error {
	if err == nil {
		return nil
	}
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt), errors.Is(err, errMissing), errors.Is(err, ErrUnavailable):
		return err // classified where it happened
	case errors.Is(err, store.ErrNotFound):
		return &missingError{p, off, err}
	case errors.Is(err, desformat.ErrCorrupt), errors.Is(err, desformat.ErrNotPack):
		var at *desformat.CorruptError
		if errors.As(err, &at) && at.Offset > off {
			off = at.Offset
		}
		kind := Flipped
		if errors.Is(err, errOther) {
			kind = Replaced
		}
		return r.corrupt(p, kind, off, err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("pack %s: %w: %w", p.ID, ErrUnavailable, err)
}
