package api

import (
	"context"
	"time"
)

// Paths of the backups of the cluster's state.
const (
	PathBackup  = "/cluster/backup"  // POST BackupRequest → BackupInfo
	PathBackups = "/cluster/backups" // GET → BackupList
)

// BackupRequest asks for a backup now.
type BackupRequest struct{}

// BackupList is the backups in the store, newest first.
type BackupList struct {
	Backups      []BackupInfo `json:"backups"`
	EverySeconds float64      `json:"every_seconds"`     // how often one is made while the state changes; 0: never by itself
	Problem      string       `json:"problem,omitempty"` // why the last try of the node that answers failed
}

// BackupInfo is one backup of the cluster's state: the manifest, settings and
// members, no content of files.
type BackupInfo struct {
	Key        string    `json:"key"`
	Generation uint64    `json:"generation"`
	Index      uint64    `json:"index"` // Raft index up to which it goes
	At         time.Time `json:"at"`
	Packs      int64     `json:"packs"`
	Bytes      int64     `json:"bytes"` // of the object
}

// Backups makes backups and lists them. A backup is durable in the store, and
// listed, when Backup returns nil. Errors as Operator's.
type Backups interface {
	Backup(ctx context.Context) (BackupInfo, error)
	Backups(ctx context.Context) (BackupList, error)
}

// backup answers the endpoints of backups; false: path is none of them.
func (x *exchange) backup(path string) bool {
	b := x.s.cfg.Backups
	if b == nil {
		return false
	}
	switch path {
	case PathBackup:
		var req BackupRequest
		if x.accept(&req) {
			made, err := b.Backup(x.r.Context())
			if err != nil {
				x.fail(err)
				return true
			}
			x.json(made)
		}
	case PathBackups:
		show(x, b.Backups)
	default:
		return false
	}
	return true
}
