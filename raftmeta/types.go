package raftmeta

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
)

// NodeID names one node: its persistent UUID.
type NodeID string

// Digest is a SHA-256; as text it is lower-case hex.
type Digest [sha256.Size]byte

// MarshalText returns d in hex.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText parses what MarshalText returns.
func (d *Digest) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(d) {
		return fmt.Errorf("digest %q, want %d hex digits: %w", b, 2*len(d), desformat.ErrBadID)
	}
	copy(d[:], raw)
	return nil
}

// JobKind is what a lease permits.
type JobKind string

// The kinds of job.
const (
	JobMark    JobKind = "mark"    // mark rows of one source
	JobPack    JobKind = "pack"    // build a pack of one range
	JobAck     JobKind = "ack"     // acknowledge one pack
	JobVerify  JobKind = "verify"  // read one pack back
	JobDelete  JobKind = "delete"  // delete the originals of one pack
	JobCollect JobKind = "collect" // collect garbage
	JobBackup  JobKind = "backup"  // write the manifest to the store, and forget old backups
	JobRebuild JobKind = "rebuild" // adopt what earlier generations have left in the store
)

// Job is one piece of work that a lease permits. Packing jobs clash when their
// ranges overlap, marking jobs when their source is the same, those on packs
// when they have one in common, all others always with their own kind.
type Job struct {
	Kind   JobKind            `json:"kind"`
	Source string             `json:"source,omitempty"` // JobMark
	Range  desformat.Range    `json:"range,omitzero"`   // JobPack
	Packs  []desformat.PackID `json:"packs,omitempty"`  // JobAck, JobVerify, JobDelete
}

// Lease is the leader's permission to do one job.
type Lease struct {
	Token  desformat.Token `json:"token"`
	Job    Job             `json:"job"`
	Holder NodeID          `json:"holder"`
}

// Copy is one stored copy of a pack.
type Copy struct {
	Site       string    `json:"site"` // "" is the cluster's own store
	Key        string    `json:"key"`
	Version    string    `json:"version,omitempty"` // store version id
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	VerifiedBy NodeID    `json:"verified_by,omitempty"`
	Damage     string    `json:"damage,omitempty"` // what the last verification found wrong; empty: nothing
}

// Pack is a manifest entry. Entries are immutable: a change makes a new one.
type Pack struct {
	ID           desformat.PackID  `json:"id"`
	Token        desformat.Token   `json:"token"`
	Range        desformat.Range   `json:"range"`
	Size         int64             `json:"size"` // whole object, bytes
	SHA256       Digest            `json:"sha256"`
	Records      uint32            `json:"records"`
	PayloadBytes int64             `json:"payload_bytes"`
	Catalog      desformat.Section `json:"catalog"`
	Index        desformat.Section `json:"index"`
	MinSeq       desformat.Token   `json:"min_seq"`
	MaxSeq       desformat.Token   `json:"max_seq"`
	PackedBy     NodeID            `json:"packed_by,omitempty"` // who held the lease; empty: added by an older version
	Created      time.Time         `json:"created"`
	Dead         []uint32          `json:"dead,omitempty"` // ordinals, rising; reads skip them
	Acknowledged bool              `json:"acknowledged"`
	ReplacedBy   desformat.PackID  `json:"replaced_by,omitzero"`
	AddIndex     uint64            `json:"add_index"` // Raft index of its AddPack
	ModIndex     uint64            `json:"mod_index"` // Raft index of its last change
	RetainUntil  time.Time         `json:"retain_until,omitzero"`
	Hold         bool              `json:"hold,omitempty"`
	Copies       []Copy            `json:"copies"`
}

// IsDead reports whether reads skip the record with that ordinal.
func (p *Pack) IsDead(ordinal uint32) bool {
	_, dead := slices.BinarySearch(p.Dead, ordinal)
	return dead
}

// Upload is an object key that was announced before its upload began. It is
// forgotten when its pack is added or the object has been collected.
type Upload struct {
	Key     string           `json:"key"`
	Pack    desformat.PackID `json:"pack"`
	Token   desformat.Token  `json:"token"`
	BeganAt time.Time        `json:"began_at"` // by the uploader's clock
}
