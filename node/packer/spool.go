package packer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/datavision/desnode/desformat"
)

// spoolSuffix ends the names of all spool files; nothing else is removed.
const spoolSuffix = ".spool"

// Spool is where packs are built until they are uploaded: a folder of the
// packer's own. Nothing in it outlives the process: what a crash leaves is
// removed by the next Clean. Its methods may be called at once, by base names.
type Spool interface {
	// Clean makes the folder and removes what an earlier process, ended in
	// mid-build, left in it.
	Clean() error
	// Create makes a new, empty file.
	Create(name string) (SpoolFile, error)
	Remove(name string) error
}

// SpoolFile is where one pack is built; *os.File is one.
type SpoolFile interface {
	desformat.File
	Sync() error
	Close() error
}

// spoolFolder is the Spool in a folder of the file system.
type spoolFolder string

func (dir spoolFolder) Clean() error {
	if err := os.MkdirAll(string(dir), 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), spoolSuffix) {
			if err := dir.Remove(e.Name()); err != nil {
				return fmt.Errorf("spool folder: %w", err)
			}
		}
	}
	return nil
}

func (dir spoolFolder) Create(name string) (SpoolFile, error) {
	return os.OpenFile(filepath.Join(string(dir), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func (dir spoolFolder) Remove(name string) error { return os.Remove(filepath.Join(string(dir), name)) }

// spoolError makes a full disk known as such.
func spoolError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrSpoolFull, err)
	}
	return fmt.Errorf("spool: %w", err)
}

func randomID() (id desformat.PackID) {
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	return id
}
