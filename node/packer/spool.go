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

// spoolFile is where a pack is built; *os.File is one.
type spoolFile interface {
	desformat.File
	Sync() error
	Close() error
}

func createSpool(path string) (spoolFile, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// cleanSpool makes the spool folder and removes what an earlier process, ended
// in mid-build, left in it.
func cleanSpool(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), spoolSuffix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("spool folder: %w", err)
			}
		}
	}
	return nil
}

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
