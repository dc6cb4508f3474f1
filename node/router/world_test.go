package router

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/transport"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// world is a cluster in memory: one store, one source, the history of one
// manifest, and nodes that have each applied a beginning of it.
type world struct {
	tb    testing.TB
	store *storetest.Fake
	rows  *rows
	files files
	order owners
	nodes map[ring.NodeID]*node
	packs uint64 // built so far

	quorum atomic.Bool

	mu     sync.Mutex
	states []*view // guarded by mu: by Raft index; states[0] is empty
}

// newWorld makes a cluster whose shards all have the owners named, best first,
// and who are all its nodes.
func newWorld(tb testing.TB, ids ...ring.NodeID) *world {
	tb.Helper()
	w := &world{
		tb: tb, store: storetest.NewFake(tb), rows: &rows{}, files: files{}, order: ids,
		nodes: map[ring.NodeID]*node{}, states: []*view{{}},
	}
	w.quorum.Store(true)
	w.store.SetNoList()
	for _, id := range ids {
		w.start(id, nil)
	}
	return w
}

// node is one node: its view, its retriever and the router before it.
type node struct {
	w      *world
	id     ring.NodeID
	at     atomic.Uint64 // Raft index applied
	gets   atomic.Int64  // requests of this node to the store
	asked  atomic.Int64  // requests of other nodes to this one
	local  *retriever.Retriever
	router *Router

	mu   sync.Mutex
	hook func(ctx context.Context, to ring.NodeID, q *transport.Request) error // guarded by mu: before this node's questions
	edit func(a *transport.Answer)                                             // guarded by mu: of the answers this node gets
}

// start makes a node, in place of one of that id: as of a process that has just
// started and has applied everything.
func (w *world) start(id ring.NodeID, change func(*Config)) *node {
	w.tb.Helper()
	n := &node{w: w, id: id}
	n.at.Store(w.head())
	var err error
	n.local, err = retriever.New(retriever.Config{
		Manifest: n, Store: n,
		Sources: func() []retriever.Source {
			return []retriever.Source{{Name: "files", Rows: w.rows, Files: w.files}}
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	cfg := Config{Self: id, Ring: w.order, Peers: n, Local: n.local, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	if n.router, err = New(cfg); err != nil {
		w.tb.Fatal(err)
	}
	w.nodes[id] = n
	return n
}

// owners are the same for every shard.
type owners []ring.NodeID

func (o owners) Owners(_ uint32, n int) []ring.NodeID { return o[:min(n, len(o))] }

// --- the manifest's history

func (w *world) head() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return uint64(len(w.states) - 1)
}

func (w *world) state(index uint64) *view {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[index]
}

// commit makes the next state of the last one, and has all nodes apply it but
// those named.
func (w *world) commit(change func(packs []*raftmeta.Pack, index uint64) []*raftmeta.Pack, but ...ring.NodeID) {
	w.mu.Lock()
	index := uint64(len(w.states))
	packs := change(slices.Clone(w.states[index-1].packs), index)
	w.states = append(w.states, &view{packs, index})
	w.mu.Unlock()
	for id, n := range w.nodes {
		if !slices.Contains(but, id) {
			n.at.Store(index)
		}
	}
}

// add commits a pack of the versions.
func (w *world) add(versions ...version) *raftmeta.Pack { return w.addBut(nil, versions...) }

// addBut is add that some nodes do not hear of.
func (w *world) addBut(but []ring.NodeID, versions ...version) *raftmeta.Pack {
	w.tb.Helper()
	p := w.pack(versions)
	w.commit(func(packs []*raftmeta.Pack, index uint64) []*raftmeta.Pack {
		p.AddIndex, p.ModIndex = index, index
		return append(packs, p)
	}, but...)
	return p
}

// merge commits a pack of the versions in place of those named.
func (w *world) merge(but []ring.NodeID, inputs []*raftmeta.Pack, versions ...version) *raftmeta.Pack {
	w.tb.Helper()
	merged := w.pack(versions)
	w.commit(func(packs []*raftmeta.Pack, index uint64) []*raftmeta.Pack {
		merged.AddIndex, merged.ModIndex = index, index
		for i, p := range packs {
			if slices.ContainsFunc(inputs, func(in *raftmeta.Pack) bool { return in.ID == p.ID }) {
				replaced := *p
				replaced.ReplacedBy, replaced.ModIndex = merged.ID, index
				packs[i] = &replaced
			}
		}
		return append(packs, merged)
	}, but...)
	return merged
}

// kill commits that a record of a pack is dead.
func (w *world) kill(but []ring.NodeID, pack *raftmeta.Pack, ordinal uint32) {
	w.commit(func(packs []*raftmeta.Pack, index uint64) []*raftmeta.Pack {
		for i, p := range packs {
			if p.ID == pack.ID {
				dead := *p
				dead.Dead, dead.ModIndex = []uint32{ordinal}, index
				packs[i] = &dead
			}
		}
		return packs
	}, but...)
}

// remove commits that a pack has left.
func (w *world) remove(but []ring.NodeID, pack *raftmeta.Pack) {
	w.commit(func(packs []*raftmeta.Pack, _ uint64) []*raftmeta.Pack {
		return slices.DeleteFunc(packs, func(p *raftmeta.Pack) bool { return p.ID == pack.ID })
	}, but...)
}

// view is the manifest at one index.
type view struct {
	packs   []*raftmeta.Pack
	applied uint64
}

func (v view) Covering(h desformat.NameHash, dst []*raftmeta.Pack) []*raftmeta.Pack {
	start := len(dst)
	for _, p := range v.packs {
		if p.ReplacedBy.IsZero() && p.Range.Contains(h) {
			dst = append(dst, p)
		}
	}
	slices.SortStableFunc(dst[start:], func(a, b *raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) })
	return dst
}

func (v view) Packs() iter.Seq[*raftmeta.Pack] { return slices.Values(v.packs) }
func (v view) ShardBits() uint8                { return 10 }
func (v view) Applied() uint64                 { return v.applied }

// View, Confirm and Changed make a node the manifest of its retriever.
func (n *node) View() retriever.View { return n.w.state(n.at.Load()) }

func (n *node) Confirm(context.Context) (retriever.View, error) {
	if !n.w.quorum.Load() {
		return nil, raftmeta.ErrUnconfirmed
	}
	n.at.Store(n.w.head())
	return n.View(), nil
}

func (n *node) Changed() <-chan struct{} { return nil }

// Get makes a node the store of its retriever.
func (n *node) Get(ctx context.Context, key, version string, off, length int64) (io.ReadCloser, error) {
	n.gets.Add(1)
	return n.w.store.Get(ctx, key, version, off, length)
}

// Head is asked of objects that seem damaged.
func (n *node) Head(ctx context.Context, key, version string) (store.Object, error) {
	return n.w.store.Head(ctx, key, version)
}

// --- packs

// version is one record to pack, or to find.
type version struct {
	name    string
	seq     uint64
	content string
	id      string
	kind    desformat.RecordType
	meta    desformat.Metadata
	mod     func() time.Time // nil: epoch
}

func (v version) modified() time.Time {
	if v.mod == nil {
		return epoch
	}
	return v.mod()
}

func tombstone(name string, seq uint64) version {
	return version{name: name, seq: seq, kind: desformat.TypeTombstone}
}

func token(seq uint64) desformat.Token { return desformat.Token{Generation: 1, Index: seq} }

// idOf is the id of a name's row, where a test names no other.
func idOf(name string) string { return fmt.Sprintf("%.16s", desformat.HashName("id of "+name)) }

// pack builds a pack of the whole hash space and stores it.
func (w *world) pack(versions []version) *raftmeta.Pack {
	w.tb.Helper()
	w.packs++
	cfg := desformat.WriterConfig{Token: token(1000 + w.packs), Created: epoch}
	binary.BigEndian.PutUint64(cfg.Pack[8:], w.packs)
	versions = slices.Clone(versions)
	slices.SortStableFunc(versions, func(a, b version) int {
		x, y := desformat.HashName(a.name), desformat.HashName(b.name)
		return bytes.Compare(x[:], y[:])
	})
	var f memFile
	writer, err := desformat.NewWriter(&f, cfg)
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, v := range versions {
		if _, err := writer.Append(desformat.Record{
			Type: cmp.Or(v.kind, desformat.TypeFile), Name: v.name, Seq: token(v.seq), Source: "files",
			ID: cmp.Or(v.id, idOf(v.name)), Version: uint32(v.seq), ModTime: v.modified(), Meta: v.meta,
		}, bytes.NewReader([]byte(v.content))); err != nil {
			w.tb.Fatal(err)
		}
	}
	footer, err := writer.Seal()
	if err != nil {
		w.tb.Fatal(err)
	}
	key := desformat.PackKey(cfg.Range, cfg.Token, cfg.Pack)
	object, err := w.store.Put(context.Background(), key, bytes.NewReader(f.b), int64(len(f.b)))
	if err != nil {
		w.tb.Fatal(err)
	}
	return &raftmeta.Pack{
		ID: footer.Pack, Token: footer.Token, Range: footer.Range, Size: footer.Size, SHA256: footer.SHA256, Records: footer.Records,
		PayloadBytes: footer.PayloadBytes, Catalog: footer.Catalog, Index: footer.Index, MinSeq: footer.MinSeq, MaxSeq: footer.MaxSeq,
		Created: footer.Created, Acknowledged: true, Copies: []raftmeta.Copy{{Key: key, Version: object.Version}},
	}
}

// memFile is a desformat.File in memory.
type memFile struct{ b []byte }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(f.b)) {
		f.b = append(f.b, make([]byte, end-int64(len(f.b)))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Truncate(size int64) error {
	f.b = append(f.b[:min(size, int64(len(f.b)))], make([]byte, max(0, size-int64(len(f.b))))...)
	return nil
}

// long returns n bytes that differ from one seed to another.
func long(seed string, n int) string {
	b := make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256([]byte(seed)); len(b) < n; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return string(b[:n])
}

// --- the source

// rows is the table of the source.
type rows struct {
	mu    sync.Mutex
	rows  []source.Row // guarded by mu
	down  bool         // guarded by mu
	asked int          // guarded by mu
}

func (t *rows) find(match func(source.Row) bool) (source.Row, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked++
	if t.down {
		return source.Row{}, errors.New("database is down")
	}
	if i := slices.IndexFunc(t.rows, match); i >= 0 {
		return t.rows[i], nil
	}
	return source.Row{}, source.ErrNotFound
}

func (t *rows) ByName(_ context.Context, name string) (source.Row, error) {
	return t.find(func(r source.Row) bool { return r.DesName == name || r.DesName == "" && r.Name == name })
}

func (t *rows) ByID(_ context.Context, id string) (source.Row, error) {
	return t.find(func(r source.Row) bool { return r.ID == id })
}

func (t *rows) set(rows ...source.Row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = rows
}

func (t *rows) questions() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asked
}

// row is the row of an archived file.
func row(name, id string) source.Row {
	return source.Row{Source: "files", ID: id, Name: name, DesName: name, Path: "/" + name, State: source.Packed}
}

// files are the source's originals, by path.
type files map[string]string

func (f files) Open(_ context.Context, path string) (source.Original, error) {
	b, ok := f[path]
	if !ok {
		return nil, source.ErrNoFile
	}
	return &original{bytes.NewReader([]byte(b))}, nil
}

type original struct{ *bytes.Reader }

func (o *original) Close() error { return nil }

func (o *original) Info() source.Info { return source.Info{Size: o.Size(), ModTime: epoch} }

// --- questions between nodes

// Read makes a node the way to the other nodes: it hands the question to the
// other node's router, as transport would.
func (n *node) Read(ctx context.Context, to string, q transport.Request) (*transport.Answer, error) {
	if q.Hops != 0 {
		n.w.tb.Errorf("a read is passed on after %d hops", q.Hops)
	}
	q.Hops++
	n.mu.Lock()
	hook, edit := n.hook, n.edit
	n.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, ring.NodeID(to), &q); err != nil {
			return nil, err
		}
	}
	other := n.w.nodes[ring.NodeID(to)]
	if other == nil {
		return nil, transport.ErrUnreachable
	}
	other.asked.Add(1)
	reply, err := other.router.ServeRead(ctx, string(n.id), &q)
	if err != nil {
		return nil, overWire(err)
	}
	a := &transport.Answer{Response: reply.Response, Node: to}
	switch {
	case reply.Data != nil:
		a.Payload, a.Body = int64(len(reply.Data)), io.NopCloser(bytes.NewReader(reply.Data))
	case reply.Body != nil:
		a.Payload, a.Body = reply.Length, reply.Body
	}
	if edit != nil {
		edit(a)
	}
	return a, nil
}

// overWire leaves of an error what the other side gets of it.
func overWire(err error) error {
	var said *transport.RemoteError
	if errors.As(err, &said) {
		return said
	}
	for status := transport.StatusNotFound; status <= transport.StatusInternal; status++ {
		if e := (&transport.RemoteError{Status: status}); errors.Is(err, e.Unwrap()) {
			return e
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &transport.RemoteError{Status: transport.StatusTooLate}
	}
	return &transport.RemoteError{Status: transport.StatusInternal}
}

// asking sets what happens before each of the node's questions to others.
func (n *node) asking(hook func(ctx context.Context, to ring.NodeID, q *transport.Request) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = hook
}

// editing sets what becomes of the answers that the node gets.
func (n *node) editing(edit func(*transport.Answer)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.edit = edit
}

// failer is what is needed of a test: *testing.T, *testing.B and *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// read opens a name at a node and returns all of it.
func (n *node) read(ctx context.Context, name string) (string, error) {
	f, err := n.router.Open(ctx, name, retriever.Query{})
	if err != nil {
		return "", err
	}
	defer f.Close()
	return contentOf(ctx, &f, 0, f.Size())
}

func contentOf(ctx context.Context, f *retriever.File, off, n int64) (string, error) {
	if b, ok := f.Content(); ok {
		return string(b[off : off+n]), nil
	}
	body, err := f.Open(ctx, off, n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(body)
	return string(b), errors.Join(err, body.Close())
}

func (n *node) wantRead(tb failer, name, content string) {
	tb.Helper()
	got, err := n.read(tb.Context(), name)
	if err != nil {
		tb.Fatalf("node %s: read %q: %v", n.id, name, err)
	}
	if got != content {
		tb.Fatalf("node %s: read %q: %d bytes %.40q, want %d bytes %.40q", n.id, name, len(got), got, len(content), content)
	}
}

func (n *node) wantError(tb failer, name string, want error) {
	tb.Helper()
	if _, err := n.read(tb.Context(), name); !errors.Is(err, want) {
		tb.Fatalf("node %s: read %q: %v, want %v", n.id, name, err, want)
	}
}
