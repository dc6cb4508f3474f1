package packer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// errInjected is the error of every fault that a test injects.
var errInjected = errors.New("injected fault")

// fault says what happens to one call.
type fault uint8

const (
	noFault  fault = iota
	notDone        // the call has no effect and returns an error
	doneLost       // the call takes effect and returns an error
)

// world is everything around a packer: two sources of real files, a store, and
// a manifest that keeps raftmeta's rules. Every step goes through step, where
// a test can make it fail.
type world struct {
	t       testing.TB
	dir     string // root of the files
	spool   string
	spools  []string // of all packers
	sources []source.Source
	tables  map[string]*source.SQLite
	dbs     map[string]string // their files
	store   *storetest.Fake
	now     func() time.Time
	hook    func(step string) fault // nil: none

	mu      sync.Mutex // guards the manifest below
	index   uint64
	leases  map[desformat.Token]raftmeta.Lease
	uploads map[string]raftmeta.Upload
	packs   map[desformat.PackID]*raftmeta.Pack
	stale   bool // every grant is forgotten before its pack is added
	behind  bool // the view is older than the grants
}

func newWorld(t testing.TB, names ...string) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), spool: filepath.Join(t.TempDir(), "spool"), store: storetest.NewFake(t),
		tables: make(map[string]*source.SQLite), dbs: make(map[string]string), now: func() time.Time { return epoch },
		leases: make(map[desformat.Token]raftmeta.Lease), uploads: make(map[string]raftmeta.Upload),
		packs: make(map[desformat.PackID]*raftmeta.Pack),
	}
	if len(names) == 0 {
		names = []string{"files"}
	}
	for _, name := range names {
		w.dbs[name] = filepath.Join(t.TempDir(), "rows.db")
		table, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: name, Path: w.dbs[name]})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := table.Close(); err != nil {
				t.Error(err)
			}
		})
		w.tables[name] = table
		w.sources = append(w.sources, source.Source{
			Name: name, Rows: &faultyRows{table, w}, Files: &hookedFiles{Originals: source.NewFolders(func() []string { return []string{w.dir} }), w: w},
		})
	}
	return w
}

func (w *world) step(name string) fault {
	if w.hook == nil {
		return noFault
	}
	return w.hook(name)
}

// do runs f as the step name.
func (w *world) do(name string, f func() error) error {
	switch w.step(name) {
	case notDone:
		return fmt.Errorf("%s: %w", name, errInjected)
	case doneLost:
		return errors.Join(fmt.Errorf("%s: %w", name, errInjected), f())
	default:
		return f()
	}
}

// packer returns a fresh packer over the world, as a process that just started.
func (w *world) packer(change ...func(*Config)) *Packer {
	w.t.Helper()
	cfg := Config{
		Sources: func() []source.Source { return w.sources }, View: func() View { return worldView{w} },
		Manifest: w, Store: faultyStore{w}, Finder: w, Acks: w, SpoolDir: w.spool, Now: w.now,
	}
	for _, c := range change {
		c(&cfg)
	}
	w.spools = append(w.spools, cfg.SpoolDir)
	if cfg.Spool == nil {
		cfg.Spool = faultyFolder{spoolFolder(cfg.SpoolDir), w}
	}
	p, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// write writes a file below the root and returns its contents.
func (w *world) write(name string, content []byte) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// register adds or refreshes the row of a file, MARKED, under the given name.
func (w *world) register(src, name, path string) {
	w.t.Helper()
	info, err := os.Lstat(filepath.Join(w.dir, path))
	if err != nil {
		w.t.Fatal(err)
	}
	w.mark(src, source.File{Name: name, Path: filepath.Join(w.dir, path), Size: info.Size(), ModTime: info.ModTime()})
}

// add writes files and registers them, MARKED, in the first source. It returns
// their contents by name.
func (w *world) add(n int, size func(i int) int) map[string][]byte {
	w.t.Helper()
	files := make(map[string][]byte)
	for i := range n {
		name := fmt.Sprintf("dir%d/file-%d.txt", i%3, i)
		files[name] = bytes.Repeat([]byte(fmt.Sprintf("%d,", i)), size(i))
		w.write(name, files[name])
	}
	var batch []source.File
	for name := range files {
		info, err := os.Lstat(filepath.Join(w.dir, name))
		if err != nil {
			w.t.Fatal(err)
		}
		batch = append(batch, source.File{Name: name, Path: filepath.Join(w.dir, name), Size: info.Size(), ModTime: info.ModTime()})
	}
	w.mark(w.sources[0].Name, batch...)
	return files
}

// mark registers rows and marks all that are ACTIVE.
func (w *world) mark(src string, files ...source.File) {
	w.t.Helper()
	table := w.tables[src]
	for batch := range slices.Chunk(files, source.MaxBatch) {
		if _, err := table.Register(w.t.Context(), batch); err != nil {
			w.t.Fatal(err)
		}
	}
	for {
		rows, err := table.Eligible(w.t.Context(), w.now(), "", source.MaxBatch)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(rows) == 0 {
			return
		}
		for i := range rows {
			rows[i].DesName = rows[i].Name
		}
		if _, err := table.Mark(w.t.Context(), rows, source.Marking{At: w.now(), ShardBits: 10}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// drain flushes until nothing is due. Ranges that are taken are freed first, as
// the leader and the keeper would.
func (w *world) drain(p *Packer) {
	w.t.Helper()
	for range 20 {
		w.recover()
		res, err := p.Once(w.t.Context(), true)
		if err != nil {
			w.t.Fatal(err)
		}
		if res.Due == 0 {
			return
		}
	}
	w.t.Fatal("the backlog never ends")
}

// recover expires leases and acknowledges what is not, from the store.
func (w *world) recover() {
	w.t.Helper()
	w.mu.Lock()
	clear(w.leases)
	packs := slices.Collect(maps.Values(w.packs))
	w.mu.Unlock()
	for _, p := range packs {
		if !p.Acknowledged {
			if err := w.AcknowledgeFrom(w.t.Context(), p, object{w, p}, func(string, string, uint32) {}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// check holds the world against files: each is PACKED, lives in exactly one
// record and reads back identical; the store holds nothing unknown.
func (w *world) check(files map[string][]byte) {
	w.t.Helper()
	ctx := w.t.Context()
	live := make(map[string]int)
	for _, p := range w.packs {
		for e, err := range desformat.ReadCatalog(ctx, object{w, p}, p.Catalog) {
			if err != nil {
				w.t.Fatal(err)
			}
			if !p.IsDead(e.Ordinal) {
				live[e.Name]++
			}
		}
	}
	for name, want := range files {
		if live[name] != 1 {
			w.t.Errorf("%s lives in %d records", name, live[name])
		}
		if got, _ := w.read(name); !bytes.Equal(got, want) {
			w.t.Errorf("%s reads back as %d bytes, want %d", name, len(got), len(want))
		}
		if row := w.row(name); row.State != source.Packed {
			w.t.Errorf("%s is %s (%s)", name, row.State, row.ErrorText)
		}
	}
	if len(live) != len(files) {
		w.t.Errorf("%d names live, want %d", len(live), len(files))
	}
	known := make(map[string]bool)
	for _, p := range w.packs {
		known[p.Copies[0].Key] = true
	}
	for key := range w.uploads {
		known[key] = true
	}
	for _, key := range w.store.Keys() {
		if !known[key] {
			w.t.Errorf("object %s is unknown", key)
		}
	}
	for _, spool := range w.spools {
		if left, err := os.ReadDir(spool); len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Errorf("%d files left in the spool, %v", len(left), err)
		}
	}
}

// row returns the row that is served as name.
func (w *world) row(name string) source.Row {
	w.t.Helper()
	for _, table := range w.tables {
		row, err := table.ByName(w.t.Context(), name)
		if err == nil {
			return row
		}
		if !errors.Is(err, source.ErrNotFound) {
			w.t.Fatal(err)
		}
	}
	w.t.Fatalf("no row is served as %s", name)
	return source.Row{}
}

// locate finds the live record of name with the highest seq.
func (w *world) locate(ctx context.Context, name string) (*raftmeta.Pack, *desformat.Header, desformat.Location, error) {
	w.mu.Lock()
	packs := slices.Collect(maps.Values(w.packs))
	w.mu.Unlock()
	return w.locateIn(ctx, packs, name)
}

func (w *world) locateIn(ctx context.Context, packs []*raftmeta.Pack, name string) (*raftmeta.Pack, *desformat.Header, desformat.Location, error) {
	hash := desformat.HashName(name)
	var pack *raftmeta.Pack
	var header *desformat.Header
	var place desformat.Location
	for _, p := range packs {
		if !p.Range.Contains(hash) {
			continue
		}
		r, err := o2bytes(ctx, object{w, p}, p.Index.Offset, p.Index.Length)
		if err != nil {
			return nil, nil, place, err
		}
		index, err := desformat.ParseIndex(r, p.Index)
		if err != nil {
			return nil, nil, place, err
		}
		for _, loc := range index.Lookup(hash, nil) {
			h, err := desformat.ReadHeader(ctx, object{w, p}, loc)
			if err != nil {
				return nil, nil, place, err
			}
			if h.Name == name && !p.IsDead(loc.Ordinal) && (header == nil || h.Seq.Compare(header.Seq) > 0) {
				pack, header, place = p, h, loc
			}
		}
	}
	if header == nil {
		return nil, nil, place, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return pack, header, place, nil
}

// Find is the world's Finder.
func (w *world) Find(ctx context.Context, name string) (*Found, error) {
	if w.step("find") != noFault {
		return nil, fmt.Errorf("find: %w", errInjected)
	}
	return found(w.locate(ctx, name))
}

func found(p *raftmeta.Pack, h *desformat.Header, loc desformat.Location, err error) (*Found, error) {
	if err != nil {
		return nil, err
	}
	return &Found{
		Pack: p.ID, Ordinal: loc.Ordinal, Source: h.Source, ID: h.ID, Size: h.Size, ModTime: h.ModTime,
		Version: h.Version, SHA256: h.SHA256,
	}, nil
}

// read returns the archived content of name and its header.
func (w *world) read(name string) ([]byte, *desformat.Header) {
	w.t.Helper()
	p, h, loc, err := w.locate(w.t.Context(), name)
	if err != nil {
		w.t.Errorf("locate %s: %v", name, err)
		return nil, nil
	}
	r, err := desformat.OpenRecord(w.t.Context(), object{w, p}, loc)
	if err != nil {
		w.t.Error(err)
		return nil, nil
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		w.t.Error(err)
	}
	if sha256.Sum256(b) != h.SHA256 {
		w.t.Errorf("%s: content does not match its header", name)
	}
	return b, h
}

// AcknowledgeFrom is the world's Acknowledger: what the keeper does.
func (w *world) AcknowledgeFrom(ctx context.Context, p *raftmeta.Pack, f desformat.Fetcher, refused func(string, string, uint32)) error {
	return w.acknowledge(ctx, w.tables, p, f, refused)
}

func (w *world) acknowledge(ctx context.Context, tables map[string]*source.SQLite, p *raftmeta.Pack, f desformat.Fetcher,
	refused func(string, string, uint32),
) error {
	acks := make(map[string][]source.Ack)
	ordinals := make(map[string][]uint32)
	for e, err := range desformat.ReadCatalog(ctx, f, p.Catalog) {
		if err != nil {
			return err
		}
		acks[e.Source] = append(acks[e.Source], source.Ack{
			ID: e.ID, Name: e.Name, Version: e.Version, Size: e.SourceSize, ModTime: e.SourceTime, SHA256: e.SHA256, Pack: p.ID,
		})
		ordinals[e.Source] = append(ordinals[e.Source], e.Ordinal)
	}
	var dead []uint32
	for name, all := range acks {
		for i := 0; i < len(all); i += source.MaxBatch {
			var results []source.AckResult
			err := w.do("acknowledge rows", func() (err error) {
				results, err = tables[name].Acknowledge(ctx, all[i:min(i+source.MaxBatch, len(all))], 5, w.now())
				return err
			})
			if err != nil {
				return err
			}
			for j, r := range results {
				if r == source.AckRefused {
					refused(name, all[i+j].ID, all[i+j].Version)
				}
				if r != source.AckDone {
					dead = append(dead, ordinals[name][i+j])
				}
			}
		}
	}
	slices.Sort(dead)
	return w.do("acknowledge pack", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		changed := *w.packs[p.ID]
		changed.Acknowledged, changed.Dead = true, dead
		w.index++
		w.packs[p.ID] = &changed
		return nil
	})
}

// WithLease grants under raftmeta's rules; a lease ends with its work.
func (w *world) WithLease(ctx context.Context, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	return w.withLease(ctx, "", job, work)
}

func (w *world) withLease(ctx context.Context, holder raftmeta.NodeID, job raftmeta.Job, work func(context.Context, raftmeta.Lease) error) error {
	var lease raftmeta.Lease
	err := w.do("grant", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, l := range w.leases {
			if l.Job.Range.Overlaps(job.Range) {
				return fmt.Errorf("range %s: %w", job.Range, raftmeta.ErrClash)
			}
		}
		for _, p := range w.packs {
			if !p.Acknowledged && p.Range.Overlaps(job.Range) {
				return fmt.Errorf("range %s: %w", job.Range, raftmeta.ErrUnacknowledged)
			}
		}
		w.index++
		lease = raftmeta.Lease{Token: desformat.Token{Generation: 1, Index: w.index}, Job: job, Holder: holder}
		w.leases[lease.Token] = lease
		return nil
	})
	if err != nil {
		return err
	}
	err = work(ctx, lease)
	return errors.Join(err, w.do("release", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.leases, lease.Token)
		return nil
	}))
}

// BeginUpload announces a key.
func (w *world) BeginUpload(_ context.Context, u raftmeta.Upload) error {
	return w.do("announce", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if u.BeganAt.IsZero() || u.Pack.IsZero() {
			w.t.Errorf("announced %+v", u)
		}
		w.index++
		w.uploads[u.Key] = u
		return nil
	})
}

// AddPack commits a pack as raftmeta does.
func (w *world) AddPack(_ context.Context, p raftmeta.Pack) (added *raftmeta.Pack, err error) {
	err = w.do("commit", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if known := w.packs[p.ID]; known != nil {
			added = known
			return nil
		}
		key := p.Copies[0].Key
		lease, live := w.leases[p.Token]
		if _, announced := w.uploads[key]; !announced {
			return raftmeta.ErrNoUpload
		}
		if !live || lease.Job.Range != p.Range || w.stale {
			return raftmeta.ErrStale
		}
		w.index++
		p.AddIndex = w.index
		delete(w.uploads, key)
		w.packs[p.ID], added = &p, &p
		return nil
	})
	if err != nil {
		return nil, err
	}
	return added, nil
}
