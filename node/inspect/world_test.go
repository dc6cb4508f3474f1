package inspect

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testNode raftmeta.NodeID = "node-a"

// clock is the time of a test.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
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

// overlay is a source's table as a restored or meddled-with database would show
// it: real rows, some of them changed, missing or added.
type overlay struct {
	*source.SQLite
	change map[string]func(*source.Row) // by id
	lose   map[string]bool
	add    []source.Row
	err    error  // of every method, once set
	listed func() // called after each batch of Rows
}

func (o *overlay) seen(rows []source.Row) []source.Row {
	var out []source.Row
	for _, r := range rows {
		if o.lose[r.ID] {
			continue
		}
		if f := o.change[r.ID]; f != nil {
			f(&r)
		}
		out = append(out, r)
	}
	return out
}

func (o *overlay) Rows(ctx context.Context, after string, limit int) ([]source.Row, error) {
	if o.err != nil {
		return nil, o.err
	}
	rows, err := o.SQLite.Rows(ctx, after, limit)
	out := o.seen(rows)
	if after == "" {
		out = append(slices.Clone(o.add), out...)
	}
	if o.listed != nil && len(out) > 0 {
		o.listed()
	}
	return out, err
}

func (o *overlay) ByIDs(ctx context.Context, ids []string) ([]source.Row, error) {
	if o.err != nil {
		return nil, o.err
	}
	var own []string
	var out []source.Row
	for _, id := range ids {
		if i := slices.IndexFunc(o.add, func(r source.Row) bool { return r.ID == id }); i >= 0 {
			out = append(out, o.add[i])
			continue
		}
		own = append(own, id)
	}
	if len(own) == 0 {
		return out, nil
	}
	rows, err := o.SQLite.ByIDs(ctx, own)
	return append(out, o.seen(rows)...), err
}

func (o *overlay) FailureTally(ctx context.Context) (map[string]source.Tally, error) {
	if o.err != nil {
		return nil, o.err
	}
	return o.SQLite.FailureTally(ctx)
}

// manifest is a Local whose confirmations may fail.
type manifest struct {
	*raftmeta.Local
	err error
}

func (m *manifest) Confirm(ctx context.Context) (*raftmeta.View, error) {
	if m.err != nil {
		return nil, m.err
	}
	return m.Local.Confirm(ctx)
}

// upkeep is a real keeper in the words of this package.
type upkeep struct{ *keeper.Keeper }

func (u upkeep) CutDeletions() (out []CutDeletion) {
	for _, c := range u.Keeper.CutDeletions() {
		out = append(out, CutDeletion(c))
	}
	return out
}

func (u upkeep) Quarantined(v *raftmeta.View) (out []Quarantined, err error) {
	list, err := u.Keeper.Quarantined(v)
	for _, q := range list {
		out = append(out, Quarantined(q))
	}
	return out, err
}

// parts are the open uploads of a store.
type parts struct {
	open []store.Upload
	err  error
}

func (p *parts) Uploads(_ context.Context, prefix string, f func(store.Upload) error) error {
	if p.err != nil {
		return p.err
	}
	for _, u := range p.open {
		if strings.HasPrefix(u.Key, prefix) {
			if err := f(u); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *parts) Abort(_ context.Context, u store.Upload) error {
	p.open = slices.DeleteFunc(p.open, func(o store.Upload) bool { return o == u })
	return nil
}

// world is a small archive: real rows and files, a real state machine, a real
// keeper, and a store in memory.
type world struct {
	t      *testing.T
	root   string
	clock  clock
	store  *storetest.Fake
	meta   *manifest
	rows   *overlay
	src    source.Source
	keeper *keeper.Keeper
	parts  *parts
	cfg    Config // of what is made next
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), store: storetest.NewFake(t), parts: &parts{}}
	w.clock.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	local, err := raftmeta.OpenLocal(raftmeta.LocalConfig{Node: testNode, Cluster: desformat.ClusterID{1, 2, 3}, Journal: &raftmeta.Journal{}})
	w.check(err)
	w.meta = &manifest{Local: local}
	w.check(local.PutMember(t.Context(), raftmeta.Member{ID: testNode}))
	w.src, w.rows = w.source("files")
	w.keeper = w.newKeeper(w.src)
	w.cfg = Config{
		Node: testNode, Manifest: w.meta, Store: w.store, Sources: []Source{{Name: "files", Rows: w.rows}},
		Upkeep: w.keeper, Log: upkeep{w.keeper}, Uploads: w.parts, Now: w.clock.Now,
	}
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// source opens an embedded source whose files stand below the world's root.
func (w *world) source(name string) (source.Source, *overlay) {
	w.t.Helper()
	rows, err := source.OpenSQLite(w.t.Context(), source.SQLiteConfig{Name: name, Path: filepath.Join(w.t.TempDir(), name+".db")})
	w.check(err)
	w.t.Cleanup(func() { w.check(rows.Close()) })
	o := &overlay{SQLite: rows, change: map[string]func(*source.Row){}, lose: map[string]bool{}}
	return source.Source{Name: name, Rows: rows, Files: source.NewFolders(func() []string { return []string{w.root} })}, o
}

func (w *world) newKeeper(sources ...source.Source) *keeper.Keeper {
	w.t.Helper()
	k, err := keeper.New(keeper.Config{
		Node: testNode, Host: "host", Manifest: w.meta, Commands: w.meta, Store: w.store, Sources: sources, Dir: w.t.TempDir(),
		Uploads: w.parts, DeleteSource: true, DeleteGrace: time.Hour, Workers: 1, DeleteWorkers: 1, Now: w.clock.Now,
	})
	w.check(err)
	w.t.Cleanup(func() { w.check(k.Close()) })
	return k
}

func (w *world) inspector() *Inspector {
	w.t.Helper()
	i, err := New(w.cfg)
	w.check(err)
	return i
}

// register writes files that hold their own names, and marks their rows.
func (w *world) register(names ...string) {
	w.t.Helper()
	var files []source.File
	for _, n := range names {
		path := filepath.Join(w.root, n)
		w.check(os.WriteFile(path, []byte("content of "+n), 0o600))
		f, err := source.Listed(w.root, n)
		w.check(err)
		files = append(files, f)
	}
	_, err := w.rows.Register(w.t.Context(), files)
	w.check(err)
	w.mark()
}

func (w *world) mark() {
	w.t.Helper()
	rows, err := w.rows.Eligible(w.t.Context(), w.clock.Now(), "", source.MaxBatch)
	w.check(err)
	for i := range rows {
		rows[i].DesName = rows[i].Name
	}
	v := w.meta.View()
	_, err = w.rows.Mark(w.t.Context(), rows, source.Marking{At: w.clock.Now(), Cluster: v.Cluster(), ShardBits: v.ShardBits()})
	w.check(err)
}

// build makes a pack of the MARKED rows in memory, under a lease.
func (w *world) build(l raftmeta.Lease) (footer desformat.Footer, body *bytes.Reader) {
	w.t.Helper()
	ctx := w.t.Context()
	rows, err := w.rows.Marked(ctx, desformat.Range{}, source.After{Hash: -1}, source.Due{Now: w.clock.Now()}, source.MaxBatch)
	w.check(err)
	f, err := os.Create(filepath.Join(w.t.TempDir(), "pack"))
	w.check(err)
	defer func() { w.check(f.Close()) }()
	var id desformat.PackID
	_, _ = rand.Read(id[:]) // never fails
	out, err := desformat.NewWriter(f, desformat.WriterConfig{Pack: id, Cluster: w.meta.View().Cluster(), Token: l.Token, Created: w.clock.Now()})
	w.check(err)
	for _, r := range rows {
		content, err := w.src.Files.Open(ctx, r.Path)
		w.check(err)
		_, err = out.Append(desformat.Record{
			Type: desformat.TypeFile, Name: r.DesName, Seq: l.Token, Source: "files", ID: r.ID, Version: r.Version,
			ModTime: r.ModTime, SourceSize: r.Size, SourceTime: r.ModTime,
		}, content)
		w.check(errors.Join(err, content.Close()))
	}
	footer, err = out.Seal()
	w.check(err)
	b, err := os.ReadFile(f.Name())
	w.check(err)
	return footer, bytes.NewReader(b)
}

// upload announces and puts a pack of the MARKED rows.
func (w *world) upload(ctx context.Context, l raftmeta.Lease) (key string, f desformat.Footer, o store.Object) {
	w.t.Helper()
	f, body := w.build(l)
	key = desformat.PackKey(l.Job.Range, l.Token, f.Pack)
	w.check(w.meta.BeginUpload(ctx, raftmeta.Upload{Key: key, Pack: f.Pack, Token: l.Token, BeganAt: w.clock.Now()}))
	o, err := w.store.Put(ctx, key, body, f.Size)
	w.check(err)
	return key, f, o
}

// pack commits a pack of the MARKED rows.
func (w *world) pack() (added *raftmeta.Pack) {
	w.t.Helper()
	w.check(w.meta.WithLease(w.t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) (err error) {
		key, f, o := w.upload(ctx, l)
		added, err = w.meta.AddPack(ctx, raftmeta.Pack{
			ID: f.Pack, Token: l.Token, Range: f.Range, Size: f.Size, SHA256: f.SHA256, Records: f.Records, PayloadBytes: f.PayloadBytes,
			Catalog: f.Catalog, Index: f.Index, MinSeq: f.MinSeq, MaxSeq: f.MaxSeq, Created: f.Created,
			Copies: []raftmeta.Copy{{Key: key, Version: o.Version}},
		})
		return err
	}))
	return added
}

// abandon uploads a pack that nobody commits.
func (w *world) abandon() (key string) {
	w.t.Helper()
	w.check(w.meta.WithLease(w.t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		key, _, _ = w.upload(ctx, l)
		return nil
	}))
	return key
}

// archived registers, packs, acknowledges and verifies files.
func (w *world) archived(names ...string) *raftmeta.Pack {
	w.t.Helper()
	w.register(names...)
	p := w.pack()
	w.check(w.keeper.Acknowledge(w.t.Context(), p))
	_, err := w.keeper.VerifyNow(w.t.Context(), p.ID)
	w.check(err)
	return w.meta.View().Pack(p.ID)
}

func (w *world) row(name string) source.Row {
	w.t.Helper()
	r, err := w.rows.ByName(w.t.Context(), name)
	w.check(err)
	return r
}

// compare returns what a comparison finds, as "severity kind subject".
func (w *world) compare(opts CompareOptions) (diffs []Difference, n Counts) {
	w.t.Helper()
	n, err := w.inspector().Compare(w.t.Context(), opts, func(d Difference) error {
		if d.Found == "" || d.Cure == "" || d.Subject == "" || !slices.Contains(DifferenceKinds(), d.Kind) || !slices.Contains(severities[:], d.Severity) {
			w.t.Errorf("a difference that says too little: %+v", d)
		}
		diffs = append(diffs, d)
		return nil
	})
	w.check(err)
	return diffs, n
}

func (w *world) wantDifferences(opts CompareOptions, want ...string) []Difference {
	w.t.Helper()
	diffs, n := w.compare(opts)
	var got []string
	for _, d := range diffs {
		got = append(got, fmt.Sprintf("%s %s %s", d.Severity, d.Kind, d.Subject))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("found\n  %s\nwant\n  %s\n%+v", strings.Join(got, "\n  "), strings.Join(want, "\n  "), diffs)
	}
	if sum := n.Notes + n.Repairable + n.AtRisk; sum != int64(len(diffs)) {
		w.t.Errorf("counted %d differences, told %d", sum, len(diffs))
	}
	return diffs
}
