package desformat

import (
	"errors"
	"fmt"
)

// More errors of this package, returned wrapped.
var (
	// ErrBadRecord: the Writer was given a record that the format cannot hold.
	// The text says why; the Writer goes on.
	ErrBadRecord = errors.New("record does not fit the pack format")
	// ErrBadConfig: NewWriter was given options outside the format's limits.
	ErrBadConfig = errors.New("bad pack writer configuration")
	// ErrFull: the pack holds MaxRecords records; it can still be sealed.
	ErrFull = errors.New("pack is full")
	// ErrSealed: the Writer was used after Seal.
	ErrSealed = errors.New("pack is sealed")
	// ErrNothingToUndo: Undo without an Append right before it.
	ErrNothingToUndo = errors.New("nothing to undo")
	// ErrBadRange: a range of content that begins before 0 or behind the end.
	ErrBadRange = errors.New("range outside the content")
)

// CorruptError says what is wrong with a pack, and where. It is ErrCorrupt
// for errors.Is.
type CorruptError struct {
	Pack   PackID // zero where the reader was not told, as in ParseRecord
	Offset int64  // bytes from the start of the pack, or of what was parsed
	What   string
}

// Error returns the pack, the offset and what is wrong there.
func (e *CorruptError) Error() string {
	if e.Pack.IsZero() {
		return fmt.Sprintf("corrupt at byte %d: %s", e.Offset, e.What)
	}
	return fmt.Sprintf("pack %s corrupt at byte %d: %s", e.Pack, e.Offset, e.What)
}

// Is reports whether target is ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func corrupt(offset int64, format string, args ...any) error {
	return &CorruptError{Offset: offset, What: fmt.Sprintf(format, args...)}
}

// inPack names the pack in a CorruptError that was made where the pack was not
// known.
func inPack(err error, pack PackID) error {
	c, ok := bare(err)
	if !ok || !c.Pack.IsZero() {
		return err
	}
	return &CorruptError{Pack: pack, Offset: c.Offset, What: c.What}
}

// at moves the offset of a CorruptError by base: from inside a part to inside
// the pack.
func at(err error, base int64) error {
	c, ok := bare(err)
	if !ok {
		return err
	}
	return &CorruptError{Pack: c.Pack, Offset: c.Offset + base, What: c.What}
}

// bare returns err as the CorruptError that it is. One that a caller's error
// wraps is the caller's and is left alone.
func bare(err error) (*CorruptError, bool) {
	c, ok := err.(*CorruptError) //nolint:errorlint // see above
	return c, ok
}
