package retriever

import (
	"sync/atomic"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// Record is one record of a pack. It is immutable and shared by all who read it.
type Record struct {
	Header   *desformat.Header
	Location desformat.Location
	Pack     desformat.PackID

	key      string // of the pack's object
	version  string
	answered uint64 // Raft index at which another node found it the newest of its name; 0: this node found it
	content  []byte // verified; nil unless whole
	whole    bool
	memo     atomic.Value
}

// Content returns the verified content when it is in memory. It must not be
// changed.
func (c *Record) Content() (content []byte, whole bool) { return c.content, c.whole }

// Stored returns where the record lies in the cluster's own store.
func (c *Record) Stored() Stored {
	return Stored{Key: c.key, Version: c.version, Offset: c.Location.Offset, Length: c.Location.Length}
}

// Memo returns what build made of the record when it was first asked, for as
// long as the record is cached. build always returns values of one type; of
// two that run at once one wins.
func (c *Record) Memo(build func(*Record) any) any {
	if v := c.memo.Load(); v != nil {
		return v
	}
	c.memo.CompareAndSwap(nil, build(c))
	return c.memo.Load()
}

// Fixed costs of a cached record beside its content, in bytes: the structs and
// the cache's node, and what a caller's memo is allowed for.
const (
	recordOverhead = 512
	memoOverhead   = 1536
	tlvOverhead    = 32 // of each metadata field kept raw
)

// cost is what the record takes in the cache, in bytes.
func (c *Record) cost() int64 {
	h := c.Header
	n := len(h.Name) + len(h.Source) + len(h.ID) + len(h.Tenant)
	n += len(h.Meta.ContentType) + len(h.Meta.Retention) + len(h.Meta.Custom)
	for _, field := range h.Meta.Unknown {
		n += len(field.Value) + tlvOverhead
	}
	return int64(len(c.content)+n) + recordOverhead + memoOverhead
}

// recordKey is what the data cache finds a record by: its place in a pack of
// this node's view, where it can't change, or the name for which another node
// answered with it (see foreign.go).
type recordKey struct {
	at      [16]byte // pack id, or the beginning of the name's hash
	ordinal uint32
	foreign bool
}

func keyOf(pack desformat.PackID, ordinal uint32) recordKey {
	return recordKey{at: pack, ordinal: ordinal}
}

// foreignKey may stand for two names only where half of two SHA-256 agree; the
// record's own name is compared all the same.
func foreignKey(hash desformat.NameHash) recordKey {
	return recordKey{at: [16]byte(hash[:16]), foreign: true}
}

// newRecord describes the record at loc of p.
func newRecord(p *raftmeta.Pack, loc desformat.Location, h *desformat.Header) *Record {
	key, version := place(p)
	return &Record{Header: h, Location: loc, Pack: p.ID, key: key, version: version}
}

// place returns where the cluster's own store has the pack's object.
func place(p *raftmeta.Pack) (key, version string) {
	for _, c := range p.Copies {
		if c.Site == "" {
			return c.Key, c.Version
		}
	}
	return desformat.PackKey(p.Range, p.Token, p.ID), ""
}
