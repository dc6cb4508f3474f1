package packer

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// member is one of several nodes that pack a world's backlog: it has its own
// connections to the tables, its own spool, and a view of the manifest that is
// no newer than it must be: as of this node's last command, whatever that was
// answered.
type member struct {
	w      *world
	id     raftmeta.NodeID
	tables map[string]*source.SQLite

	asked   atomic.Int64 // leases
	refused atomic.Int64
	counts  atomic.Int64 // of the backlog
	lists   atomic.Int64 // pages of rows
	packed  func(int64)  // after each acknowledgement, with its rows; nil: nothing

	mu   sync.Mutex // guards seen
	seen snapshot
}

// snapshot is a View: the manifest at one index.
type snapshot struct {
	index  uint64
	leases []raftmeta.Lease
	packs  []*raftmeta.Pack
}

func (s snapshot) Applied() uint64          { return s.index }
func (s snapshot) Leases() []raftmeta.Lease { return s.leases }

func (s snapshot) Overlapping(r desformat.Range) (found []*raftmeta.Pack) {
	for _, p := range s.packs {
		if p.Range.Overlaps(r) {
			found = append(found, p)
		}
	}
	return found
}

// newMember returns a node with its own connection to each table.
func (w *world) newMember(id raftmeta.NodeID) *member {
	w.t.Helper()
	m := &member{w: w, id: id, tables: make(map[string]*source.SQLite)}
	for name, path := range w.dbs {
		table, err := source.OpenSQLite(w.t.Context(), source.SQLiteConfig{Name: name, Path: path})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			if err := table.Close(); err != nil {
				w.t.Error(err)
			}
		})
		m.tables[name] = table
	}
	m.catchUp()
	return m
}

// packer returns the node's packer.
func (m *member) packer(change ...func(*Config)) *Packer {
	m.w.t.Helper()
	spool := m.w.t.TempDir()
	var sources []source.Source
	for _, s := range m.w.sources {
		s.Rows = countingRows{m.tables[s.Name], m}
		sources = append(sources, s)
	}
	return m.w.packer(append([]func(*Config){func(c *Config) {
		c.Node, c.Manifest, c.Finder, c.Acks, c.SpoolDir = m.id, m, m, m, spool
		c.Sources = func() []source.Source { return sources }
		c.View = func() View { return m.view() }
	}}, change...)...)
}

func (m *member) view() snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

func (m *member) catchUp() {
	m.w.mu.Lock()
	now := snapshot{m.w.index, slices.Collect(maps.Values(m.w.leases)), slices.Collect(maps.Values(m.w.packs))}
	m.w.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.index >= m.seen.index {
		m.seen = now
	}
}

// WithLease asks for a lease as this node.
func (m *member) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	m.asked.Add(1)
	granted := false
	defer m.catchUp()
	err := m.w.withLease(ctx, m.id, job, func(ctx context.Context, l raftmeta.Lease) error {
		granted = true
		m.catchUp()
		return work(ctx, l)
	})
	if !granted {
		m.refused.Add(1)
	}
	return err
}

// BeginUpload announces a key.
func (m *member) BeginUpload(ctx context.Context, u raftmeta.Upload) error {
	defer m.catchUp()
	return m.w.BeginUpload(ctx, u)
}

// AddPack commits a pack.
func (m *member) AddPack(ctx context.Context, p raftmeta.Pack) (*raftmeta.Pack, error) {
	defer m.catchUp()
	return m.w.AddPack(ctx, p)
}

// Find looks a name up in this node's view.
func (m *member) Find(ctx context.Context, name string) (*Found, error) {
	return found(m.w.locateIn(ctx, m.view().packs, name))
}

// AcknowledgeFrom acknowledges over this node's connections.
func (m *member) AcknowledgeFrom(ctx context.Context, p *raftmeta.Pack, f desformat.Fetcher, refused func(string, string, uint32)) error {
	defer m.catchUp()
	err := m.w.acknowledge(ctx, m.tables, p, f, refused)
	if err == nil && m.packed != nil {
		m.packed(int64(p.Records))
	}
	return err
}

// countingRows counts the statements of planning and of listing.
type countingRows struct {
	source.Table
	m *member
}

func (r countingRows) Backlog(ctx context.Context, bits uint8, due source.Due) ([]source.Bucket, error) {
	r.m.counts.Add(1)
	return r.Table.Backlog(ctx, bits, due)
}

func (r countingRows) Marked(ctx context.Context, rng desformat.Range, after source.After, due source.Due, limit int) ([]source.Row, error) {
	r.m.lists.Add(1)
	return r.Table.Marked(ctx, rng, after, due, limit)
}
