package raftmeta

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// logStore is what raft needs of its log: raft-wal has all of it.
type logStore interface {
	raft.LogStore
	raft.StableStore
	IsMonotonic() bool
}

// guard stands between raft and its log, for raft ends the process by a panic
// when it cannot save its term or read an entry back. A full disk must stop
// proposals, not the process, and be survived when it has room again.
//
//   - A write that fails is reported as ErrStorage, and the next one waits
//     writePause, for raft tries again at once. What the failed one may have
//     left behind is cut off then, for raft counts it as not written.
//   - Once raft runs, a term that cannot be saved is tried again until it can,
//     or until stop; raft's goroutine then ends there, with nothing sent that
//     was not saved.
//   - An entry that cannot be read is fatal: onFatal is told and raft's
//     goroutine ends there.
//   - A write that neither succeeds nor fails within writeLimit is taken for one
//     that failed. Its leader would go on leading otherwise: raft sends its
//     heartbeats from other goroutines than the one that waits for the disk. Until
//     that write has ended no other is begun and no term is saved, so that raft
//     here neither leads nor stands for election.
type guard struct {
	logStore
	onFatal func(error)
	stop    chan struct{}
	limit   time.Duration // writeLimit, or what a test says
	runs    atomic.Bool   // raft's goroutines are about to run

	mu      sync.Mutex // guards the fields below
	logErr  error      // of the last write of entries; nil: it succeeded
	termErr error      // of the last write of a term or vote
	failAt  time.Time  // of the last write that failed
	term    uint64     // last saved
	hasTerm bool
	hung    chan struct{} // not nil: a write was given up; closed when it has ended
}

const (
	writePause = time.Second
	writeLimit = 10 * time.Second
)

// keyTerm is raft's key for its current term.
var keyTerm = []byte("CurrentTerm")

func newGuard(inner logStore, onFatal func(error)) *guard {
	return &guard{logStore: inner, onFatal: onFatal, stop: make(chan struct{}), limit: writeLimit}
}

// failing returns why the log can't be written at the moment; nil: it can.
func (g *guard) failing() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.logErr, g.termErr)
}

// wrote notes the outcome of a write in *last and returns it as ErrStorage.
func (g *guard) wrote(last *error, what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", what, ErrStorage, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	*last = err
	if err != nil {
		g.failAt = time.Now()
	}
	return err
}

// pause waits after a failed write; false: the guard has been stopped.
func (g *guard) pause() bool {
	g.mu.Lock()
	wait := time.Until(g.failAt.Add(writePause))
	failing := g.logErr != nil || g.termErr != nil
	g.mu.Unlock()
	if !failing || wait <= 0 {
		select {
		case <-g.stop:
			return false
		default:
			return true
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-g.stop:
		return false
	case <-t.C:
		return true
	}
}

// hanging returns a channel that is closed when the write that was given up
// has ended; nil: there is none.
func (g *guard) hanging() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hung
}

// awaitHung waits until no write hangs; false: the guard has been stopped.
func (g *guard) awaitHung() bool {
	hung := g.hanging()
	if hung == nil {
		return true
	}
	select {
	case <-g.stop:
		return false
	case <-hung:
		return true
	}
}

// StoreLogs writes entries durably.
func (g *guard) StoreLogs(logs []*raft.Log) error {
	if !g.pause() {
		return fmt.Errorf("write the log: %w: %w", ErrStorage, ErrClosed)
	}
	return g.wrote(&g.logErr, "write the log", g.store(logs))
}

// store writes entries, or gives up after the limit. Such a write goes on, and
// raft counts it as failed: what it yet leaves behind is cut off.
func (g *guard) store(logs []*raft.Log) error {
	if g.hanging() != nil {
		return errHung
	}
	err := g.cutFailed(logs[0].Index)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		done <- g.logStore.StoreLogs(logs)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.hung == ended {
			g.hung = nil
		}
		close(ended)
	}()
	t := time.NewTimer(g.limit)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case err := <-done: // just now
		return err
	default:
		g.hung = ended
		return errHung
	}
}

var errHung = errors.New("the disk does not answer")

// cutFailed removes what a failed write left at index and behind it.
func (g *guard) cutFailed(index uint64) error {
	g.mu.Lock()
	failed := g.logErr != nil
	g.mu.Unlock()
	if !failed {
		return nil
	}
	last, err := g.logStore.LastIndex()
	if err != nil || last < index {
		return err
	}
	return g.logStore.DeleteRange(index, last)
}

// StoreLog writes one entry durably.
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// GetLog reads an entry. Only "not found" is an answer that raft survives.
func (g *guard) GetLog(index uint64, l *raft.Log) error {
	err := g.logStore.GetLog(index, l)
	if err == nil || isNotFound(err) {
		return err
	}
	g.onFatal(fmt.Errorf("read log entry %d: %w: %w", index, ErrStorage, err))
	runtime.Goexit()
	return nil
}

// SetUint64 saves a term or a vote.
func (g *guard) SetUint64(key []byte, v uint64) error {
	if !bytes.Equal(key, keyTerm) {
		return g.wrote(&g.termErr, "write the vote", g.logStore.SetUint64(key, v))
	}
	g.mu.Lock()
	same := g.hasTerm && g.term == v
	g.mu.Unlock()
	if same {
		return nil // as at every start
	}
	for g.pause() && g.awaitHung() {
		err := g.wrote(&g.termErr, "write the term", g.logStore.SetUint64(key, v))
		if err == nil {
			g.mu.Lock()
			g.term, g.hasTerm = v, true
			g.mu.Unlock()
			return nil
		}
		if !g.runs.Load() {
			return err
		}
	}
	runtime.Goexit()
	return nil
}

// GetUint64 reads a term or a vote.
func (g *guard) GetUint64(key []byte) (uint64, error) {
	v, err := g.logStore.GetUint64(key)
	if err == nil && bytes.Equal(key, keyTerm) {
		g.mu.Lock()
		g.term, g.hasTerm = v, true
		g.mu.Unlock()
	}
	return v, err
}

func isNotFound(err error) bool { return errors.Is(err, raft.ErrLogNotFound) }
