package raftmeta

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

// raft-wal opens a log to go on writing it: it makes files, deletes those of a
// cut rotation and takes its database for writing. The log of a node that died
// may be the last trace of it, perhaps on a disk that is mounted read-only. So
// it is opened here through a database and files that refuse to be written.

// errReadOnly: something would be written. It never leaves the package, because
// opening and reading a log write nothing that matters.
var errReadOnly = errors.New("the log is open for reading only")

// boltPatience is how long another reader's lock of the log's database is
// waited for; no writer can have it, as that would hold the dir's lock.
const boltPatience = time.Second

// openLogReadOnly opens the log in dir and changes nothing there. The caller
// closes both.
func openLogReadOnly(dir string, log hclog.Logger) (*wal.WAL, *readOnlyMeta, error) {
	meta := &readOnlyMeta{}
	files := readOnlySegments{segment.NewFiler(dir, readOnlyFiles{}), dir}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentFiler(files), wal.WithLogger(log))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open %w: %w", ErrStorage, err), meta.Close())
	}
	return w, meta, nil
}

// readOnlyMeta is the log's database: which segments there are, and what raft
// keeps beside the log.
type readOnlyMeta struct{ db *bbolt.DB }

// Load implements types.MetaStore.
func (m *readOnlyMeta) Load(dir string) (types.PersistentState, error) {
	var s types.PersistentState
	db, err := bbolt.Open(filepath.Join(dir, metadb.FileName), 0, &bbolt.Options{ReadOnly: true, Timeout: boltPatience})
	if err != nil {
		return s, err
	}
	m.db = db
	raw, err := m.get(metadb.MetaBucket, metadb.MetaKey)
	if err != nil || raw == nil {
		return s, err
	}
	return s, json.Unmarshal(raw, &s)
}

func (m *readOnlyMeta) get(bucket, key string) (value []byte, err error) {
	err = m.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return fmt.Errorf("no bucket %q", bucket)
		}
		value = append(value, b.Get([]byte(key))...)
		return nil
	})
	return value, err
}

// CommitState implements types.MetaStore. A log without a tail is given one as
// it is opened; here that lives in memory only.
func (m *readOnlyMeta) CommitState(types.PersistentState) error { return nil }

// GetStable implements types.MetaStore.
func (m *readOnlyMeta) GetStable(key []byte) ([]byte, error) {
	return m.get(metadb.StableBucket, string(key))
}

// SetStable implements types.MetaStore.
func (m *readOnlyMeta) SetStable(_, _ []byte) error { return errReadOnly }

// Close implements types.MetaStore.
func (m *readOnlyMeta) Close() error {
	if m.db == nil {
		return nil
	}
	return m.db.Close()
}

// readOnlySegments checks each segment that it opens, and leaves those where they
// are that the log does not count among its own.
type readOnlySegments struct {
	*segment.Filer
	dir string
}

// Open implements types.SegmentFiler.
func (s readOnlySegments) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if err := s.check(info, true); err != nil {
		return nil, err
	}
	return s.Filer.Open(info)
}

// RecoverTail implements types.SegmentFiler.
func (s readOnlySegments) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	if err := s.check(info, false); err != nil {
		return nil, err
	}
	return s.Filer.RecoverTail(info)
}

func (s readOnlySegments) check(info types.SegmentInfo, sealed bool) error {
	name := segment.FileName(info)
	f, err := readOnlyFiles{}.OpenReader(s.dir, name)
	if err != nil {
		return err
	}
	if err = errors.Join(checkSegment(f, sealed), f.Close()); err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	return nil
}

// Delete implements types.SegmentFiler.
func (readOnlySegments) Delete(_, _ uint64) error { return nil }

// readOnlyFiles opens the segments' files.
type readOnlyFiles struct{}

// ListDir implements types.VFS.
func (readOnlyFiles) ListDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Create implements types.VFS. It is asked for the tail of a log that has none,
// which is empty until something is written.
func (readOnlyFiles) Create(_, _ string, _ uint64) (types.WritableFile, error) { return noFile{}, nil }

// Delete implements types.VFS.
func (readOnlyFiles) Delete(_, _ string) error { return errReadOnly }

// OpenReader implements types.VFS.
func (readOnlyFiles) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// OpenWriter implements types.VFS.
func (f readOnlyFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	r, err := f.OpenReader(dir, name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{r}, nil
}

type readOnlyFile struct{ types.ReadableFile }

func (readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (readOnlyFile) Sync() error                        { return errReadOnly }

// noFile is an empty file that is not there.
type noFile struct{}

func (noFile) ReadAt([]byte, int64) (int, error)  { return 0, io.EOF }
func (noFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (noFile) Sync() error                        { return errReadOnly }
func (noFile) Close() error                       { return nil }
