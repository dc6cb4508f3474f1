package cli

import (
	"context"
	"errors"
	"syscall"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// The exit codes; docs/operator.md lists them too.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitInUse       = 5
	exitInterrupted = 130
)

const exitHelp = `Exit codes:
    0  done
    1  failed: files that could not be archived, damaged packs, a full disk, ...
    2  wrong usage or configuration
    3  the node, or the pack, has no such name or pack
    4  no node answers, or it cannot at the moment: try again
    5  the data dir or the port is in use by another process
  130  interrupted`

// Errors of this package that have an exit code of their own.
var (
	// errNotFound: the node or the pack does not have what was asked for. A
	// local path that is missing is something else.
	errNotFound = errors.New("not found")
	// errUnavailable: nobody could answer; the outcome is unknown.
	errUnavailable = errors.New("unavailable")
	// errFailed: the work ended, and the report above says what went wrong.
	errFailed = errors.New("failed")
)

// usageError is a command line that cannot be carried out.
type usageError struct{ err error }

// Error returns what is wrong with the command line.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns the reason.
func (e *usageError) Unwrap() error { return e.err }

func usage(text string) error { return &usageError{errors.New(text)} }

// exitCode chooses the exit code of a failed command.
func exitCode(ctx context.Context, err error) int {
	var problem *api.Problem
	var asUsage *usageError
	switch {
	case errors.As(err, &asUsage), errors.Is(err, config.ErrInvalid), errors.Is(err, desformat.ErrInvalidName):
		return exitUsage
	case errors.Is(err, desformat.ErrCorrupt), errors.Is(err, desformat.ErrNotPack), errors.Is(err, desformat.ErrVersion):
		return exitFailed
	case errors.As(err, &problem):
		return problemCode(problem.Code)
	case errors.Is(err, errNotFound):
		return exitNotFound
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, errUnavailable):
		return exitUnavailable
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, raftmeta.ErrLocked):
		return exitInUse
	}
	return exitFailed
}

func problemCode(c api.Code) int {
	switch c {
	case api.CodeInvalidName, api.CodeInvalidRequest:
		return exitUsage
	case api.CodeNotFound, api.CodeGone:
		return exitNotFound
	case api.CodeUnavailable, api.CodeUnconfirmed, api.CodeBusy:
		return exitUnavailable
	}
	return exitFailed
}
