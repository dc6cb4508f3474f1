package desformat

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// eachVector runs f on every golden vector.
func eachVector(t *testing.T, f func(t *testing.T, pack []byte, want expectation)) {
	for _, v := range goldenVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			pack, want := loadVector(t, v.name)
			f(t, pack, want)
		})
	}
}

func TestEveryPrefixIsNoPack(t *testing.T) {
	eachVector(t, func(t *testing.T, pack []byte, _ expectation) {
		for n := range pack {
			f := FetchReaderAt(bytes.NewReader(pack[:n]))
			if _, err := OpenPack(t.Context(), f, int64(n)); !errors.Is(err, ErrNotPack) {
				t.Fatalf("first %d bytes: %v, want ErrNotPack", n, err)
			}
			if _, err := OpenPack(t.Context(), f, int64(len(pack))); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("first %d bytes of an object said to be whole: %v, want io.ErrUnexpectedEOF", n, err)
			}
		}
	})
}

func TestEveryPrefixOfARecordIsCorrupt(t *testing.T) {
	eachVector(t, func(t *testing.T, pack []byte, want expectation) {
		for _, rec := range want.Records {
			for n := range rec.Length {
				if _, _, err := ParseRecord(pack[rec.Offset:][:n]); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("record %d, first %d bytes: %v, want ErrCorrupt", rec.Ordinal, n, err)
				}
				short := rec.Location
				short.Length = n
				if _, err := OpenRecord(t.Context(), FetchReaderAt(bytes.NewReader(pack)), short); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("record %d at its first %d bytes: %v, want ErrCorrupt", rec.Ordinal, n, err)
				}
				f := FetchReaderAt(bytes.NewReader(pack[:rec.Offset+n]))
				if err := readWhole(t.Context(), f, rec); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("record %d of an object cut %d bytes behind its start: %v, want io.ErrUnexpectedEOF", rec.Ordinal, n, err)
				}
			}
		}
	})
}

// TestEveryFlippedByteIsNoticed flips one bit, and then all bits, of every
// byte of every vector: whatever read touches the byte returns the documented
// error and no wrong bytes, and reads that do not touch it are right.
func TestEveryFlippedByteIsNoticed(t *testing.T) {
	eachVector(t, func(t *testing.T, pack []byte, want expectation) {
		for i := range pack {
			masks := []byte{1 << (i % 8), 0xff}
			if len(pack) > 4096 {
				masks = masks[:1]
			}
			for _, mask := range masks {
				damaged := slices.Clone(pack)
				damaged[i] ^= mask
				checkDamage(t, damaged, int64(i), want)
				if t.Failed() {
					t.Fatalf("byte %d of %d flipped by %#x", i, len(pack), mask)
				}
			}
		}
	})
}

// checkDamage reads a pack whose byte i is wrong.
func checkDamage(t *testing.T, pack []byte, i int64, want expectation) {
	t.Helper()
	ctx, f := t.Context(), FetchReaderAt(bytes.NewReader(pack))
	r, err := OpenPack(ctx, f, int64(len(pack)))
	if wanted := openError(i, &want.Footer); !errors.Is(err, wanted) {
		t.Errorf("OpenPack: %v, want %v", err, wanted)
	}
	for _, rec := range want.Records {
		touched := i >= rec.Offset && i < rec.Offset+rec.Length
		if !touched && rec.Ordinal > 4 {
			continue // a few bystanders are enough
		}
		if err := checkReads(ctx, f, rec); errors.Is(err, ErrCorrupt) != touched || !touched && err != nil {
			t.Errorf("record %d: %v", rec.Ordinal, err)
		}
		checkDamagedRecord(t, pack, f, rec, touched)
	}
	if r == nil {
		return
	}
	if err := r.Verify(ctx, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Verify: %v, want ErrCorrupt", err)
	} else if c := (*CorruptError)(nil); !errors.As(err, &c) || c.Pack != want.Footer.Pack {
		t.Errorf("Verify: %v does not name the pack", err)
	}
	inside := func(s Section) bool { return i >= s.Offset && i < s.Offset+s.Length }
	entries, err := listed(ctx, r)
	if errors.Is(err, ErrCorrupt) != inside(want.Footer.Catalog) || err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("Catalog: %v", err)
	}
	for n, e := range entries {
		if !sameEntry(e, want.Records[n].Entry) {
			t.Errorf("Catalog: wrong entry %d", n)
		}
	}
	if _, err := r.Index(ctx); errors.Is(err, ErrCorrupt) != inside(want.Footer.Index) || err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("Index: %v", err)
	}
}

// checkDamagedRecord reads one record in each way on its own.
func checkDamagedRecord(t *testing.T, pack []byte, f Fetcher, rec expectedRecord, touched bool) {
	t.Helper()
	if _, _, err := ParseRecord(pack[rec.Offset:][:rec.Length]); errors.Is(err, ErrCorrupt) != touched {
		t.Errorf("ParseRecord of record %d: %v", rec.Ordinal, err)
	}
	if err := readWhole(t.Context(), f, rec); errors.Is(err, ErrCorrupt) != touched || errors.Is(err, errWrongBytes) {
		t.Errorf("OpenRecord of record %d: %v", rec.Ordinal, err)
	}
	if !touched {
		return
	}
	// The header as it was before the damage, from a cache for example.
	h := &Header{Record: rec.Record, HeaderLen: rec.Length - storedLen(rec.Size, 0), StoredLen: rec.Size}
	if rec.Size > testConfig().ChunkThreshold {
		h.ChunkLen = int64(testConfig().ChunkSize)
		h.StoredLen = storedLen(rec.Size, h.ChunkLen)
		h.HeaderLen = rec.Length - h.StoredLen
	}
	if err := readRanges(t.Context(), f, h, rec); err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("OpenContent of record %d: %v", rec.Ordinal, err)
	}
}

// openError says what OpenPack returns when byte i is wrong.
func openError(i int64, f *Footer) error {
	end := f.Size - footerLen
	switch {
	case i < 8, i >= end+footerMagic:
		return ErrNotPack
	case i < 12, i >= end+footerFlags:
		return ErrVersion
	case i < packHeaderLen, i >= f.Index.Offset+f.Index.Length:
		return ErrCorrupt
	default:
		return nil
	}
}

func TestForeignFilesAreNoPacks(t *testing.T) {
	for _, tc := range []struct {
		name string
		file string
		want error
	}{
		{"empty", "", ErrNotPack},
		{"text", "hello, this is a text file and no pack", ErrNotPack},
		{"zeros", string(make([]byte, 10_000)), ErrNotPack},
		{"version 1", "DESHEAD1" + string(make([]byte, 1000)), ErrVersion},
		{"version 2", "DES2" + string(make([]byte, 1000)), ErrVersion},
		{"magic only", headMagic, ErrNotPack},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := FetchReaderAt(bytes.NewReader([]byte(tc.file)))
			if _, err := OpenPack(t.Context(), f, int64(len(tc.file))); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}
