package desformat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"
	"time"
)

// watchMemory samples the memory that the runtime holds from the system until
// stop is called, which returns the most it saw, in bytes.
func watchMemory() (stop func() uint64) {
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		peak := uint64(0)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.Sys-m.HeapReleased)
			select {
			case <-done:
				most <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 { close(done); return <-most }
}

// tinyNames returns n hashes in the order of a pack and, for each, the number
// that makes its name; 12 bytes a name, so that the test's own memory is small.
type tinyNames []struct {
	top    uint64
	number uint32
}

func makeTinyNames(n int) tinyNames {
	names := make(tinyNames, n)
	for i := range names {
		h := HashName(tinyName(uint32(i)))
		names[i].top, names[i].number = binary.BigEndian.Uint64(h[:]), uint32(i)
	}
	slices.SortFunc(names, func(a, b struct {
		top    uint64
		number uint32
	},
	) int {
		if a.top < b.top {
			return -1
		}
		return 1
	})
	return names
}

func tinyName(i uint32) string {
	return "tiny/" + strconv.FormatUint(uint64(i)*2654435761, 36) + ".json"
}

// TestFiveMillionRecordsInBoundedMemory writes, opens and lists a pack of 5
// million records of 20 bytes. The bar is 400 MiB for the process; the limit
// that the runtime is given stands for a node's GOMEMLIMIT.
func TestFiveMillionRecordsInBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 800 MB")
	}
	records := 5_000_000
	if raceEnabled {
		records = 200_000 // the detector's own memory is many times the pack's
	}
	const bar = 400 << 20
	names := makeTinyNames(records)
	runtime.GC()
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(bar))
	stop := watchMemory()
	f := testFile(t)
	cfg := testConfig()
	cfg.ChunkSize, cfg.ChunkThreshold = 0, 0
	w, err := NewWriter(f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var content [20]byte
	src := bytes.NewReader(nil)
	for _, name := range names {
		binary.LittleEndian.PutUint64(content[:], name.top)
		src.Reset(content[:])
		rec := fileItem(tinyName(name.number), "").Record
		rec.Size = int64(len(content))
		if _, err := w.Append(rec, src); err != nil {
			t.Fatal(err)
		}
	}
	footer, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenPack(t.Context(), FetchReaderAt(f), footer.Size)
	if err != nil {
		t.Fatal(err)
	}
	x, err := r.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listTiny(t, r, x, names)
	if err := r.Verify(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	own := uint64(len(names)) * 16
	peak := stop()
	t.Logf("%d records, %.1f bytes a record, index %.2f bytes a record, peak %d MiB, the test's own names %d MiB",
		records, float64(footer.Size)/float64(records), float64(x.Bytes())/float64(records), peak>>20, own>>20)
	if !raceEnabled && peak > bar {
		t.Errorf("peak of %d MiB, want at most %d", peak>>20, bar>>20)
	}
	runtime.KeepAlive(names)
}

// listTiny holds the catalog, and a thousandth of the records by look-up,
// against the names.
func listTiny(t *testing.T, r *Reader, x *Index, names tinyNames) {
	t.Helper()
	n := 0
	for e, err := range r.Catalog(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Name != tinyName(names[n].number) {
			t.Fatalf("record %d is %q, want %q", n, e.Name, tinyName(names[n].number))
		}
		if n%1000 == 0 && !slices.Contains(x.Lookup(e.Hash(), nil), e.Location) {
			t.Fatalf("record %d not found", n)
		}
		n++
	}
	if n != len(names) {
		t.Fatalf("%d records listed, want %d", n, len(names))
	}
}

// sparseFile leaves holes where chunks of zeros are written, so that a huge
// record takes no room on the disk.
type sparseFile struct {
	*os.File
	zeros []byte
}

func (f sparseFile) WriteAt(b []byte, off int64) (int, error) {
	lead := len(b) - chunkSum
	if lead < 4096 || lead > len(f.zeros) || !bytes.Equal(b[:lead], f.zeros[:lead]) {
		return f.File.WriteAt(b, off)
	}
	n, err := f.File.WriteAt(b[lead:], off+int64(lead))
	return lead + n, err
}

// mostlyZeros is a content of size bytes: zeros, and a mark at some places.
type mostlyZeros struct{ size, pos int64 }

func (m *mostlyZeros) Read(p []byte) (int, error) {
	if m.pos == m.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), m.size-m.pos)]
	clear(p)
	for _, mark := range [...]int64{0, 1<<32 - 1, 1 << 32, 1<<32 + 1, m.size - 1} {
		if mark >= m.pos && mark < m.pos+int64(len(p)) {
			p[mark-m.pos] = byte(mark) | 1
		}
	}
	m.pos += int64(len(p))
	return len(p), nil
}

// TestRecordOverFourGiB streams a record whose length and places need more
// than 32 bits through Writer and Reader, within little memory.
func TestRecordOverFourGiB(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 12 GB")
	}
	const size = 1<<32 + 1<<20 + 12_345
	runtime.GC()
	before := allocated()
	f := sparseFile{testFile(t), make([]byte, DefaultChunkSize)}
	cfg := testConfig()
	cfg.ChunkSize, cfg.ChunkThreshold = 0, 0
	w, err := NewWriter(f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, err := w.Append(fileItem("one name", "").Record, &mostlyZeros{size: size})
	if err != nil || e.Size != size {
		t.Fatalf("%d bytes, %v", e.Size, err)
	}
	behind := fileItem("one name", "behind it")
	last, err := w.Append(behind.Record, bytes.NewReader([]byte(behind.content)))
	if err != nil || last.Offset < size {
		t.Fatalf("record behind at %d, %v", last.Offset, err)
	}
	footer, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	checkHuge(t, f, e, last, footer)
	if grown := allocated() - before; grown > 64<<20 {
		t.Errorf("%d MiB allocated altogether, want at most 64", grown>>20)
	}
}

func checkHuge(t *testing.T, f io.ReaderAt, e, last Entry, footer Footer) {
	t.Helper()
	src := FetchReaderAt(f)
	r, err := OpenPack(t.Context(), src, footer.Size)
	if err != nil {
		t.Fatal(err)
	}
	x, err := r.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := x.Lookup(e.Hash(), nil); !slices.Equal(got, []Location{e.Location, last.Location}) {
		t.Errorf("look-up yields %v", got)
	}
	h, err := ReadHeader(t.Context(), src, e.Location)
	if err != nil || h.Size != e.Size {
		t.Fatalf("header %+v, %v", h, err)
	}
	for _, off := range []int64{0, 1<<32 - 2, 1 << 32, e.Size - 3} {
		want, err := io.ReadAll(io.LimitReader(&mostlyZeros{size: e.Size, pos: off}, 3))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readPart(t.Context(), src, e.Location, h, off, 3); err != nil || !bytes.Equal(got, want) {
			t.Errorf("bytes from %d: %x, %v; want %x", off, got, err, want)
		}
	}
	rr, err := OpenRecord(t.Context(), src, e.Location)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if n, err := io.Copy(sum, rr); err != nil || n != e.Size || [32]byte(sum.Sum(nil)) != e.SHA256 {
		t.Errorf("streamed %d bytes, %v", n, err)
	}
}

func readPart(ctx context.Context, f Fetcher, loc Location, h *Header, off, n int64) ([]byte, error) {
	r, err := OpenContent(ctx, f, loc, h, off, n)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}
