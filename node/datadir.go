package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// Files and folders of the data dir, beside spool and, by default, store.
const (
	raftDir    = "raft"    // of raftmeta
	clusterDir = "cluster" // of peers
	// lockFile is held as long as a process uses the data dir.
	lockFile = "lock"
	// identityFile is written before anything else exists, so that forming a
	// cluster can be cut anywhere and repeated under the same ids.
	identityFile = "node.json"
	// joiningFile holds the id of a node that is about to join, so that a join
	// that was cut is repeated under the same id.
	joiningFile = "joining.json"
	// settingsFile is what the cluster has in common: see clusterSettings.
	settingsFile = "settings.json"
	// formedFile is written when the node has taken part in the cluster, and
	// before any pack exists. From then on what is missing is lost, never new: an
	// empty raft folder or a store without cluster.json keeps the node from
	// starting.
	formedFile = "formed"
	// leftFile says that the node has left its cluster. It never comes back.
	leftFile = "left"
)

// ErrLeft: the node has left its cluster, or was removed from it.
var ErrLeft = errors.New("this node is no member of its cluster any more")

func peersDir(dataDir string) string { return filepath.Join(dataDir, clusterDir) }

// checkNotLeft refuses the data dir of a node that has left its cluster.
func checkNotLeft(dataDir string) error {
	left, err := has(dataDir, leftFile)
	if err == nil && left {
		err = fmt.Errorf("data dir %s: %w; with another --data-dir it may join again, as a new node; empty this one only if neither the cluster's store nor an embedded source lies in it", dataDir, ErrLeft)
	}
	return err
}

// sharedInDataDir returns what lies in the data dir and is not the node's alone:
// whoever empties it after the node has left takes it from the others.
func (n *Node) sharedInDataDir() (shared []string) {
	own := func(path string, err error) {
		if err == nil && config.Within(path, n.cfg.DataDir) {
			shared = append(shared, path)
		}
	}
	if !n.cfg.Store.S3() {
		own(n.cfg.Store.Path())
	}
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Sources)) {
		if c := n.cfg.Sources[name]; !c.Postgres() {
			own(c.Path())
		}
	}
	return shared
}

// lockDir takes the data dir, which it makes if it is missing. It wraps
// raftmeta.ErrLocked when another process has it. The caller ends with release.
func lockDir(dir string) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the data dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data dir: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = raftmeta.ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("data dir %s: %w", dir, err), f.Close())
	}
	return f.Close, nil
}

// has reports whether the data dir holds that file.
func has(dataDir, file string) (bool, error) {
	_, err := os.Stat(filepath.Join(dataDir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// hasFormed reports whether the node took part in its cluster before.
func hasFormed(dataDir string) (bool, error) { return has(dataDir, formedFile) }

// setFormed records that it does; repeating it is harmless.
func setFormed(dataDir string) error { return setMark(dataDir, formedFile) }

// setLeft records that the node has left; repeating it is harmless.
func setLeft(dataDir string) error { return setMark(dataDir, leftFile) }

func setMark(dataDir, file string) error {
	err := createDurably(filepath.Join(dataDir, file), []byte("1\n"))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// createDurably creates a small file, whole and on disk when it returns nil;
// fs.ErrExist when there is one already, which is left alone.
func createDurably(path string, b []byte) error { return writeDurably(path, b, os.Link) }

// replaceDurably is createDurably that takes the place of what is there.
func replaceDurably(path string, b []byte) error { return writeDurably(path, b, os.Rename) }

func writeDurably(path string, b []byte, place func(tmp, path string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // there is none left after a rename
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := place(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
