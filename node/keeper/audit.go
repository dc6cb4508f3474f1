package keeper

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
)

const (
	auditName = "audit.log"
	// auditRotate is the size past which a log without open intents is set
	// aside; opening reads one log, so it bounds the time of a start.
	auditRotate = 64 << 20
)

// The events of the audit log. An intent is open until another event with the
// same source, id and path follows it, which is written when the row, too, has
// been moved on.
const (
	auditIntent  = "intent"   // the original is about to be hidden, then removed
	auditDeleted = "deleted"  // it was removed
	auditGone    = "gone"     // it is in neither place, and its row has moved on
	auditPutBack = "put-back" // it stands at its path again
	auditKept    = "kept"     // it has another name: a newer file stands at its path
	auditVoid    = "void"     // it never left its path
	// Of objects of the store that no pack owns, before it is done.
	auditCollected = "collected" // moved to quarantine
	auditExpired   = "expired"   // deleted after its time there
	auditAborted   = "aborted"   // an upload that a crash had left open; Version is the upload's id
	auditRoot      = "root"      // carried over from the log before: a root below which originals were deleted
)

// auditRecord is one line of the audit log.
type auditRecord struct {
	Time       time.Time        `json:"time"`
	Event      string           `json:"event"`
	Source     string           `json:"source"`
	ID         string           `json:"id"`
	Path       string           `json:"path"`
	Name       string           `json:"name"`
	Pack       desformat.PackID `json:"pack"`
	Ordinal    uint32           `json:"ordinal"`
	Size       int64            `json:"size"`
	SHA256     string           `json:"sha256"`
	VerifiedAt time.Time        `json:"verified_at"`
	Claim      string           `json:"claim"`
	FileID     string           `json:"file_id,omitempty"`
	Version    string           `json:"version,omitempty"` // of the object that was judged
	Root       string           `json:"root,omitempty"`    // file id of the root below which it stood
	Key        string           `json:"key,omitempty"`     // of an object that no pack owns
	Place      string           `json:"place,omitempty"`   // its key in quarantine
	Node       string           `json:"node"`
	Note       string           `json:"note,omitempty"`
}

type auditKey struct{ source, id, path string }

func (r *auditRecord) key() auditKey { return auditKey{r.Source, r.ID, r.Path} }

// auditLog is an append-only file of JSON lines. A line is durable when append
// returns nil; concurrent appends share an fsync.
type auditLog struct {
	disk Disk
	now  func() time.Time

	sync sync.Mutex // held while syncing, so that waiters share the next one

	mu      sync.Mutex // guards what follows
	f       DiskFile
	size    int64
	written uint64 // appends written
	synced  uint64 // appends known to be durable
	failed  error  // after a failed write or fsync nothing can be promised of this file
	lost    uint64 // appends up to this one went to a file that failed
	open    map[auditKey]auditRecord
	roots   map[string]bool // file ids of the roots below which originals were deleted
}

func openAudit(disk Disk, now func() time.Time) (*auditLog, error) {
	f, err := disk.Open(auditName)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l := &auditLog{disk: disk, now: now, f: f, open: map[auditKey]auditRecord{}, roots: map[string]bool{}}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", auditName, err), f.Close())
	}
	if err := disk.Sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("audit log: %w", err), f.Close())
	}
	return l, nil
}

// load finds the open intents and cuts away a last line that a crash tore:
// its append never returned, so nobody acted on it.
func (l *auditLog) load() error {
	r := bufio.NewReaderSize(l.f, 1<<16)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(line) == 0 {
				return nil
			}
			return l.f.Truncate(l.size)
		}
		if err != nil {
			return err
		}
		var rec auditRecord
		if err := json.Unmarshal(line, &rec); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		l.size += int64(len(line))
		l.note(rec)
	}
}

func (l *auditLog) note(rec auditRecord) {
	if rec.Root != "" && (rec.Event == auditDeleted || rec.Event == auditRoot) {
		l.roots[rec.Root] = true
	}
	if rec.Event == auditIntent {
		l.open[rec.key()] = rec
	} else {
		delete(l.open, rec.key())
	}
}

// append writes one record and returns when it is durable.
func (l *auditLog) append(event, note string, rec auditRecord) error {
	rec.Event, rec.Note, rec.Time = event, note, l.now().UTC()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // paths stay readable
	if err := enc.Encode(rec); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if err := l.renew(); err != nil {
		return err
	}
	l.mu.Lock()
	if l.failed != nil { // by another append, just now
		defer l.mu.Unlock()
		return l.failed
	}
	n, err := l.f.Write(buf.Bytes())
	if err != nil {
		defer l.mu.Unlock()
		// A torn line in the middle would make the log unreadable.
		l.failed = fmt.Errorf("audit log: %w", errors.Join(err, l.f.Truncate(l.size)))
		return l.failed
	}
	l.size += int64(n)
	l.written++
	mine := l.written
	l.mu.Unlock()
	if err := l.flush(mine); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if mine <= l.lost { // the next log does not tell of it
		return errAuditLost
	}
	l.note(rec)
	return nil
}

var errAuditLost = errors.New("audit log: the record was in a file that failed")

// flush returns when append number mine is durable.
func (l *auditLog) flush(mine uint64) error {
	l.sync.Lock()
	defer l.sync.Unlock()
	l.mu.Lock()
	upTo, synced, failed, lost := l.written, l.synced, l.failed, l.lost
	l.mu.Unlock()
	switch {
	case failed != nil:
		return failed
	case mine <= lost:
		return errAuditLost
	case synced >= mine:
		return nil
	}
	err := l.f.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = fmt.Errorf("audit log: %w", err)
		return l.failed
	}
	l.synced = upTo
	return nil
}

// intents returns the open intents of one pack.
func (l *auditLog) intents(pack desformat.PackID) []auditRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []auditRecord
	for _, r := range l.open {
		if r.Pack == pack {
			out = append(out, r)
		}
	}
	return out
}

// packs returns the packs that have open intents.
func (l *auditLog) packs() map[desformat.PackID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[desformat.PackID]bool)
	for _, r := range l.open {
		out[r.Pack] = true
	}
	return out
}

// isOpen reports whether the record's last event is an intent, for this very
// version where it has one.
func (l *auditLog) isOpen(rec auditRecord) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	intent, ok := l.open[rec.key()]
	return ok && intent.Version == rec.Version
}

// emptied reports whether originals were deleted below the root with that id.
func (l *auditLog) emptied(rootID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roots[rootID]
}

// intentOf returns the record's open intent, a zero record if it has none.
func (l *auditLog) intentOf(rec auditRecord) auditRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[rec.key()]
}

// removing reports whether the deletion of another original that is, or was,
// the file with that id is under way or half done.
func (l *auditLog) removing(fileID string, rec auditRecord) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, r := range l.open {
		if r.FileID == fileID && fileID != "" && key != rec.key() {
			return true
		}
	}
	return false
}

// rotate sets a large log aside, under a name that carries the time. A log
// with open intents stays: the next start must find them.
func (l *auditLog) rotate(limit int64) error {
	l.sync.Lock()
	defer l.sync.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size < limit || len(l.open) > 0 || l.written != l.synced || l.failed != nil {
		return nil
	}
	return l.replace()
}

// renew begins another log after one that could not be written or flushed: what
// of that is on the disk nobody knows, and a second flush would not tell. What
// this log has promised stands in memory, so the next one says it again.
func (l *auditLog) renew() error {
	l.mu.Lock()
	failed := l.failed
	l.mu.Unlock()
	if failed == nil {
		return nil
	}
	l.sync.Lock()
	defer l.sync.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		return nil
	}
	if err := l.replace(); err != nil {
		return errors.Join(l.failed, err)
	}
	l.failed, l.lost, l.synced = nil, l.written, l.written
	return nil
}

// replace sets the log aside, under a name that carries the time, and begins
// another. The caller holds both locks.
func (l *auditLog) replace() error {
	next := auditName + ".new"
	f, err := l.disk.Create(next)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	size, err := l.carry(f)
	if err != nil {
		return errors.Join(fmt.Errorf("audit log: %w", err), f.Close())
	}
	old := auditName + "." + l.now().UTC().Format("20060102T150405.000000000")
	err = l.disk.Link(auditName, old) // never replaces another
	if err != nil {
		return errors.Join(fmt.Errorf("audit log: %w", err), f.Close())
	}
	if err := errors.Join(l.disk.Rename(next, auditName), l.disk.Sync()); err != nil {
		// Which of the two the next start will find nobody knows: neither may be
		// written any more.
		l.failed = fmt.Errorf("audit log: %w", err)
		return errors.Join(l.failed, f.Close())
	}
	err = l.f.Close()
	l.f, l.size = f, size
	return err
}

// carry writes what the next log must know of the ones before.
func (l *auditLog) carry(next DiskFile) (size int64, err error) {
	var buf bytes.Buffer
	for _, rec := range l.open {
		if err := json.NewEncoder(&buf).Encode(rec); err != nil {
			return 0, err
		}
	}
	for _, root := range slices.Sorted(maps.Keys(l.roots)) {
		if err := json.NewEncoder(&buf).Encode(auditRecord{Time: l.now().UTC(), Event: auditRoot, Root: root}); err != nil {
			return 0, err
		}
	}
	n, err := next.Write(buf.Bytes())
	return int64(n), errors.Join(err, next.Sync())
}

func (l *auditLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

func hexSum(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
