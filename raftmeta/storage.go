package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"
)

const (
	// segmentBytes is how much disk the log takes ahead; raft-wal's own 64 MiB
	// is a lot for a laptop, and an entry may be larger than a segment.
	segmentBytes = 8 << 20
	// snapshotsKept is one more than needed, for the case that the last is damaged.
	snapshotsKept = 2
)

// keyNode is where the stable store keeps the id of the node it belongs to.
var keyNode = []byte("desnode-node")

// storage is the data dir of one Meta:
//
//	lock        held as long as the process uses the dir
//	wal/        the Raft log, term and vote (raft-wal)
//	snapshots/  the newest two snapshots
//	applied     how far the log was applied: see applied.go
type storage struct {
	lock  *os.File
	meta  *metadb.BoltMetaDB
	wal   *wal.WAL
	snaps *raft.FileSnapshotStore
}

// openStorage takes the lock first: raft-wal's metadata database would wait
// for another process for ever.
func openStorage(dir string, node NodeID, log hclog.Logger) (_ *storage, err error) {
	walDir := filepath.Join(dir, "wal")
	if err := os.MkdirAll(walDir, 0o700); err != nil {
		return nil, fmt.Errorf("open raft dir: %w", err)
	}
	s := &storage{meta: &metadb.BoltMetaDB{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	s.wal, err = wal.Open(walDir, wal.WithMetaStore(s.meta), wal.WithSegmentSize(segmentBytes), wal.WithLogger(log))
	if err != nil {
		return nil, fmt.Errorf("open %w: %w", ErrStorage, err)
	}
	if err := s.claim(node); err != nil {
		return nil, err
	}
	s.snaps, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log)
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w: %w", ErrStorage, err)
	}
	return s, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
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

// claim makes the dir this node's, or refuses another's: two nodes that vote
// from one log, or one that votes under two names, break Raft.
func (s *storage) claim(node NodeID) error {
	owner, err := s.wal.Get(keyNode)
	if err != nil {
		return fmt.Errorf("read the dir's owner: %w: %w", ErrStorage, err)
	}
	if owner == nil {
		if err := s.wal.Set(keyNode, []byte(node)); err != nil {
			return fmt.Errorf("write the dir's owner: %w: %w", ErrStorage, err)
		}
		return nil
	}
	if NodeID(owner) != node {
		return fmt.Errorf("node %s, dir of node %s: %w", node, owner, ErrOtherNode)
	}
	return nil
}

// close lets go of everything; the log before its metadata database, which the
// log leaves open, and the lock last.
func (s *storage) close() error {
	var errs []error
	if s.wal != nil {
		errs = append(errs, s.wal.Close())
	}
	errs = append(errs, s.meta.Close())
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// logSink hands raft's log lines to slog. Raft's warnings describe elections,
// which are its normal work: only its errors stay at their level.
type logSink struct{ to *slog.Logger }

func newRaftLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Level: hclog.Off})
	l.RegisterSink(logSink{to})
	return l
}

// Accept implements hclog.SinkAdapter.
func (s logSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelInfo
	case hclog.Error:
		to = slog.LevelError
	}
	if strings.HasPrefix(msg, "failed to") && len(args) > 0 {
		// That a node is away is told by gossip and by who leads; raft says so many
		// times a second.
		for _, calls := range []string{"heartbeat", "appendEntries", "requestVote", "pipeline", "pre-vote"} {
			if strings.Contains(msg, calls) {
				to = slog.LevelDebug
			}
		}
	}
	if !s.to.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	s.to.Log(context.Background(), to, "raft: "+msg, args...)
}
