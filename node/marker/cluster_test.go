package marker

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// board is what the nodes of one cluster see alike: leases and settings.
type board struct {
	mu     sync.Mutex // guards what follows
	index  uint64
	leases []raftmeta.Lease
	values map[string][]byte
	mods   map[string]uint64
	sets   int
	grants int
	rival  bool // the next Set finds that another was faster
}

// node is one node's hold on the board.
type node struct {
	*board
	id raftmeta.NodeID
}

func (n node) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	n.mu.Lock()
	if slices.ContainsFunc(n.leases, func(l raftmeta.Lease) bool { return l.Job.Source == job.Source }) {
		n.mu.Unlock()
		return fmt.Errorf("%v: %w", job, raftmeta.ErrClash)
	}
	n.index++
	n.grants++
	l := raftmeta.Lease{Token: desformat.Token{Generation: 1, Index: n.index}, Job: job, Holder: n.id}
	n.leases = append(n.leases, l)
	n.mu.Unlock()
	defer n.release(l.Token)
	return work(ctx, l)
}

func (n node) release(token desformat.Token) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leases = slices.DeleteFunc(n.leases, func(l raftmeta.Lease) bool { return l.Token == token })
}

func (b *board) live() []raftmeta.Lease {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.leases)
}

func (b *board) Setting(key string) ([]byte, uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.values[key]
	return v, b.mods[key], ok
}

func (b *board) Set(_ context.Context, key string, value []byte, ifModIndex uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rival || b.mods[key] != ifModIndex {
		b.rival = false
		return fmt.Errorf("%s: %w", key, raftmeta.ErrConflict)
	}
	if b.values == nil {
		b.values, b.mods = map[string][]byte{}, map[string]uint64{}
	}
	b.index++
	b.sets++
	b.values[key], b.mods[key] = value, b.index
	return nil
}

func (b *board) config(id raftmeta.NodeID) Config {
	return Config{Node: id, Leases: node{b, id}, Live: b.live, Shared: b}
}

func openAgain(t *testing.T, name, path string) *source.SQLite {
	t.Helper()
	table, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: name, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// Three nodes, each with its own connection to one table, mark at once: every
// row once, up to the limit of the backlog and not beyond.
func TestThreeNodesMarkOneTable(t *testing.T) {
	const rows, limit = 5500, 4000
	path := filepath.Join(t.TempDir(), "rows.db")
	var tables []*source.SQLite
	for range 3 {
		tables = append(tables, openAgain(t, "s0", path))
	}
	var all []source.File
	for i := range rows {
		all = append(all, file(fmt.Sprintf("f%04d", i), 1))
	}
	register(t, tables[0], all...)
	b := &board{}
	var mu sync.Mutex
	sum := 0
	var markers sync.WaitGroup
	for i, table := range tables {
		cfg := b.config(raftmeta.NodeID(fmt.Sprint("node", i)))
		cfg.BacklogRows = limit
		m := newMarker(t, cfg, table)
		markers.Go(func() {
			for range 20 {
				marked, refused, err := m.Once(t.Context())
				if err != nil || refused != 0 {
					t.Error(refused, err)
					return
				}
				mu.Lock()
				sum += marked
				mu.Unlock()
			}
		})
	}
	markers.Wait()
	if got := states(t, tables[0]); got[source.Marked] != limit || got[source.Active] != rows-limit || sum != limit {
		t.Errorf("%v, %d reported as marked; want %d marked", got, sum, limit)
	}
	if b.grants > 3 {
		t.Errorf("%d leases were granted for one run up to the limit", b.grants)
	}
	// The source became full once; nodes that found it marked by another said nothing.
	if b.sets != 1 {
		t.Errorf("the setting was written %d times", b.sets)
	}
}

func TestAnotherNodesMarkingIsUnrest(t *testing.T) {
	lease := func(holder raftmeta.NodeID, kind raftmeta.JobKind, src string, index uint64) raftmeta.Lease {
		return raftmeta.Lease{Token: desformat.Token{Generation: 1, Index: index}, Job: raftmeta.Job{Kind: kind, Source: src}, Holder: holder}
	}
	for _, tt := range []struct {
		name     string
		leases   []raftmeta.Lease
		later    []raftmeta.Lease // a minute later
		rested   bool             // at once
		rests    bool             // a minute later
		trickles bool             // a minute later
		markers  int
	}{
		{"nobody marks", nil, nil, true, true, false, 0},
		{"another marks", []raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7)}, nil, false, true, false, 1},
		{"another marks for long", []raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7)}, []raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7)}, false, true, true, 1},
		{"another marks again", []raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7)}, []raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 8)}, false, false, false, 1},
		{
			"one marks for long, another since now",
			[]raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7)},
			[]raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7), lease("c", raftmeta.JobMark, "s1", 8)},
			false, false, false, 1,
		},
		{"this node's own lease", []raftmeta.Lease{lease("a", raftmeta.JobMark, "s0", 7)}, nil, true, true, false, 1},
		{"a source that this node does not have", []raftmeta.Lease{lease("b", raftmeta.JobMark, "x", 7)}, nil, true, true, false, 1},
		{"another packs", []raftmeta.Lease{lease("b", raftmeta.JobPack, "", 7)}, nil, true, true, false, 0},
		{
			"two mark",
			[]raftmeta.Lease{lease("b", raftmeta.JobMark, "s0", 7), lease("c", raftmeta.JobMark, "s1", 8), lease("c", raftmeta.JobMark, "s2", 9)},
			nil, false, true, false, 2,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := epoch
			b := &board{leases: tt.leases}
			cfg := b.config("a")
			cfg.Now = func() time.Time { return now }
			m := newMarker(t, cfg, openTable(t, "s0"), openTable(t, "s1"), openTable(t, "s2"))
			if rested, _, trickles := m.Rested(); rested != tt.rested || trickles {
				t.Errorf("rested %v, trickles %v; want %v", rested, trickles, tt.rested)
			}
			if n := Markers(b.live()); n != tt.markers {
				t.Errorf("%d nodes mark, want %d", n, tt.markers)
			}
			now = now.Add(patience)
			b.leases = tt.later
			if rested, _, trickles := m.Rested(); rested != tt.rests || trickles != tt.trickles {
				t.Errorf("a minute later: rested %v, trickles %v; want %v, %v", rested, trickles, tt.rests, tt.trickles)
			}
		})
	}
}

// A node without a marker of its own learns that marking waits for room, and
// that it does not any more.
func TestABacklogAtItsLimitIsKnownOnAllNodes(t *testing.T) {
	table := openTable(t, "s0")
	var all []source.File
	for i := range 3000 {
		all = append(all, file(fmt.Sprintf("f%04d", i), 1))
	}
	register(t, table, all...)
	b := &board{}
	cfg := b.config("a")
	cfg.BacklogRows = 1000
	marks, idle := newMarker(t, cfg, table), newMarker(t, b.config("b"), table)
	wantFull := func(want bool) {
		t.Helper()
		for _, m := range []*Marker{marks, idle} {
			if rested, full, _ := m.Rested(); !rested || full != want {
				t.Errorf("node %s: rested %v, full %v; want %v", m.cfg.Node, rested, full, want)
			}
		}
	}
	wantFull(false)
	b.rival = true // the first word is lost to somebody who was faster
	once(t, marks, 1000, 0)
	wantFull(false)
	once(t, marks, 0, 0) // and is said again
	wantFull(true)
	ack := func(n int) {
		t.Helper()
		rows, err := table.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, n)
		if err != nil {
			t.Fatal(err)
		}
		acks := make([]source.Ack, len(rows))
		for i, r := range rows {
			acks[i] = source.Ack{ID: r.ID, Name: r.DesName, Version: r.Version, Size: r.Size, ModTime: r.ModTime, Pack: desformat.PackID{1}}
		}
		if _, err := table.Acknowledge(t.Context(), acks, 5, epoch); err != nil {
			t.Fatal(err)
		}
	}
	ack(400)
	once(t, marks, 0, 0) // not below a half
	// A node that begins only now keeps to what the others found.
	late := b.config("c")
	late.BacklogRows = 1000
	once(t, newMarker(t, late, table), 0, 0)
	wantFull(true)
	ack(600)
	once(t, marks, 1000, 0)
	wantFull(true)
	ack(1000)
	once(t, marks, 1000, 0)
	ack(1000)
	once(t, marks, 0, 0) // nothing is left
	wantFull(false)
	sets := b.sets
	once(t, marks, 0, 0)
	if b.sets != sets {
		t.Error("what is known was written again")
	}
}

func TestAnUnreadableSettingIsReplaced(t *testing.T) {
	table := openTable(t, "s0")
	register(t, table, file("a", 1), file("b", 1))
	b := &board{values: map[string][]byte{fullKey: []byte("?")}, mods: map[string]uint64{fullKey: 1}, index: 1}
	cfg := b.config("a")
	cfg.BacklogRows = 1
	m := newMarker(t, cfg, table)
	once(t, m, 2, 0)
	var names []string
	if err := json.Unmarshal(b.values[fullKey], &names); err != nil {
		t.Error(err)
	}
}

// late lets another do something between the decision to ask for a lease and
// its grant.
type late struct {
	Leaser
	before func()
}

func (l late) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	l.before()
	return l.Leaser.WithLease(ctx, job, work)
}

func TestWhatAnotherMarkedBeforeTheGrantCounts(t *testing.T) {
	table := openTable(t, "s0")
	var all []source.File
	for i := range 5000 {
		all = append(all, file(fmt.Sprintf("f%04d", i), 1))
	}
	register(t, table, all...)
	b := &board{}
	first, second := b.config("a"), b.config("b")
	first.BacklogRows, second.BacklogRows = 2000, 2000
	other := newMarker(t, first, table)
	second.Leases = late{second.Leases, func() { once(t, other, 2000, 0) }}
	once(t, newMarker(t, second, table), 0, 0)
	if got := states(t, table)[source.Marked]; got != 2000 {
		t.Errorf("%d rows are marked, the limit is 2000", got)
	}
}

// All nodes are asked to mark and to flush. One that does not mark must not cut
// before those that do have begun, nor wait for ever for nobody.
func TestANodeThatDoesNotMarkGivesOthersAHeadStart(t *testing.T) {
	now := epoch
	b := &board{}
	cfg := b.config("a")
	cfg.Now = func() time.Time { return now }
	m := newMarker(t, cfg, openTable(t, "s0"))
	resting := 0
	for range 100 { // ten seconds of an archive run that asks ten times a second
		m.Kick()
		if rested, _, _ := m.Rested(); rested {
			resting++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if resting < 85 || resting > 95 {
		t.Errorf("at rest in %d of 100 looks, want about 90", resting)
	}
}
