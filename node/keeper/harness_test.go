package keeper

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/source/objectstest"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is the time of a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now returns a later time at each call, as a real clock does.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is all that a keeper works on: real rows, real files, a real manifest
// and a real store, each behind the same faults.
type world struct {
	t      *testing.T
	dir    string
	root   string // the originals of the first source
	clock  clock
	faults *faults
	meta   *raftmeta.Meta
	folder *store.Folder
	rows   *source.SQLite
	src    source.Source
	more   []source.Source // further sources
	log    *bytes.Buffer

	node     raftmeta.NodeID // whose keepers are made; "": node-a, whose lease every one is
	noDelete bool
	oneInode bool                // every row has the same file id
	garbage  string              // key of an abandoned upload
	uploaded func()              // after each upload, before its commit
	bucket   *objectstest.Bucket // of originals; nil: none
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), faults: &faults{}, log: &bytes.Buffer{}}
	w.clock.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w.root = w.mkdir("originals")
	w.startMeta()
	var err error
	if w.folder, err = store.OpenFolder(w.mkdir("store")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.check(w.folder.Close()) })
	w.src, w.rows = w.newSource("files", w.root)
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mkdir(name string) string {
	w.t.Helper()
	dir := filepath.Join(w.dir, name)
	w.check(os.MkdirAll(dir, 0o700))
	return dir
}

func (w *world) startMeta() {
	w.t.Helper()
	w.startMetaIn("raft")
}

// startMetaIn takes the cluster's state from a folder of the world.
func (w *world) startMetaIn(name string) {
	w.t.Helper()
	m, err := raftmeta.Open(w.t.Context(), raftmeta.Config{
		Dir: w.mkdir(name), Node: "node-a", Cluster: desformat.ClusterID{1, 2, 3},
	})
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		w.check(<-done)
	})
	w.check(m.Ready(ctx))
	w.meta = m
}

func (w *world) newSource(name string, roots ...string) (source.Source, *source.SQLite) {
	w.t.Helper()
	rows, err := source.OpenSQLite(w.t.Context(), source.SQLiteConfig{Name: name, Path: filepath.Join(w.dir, name+".db")})
	w.check(err)
	w.t.Cleanup(func() { w.check(rows.Close()) })
	return source.Source{
		Name:  name,
		Rows:  faultyTable{rows, w.faults},
		Files: faultyFiles{source.NewFolders(func() []string { return roots }), w.faults},
	}, rows
}

// config is a keeper's, as the world wants it.
func (w *world) config() Config {
	node, dir := w.node, "data-"+string(w.node)
	if node == "" || node == "node-a" {
		node, dir = "node-a", "data"
	}
	return Config{
		Node:     node,
		Host:     "host",
		Manifest: faultyManifest{w.meta, w.faults},
		Commands: faultyCommands{w.meta, w.faults},
		Store:    faultyStore{w.folder, w.faults},
		Sources:  append([]source.Source{w.src}, w.more...),
		Dir:      w.mkdir(dir),
		Now:      w.clock.Now,
		Logger:   slog.New(slog.NewJSONHandler(w.log, nil)),

		DeleteSource:  !w.noDelete,
		DeleteGrace:   time.Hour,
		Workers:       1,
		DeleteWorkers: 1,
	}
}

// keeper returns a fresh keeper, as after a restart of the process.
func (w *world) keeper(edit func(*Config)) *Keeper {
	w.t.Helper()
	cfg := w.config()
	if edit != nil {
		edit(&cfg)
	}
	k, err := New(cfg)
	w.check(err)
	w.t.Cleanup(func() { w.check(k.Close()) })
	return k
}

// once runs a fresh keeper until there is nothing left to do.
func (w *world) once(edit func(*Config)) {
	w.t.Helper()
	w.check(w.keeper(edit).Once(w.t.Context()))
}

func (w *world) path(name string) string { return filepath.Join(w.root, name) }

func (w *world) write(path, content string) {
	w.t.Helper()
	w.check(os.MkdirAll(filepath.Dir(path), 0o700))
	w.check(os.WriteFile(path, []byte(content), 0o600))
}

// register writes files that hold their own names and marks their rows.
func (w *world) register(names ...string) {
	w.t.Helper()
	for _, n := range names {
		w.write(w.path(n), "content of "+n)
	}
	w.registerIn(w.rows, w.root, names...)
}

// registerIn registers files that stand below dir and marks their rows.
func (w *world) registerIn(rows *source.SQLite, dir string, names ...string) {
	w.t.Helper()
	var files []source.File
	for _, n := range names {
		path := filepath.Join(dir, n)
		o, err := source.NewFolders(func() []string { return []string{dir} }).Open(w.t.Context(), path)
		w.check(err)
		info := o.Info()
		w.check(o.Close())
		if w.oneInode {
			info.FileID = theInode
		}
		files = append(files, source.File{Name: n, Path: path, Size: info.Size, ModTime: info.ModTime, FileID: info.FileID})
	}
	_, err := rows.Register(w.t.Context(), files)
	w.check(err)
	w.mark(rows)
}

func (w *world) mark(rows *source.SQLite) {
	w.t.Helper()
	eligible, err := rows.Eligible(w.t.Context(), w.clock.Now(), "", source.MaxBatch)
	w.check(err)
	for i := range eligible {
		eligible[i].DesName = eligible[i].Name
	}
	_, err = rows.Mark(w.t.Context(), eligible, raftmetaMarking(w))
	w.check(err)
}

func raftmetaMarking(w *world) source.Marking {
	v := w.meta.View()
	return source.Marking{At: w.clock.Now(), Cluster: v.Cluster(), ShardBits: v.ShardBits()}
}

// pack builds and commits a pack of all MARKED rows of the sources.
func (w *world) pack() *raftmeta.Pack {
	w.t.Helper()
	ctx := w.t.Context()
	type item struct {
		row source.Row
		src source.Source
	}
	var items []item
	for _, s := range append([]source.Source{w.src}, w.more...) {
		rows, err := s.Rows.Marked(ctx, desformat.Range{}, source.After{Hash: -1}, source.Due{Now: w.clock.Now()}, source.MaxBatch)
		w.check(err)
		for _, r := range rows {
			items = append(items, item{r, s})
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		x, y := desformat.HashName(a.row.DesName), desformat.HashName(b.row.DesName)
		return bytes.Compare(x[:], y[:])
	})
	var added *raftmeta.Pack
	job := raftmeta.Job{Kind: raftmeta.JobPack}
	w.check(w.meta.WithLease(ctx, job, func(ctx context.Context, l raftmeta.Lease) error {
		f, err := os.CreateTemp(w.mkdir("spool"), "")
		w.check(err)
		defer func() { w.check(f.Close()) }()
		id := newPackID()
		created := w.clock.Now()
		dw, err := desformat.NewWriter(f, desformat.WriterConfig{Pack: id, Cluster: w.meta.View().Cluster(), Token: l.Token, Created: created})
		w.check(err)
		for _, it := range items {
			content, err := it.src.Files.Open(ctx, it.row.Path)
			w.check(err)
			_, err = dw.Append(desformat.Record{
				Type: desformat.TypeFile, Name: it.row.DesName, Seq: l.Token, Source: it.src.Name, ID: it.row.ID,
				Version: it.row.Version, ModTime: it.row.ModTime, SourceSize: it.row.Size, SourceTime: it.row.ModTime,
			}, content)
			w.check(errors.Join(err, content.Close()))
		}
		footer, err := dw.Seal()
		w.check(err)
		added, err = w.commit(ctx, l, f, footer, created)
		return err
	}))
	return added
}

// commit uploads a sealed pack and adds it to the manifest.
func (w *world) commit(ctx context.Context, l raftmeta.Lease, body store.Body, f desformat.Footer, created time.Time) (*raftmeta.Pack, error) {
	key := w.upload(ctx, l, f.Pack, body, f.Size)
	if w.uploaded != nil {
		w.uploaded()
	}
	obj, err := w.folder.Head(ctx, key, "")
	w.check(err)
	return w.meta.AddPack(ctx, raftmeta.Pack{
		ID: f.Pack, Token: l.Token, Range: f.Range, Size: f.Size, SHA256: f.SHA256,
		Records: f.Records, PayloadBytes: f.PayloadBytes, Catalog: f.Catalog, Index: f.Index,
		MinSeq: f.MinSeq, MaxSeq: f.MaxSeq, Created: created,
		Copies: []raftmeta.Copy{{Key: key, Version: obj.Version}},
	})
}

// upload announces an object and puts it.
func (w *world) upload(ctx context.Context, l raftmeta.Lease, id desformat.PackID, body store.Body, size int64) string {
	w.t.Helper()
	key := desformat.PackKey(l.Job.Range, l.Token, id)
	w.check(w.meta.BeginUpload(ctx, raftmeta.Upload{Key: key, Pack: id, Token: l.Token, BeganAt: w.clock.Now()}))
	if body != nil {
		_, err := w.folder.Put(ctx, key, body, size)
		w.check(err)
	}
	return key
}

func newPackID() (id desformat.PackID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// archived registers, packs and acknowledges files, and lets the grace pass.
func (w *world) archived(names ...string) *raftmeta.Pack {
	w.t.Helper()
	w.register(names...)
	return w.archive()
}

// archive packs and acknowledges what is MARKED, and lets the grace pass.
func (w *world) archive() *raftmeta.Pack {
	w.t.Helper()
	p := w.pack()
	w.check(w.keeper(nil).Acknowledge(w.t.Context(), p))
	w.clock.advance(2 * time.Hour)
	return w.meta.View().Pack(p.ID)
}

func (w *world) row(name string) source.Row { return w.rowIn(w.rows, name) }

func (w *world) rowIn(rows *source.SQLite, name string) source.Row {
	w.t.Helper()
	r, err := rows.ByName(w.t.Context(), name)
	w.check(err)
	return r
}

// wantRow holds a row's state and error code against what is expected.
func (w *world) wantRow(name string, state source.State, code string) {
	w.t.Helper()
	if r := w.row(name); r.State != state || r.ErrorCode != code {
		w.t.Errorf("row %s is %s %q (%s), want %s %q", name, r.State, r.ErrorCode, r.ErrorText, state, code)
	}
}

// wantFile holds a file against its content; "" means that it must not exist.
func (w *world) wantFile(path, content string) {
	w.t.Helper()
	b, err := os.ReadFile(path)
	switch {
	case content == "" && os.IsNotExist(err):
	case err != nil, string(b) != content:
		w.t.Errorf("%s holds %q, %v; want %q", path, b, err, content)
	}
}

// hidden returns the quarantined files below the root.
func (w *world) hidden() (paths []string) {
	w.t.Helper()
	w.check(filepath.WalkDir(w.root, func(path string, d os.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".desnode-quarantine-") {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

// edit changes a file's bytes and keeps its size and mtime.
func (w *world) edit(path, content string) {
	w.t.Helper()
	fi, err := os.Stat(path)
	w.check(err)
	if int64(len(content)) != fi.Size() {
		w.t.Fatalf("%s has %d bytes, the edit %d", path, fi.Size(), len(content))
	}
	w.write(path, content)
	w.check(os.Chtimes(path, fi.ModTime(), fi.ModTime()))
}

// stored reads a record's content out of the pack in the store.
func (w *world) stored(p *raftmeta.Pack, name string) (string, error) {
	ctx := w.t.Context()
	f := objectFetcher{w.folder, p.Copies[0].Key, p.Copies[0].Version}
	for e, err := range desformat.ReadCatalog(ctx, f, p.Catalog) {
		if err != nil {
			return "", err
		}
		if e.Name != name || p.IsDead(e.Ordinal) {
			continue
		}
		r, err := desformat.OpenRecord(ctx, f, e.Location)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(r)
		return string(b), errors.Join(err, r.Close())
	}
	return "", os.ErrNotExist
}

// spoil flips one byte of a stored pack and keeps the file's time, which is
// the version: what a failing disk does.
func (w *world) spoil(p *raftmeta.Pack, offset int64) {
	w.t.Helper()
	path := filepath.Join(w.dir, "store", filepath.FromSlash(p.Copies[0].Key))
	fi, err := os.Stat(path)
	w.check(err)
	b, err := os.ReadFile(path)
	w.check(err)
	b[offset] ^= 0x40
	w.check(os.Chmod(path, 0o600))
	w.check(os.WriteFile(path, b, 0o600))
	w.check(os.Chtimes(path, fi.ModTime(), fi.ModTime()))
}
