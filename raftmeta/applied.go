package raftmeta

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// A node that starts without a quorum must serve what it knew: its log holds
// entries of which raft, after a restart, does not know that they are committed
// until a leader says so. So each node writes down which entry it had applied,
// and applies its log up to there before raft goes on.
//
// An applied entry is committed, and is in this node's log, or in a snapshot,
// since before it was applied. Should the log not be the one that the file was
// written beside, the entry's term shows it: two logs with one entry in common
// are the same up to it.

// entryID names an entry of the log.
type entryID struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

const (
	appliedFile  = "applied" // in Config.Dir
	appliedEvery = time.Second
	replayBatch  = 256
)

// keepApplied keeps the file until ctx ends, and writes it once more then. A
// node that votes alone needs none.
func (m *Meta) keepApplied(ctx context.Context) {
	var kept, next entryID
	var writing chan error // not nil: next is being written
	for more := true; more; {
		more = pause(ctx, appliedEvery)
		if last := m.machine.last.Load(); writing == nil && last != nil && *last != kept && !m.votesAlone() {
			next, writing = *last, make(chan error, 1)
			go func(e entryID, done chan<- error) { done <- writeApplied(m.cfg.Dir, e) }(next, writing)
		}
		if writing == nil {
			continue
		}
		// A disk that does not answer is not waited for: what it writes later is as
		// true, and until then nothing else is written.
		limit := time.NewTimer(writeLimit)
		select {
		case err := <-writing:
			writing = nil
			if err != nil {
				m.log.Warn("what this node has applied is not written down: without a quorum its next start serves less", "error", err)
			} else {
				kept = next
			}
		case <-limit.C:
		}
		limit.Stop()
	}
}

func (m *Meta) votesAlone() bool {
	all := voters(m.raft)
	return len(all) == 1 && all[0] == m.cfg.Node
}

// writeApplied replaces the file.
func writeApplied(dir string, e entryID) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, appliedFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// forgetApplied is for a dir without a log: what was applied in another life
// says nothing of the next.
func forgetApplied(dir string) error {
	err := os.Remove(filepath.Join(dir, appliedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replay applies the log behind the restored snapshot up to what the file says.
// Whatever does not fit costs only that: raft applies it when it has a leader.
func (m *Meta) replay(restored uint64) {
	b, err := os.ReadFile(filepath.Join(m.cfg.Dir, appliedFile))
	var known entryID
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("what this node had applied is not known", "error", err)
		}
		return
	}
	var l raft.Log
	if known.Index <= restored || m.guard.logStore.GetLog(known.Index, &l) != nil || l.Term != known.Term {
		return
	}
	batch := make([]*raft.Log, 0, replayBatch)
	for i := restored + 1; i <= known.Index; i++ {
		entry := new(raft.Log)
		if m.guard.logStore.GetLog(i, entry) != nil {
			return
		}
		if batch = append(batch, entry); len(batch) == replayBatch || i == known.Index {
			m.machine.ApplyBatch(batch)
			batch = batch[:0]
		}
	}
}
