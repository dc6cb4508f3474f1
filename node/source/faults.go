package source

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
)

// notAboutTheFile are errors of the machine, the mount or the network: the
// next file would meet them as well.
var notAboutTheFile = []error{
	syscall.ENOENT, // ErrNoFile is told apart before: a root is missing
	syscall.ESTALE, syscall.ENOTCONN, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH,
	syscall.ETIMEDOUT, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ENODEV,
	syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR, syscall.EAGAIN,
}

// FileFault tells what reading an original has come to: a failure code for its
// row, or "" when the error says nothing about this file. Only a number from
// the kernel and a refusal do, beside the errors that Originals names: a
// driver's own troubles, a missing root among them, have none.
func FileFault(err error) (code string) {
	switch {
	case errors.Is(err, ErrNoFile):
		return CodeNoFile
	case errors.Is(err, ErrChanged):
		return CodeChanged
	case errors.Is(err, ErrNotRegular):
		return CodeNotRegular
	case errors.Is(err, ErrOutside):
		return CodeInvalidPath
	case ownError(err):
		return CodeReadError
	}
	return ""
}

// ownError reports whether err is a refusal, or the kernel's word on this very
// file.
func ownError(err error) bool {
	if _, ok := errors.AsType[*RootError](err); ok {
		return false
	}
	if errors.Is(err, fs.ErrPermission) {
		return true
	}
	var errno syscall.Errno
	return errors.As(err, &errno) && !slices.ContainsFunc(notAboutTheFile, func(e error) bool { return errors.Is(err, e) })
}
