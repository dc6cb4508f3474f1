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

	key     string // of the pack's object
	version string
	content []byte // verified; nil unless whole
	whole   bool
	memo    atomic.Value
}

// Content returns the verified content when it is in memory. It must not be
// changed.
func (c *Record) Content() (content []byte, whole bool) { return c.content, c.whole }

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

// recordKey names a record for the data cache: it never changes, since packs
// never do.
type recordKey struct {
	pack    desformat.PackID
	ordinal uint32
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
