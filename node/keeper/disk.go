package keeper

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Disk is the folder in which the audit log stands. Files are named by their
// base names. What a method has changed survives a power cut once Sync of the
// file, for its bytes, and Sync of the Disk, for its names, have returned nil.
type Disk interface {
	// Open opens a file to be read, and to be written at its end; a missing one
	// is made.
	Open(name string) (DiskFile, error)
	// Create is Open of a file that is emptied before.
	Create(name string) (DiskFile, error)
	// Link gives a file a further name, and never replaces another.
	Link(from, to string) error
	// Rename renames a file and replaces what has the new name.
	Rename(from, to string) error
	// Sync flushes the names.
	Sync() error
}

// DiskFile is an open file of a Disk; *os.File is one.
type DiskFile interface {
	io.ReadWriteCloser
	Truncate(size int64) error
	Sync() error
}

// folder is a Disk in the file system.
type folder string

func (dir folder) path(name string) string { return filepath.Join(string(dir), name) }

func (dir folder) Open(name string) (DiskFile, error) { return dir.open(name, 0) }

func (dir folder) Create(name string) (DiskFile, error) { return dir.open(name, os.O_TRUNC) }

func (dir folder) open(name string, flag int) (DiskFile, error) {
	return os.OpenFile(dir.path(name), os.O_CREATE|os.O_RDWR|os.O_APPEND|flag, 0o600)
}

func (dir folder) Link(from, to string) error { return os.Link(dir.path(from), dir.path(to)) }

func (dir folder) Rename(from, to string) error { return os.Rename(dir.path(from), dir.path(to)) }

func (dir folder) Sync() error {
	d, err := os.Open(string(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
