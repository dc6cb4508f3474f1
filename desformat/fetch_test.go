package desformat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestRequestsARead: the number of fetches is the price of a read.
func TestRequestsARead(t *testing.T) {
	ctx := t.Context()
	small, large := fileItem("one name", "small"), fileItem("one name", strings.Repeat("0123456789abcdef", 64))
	long := fileItem("one name", "long header")
	long.Meta.Custom = bytes.Repeat([]byte("m"), 10_000)
	pack, entries, footer := build(t, testConfig(), []item{small, large, long})
	many := testConfig()
	many.Replaces = make([]PackID, 1000)
	merged, _, _ := build(t, many, []item{small})
	header := func(e Entry) *Header {
		h, err := ReadHeader(ctx, FetchReaderAt(bytes.NewReader(pack)), e.Location)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	stream := func(r io.ReadCloser, err error) error {
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		return err
	}
	for _, tc := range []struct {
		name    string
		pack    []byte
		read    func(f Fetcher) error
		fetches int
		bytes   int64 // at most; 0: any
	}{
		{"open", pack, func(f Fetcher) error { _, err := OpenPack(ctx, f, int64(len(pack))); return err }, 2, packHeaderLen + tailLen},
		{"open, long list", merged, func(f Fetcher) error { _, err := OpenPack(ctx, f, int64(len(merged))); return err }, 3, 0},
		{"footer", pack, func(f Fetcher) error { _, err := ReadFooter(ctx, f, int64(len(pack))); return err }, 1, tailLen},
		{"footer, long list", merged, func(f Fetcher) error { _, err := ReadFooter(ctx, f, int64(len(merged))); return err }, 2, 0},
		{"header", pack, func(f Fetcher) error { _, err := ReadHeader(ctx, f, entries[1].Location); return err }, 1, peekLen},
		{"long header", pack, func(f Fetcher) error { _, err := ReadHeader(ctx, f, entries[2].Location); return err }, 2, 10_500},
		{"small record", pack, func(f Fetcher) error { return stream(OpenRecord(ctx, f, entries[0].Location)) }, 1, entries[0].Length},
		{"large record", pack, func(f Fetcher) error { return stream(OpenRecord(ctx, f, entries[1].Location)) }, 1, entries[1].Length},
		{"range in one chunk", pack, func(f Fetcher) error {
			return stream(OpenContent(ctx, f, entries[1].Location, header(entries[1]), 64, 32))
		}, 1, 32 + chunkSum},
		{"range over three chunks", pack, func(f Fetcher) error {
			return stream(OpenContent(ctx, f, entries[1].Location, header(entries[1]), 63, 34))
		}, 1, 3 * (32 + chunkSum)},
		{"empty range", pack, func(f Fetcher) error {
			return stream(OpenContent(ctx, f, entries[1].Location, header(entries[1]), 5, 0))
		}, 0, 0},
		{"catalog", pack, func(f Fetcher) error {
			for _, err := range ReadCatalog(ctx, f, footer.Catalog) {
				if err != nil {
					return err
				}
			}
			return nil
		}, 1, footer.Catalog.Length},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &countingFetcher{Fetcher: FetchReaderAt(bytes.NewReader(tc.pack))}
			if err := tc.read(f); err != nil {
				t.Fatal(err)
			}
			if f.fetches != tc.fetches || tc.bytes > 0 && f.bytes > tc.bytes {
				t.Errorf("%d fetches of %d bytes, want %d of at most %d", f.fetches, f.bytes, tc.fetches, tc.bytes)
			}
		})
	}
}

// TestVerifyIsOneFetch: the whole object in one request.
func TestVerifyIsOneFetch(t *testing.T) {
	pack, _, _ := build(t, testConfig(), manyItems(100))
	f := &countingFetcher{Fetcher: FetchReaderAt(bytes.NewReader(pack))}
	r, err := OpenPack(t.Context(), f, int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	f.fetches, f.bytes = 0, 0
	if err := r.Verify(t.Context(), nil); err != nil || f.fetches != 1 || f.bytes != int64(len(pack)) {
		t.Errorf("%d fetches of %d bytes, %v; want 1 of %d", f.fetches, f.bytes, err, len(pack))
	}
}

// TestEveryRange reads every range of a record in chunks and of one without.
func TestEveryRange(t *testing.T) {
	for _, size := range []int{1, 60, 64, 65, 96, 100} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i)
		}
		pack, entries, _ := build(t, testConfig(), []item{fileItem("a", string(content))})
		f, loc := FetchReaderAt(bytes.NewReader(pack)), entries[0].Location
		h, err := ReadHeader(t.Context(), f, loc)
		if err != nil {
			t.Fatal(err)
		}
		for off := range size + 1 {
			for n := -1; n <= size-off+2; n++ {
				r, err := OpenContent(t.Context(), f, loc, h, int64(off), int64(n))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				want := content[off:]
				if n >= 0 {
					want = want[:min(n, len(want))]
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("bytes %d+%d of %d: %v, %v", off, n, size, got, err)
				}
			}
		}
		for _, off := range []int64{-1, int64(size) + 1} {
			if _, err := OpenContent(t.Context(), f, loc, h, off, 1); !errors.Is(err, ErrBadRange) {
				t.Errorf("from byte %d of %d: %v, want ErrBadRange", off, size, err)
			}
		}
	}
}

// TestSwappedChunksAreNoticed: two chunks of one record in each other's place
// are right in themselves, and wrong.
func TestSwappedChunksAreNoticed(t *testing.T) {
	content := strings.Repeat("a", 32) + strings.Repeat("b", 32) + strings.Repeat("c", 32)
	pack, entries, _ := build(t, testConfig(), []item{fileItem("a", content)})
	f, loc := FetchReaderAt(bytes.NewReader(pack)), entries[0].Location
	h, err := ReadHeader(t.Context(), f, loc)
	if err != nil {
		t.Fatal(err)
	}
	first := pack[loc.Offset+h.HeaderLen:][:36]
	second := pack[loc.Offset+h.HeaderLen+36:][:36]
	kept := slices.Clone(first)
	copy(first, second)
	copy(second, kept)
	r, err := OpenContent(t.Context(), f, loc, h, 32, 32)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); !errors.Is(err, ErrCorrupt) || len(got) > 0 {
		t.Errorf("read %q, %v; want ErrCorrupt", got, err)
	}
}

// TestLastChunkWaitsForTheHash: chunks that are right one by one but are not
// the content that was hashed never make a complete response.
func TestLastChunkWaitsForTheHash(t *testing.T) {
	pack, entries, _ := build(t, testConfig(), []item{fileItem("a", strings.Repeat("a", 96))})
	f, loc := FetchReaderAt(bytes.NewReader(pack)), entries[0].Location
	h, err := ReadHeader(t.Context(), f, loc)
	if err != nil {
		t.Fatal(err)
	}
	forged := pack[loc.Offset+h.HeaderLen:][:36]
	forged[0] = 'X'
	binary.LittleEndian.PutUint32(forged[32:], updateCRC(chunkCRC(h.Hash(), 0), forged[:32]))
	for _, whole := range []bool{true, false} {
		var r io.ReadCloser
		if whole {
			r, err = OpenRecord(t.Context(), f, loc)
		} else {
			r, err = OpenContent(t.Context(), f, loc, h, 0, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); !errors.Is(err, ErrCorrupt) || len(got) != 64 {
			t.Errorf("read %d bytes, %v; want 64 and ErrCorrupt", len(got), err)
		}
	}
}

// brokenFetcher yields streams that break off, or no streams.
type brokenFetcher struct {
	Fetcher
	err   error
	after int64
}

func (f brokenFetcher) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if f.after < 0 {
		return nil, f.err
	}
	r, err := f.Fetcher.Fetch(ctx, off, n)
	if err != nil {
		return nil, err
	}
	broken := io.MultiReader(io.LimitReader(r, f.after), errReader{f.err})
	return struct {
		io.Reader
		io.Closer
	}{broken, r}, nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestStoreErrorsAreNotCorruption: an error of the store stays what it is, so
// that nobody takes a pack for damaged because a connection broke.
func TestStoreErrorsAreNotCorruption(t *testing.T) {
	ctx := t.Context()
	errStore := errors.New("connection reset")
	pack, entries, footer := build(t, testConfig(), sortItems([]item{fileItem("a", "AAA"), fileItem("b", strings.Repeat("b", 200))}))
	good := FetchReaderAt(bytes.NewReader(pack))
	for after := int64(-1); after < int64(len(pack)); after += 7 {
		f := brokenFetcher{good, errStore, after}
		check := func(what string, err error) {
			if err != nil && (!errors.Is(err, errStore) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotPack)) {
				t.Errorf("%s, broken after %d bytes: %v", what, after, err)
			}
		}
		_, err := OpenPack(ctx, f, int64(len(pack)))
		check("OpenPack", err)
		r := &Reader{f: f, footer: footer, raw: pack[len(pack)-footerLen:]}
		err = r.Verify(ctx, nil)
		if check("Verify", err); err == nil {
			t.Errorf("Verify of a stream broken after %d bytes of %d: no error", after, len(pack))
		}
		_, err = r.Index(ctx)
		check("Index", err)
		_, err = listed(ctx, r)
		check("Catalog", err)
		for _, e := range entries {
			_, err := ReadHeader(ctx, f, e.Location)
			check("ReadHeader", err)
			rr, err := OpenRecord(ctx, f, e.Location)
			if check("OpenRecord", err); err == nil {
				_, err = io.ReadAll(rr)
				check("read", err)
			}
		}
	}
}

// TestRecordReaderAfterTheEnd: the end, an error and a close stay.
func TestRecordReaderAfterTheEnd(t *testing.T) {
	pack, entries, _ := build(t, testConfig(), []item{fileItem("a", strings.Repeat("a", 100))})
	f := FetchReaderAt(bytes.NewReader(pack))
	r, err := OpenRecord(t.Context(), f, entries[0].Location)
	if err != nil {
		t.Fatal(err)
	}
	if r.Header().Name != "a" || r.Header().Size != 100 {
		t.Errorf("header %+v", r.Header())
	}
	var got bytes.Buffer
	if n, err := r.WriteTo(&got); n != 100 || err != nil || got.String() != strings.Repeat("a", 100) {
		t.Errorf("%d, %v, %q", n, err, got.String())
	}
	for range 2 {
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // io.Reader's contract
			t.Errorf("read behind the end: %d, %v", n, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read after Close: %v", err)
	}
}

// TestLocationsNoRecordCanHave: a place from a damaged index is refused before
// anything is fetched.
func TestLocationsNoRecordCanHave(t *testing.T) {
	f := &countingFetcher{Fetcher: FetchReaderAt(bytes.NewReader(nil))}
	for _, loc := range []Location{{}, {0, 0, 100}, {0, -1, 100}, {0, packHeaderLen, -1}, {0, packHeaderLen, minHeader - 1}, {0, 1 << 62, 100}, {0, 100, 1 << 62}} {
		_, errHeader := ReadHeader(t.Context(), f, loc)
		_, errOpen := OpenRecord(t.Context(), f, loc)
		_, errContent := OpenContent(t.Context(), f, loc, &Header{}, 0, 1)
		for _, err := range []error{errHeader, errOpen, errContent} {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v: %v, want ErrCorrupt", loc, err)
			}
		}
	}
	if f.fetches != 0 {
		t.Errorf("%d fetches", f.fetches)
	}
}
