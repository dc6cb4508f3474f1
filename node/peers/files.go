package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files of Config.Dir; doc.go says what they hold.
const (
	identityFile  = "identity"
	joiningFile   = "identity.joining" // an identity whose join has not ended
	authorityFile = "authority"
	keysFile      = "gossip-keys"
	addressesFile = "addresses"
	joinedFile    = "joined"
	peersFile     = "peers"
)

// readJSON reads what writeJSON wrote: fs.ErrNotExist, ErrMalformed.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", path, ErrMalformed, err)
	}
	return nil
}

// writeJSON replaces a file, whole and on disk when it returns nil, readable by
// the owner alone. Cut anywhere, the old file or the new one is there.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already, unless something failed
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return renameDurably(tmp.Name(), path)
}

// renameDurably renames within a folder; it is on disk when it returns nil.
func renameDurably(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// makeDir makes a folder that its owner alone may enter, durably.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// missingIsNil drops the error of a file that is not there.
func missingIsNil(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
