package rebuild

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/packer"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ofCluster() desformat.ClusterID { return desformat.ClusterID{7, 8, 9} }

// clock is the time of a test: later at each look.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is what outlives a cluster's state, and the life that the cluster has.
type world struct {
	t     testing.TB
	dir   string
	root  string // of the originals
	clock *clock
	store *storetest.Fake
	rows  *source.SQLite
	order []string // names in the order of their rows

	life *life
	wait bool // packs are not acknowledged
	ids  uint32
}

// newID numbers packs, so that two worlds with one history are equal.
func (w *world) newID() (id desformat.PackID) {
	w.ids++
	binary.BigEndian.PutUint32(id[:], w.ids)
	return id
}

// life is one life of the cluster, as its one node has it.
type life struct {
	*raftmeta.Local
	journal    *raftmeta.Journal
	node       raftmeta.NodeID
	generation uint64
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, store: storetest.NewFake(t)}
	w.root = filepath.Join(w.dir, "originals")
	w.check(os.MkdirAll(filepath.Join(w.root, "a folder that stays"), 0o700))
	w.newRows("files.db")
	w.put(clusterKey, fmt.Sprintf("{\"cluster\":%q}\n", ofCluster()))
	w.put(generationKey(1), fmt.Sprintf("{\"cluster\":%q,\"node\":\"node-1\"}\n", ofCluster()))
	w.begin("node-1", 1, nil)
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(key, text string) {
	w.t.Helper()
	_, err := w.store.Put(w.t.Context(), key, bytes.NewReader([]byte(text)), int64(len(text)))
	w.check(err)
}

// newRows puts an empty table in the place of the one there is.
func (w *world) newRows(name string) {
	w.t.Helper()
	rows, err := source.OpenSQLite(w.t.Context(), source.SQLiteConfig{Name: "files", Path: filepath.Join(w.dir, name)})
	w.check(err)
	w.t.Cleanup(func() { w.check(rows.Close()) })
	w.rows = rows
}

// begin starts a life of the cluster on an empty journal.
func (w *world) begin(node raftmeta.NodeID, generation uint64, through func(context.Context, string, func() error) error) {
	w.t.Helper()
	w.life = &life{journal: &raftmeta.Journal{}, node: node, generation: generation}
	w.open(through)
}

// open starts the process of the life's node.
func (w *world) open(through func(context.Context, string, func() error) error) {
	w.t.Helper()
	l, err := raftmeta.OpenLocal(raftmeta.LocalConfig{
		Node: w.life.node, Cluster: ofCluster(), Journal: w.life.journal, Generation: w.life.generation, Through: through,
	})
	w.check(err)
	w.life.Local = l
	w.check(w.rows.ClaimCluster(w.t.Context(), ofCluster(), w.life.generation))
}

func (w *world) src() source.Source {
	return source.Source{Name: "files", Rows: w.rows, Files: source.NewFolders(func() []string { return []string{w.root} })}
}

func (w *world) keeper(edit func(*keeper.Config)) *keeper.Keeper {
	w.t.Helper()
	dir := filepath.Join(w.dir, "data-"+string(w.life.node))
	w.check(os.MkdirAll(dir, 0o700))
	cfg := keeper.Config{
		Node: w.life.node, Host: "host", Manifest: w.life, Commands: w.life, Store: w.store,
		Sources: []source.Source{w.src()}, Dir: dir, Now: w.clock.Now, Workers: 1, DeleteWorkers: 1,
	}
	if edit != nil {
		edit(&cfg)
	}
	k, err := keeper.New(cfg)
	w.check(err)
	w.t.Cleanup(func() { w.check(k.Close()) })
	return k
}

func (w *world) path(name string) string { return filepath.Join(w.root, name) }

// write writes originals that hold their names and a version, and registers
// them.
func (w *world) write(version int, names ...string) {
	w.t.Helper()
	for _, n := range names {
		w.check(os.MkdirAll(filepath.Dir(w.path(n)), 0o700))
		w.check(os.WriteFile(w.path(n), content(n, version), 0o600))
		at := time.Date(2025, 1, version, 0, 0, 0, 0, time.UTC)
		w.check(os.Chtimes(w.path(n), at, at))
	}
	w.register(version, names...)
}

func content(name string, version int) []byte {
	return bytes.Repeat([]byte(name+" "+strconv.Itoa(version)+"\n"), 20)
}

// register tells the source of originals as write makes them, there or not.
func (w *world) register(version int, names ...string) {
	w.t.Helper()
	var files []source.File
	for _, n := range names {
		files = append(files, source.File{
			Name: n, Path: w.path(n), Size: int64(len(content(n, version))),
			ModTime: time.Date(2025, 1, version, 0, 0, 0, 0, time.UTC),
		})
		if !slices.Contains(w.order, n) {
			w.order = append(w.order, n)
		}
	}
	for batch := range slices.Chunk(files, source.MaxBatch) {
		_, err := w.rows.Register(w.t.Context(), batch)
		w.check(err)
	}
}

func (w *world) mark() {
	w.t.Helper()
	for {
		rows, err := w.rows.Eligible(w.t.Context(), w.clock.Now(), "", source.MaxBatch)
		w.check(err)
		if len(rows) == 0 {
			return
		}
		for i := range rows {
			rows[i].DesName = rows[i].Name
		}
		_, err = w.rows.Mark(w.t.Context(), rows, source.Marking{At: w.clock.Now(), Cluster: ofCluster(), ShardBits: w.life.View().ShardBits()})
		w.check(err)
	}
}

// archive marks and packs what there is.
func (w *world) archive() {
	w.t.Helper()
	w.mark()
	w.pack()
}

// acks is who acknowledges packs; nobody while the world waits.
type acks struct {
	w *world
	k *keeper.Keeper
}

func (a acks) AcknowledgeFrom(ctx context.Context, p *raftmeta.Pack, f desformat.Fetcher, refused func(string, string, uint32)) error {
	if a.w.wait {
		return errors.New("nobody acknowledges")
	}
	return a.k.AcknowledgeFrom(ctx, p, f, refused)
}

func (w *world) pack() {
	w.t.Helper()
	p, err := packer.New(packer.Config{
		Sources: func() []source.Source { return []source.Source{w.src()} }, View: func() packer.View { return w.life.View() },
		Manifest: w.life, Store: w.store, Finder: w, Acks: acks{w, w.keeper(nil)}, Cluster: ofCluster(), Node: w.life.node,
		SpoolDir: filepath.Join(w.dir, "spool"), Now: w.clock.Now, PackSize: 4 << 10, PutRetries: 1, Workers: 1, NewID: w.newID,
	})
	w.check(err)
	for range 50 {
		res, err := p.Once(w.t.Context(), true)
		if w.wait {
			return
		}
		w.check(err)
		if res.Due == 0 {
			return
		}
	}
	w.t.Fatal("the backlog never ends")
}

// Find is packer.Finder.
func (w *world) Find(ctx context.Context, name string) (*packer.Found, error) {
	p, e, err := w.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return &packer.Found{
		Pack: p.ID, Ordinal: e.Ordinal, Source: e.Source, ID: e.ID, Size: e.Size, ModTime: e.ModTime, Version: e.Version, SHA256: e.SHA256,
	}, nil
}

func (w *world) at(p *raftmeta.Pack) desformat.Fetcher { return stored{w.store, p.Copies[0].Key} }

type stored struct {
	store store.Store
	key   string
}

func (s stored) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return s.store.Get(ctx, s.key, "", off, n)
}

// find walks the manifest as a read does.
func (w *world) find(ctx context.Context, name string) (best *raftmeta.Pack, entry desformat.Entry, err error) {
	for _, p := range w.life.View().Covering(desformat.HashName(name), nil) {
		for e, err := range desformat.ReadCatalog(ctx, w.at(p), p.Catalog) {
			if err != nil {
				return nil, e, err
			}
			if e.Name == name && !p.IsDead(e.Ordinal) && (best == nil || e.Seq.Compare(entry.Seq) > 0) {
				best, entry = p, e
			}
		}
	}
	if best == nil {
		return nil, entry, packer.ErrNotFound
	}
	return best, entry, nil
}

// wantServed holds what is read by name against a version of the file; 0: it is
// not found.
func (w *world) wantServed(name string, version int) {
	w.t.Helper()
	p, e, err := w.find(w.t.Context(), name)
	if version == 0 {
		if !errors.Is(err, packer.ErrNotFound) {
			w.t.Errorf("%s is found in %v, %v; want nothing", name, p, err)
		}
		return
	}
	if err != nil {
		w.t.Errorf("%s: %v", name, err)
		return
	}
	r, err := desformat.OpenRecord(w.t.Context(), w.at(p), e.Location)
	w.check(err)
	b, err := io.ReadAll(r)
	w.check(errors.Join(err, r.Close()))
	if !bytes.Equal(b, content(name, version)) {
		w.t.Errorf("%s reads %.40q, want version %d", name, b, version)
	}
}

// deleteOriginals has the keeper delete what is old enough.
func (w *world) deleteOriginals() {
	w.t.Helper()
	w.clock.advance(2 * time.Hour)
	w.check(w.keeper(func(c *keeper.Config) { c.DeleteSource, c.DeleteGrace = true, time.Hour }).Once(w.t.Context()))
}

// snapshot is what a rebuild must bring back of a manifest.
func (w *world) snapshot() map[desformat.PackID]raftmeta.Pack { return snapshotOf(w.life.View()) }

func snapshotOf(v *raftmeta.View) map[desformat.PackID]raftmeta.Pack {
	out := map[desformat.PackID]raftmeta.Pack{}
	for p := range v.Packs() {
		s := *p
		s.AddIndex, s.ModIndex, s.PackedBy = 0, 0, ""
		s.Copies = slices.Clone(s.Copies)
		for i := range s.Copies {
			s.Copies[i].VerifiedAt, s.Copies[i].VerifiedBy = time.Time{}, ""
		}
		out[p.ID] = s
	}
	return out
}

func (w *world) wantSnapshot(want map[desformat.PackID]raftmeta.Pack) {
	w.t.Helper()
	wantPacks(w.t, w.snapshot(), want)
}

func wantPacks(t testing.TB, got, want map[desformat.PackID]raftmeta.Pack) {
	t.Helper()
	for id, p := range want {
		if g := got[id]; fmt.Sprintf("%+v", g) != fmt.Sprintf("%+v", p) {
			t.Errorf("pack %s is %+v, want %+v", id, g, p)
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			t.Errorf("pack %s is known, and should not", id)
		}
	}
}

// states are the rows by name, as far as archiving has written them.
func (w *world) states() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, n := range w.order {
		r := w.row(n)
		out[n] = fmt.Sprintf("%s version %d of pack %s as %q", r.State, r.Version, r.Pack, r.DesName)
	}
	return out
}

func (w *world) row(name string) source.Row {
	w.t.Helper()
	for id := 1; ; id++ {
		r, err := w.rows.ByID(w.t.Context(), strconv.Itoa(id))
		w.check(err)
		if r.Name == name {
			return r
		}
	}
}

func (w *world) wantStates(want map[string]string) {
	w.t.Helper()
	got := w.states()
	for _, n := range slices.Sorted(maps.Keys(want)) {
		if got[n] != want[n] {
			w.t.Errorf("%s is %s, want %s", n, got[n], want[n])
		}
	}
}

// claim begins the next life on an empty data dir.
func (w *world) claim(node raftmeta.NodeID, through func(context.Context, string, func() error) error) {
	w.t.Helper()
	c, err := Claim(w.t.Context(), w.store, node)
	w.check(err)
	w.begin(node, c.Generation, through)
}

// config is that of a rebuild of the world's life.
func (w *world) config(edit func(*Config)) Config {
	k := w.keeper(nil)
	c := Config{
		Manifest: w.life, Commands: w.life, Store: w.store, Sources: []source.Source{w.src()},
		Fence:       func(ctx context.Context) error { return w.rows.ClaimCluster(ctx, ofCluster(), w.life.generation) },
		Acknowledge: k.AcknowledgeAgain, Quarantined: k.NoteQuarantined, Now: w.clock.Now, Footers: 2, RowWorkers: 1,
	}
	if edit != nil {
		edit(&c)
	}
	return c
}

// rebuild runs the rebuild of the world's life and returns how it went.
func (w *world) rebuild(edit func(*Config)) Progress {
	w.t.Helper()
	r, err := New(w.config(edit))
	w.check(err)
	w.check(r.Run(w.t.Context()))
	if !w.life.View().RebuildDone(w.life.generation) {
		w.t.Fatal("the rebuild is not recorded as done")
	}
	return r.Progress()
}

// base returns the state as it is now, as a backup keeps it.
func (w *world) base() *raftmeta.View {
	w.t.Helper()
	var b bytes.Buffer
	w.check(w.life.View().WriteSnapshot(&b))
	v, err := raftmeta.ReadSnapshot(&b)
	w.check(err)
	return v
}

// from has a rebuild begin from a base.
func from(v *raftmeta.View) func(*Config) {
	return func(c *Config) {
		c.Base = "backups/1-42"
		c.OpenBase = func(context.Context, string) (*raftmeta.View, error) { return v, nil }
	}
}

func names(n int, prefix string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s/file-%03d.txt", prefix, i)
	}
	return out
}

// abandon leaves an object behind as a packer does that dies before it commits:
// whole, announced, its lease over. It holds one row's record.
func (w *world) abandon(name string) string {
	w.t.Helper()
	var key string
	w.check(w.life.WithLease(w.t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		key = w.upload(ctx, l, desformat.PackID{byte(l.Token.Index), 0xab}, nil, name)
		return nil
	}))
	return key
}

// upload builds a pack of one row and puts it.
func (w *world) upload(ctx context.Context, l raftmeta.Lease, id desformat.PackID, replaces []desformat.PackID, name string) string {
	w.t.Helper()
	f := w.sealed(l.Token, id, replaces, name)
	key := desformat.PackKey(desformat.Range{}, l.Token, id)
	w.check(w.life.BeginUpload(ctx, raftmeta.Upload{Key: key, Pack: id, Token: l.Token, BeganAt: w.clock.Now()}))
	_, err := w.store.Put(ctx, key, bytes.NewReader(f), int64(len(f)))
	w.check(err)
	return key
}

// sealed returns a pack of one row, as it is now.
func (w *world) sealed(token desformat.Token, id desformat.PackID, replaces []desformat.PackID, name string) []byte {
	w.t.Helper()
	row := w.row(name)
	f, err := os.CreateTemp(w.dir, "pack")
	w.check(err)
	dw, err := desformat.NewWriter(f, desformat.WriterConfig{Pack: id, Cluster: ofCluster(), Token: token, Created: w.clock.Now(), Replaces: replaces})
	w.check(err)
	version := row.ModTime.Day()
	_, err = dw.Append(desformat.Record{
		Type: desformat.TypeFile, Name: name, Seq: token, Source: "files", ID: row.ID, Version: row.Version,
		ModTime: row.ModTime, SourceSize: row.Size, SourceTime: row.ModTime,
	}, bytes.NewReader(content(name, version)))
	w.check(err)
	_, err = dw.Seal()
	w.check(err)
	b, err := os.ReadFile(f.Name())
	w.check(errors.Join(err, f.Close()))
	return b
}
