// Package source is the supervising system as desnode sees it: the table that
// lists the files (Table) and the files themselves (Originals).
//
// A driver of Table is the only code that talks to a particular database:
// SQLite (embedded) and Postgres. sourcetest holds the conformance suite that
// every driver passes.
//
// Every UPDATE matches id, name, status, archive_version, size and time as
// last seen and changes nothing else; repeating it has no effect. A database
// error never means that a row is missing. Restoring what a table has lost is
// the one other kind, by a role of its own.
//
// The database records which cluster archives the source, in which of its
// lives; every transaction of an older one is refused.
//
// Not for: deciding what to archive or delete. That is marker, packer, keeper.
package source

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/datavision/desnode/desformat"
)

// Errors of every driver, returned wrapped.
var (
	// ErrNotFound: the database answered that there is no such row.
	ErrNotFound = errors.New("no such row")
	// ErrNoFile: the file is not there: the folder says so, no error hides it.
	ErrNoFile = errors.New("no such file")
	// ErrChanged: the file is not the one that the row lists, or it changed
	// while it was read.
	ErrChanged = errors.New("file changed")
	// ErrNotRegular: a folder, link, device, socket or pipe.
	ErrNotRegular = errors.New("not a regular file")
	// ErrOutside: the path leads out of the configured roots.
	ErrOutside = errors.New("path outside the source's roots")
	// ErrInUse: a process has the file open for writing.
	ErrInUse = errors.New("file is open for writing")
	// ErrSuperseded: a newer life of this cluster, a restored or rebuilt one, has
	// claimed the source: this one may not work on it any more.
	ErrSuperseded = errors.New("a newer generation of the cluster has claimed the source")
	// ErrUnidentified: there are rows of which nobody knows which file they reach.
	ErrUnidentified = errors.New("rows without a file id")
)

// State is a row's place in the life of a file (DESIGN.md §3).
type State string

// The states, in the words of the reference schema.
const (
	Active        State = "ACTIVE"
	Marked        State = "MARKED"
	Packed        State = "PACKED"
	DeletedSource State = "DELETED_SOURCE"
	Failed        State = "FAILED"
)

// Row is one file as the source's table lists it, as last seen.
type Row struct {
	Source  string // the source's short name
	ID      string
	Name    string // the source's own name for it
	Path    string
	Size    int64     // bytes
	ModTime time.Time // at the column's precision, UTC
	State   State
	Version uint32           // archive_version
	Pack    desformat.PackID // des_pack; zero until packed

	DesName     string             // the served name; empty until marked
	SHA256      *[sha256.Size]byte // the row's own checksum when mapped
	ContentType string
	Created     time.Time // zero: unknown
	Custom      []byte    // further mapped columns, one JSON object; nil: none

	MarkedAt    time.Time // zero: not yet
	PackedAt    time.Time // zero: not yet
	LastAttempt time.Time // zero: none
	Attempts    int
	ErrorCode   string // archive_error: code
	ErrorText   string // archive_error: what happened
	Claim       string // des_claim: the deletion that holds the row; empty: none
	// Problem says why the row can't be archived as it is: something that it must
	// have is NULL or means nothing. It is refused as CodeInvalidRow. Empty: none.
	Problem string
	FileID  string // device and inode as last seen ("10302:4711"), NoFileID, "" unknown
}

// Failure codes, the first word of archive_error.
const (
	CodeInvalidName   = "invalid-name"
	CodeInvalidPath   = "invalid-path"
	CodeInvalidRow    = "invalid-row" // a required column is empty or makes no sense
	CodeDuplicateName = "duplicate-name"
	CodeNoFile        = "no-file"
	CodeChanged       = "changed"
	CodeChecksum      = "checksum-mismatch"
	CodeNotRegular    = "not-regular"
	CodeReadError     = "read-error"
	CodeRefused       = "row-refused"     // the database refused the acknowledgement
	CodeShared        = "shared-file"     // two rows reach one file: not deleted
	CodeDiffers       = "content-differs" // the original is not what was archived: not deleted
	CodeNoRecord      = "no-record"       // its pack has no live record of the row: not deleted
	CodeUndeletable   = "not-deletable"   // its folder or store does not let it be deleted
)

// Codes lists the failure codes.
func Codes() []string {
	return []string{
		CodeInvalidName, CodeInvalidPath, CodeInvalidRow, CodeDuplicateName, CodeNoFile, CodeChanged, CodeChecksum,
		CodeNotRegular, CodeReadError, CodeRefused, CodeShared, CodeDiffers, CodeNoRecord, CodeUndeletable,
	}
}
