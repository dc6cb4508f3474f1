package source

import (
	"context"
	"io"
	"time"
)

// Info is a file as the file system describes it.
type Info struct {
	Size       int64
	ModTime    time.Time
	ChangeTime time.Time // ctime
	FileID     string    // device and inode, "10302:4711", or an object's place, "s3:bucket/key"
	Links      uint64    // hard links; 1 for objects
	Version    string    // of the object: names these very bytes; empty for files

	TimeUnit time.Duration // what ModTime is cut to; 0: it is exact
}

// Modified reports whether the file was modified at another time than a row
// lists, whose column keeps times in units of `unit`. Times that differ by less
// than what both have been cut to are equal.
func (a Info) Modified(listed time.Time, unit time.Duration) bool {
	return a.ModTime.Sub(listed).Abs() >= max(unit, 1)+a.TimeUnit
}

// same reports whether a and b describe one version of one file.
func (a Info) same(b Info) bool {
	return a.Size == b.Size && a.ModTime.Equal(b.ModTime) && a.ChangeTime.Equal(b.ChangeTime) &&
		a.FileID == b.FileID && a.Links == b.Links && a.Version == b.Version
}

// Original is an open file of a source. Its Read checks, when it reaches the
// end, that size, mtime, ctime and inode are what they were at the opening and
// that exactly size bytes came; if not it returns ErrChanged in place of
// io.EOF. So whoever reads to the end without an error has read one version.
type Original interface {
	io.ReadSeekCloser
	Info() Info
}

// Originals are the files of one source, below its roots. All methods may be
// called at once. Errors: ErrNoFile, ErrNotRegular, ErrOutside, ErrChanged,
// ErrInUse; any other, a *RootError among them, says nothing about the file.
type Originals interface {
	// Open opens a regular file for reading, without blocking on pipes.
	Open(ctx context.Context, path string) (Original, error)
	// Same returns the paths, in this source's words, under which rows of this
	// source could reach the file that other names: a path of this source's, or a
	// place (IsPlace) that another source's Same has returned. Places come first.
	Same(ctx context.Context, other string) ([]string, error)
	// FileID identifies what path leads to, links followed wherever they lead,
	// and opens nothing. An object's is its place, whether or not it is there. ErrNoFile, ErrOutside: it reaches no file.
	FileID(ctx context.Context, path string) (string, error)
	// RootID identifies the folder that is now the root of path, as RootError
	// does.
	RootID(ctx context.Context, path string) (string, error)
	Quarantine
}

// Quarantine is how an original is deleted: renamed beside itself, looked at
// again, then removed or put back. Each step is durable when it returns nil
// and may be repeated.
type Quarantine interface {
	// Hide renames the file to its quarantine name in the same folder, replacing
	// nothing. When the quarantine name is taken, by an earlier Hide that was
	// cut, it leaves path alone and returns nil. A file that is open for writing
	// is left alone: ErrInUse.
	Hide(ctx context.Context, path string) error
	// OpenHidden opens the quarantined file; ErrNoFile when there is none.
	OpenHidden(ctx context.Context, path string) (Original, error)
	// PutBack renames the quarantined file to path, or, when path is taken, to a
	// free name beside it under which the next import finds it. It overwrites
	// nothing, and returns the path at which the file now stands.
	PutBack(ctx context.Context, path string) (at string, err error)
	// Remove unlinks the quarantined file, if it still is as judged and nobody
	// has it open for writing: else ErrChanged or ErrInUse. No error when it is
	// gone.
	Remove(ctx context.Context, path string, judged Info) error
}

// Source is one named source: its rows and its files.
type Source struct {
	Name  string
	Rows  Table
	Files Originals

	Generated bool // rows are archived under names that desnode makes up
}
