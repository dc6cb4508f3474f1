package retriever

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
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

var (
	epoch       = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	errInjected = errors.New("injected fault")
)

// world is everything around a retriever: a store with real packs, a manifest
// and one source.
type world struct {
	tb       testing.TB
	store    *storetest.Fake
	manifest *fakeManifest
	rows     *fakeRows
	files    *fakeFiles
	sources  []Source // asked in this order; the first is of rows and files
	packs    uint64   // built so far
}

func newWorld(tb testing.TB) *world {
	w := &world{
		tb: tb, store: storetest.NewFake(tb), manifest: &fakeManifest{changed: make(chan struct{})},
		rows: &fakeRows{}, files: &fakeFiles{content: map[string][]byte{}},
	}
	w.store.SetNoList()
	w.sources = []Source{{Name: "files", Rows: w.rows, Files: w.files}}
	return w
}

// retriever returns a fresh one, as of a process that just started.
func (w *world) retriever(change ...func(*Config)) *Retriever {
	w.tb.Helper()
	cfg := Config{
		Manifest: w.manifest, Store: w.store, Sources: func() []Source { return w.sources },
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		w.tb.Fatal(err)
	}
	return r
}

// gets returns the requests that f makes of the store.
func (w *world) gets(f func()) int64 {
	before := w.store.Counts()
	f()
	spent := w.store.Counts().Sub(before)
	if spent.Requests() != spent.Get {
		w.tb.Errorf("%d requests of which %d are GETs: reads need nothing else", spent.Requests(), spent.Get)
	}
	return spent.Get
}

// version is one record to pack.
type version struct {
	name    string
	seq     uint64
	content string
	id      string // "" means "id of <name>"
	kind    desformat.RecordType
}

func (v version) record() desformat.Record {
	return desformat.Record{
		Type: cmp.Or(v.kind, desformat.TypeFile), Name: v.name, Seq: token(v.seq), Source: "files",
		ID: cmp.Or(v.id, idOf(v.name)), Version: 1, ModTime: epoch,
	}
}

func idOf(name string) string { return fmt.Sprintf("%.16s", desformat.HashName("id of "+name)) }

func token(seq uint64) desformat.Token { return desformat.Token{Generation: 1, Index: seq} }

// pack builds a pack of the whole hash space and stores it; it is not in the
// manifest yet.
func (w *world) pack(versions ...version) *raftmeta.Pack {
	w.tb.Helper()
	return w.packOf(desformat.WriterConfig{}, versions...)
}

func (w *world) packOf(cfg desformat.WriterConfig, versions ...version) *raftmeta.Pack {
	w.tb.Helper()
	w.packs++
	binary.BigEndian.PutUint64(cfg.Pack[8:], w.packs)
	cfg.Token, cfg.Created = token(1000+w.packs), epoch
	b, footer := buildPack(w.tb, cfg, versions)
	key := desformat.PackKey(cfg.Range, cfg.Token, cfg.Pack)
	object, err := w.store.Put(w.tb.Context(), key, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		w.tb.Fatal(err)
	}
	return entryOf(footer, key, object.Version)
}

// entryOf is what the manifest keeps about a pack.
func entryOf(f desformat.Footer, key, objectVersion string) *raftmeta.Pack {
	return &raftmeta.Pack{
		ID: f.Pack, Token: f.Token, Range: f.Range, Size: f.Size, SHA256: f.SHA256, Records: f.Records,
		PayloadBytes: f.PayloadBytes, Catalog: f.Catalog, Index: f.Index, MinSeq: f.MinSeq, MaxSeq: f.MaxSeq,
		Created: f.Created, Acknowledged: true, Copies: []raftmeta.Copy{{Key: key, Version: objectVersion}},
	}
}

// buildPack returns the bytes of a sealed pack. Within equal names the order of
// versions is kept.
func buildPack(tb testing.TB, cfg desformat.WriterConfig, versions []version) ([]byte, desformat.Footer) {
	tb.Helper()
	sorted := slices.Clone(versions)
	slices.SortStableFunc(sorted, func(a, b version) int {
		x, y := desformat.HashName(a.name), desformat.HashName(b.name)
		return bytes.Compare(x[:], y[:])
	})
	var f memFile
	writer, err := desformat.NewWriter(&f, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	for _, v := range sorted {
		if _, err := writer.Append(v.record(), bytes.NewReader([]byte(v.content))); err != nil {
			tb.Fatal(err)
		}
	}
	footer, err := writer.Seal()
	if err != nil {
		tb.Fatal(err)
	}
	return f.b, footer
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

// fakeView is an immutable list of packs.
type fakeView []*raftmeta.Pack

func (v fakeView) Covering(h desformat.NameHash, dst []*raftmeta.Pack) []*raftmeta.Pack {
	start := len(dst)
	for _, p := range v {
		if p.ReplacedBy.IsZero() && p.Range.Contains(h) {
			dst = append(dst, p)
		}
	}
	slices.SortStableFunc(dst[start:], func(a, b *raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) })
	return dst
}

func (v fakeView) Packs() iter.Seq[*raftmeta.Pack] { return slices.Values(v) }

func (v fakeView) ShardBits() uint8 { return 10 }

func (v fakeView) Applied() (index uint64) {
	for _, p := range v {
		index = max(index, p.AddIndex, p.ModIndex)
	}
	return index
}

// fakeManifest is a manifest whose view a test sets.
type fakeManifest struct {
	mu        sync.Mutex
	view      fakeView                                // guarded by mu
	changed   chan struct{}                           // guarded by mu
	onConfirm func(context.Context) (fakeView, error) // guarded by mu; nil: the view
	confirms  int                                     // guarded by mu
}

func (m *fakeManifest) View() View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.view
}

func (m *fakeManifest) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

func (m *fakeManifest) Confirm(ctx context.Context) (View, error) {
	m.mu.Lock()
	m.confirms++
	confirm, v := m.onConfirm, m.view
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if confirm == nil {
		return v, nil
	}
	v, err := confirm(ctx)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (m *fakeManifest) set(packs ...*raftmeta.Pack) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view = packs
	close(m.changed)
	m.changed = make(chan struct{})
}

// confirming makes f answer for the quorum.
func (m *fakeManifest) confirming(f func(context.Context) (fakeView, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onConfirm = f
}

func (m *fakeManifest) confirmed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.confirms
}

// withoutQuorum is the answer of a manifest that has none.
func withoutQuorum(context.Context) (fakeView, error) { return nil, raftmeta.ErrUnconfirmed }

// fakeRows are the rows of a source: those given, or what hook says.
type fakeRows struct {
	mu    sync.Mutex
	rows  []source.Row                    // guarded by mu
	err   error                           // guarded by mu: of every question
	hook  func(ctx context.Context) error // guarded by mu: called before each answer
	asked int                             // guarded by mu
}

func (s *fakeRows) find(ctx context.Context, match func(source.Row) bool) (source.Row, error) {
	s.mu.Lock()
	s.asked++
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return source.Row{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return source.Row{}, s.err
	}
	for _, row := range s.rows {
		if match(row) {
			return row, nil
		}
	}
	return source.Row{}, fmt.Errorf("asked: %w", source.ErrNotFound)
}

func (s *fakeRows) ByName(ctx context.Context, name string) (source.Row, error) {
	return s.find(ctx, func(r source.Row) bool {
		return r.DesName == name || r.DesName == "" && r.State == source.Active && r.Name == name
	})
}

func (s *fakeRows) ByID(ctx context.Context, id string) (source.Row, error) {
	return s.find(ctx, func(r source.Row) bool { return r.ID == id })
}

func (s *fakeRows) set(rows ...source.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = rows
}

func (s *fakeRows) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *fakeRows) before(hook func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *fakeRows) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// row is a row of the world's source for the file of a name, at path /<name>.
func row(name string, state source.State) source.Row {
	r := source.Row{Source: "files", ID: idOf(name), Name: name, Path: "/" + name, State: state}
	if state != source.Active {
		r.DesName = name
	}
	return r
}

// fakeFiles are the files of a source.
type fakeFiles struct {
	content map[string][]byte
	err     error
	before  func() // called once, before the next open
	opens   int
}

func (s *fakeFiles) Open(_ context.Context, path string) (source.Original, error) {
	s.opens++
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	if s.err != nil {
		return nil, s.err
	}
	b, ok := s.content[path]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", path, source.ErrNoFile)
	}
	return &fakeOriginal{bytes.NewReader(b)}, nil
}

type fakeOriginal struct{ *bytes.Reader }

func (o *fakeOriginal) Close() error { return nil }

func (o *fakeOriginal) Info() source.Info {
	return source.Info{Size: o.Reader.Size(), ModTime: epoch}
}

// read opens a name and returns all of it.
func read(ctx context.Context, r *Retriever, name string) (string, error) {
	f, err := r.Open(ctx, name, Query{})
	if err != nil {
		return "", err
	}
	defer f.Close()
	return contentOf(ctx, &f)
}

// contentOf returns the whole content of an open file.
func contentOf(ctx context.Context, f *File) (string, error) {
	if b, ok := f.Content(); ok {
		return string(b), nil
	}
	return part(ctx, f, 0, f.Size())
}

func part(ctx context.Context, f *File, off, n int64) (string, error) {
	body, err := f.Open(ctx, off, n)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(body)
	return string(b), errors.Join(err, body.Close())
}

// failer is what is needed of a test: *testing.T, *testing.B and *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// wantRead fails the test unless name reads as content.
func wantRead(tb failer, r *Retriever, name, content string) {
	tb.Helper()
	got, err := read(tb.Context(), r, name)
	if err != nil {
		tb.Fatalf("read %q: %v", name, err)
	}
	if got != content {
		tb.Fatalf("read %q: %d bytes %.40q, want %d bytes %.40q", name, len(got), got, len(content), content)
	}
}

// wantError fails the test unless reading name ends with the error want and
// with no other one of this package's.
func wantError(tb failer, r *Retriever, name string, want error) {
	tb.Helper()
	f, err := r.Open(tb.Context(), name, Query{})
	if err == nil {
		f.Close()
	}
	wantOnly(tb, err, want)
}

func wantOnly(tb failer, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("error %v, want %v", err, want)
	}
	for _, other := range []error{ErrNotFound, ErrGone, ErrUnavailable, ErrUnconfirmed, ErrBusy, desformat.ErrCorrupt} {
		if !errors.Is(want, other) && errors.Is(err, other) {
			tb.Fatalf("error %v is %v as well", err, other)
		}
	}
}

// long returns n bytes that differ from one seed to another.
func long(seed string, n int) string {
	b := make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256([]byte(seed)); len(b) < n; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return string(b[:n])
}

// colliding returns a name other than name that an index of one record takes
// for it: the leading 15 bits of the hashes agree.
func colliding(name string) string {
	h := desformat.HashName(name).Top32() >> 17
	for i := 0; ; i++ {
		if other := fmt.Sprintf("collides-%d", i); other != name && desformat.HashName(other).Top32()>>17 == h {
			return other
		}
	}
}

// failing is a hook of the store that lets every GET fail.
func failing(_ context.Context, c storetest.Call) storetest.Fault {
	if c.Kind == store.KindGet {
		return storetest.Fault{Err: errInjected}
	}
	return storetest.Fault{}
}

// corrupted returns how often damage was met, of the kinds given or of all.
func corrupted(r *Retriever, kinds ...Damage) (n int64) {
	for d, counter := range r.metrics.corrupt {
		if len(kinds) == 0 || slices.Contains(kinds, Damage(d)) {
			n += count(counter)
		}
	}
	return n
}
