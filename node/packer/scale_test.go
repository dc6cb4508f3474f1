package packer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// generated is an Originals whose files exist only while they are read: the
// path is the content's seed, the size is the one that sizes gives.
type generated struct {
	source.Originals
	size   int64
	onRead func() // nil: nothing
}

func (g *generated) Open(_ context.Context, path string) (source.Original, error) {
	h := desformat.HashName(path)
	return &generatedFile{g: g, seed: binary.LittleEndian.Uint64(h[:])}, nil
}

type generatedFile struct {
	g         *generated
	seed, pos uint64
}

func (f *generatedFile) Read(p []byte) (int, error) {
	if f.g.onRead != nil {
		f.g.onRead()
	}
	left := f.g.size - int64(f.pos)
	if left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), left)]
	at := (f.seed + f.pos) % uint64(len(noise)/2)
	n := copy(p, noise[at:])
	f.pos += uint64(n)
	return n, nil
}

// noise is what generated files are cut from.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}()

func (f *generatedFile) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }
func (f *generatedFile) Close() error                   { return nil }
func (f *generatedFile) Info() source.Info              { return source.Info{Size: f.g.size, ModTime: epoch} }

// weightless is a store that keeps the size of each object and, of its bytes,
// nothing: enough to count requests with.
type weightless struct {
	store.Store
	sizes chan map[string]int64 // holds the one map
}

func newWeightless() *weightless {
	w := &weightless{sizes: make(chan map[string]int64, 1)}
	w.sizes <- make(map[string]int64)
	return w
}

func (w *weightless) Put(_ context.Context, key string, body store.Body, size int64) (store.Object, error) {
	if n, err := body.ReadAt(make([]byte, 1), size-1); n != 1 {
		return store.Object{}, fmt.Errorf("body is shorter than %d bytes: %w", size, err)
	}
	sizes := <-w.sizes
	sizes[key] = size
	w.sizes <- sizes
	return store.Object{Key: key, Size: size, Version: "1"}, nil
}

func (w *weightless) Head(_ context.Context, key, _ string) (store.Object, error) {
	sizes := <-w.sizes
	defer func() { w.sizes <- sizes }()
	size, found := sizes[key]
	if !found {
		return store.Object{}, store.ErrNotFound
	}
	return store.Object{Key: key, Size: size, Version: "1"}, nil
}

// nothingLives is the Finder of an empty manifest.
type nothingLives struct{}

func (nothingLives) Find(context.Context, string) (*Found, error) { return nil, ErrNotFound }

func TestStoreRequestsOf100000Files(t *testing.T) {
	if testing.Short() {
		t.Skip("left out by -short: packs 1.6 GB")
	}
	files, size := 100_000, int64(16<<10)
	if raceDetector {
		files, size = files/8, size*8 // the same bytes and the same packs, in fewer rows
	}
	w := newWorld(t)
	w.store = storetest.NewFakeOver(t, newWeightless())
	w.store.SetNoList()
	w.sources[0].Files = &generated{size: size}
	batch := make([]source.File, files)
	for i := range batch {
		name := fmt.Sprintf("documents/%d/%d.pdf", i/1000, i)
		batch[i] = source.File{Name: name, Path: "/" + name, Size: size, ModTime: epoch}
	}
	w.mark("files", batch...)
	p := w.packer(func(c *Config) { c.Finder = nothingLives{} })
	res, err := p.Once(t.Context(), true)
	if err != nil || res.Rows != int64(files) || res.Packs != 8 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got, want := w.store.Counts(), (store.Counts{Put: 8, Head: 8}); got.Put != want.Put || got.Head != want.Head || got.Get+got.List+got.Move+got.Delete != 0 {
		t.Errorf("requests %+v, want %+v", got, want)
	}
	counts, err := w.tables["files"].Counts(t.Context())
	if err != nil || counts[source.Packed].Rows != int64(files) {
		t.Errorf("%d rows PACKED, %v", counts[source.Packed].Rows, err)
	}
}

// A file of 1 GiB goes through without being held; a file of 6 GiB takes the
// same memory, since nothing here or in the Writer is sized by it.
func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	if testing.Short() {
		t.Skip("left out by -short: packs 1 GiB")
	}
	const size, limit = 1 << 30, 100 << 20
	w := newWorld(t)
	w.store = storetest.NewFakeOver(t, newWeightless())
	var reads atomic.Int64
	var peak atomic.Uint64
	sample := func() {
		if reads.Add(1)%256 != 0 {
			return
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak.Store(max(peak.Load(), m.HeapInuse+m.StackInuse))
	}
	w.sources[0].Files = &generated{size: size, onRead: sample}
	w.mark("files", source.File{Name: "huge", Path: "/huge", Size: size, ModTime: epoch})
	res, err := w.packer(func(c *Config) { c.Finder = nothingLives{} }).Once(t.Context(), true)
	if err != nil || res.Rows != 1 || res.Bytes != size {
		t.Fatalf("%+v, %v", res, err)
	}
	if peak.Load() == 0 || peak.Load() > limit {
		t.Errorf("%d bytes of memory in use, at most %d allowed", peak.Load(), limit)
	}
}

// Many rows take no more memory than a few: pages and read-ahead are bounded.
func TestReadAheadIsBounded(t *testing.T) {
	const files, size = 2000, 64 << 10
	w := newWorld(t)
	w.store = storetest.NewFakeOver(t, newWeightless())
	var open, most atomic.Int64
	w.sources[0].Files = &counting{generated: &generated{size: size}, open: &open, most: &most}
	batch := make([]source.File, files)
	for i := range batch {
		batch[i] = source.File{Name: fmt.Sprint("f", i), Path: fmt.Sprint("/f", i), Size: size, ModTime: epoch}
	}
	w.mark("files", batch...)
	p := w.packer(func(c *Config) { c.Finder, c.Workers, c.Readers, c.ReadAhead = nothingLives{}, 1, 4, 4*size })
	if res, err := p.Once(t.Context(), true); err != nil || res.Rows != files {
		t.Fatalf("%+v, %v", res, err)
	}
	if most.Load() > 4 {
		t.Errorf("%d files of 64 KiB were open with four times that to read ahead", most.Load())
	}
}

type counting struct {
	*generated
	open, most *atomic.Int64
}

func (c *counting) Open(ctx context.Context, path string) (source.Original, error) {
	for n := c.open.Add(1); ; {
		m := c.most.Load()
		if n <= m || c.most.CompareAndSwap(m, n) {
			break
		}
	}
	f, err := c.generated.Open(ctx, path)
	return &countedFile{f, c.open}, err
}

type countedFile struct {
	source.Original
	open *atomic.Int64
}

func (c *countedFile) Close() error {
	c.open.Add(-1)
	return c.Original.Close()
}

// BenchmarkBuild is the packer's own share: rows from SQLite, contents from
// memory, a pack on disk, no store and no look-ups.
func BenchmarkBuild(b *testing.B) {
	for _, size := range []int64{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			w := newWorld(b)
			w.sources[0].Files = &generated{size: size}
			files := int(min(20_000, 256<<20/size))
			batch := make([]source.File, files)
			for i := range batch {
				batch[i] = source.File{Name: fmt.Sprint("dir/f", i), Path: fmt.Sprint("/dir/f", i), Size: size, ModTime: epoch}
			}
			w.mark("files", batch...)
			p := w.packer(func(c *Config) { c.Finder = nothingLives{} })
			if err := spoolFolder(w.spool).Clean(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size * int64(files))
			for b.Loop() {
				lease := raftmeta.Lease{Token: desformat.Token{Generation: 1, Index: 1}}
				due := source.Due{Now: epoch.Add(time.Hour)}
				bld, err := p.newBuild(lease, desformat.Range{}, due, w.sources)
				if err != nil {
					b.Fatal(err)
				}
				if err := bld.fill(b.Context(), w.sources); err != nil || bld.Rows != int64(files) {
					b.Fatalf("%d rows, %v", bld.Rows, err)
				}
				bld.remove()
			}
			b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func TestReadWholeNoticesTheLength(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		size          int
		want          error
	}{
		{"exact", "abc", 3, nil},
		{"empty", "", 0, nil},
		{"short", "ab", 3, source.ErrChanged},
		{"nothing", "", 3, source.ErrChanged},
		{"long", "abcd", 3, source.ErrChanged},
		{"long when empty", "a", 0, source.ErrChanged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := readWhole(bytes.NewReader([]byte(tt.content)), make([]byte, tt.size)); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}
