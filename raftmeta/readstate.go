package raftmeta

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"golang.org/x/sys/unix"
)

// ReadState reads the state that a stopped node has in its Config.Dir: the
// newest snapshot, and the log behind it as far as it is known to be committed.
// That is what the node had applied, by the file `applied`; of a node that is
// the only voter, all of it. It changes nothing in the dir, which may be
// mounted read-only, and holds its lock meanwhile.
//
// ErrLocked: a process uses the dir. ErrNoState: it holds nothing that is known
// to be committed. ErrSnapshot, ErrStorage: it is damaged, or its parts do not
// fit together. ErrUnknownCommand: a newer version wrote it.
func ReadState(dir string) (*View, error) {
	v, err := readState(dir)
	if err != nil {
		return nil, fmt.Errorf("read the state in %s: %w", dir, err)
	}
	return v, nil
}

func readState(dir string) (v *View, err error) {
	lock, err := lockExisting(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	log, meta, err := openLogReadOnly(filepath.Join(dir, "wal"), newRaftLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close(), meta.Close()) }()
	d := deadDir{path: dir, log: log}
	if err := d.readSnapshots(); err != nil {
		return nil, err
	}
	if err := d.readLog(); err != nil {
		return nil, err
	}
	if d.view.ShardBits() == 0 {
		return nil, ErrNoState
	}
	return d.view, nil
}

// lockExisting is lockFile for a dir in which nothing may be made.
func lockExisting(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoState, err)
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// deadDir is a data dir that is read without raft.
type deadDir struct {
	path string
	log  *wal.WAL
	view *View
	upTo uint64 // the entry that the snapshot ends with; 0: there is none
	conf raft.Configuration
}

// snapshotFile is what raft keeps beside a snapshot's text.
type snapshotFile struct {
	raft.SnapshotMeta
	dir string
}

// readSnapshots takes the newest snapshot that can be read. As in a node that
// starts, an older one will do as long as the log reaches back to it.
func (d *deadDir) readSnapshots() error {
	d.view = &View{changed: make(chan struct{})}
	all, damaged := d.listSnapshots()
	for _, s := range all {
		v, err := s.read()
		if err == nil {
			d.view, d.upTo, d.conf = v, s.Index, s.Configuration
			break
		}
		if errors.Is(err, ErrUnknownCommand) {
			return fmt.Errorf("snapshot %s: %w", s.ID, err)
		}
		damaged = append(damaged, fmt.Errorf("snapshot %s: %w", s.ID, err))
	}
	first, err := d.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	last, err := d.log.LastIndex()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	if d.upTo < last && first > d.upTo+1 || last == 0 && d.upTo == 0 && len(damaged) > 0 {
		why := fmt.Errorf("the newest readable snapshot ends at entry %d, the log begins at %d: %w", d.upTo, first, ErrStorage)
		return errors.Join(append([]error{why}, damaged...)...)
	}
	return nil
}

// listSnapshots returns the snapshots, newest first, and what is wrong with
// those of which not even that is known.
func (d *deadDir) listSnapshots() (all []snapshotFile, damaged []error) {
	base := filepath.Join(d.path, "snapshots")
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, []error{fmt.Errorf("%w: %w", ErrStorage, err)}
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue // raft itself passes over what it was writing when it was cut
		}
		s := snapshotFile{dir: filepath.Join(base, e.Name())}
		b, err := os.ReadFile(filepath.Join(s.dir, "meta.json"))
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err == nil && !strings.HasPrefix(e.Name(), fmt.Sprintf("%d-%d-", s.Term, s.Index)) {
			err = fmt.Errorf("it says term %d, index %d", s.Term, s.Index) // it has no checksum, but raft names the folder so
		}
		if err != nil {
			damaged = append(damaged, fmt.Errorf("snapshot %s: %w: %w", e.Name(), ErrSnapshot, err))
			continue
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b snapshotFile) int {
		if c := int64(b.Term) - int64(a.Term); c != 0 {
			return int(c)
		}
		return int(int64(b.Index) - int64(a.Index))
	})
	return all, damaged
}

// read reads a snapshot's text, which carries a checksum of its own.
func (s snapshotFile) read() (_ *View, err error) {
	f, err := os.Open(filepath.Join(s.dir, "state.bin"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return ReadSnapshot(f)
}

// readLog applies the log behind the snapshot as far as it is committed.
func (d *deadDir) readLog() error {
	last, err := d.committed()
	if err != nil {
		return err
	}
	var halt error
	m := newMachine(func(err error) { halt = err })
	m.view.Store(d.view)
	for i := d.upTo + 1; i <= last && halt == nil; i++ {
		l := new(raft.Log)
		if err := d.log.GetLog(i, l); err != nil {
			return fmt.Errorf("entry %d of the log: %w: %w", i, ErrStorage, err)
		}
		m.Apply(l)
	}
	d.view = m.view.Load()
	return halt
}

// committed returns the last entry of the log that is known to be committed.
func (d *deadDir) committed() (uint64, error) {
	last, err := d.log.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	alone, err := d.votesAlone(last)
	if err != nil || alone {
		return last, err
	}
	b, err := os.ReadFile(filepath.Join(d.path, appliedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d.upTo, nil // it died before it had applied anything else
	}
	var known entryID
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		return 0, fmt.Errorf("file %s: %w: %w", appliedFile, ErrStorage, err)
	}
	if known.Index <= d.upTo {
		return d.upTo, nil
	}
	var l raft.Log
	if err := d.log.GetLog(known.Index, &l); err != nil {
		return 0, fmt.Errorf("entry %d, which the node had applied: %w: %w", known.Index, ErrStorage, err)
	}
	if l.Term != known.Term {
		return 0, fmt.Errorf("the node had applied entry %d of term %d, the log has one of term %d: %w", known.Index, known.Term, l.Term, ErrStorage)
	}
	return known.Index, nil
}

// votesAlone reports whether raft, started here, would need nobody else's vote:
// then whatever is in the log is committed. As in raft, the newest
// configuration counts from when it is in the log.
func (d *deadDir) votesAlone(last uint64) (bool, error) {
	conf := d.conf
	for i := d.upTo + 1; i <= last; i++ {
		var l raft.Log
		if err := d.log.GetLog(i, &l); err != nil {
			return false, fmt.Errorf("entry %d of the log: %w: %w", i, ErrStorage, err)
		}
		if l.Type == raft.LogConfiguration {
			conf = raft.DecodeConfiguration(l.Data)
		}
	}
	self, err := d.log.Get(keyNode)
	if err != nil {
		return false, fmt.Errorf("the dir's owner: %w: %w", ErrStorage, err)
	}
	votes := 0
	for _, s := range conf.Servers {
		if s.Suffrage == raft.Voter {
			votes++
			if s.ID != raft.ServerID(self) {
				return false, nil
			}
		}
	}
	return votes == 1, nil
}
