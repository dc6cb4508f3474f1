package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNode is the id of the node in these tests.
const testNode raftmeta.NodeID = "5e1f0f0a-0000-4000-8000-000000000001"

// modified is when every file of these tests changed last.
var modified = time.Date(2019, 4, 30, 12, 0, 0, 123456789, time.UTC)

// manifest is a retriever.Manifest of packs in memory, and its only view.
type manifest struct {
	packs       []*raftmeta.Pack
	unconfirmed atomic.Bool
}

func (m *manifest) View() retriever.View { return m }

func (m *manifest) Confirm(context.Context) (retriever.View, error) {
	if m.unconfirmed.Load() {
		return nil, errors.New("no leader")
	}
	return m, nil
}

func (m *manifest) Changed() <-chan struct{} { return nil }

func (m *manifest) Packs() iter.Seq[*raftmeta.Pack] { return slices.Values(m.packs) }

func (m *manifest) ShardBits() uint8 { return 10 }

func (m *manifest) Applied() uint64 { return uint64(len(m.packs)) }

func (m *manifest) Covering(h desformat.NameHash, dst []*raftmeta.Pack) []*raftmeta.Pack {
	for _, p := range m.packs {
		if p.Range.Contains(h) {
			dst = append(dst, p)
		}
	}
	slices.SortFunc(dst, func(a, b *raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) })
	return dst
}

// rows is the table of a source in memory.
type rows struct {
	rows   []source.Row
	broken atomic.Bool
}

func (t *rows) find(match func(source.Row) bool) (source.Row, error) {
	if t.broken.Load() {
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

// originals are a source's files in memory, by path.
type originals map[string][]byte

func (o originals) Open(_ context.Context, path string) (source.Original, error) {
	b, ok := o[path]
	if !ok {
		return nil, source.ErrNoFile
	}
	return &original{Reader: bytes.NewReader(b)}, nil
}

// original is a file in memory. With changed set its end is source.ErrChanged.
type original struct {
	*bytes.Reader
	changed bool
}

func (o *original) Close() error { return nil }

func (o *original) Info() source.Info { return source.Info{Size: o.Size(), ModTime: modified} }

func (o *original) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	if o.changed && errors.Is(err, io.EOF) {
		err = source.ErrChanged
	}
	return n, err
}

// packed is one record for a pack.
type packed struct {
	name        string
	content     []byte
	id          string // default: "id of" and the beginning of the name's hash
	contentType string
	tombstone   bool
	modified    time.Time // default: modified
}

// world is archived files, files that wait in a source, and a real retriever
// over them.
type world struct {
	store     *storetest.Fake
	manifest  *manifest
	rows      *rows
	originals originals
	log       *logBuffer
	limiter   retriever.Limiter
	dataBytes int64 // of the retriever's cache; 0: the default
}

// sourceName is the source of all records and rows.
const sourceName = "files"

// newWorld archives the records in one pack, chunked when longer than chunk
// bytes (0: the format's default).
func newWorld(tb testing.TB, chunk int, records ...packed) *world {
	tb.Helper()
	w := &world{
		store: storetest.NewFake(tb), manifest: &manifest{}, rows: &rows{}, originals: originals{}, log: &logBuffer{},
	}
	if len(records) > 0 {
		w.pack(tb, chunk, records)
	}
	return w
}

// pack writes one pack, stores it and lists it.
func (w *world) pack(tb testing.TB, chunk int, records []packed) {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "pack"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	token := desformat.Token{Generation: 1, Index: uint64(len(w.manifest.packs)) + 7}
	id := desformat.PackID{0xda, byte(len(w.manifest.packs))}
	out, err := desformat.NewWriter(f, desformat.WriterConfig{
		Pack: id, Token: token, Created: modified, ChunkSize: chunk, ChunkThreshold: int64(chunk),
	})
	if err != nil {
		tb.Fatal(err)
	}
	slices.SortFunc(records, func(a, b packed) int {
		x, y := desformat.HashName(a.name), desformat.HashName(b.name)
		return bytes.Compare(x[:], y[:])
	})
	for _, r := range records {
		rec := desformat.Record{
			Type: desformat.TypeFile, Name: r.name, Seq: token, Source: sourceName, ID: cmp.Or(r.id, "id of "+desformat.HashName(r.name).String()[:16]), Version: 1,
			ModTime: r.modified, Meta: desformat.Metadata{ContentType: r.contentType},
		}
		if r.modified.IsZero() {
			rec.ModTime = modified
		}
		if r.tombstone {
			rec.Type = desformat.TypeTombstone
		}
		if _, err := out.Append(rec, bytes.NewReader(r.content)); err != nil {
			tb.Fatalf("append %q: %v", r.name, err)
		}
	}
	footer, err := out.Seal()
	if err != nil {
		tb.Fatal(err)
	}
	key := desformat.PackKey(footer.Range, token, id)
	object, err := w.store.Put(tb.Context(), key, f, footer.Size)
	if err != nil {
		tb.Fatal(err)
	}
	w.manifest.packs = append(w.manifest.packs, &raftmeta.Pack{
		ID: id, Token: token, Range: footer.Range, Size: footer.Size, Records: footer.Records, PayloadBytes: footer.PayloadBytes,
		Catalog: footer.Catalog, Index: footer.Index, MinSeq: footer.MinSeq, MaxSeq: footer.MaxSeq, Created: footer.Created,
		Copies: []raftmeta.Copy{{Key: key, Version: object.Version}},
	})
}

// waiting adds a file that is not packed yet.
func (w *world) waiting(name string, content []byte) {
	w.rows.rows = append(w.rows.rows, source.Row{
		Source: sourceName, ID: "row of " + name, Name: name, Path: name, Size: int64(len(content)), ModTime: modified, State: source.Active,
	})
	w.originals[name] = content
}

// retriever returns a new retriever, its caches empty.
func (w *world) retriever(tb testing.TB) *retriever.Retriever {
	tb.Helper()
	r, err := retriever.New(retriever.Config{
		Manifest: w.manifest, Store: w.store, DataBytes: w.dataBytes, Misses: w.limiter,
		Sources: func() []retriever.Source {
			return []retriever.Source{{Name: sourceName, Rows: w.rows, Files: w.originals}}
		},
		Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// config is a server's over this world.
func (w *world) config(tb testing.TB) Config {
	tb.Helper()
	registry := prometheus.NewRegistry()
	return Config{
		Files: w.retriever(tb), Operator: &operator{}, Observer: &observer{}, Node: testNode, Shared: []string{"/data/store"},
		Gatherer: registry, Registerer: registry,
		Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// serve starts a server over HTTP on loopback.
func (w *world) serve(t *testing.T) *site { t.Helper(); return serve(t, w.config(t)) }

// site is a server under test and a client that redirects nothing. Every
// answer it gets is held against the contract.
type site struct {
	url    string
	client *http.Client
	server *Server
}

func serve(t *testing.T, cfg Config) *site {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = s.httpServer(t.Context())
	ts.Start()
	t.Cleanup(ts.Close)
	client := ts.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.Transport.(*http.Transport).DisableCompression = true
	return &site{url: ts.URL, client: client, server: s}
}

// reply is an answer that has been read.
type reply struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

// header is a request's header, key and value in turn.
func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// do sends a request and holds the answer against the contract.
func (s *site) do(t *testing.T, method, path string, h http.Header, body string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range h {
		req.Header[k] = v
	}
	if host := h.Get("Host"); host != "" {
		req.Host = host
	}
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	r := reply{Response: res}
	r.body, r.err = io.ReadAll(res.Body)
	documented(t, r)
	return r
}

func (s *site) get(t *testing.T, path string, pairs ...string) reply {
	t.Helper()
	return s.do(t, http.MethodGet, path, header(pairs...), "")
}

func (s *site) head(t *testing.T, path string, pairs ...string) reply {
	t.Helper()
	return s.do(t, http.MethodHead, path, header(pairs...), "")
}

// post sends a command as the command line does.
func (s *site) post(t *testing.T, path, body string, pairs ...string) reply {
	t.Helper()
	return s.do(t, http.MethodPost, path, header(append([]string{"Content-Type", TypeJSON}, pairs...)...), body)
}

// want fails unless the answer has the status and, when it is a problem, the
// code.
func (r reply) want(t *testing.T, status int, code Code) {
	t.Helper()
	if r.err != nil {
		t.Fatalf("%s %s: %d, then %v", r.Request.Method, r.Request.URL, r.StatusCode, r.err)
	}
	if r.StatusCode != status {
		t.Fatalf("%s %s: %d %s, want %d", r.Request.Method, r.Request.URL, r.StatusCode, r.body, status)
	}
	if code != "" && r.Request.Method != http.MethodHead && !bytes.Contains(r.body, fmt.Appendf(nil, `"code":%q`, code)) {
		t.Fatalf("%s %s: %s, want code %s", r.Request.Method, r.Request.URL, r.body, code)
	}
}

// record answers GET of a file without a connection between. whole is false
// when the handler broke the answer.
func (s *Server) record(t *testing.T, name, span string) (status int, body []byte, whole bool) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/files/"+name, nil)
	if span != "" {
		r.Header.Set("Range", span)
	}
	w := httptest.NewRecorder()
	func() {
		defer func() {
			p := recover()
			if whole = p == nil; whole {
				return
			}
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
		}()
		s.ServeHTTP(w, r)
	}()
	return w.Code, w.Body.Bytes(), whole
}

// logged reports whether the log has a line of that level with that request id.
func logged(t *testing.T, log *logBuffer, level, id string) bool {
	t.Helper()
	return slices.ContainsFunc(log.lines(t), func(line map[string]any) bool {
		return line["level"] == level && line["request_id"] == id
	})
}
