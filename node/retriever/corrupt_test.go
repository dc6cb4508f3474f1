package retriever

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// damaged is a small pack: a plain record, an empty one, one in chunks, a
// tombstone.
func damaged(tb testing.TB) (w *world, p *raftmeta.Pack, files map[string]string) {
	w = newWorld(tb)
	files = map[string]string{"plain": "some content", "empty": "", "chunks": long("chunks", 100)}
	p = w.packOf(desformat.WriterConfig{ChunkSize: 32, ChunkThreshold: 64},
		version{name: "plain", seq: 5, content: files["plain"]},
		version{name: "empty", seq: 5},
		version{name: "chunks", seq: 4, content: files["chunks"]},
		version{name: "removed", seq: 6, kind: desformat.TypeTombstone},
	)
	w.manifest.set(p)
	return w, p, files
}

// places returns where the records of a pack are.
func places(tb testing.TB, w *world, p *raftmeta.Pack) map[string]desformat.Location {
	at := map[string]desformat.Location{}
	for e, err := range desformat.ReadCatalog(tb.Context(), direct(w, p), p.Catalog) {
		if err != nil {
			tb.Fatal(err)
		}
		at[e.Name] = e.Location
	}
	return at
}

// A byte flipped anywhere fails exactly the reads that touch it, each with the
// pack and the offset, and never comes out as content.
func TestEveryFlippedByteIsNoticedByTheReadsThatTouchIt(t *testing.T) {
	w, p, files := damaged(t)
	at := places(t, w, p)
	key := p.Copies[0].Key
	within := func(i, off, n int64) bool { return i >= off && i < off+n }
	touched := 0
	for i := range p.Size {
		for _, mask := range []byte{1, 0x80, 0xff} {
			w.store.Damage(key, func(b []byte) []byte { b[i] ^= mask; return b })
			r := w.retriever()
			inIndex := within(i, p.Index.Offset, p.Index.Length)
			for name, content := range files {
				got, err := read(t.Context(), r, name)
				if inIndex || within(i, at[name].Offset, at[name].Length) {
					touched++
					checkCorrupt(t, err, p, fmt.Sprintf("byte %d ^ %#x, read %s (%q)", i, mask, name, got))
				} else if err != nil || got != content {
					t.Fatalf("byte %d ^ %#x: %s reads as %q, %v; it does not touch that byte", i, mask, name, got, err)
				}
			}
			f, err := r.Open(t.Context(), "removed", Query{})
			if err == nil {
				f.Close()
			}
			if inIndex || within(i, at["removed"].Offset, at["removed"].Length) {
				checkCorrupt(t, err, p, fmt.Sprintf("byte %d ^ %#x, tombstone", i, mask))
			} else {
				wantOnly(t, err, ErrGone)
			}
			w.store.Damage(key, func(b []byte) []byte { b[i] ^= mask; return b })
		}
	}
	if touched == 0 {
		t.Error("no read touched any damage")
	}
}

func checkCorrupt(tb testing.TB, err error, p *raftmeta.Pack, what string) {
	tb.Helper()
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		tb.Fatalf("%s: %v, want a CorruptError", what, err)
	}
	if corrupt.Pack != p.ID || corrupt.Offset < 0 || corrupt.Offset >= p.Size {
		tb.Fatalf("%s: pack %s at %d, want pack %s and a place in it", what, corrupt.Pack, corrupt.Offset, p.ID)
	}
	wantOnly(tb, err, desformat.ErrCorrupt)
}

// Headers are verified without their content.
func TestEveryFlippedByteOfAHeaderIsNoticed(t *testing.T) {
	w, p, _ := damaged(t)
	at := places(t, w, p)["plain"]
	h, err := desformat.ReadHeader(t.Context(), direct(w, p), at)
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.HeaderLen {
		flip := func() {
			w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { b[at.Offset+i] ^= 4; return b })
		}
		flip()
		r := w.retriever()
		f, err := r.Open(t.Context(), "plain", Query{Want: WantHeader})
		if err == nil {
			f.Close()
		}
		checkCorrupt(t, err, p, fmt.Sprintf("header byte %d", i))
		_, err = r.Find(t.Context(), "plain")
		checkCorrupt(t, err, p, fmt.Sprintf("header byte %d, found", i))
		flip()
	}
}

// Large records are verified piece by piece: what comes out before the damage
// is right, what holds it does not come out, and the end is no clean one.
func TestALargeRecordBreaksOffAtItsDamage(t *testing.T) {
	const mib = 1 << 20
	content := long("large", 3*mib+100)
	w := newWorld(t)
	p := w.pack(version{name: "large", seq: 1, content: content})
	w.manifest.set(p)
	at := places(t, w, p)["large"]
	h, err := desformat.ReadHeader(t.Context(), direct(w, p), at)
	if err != nil {
		t.Fatal(err)
	}
	payload := at.Offset + h.HeaderLen
	for _, c := range []struct {
		name  string
		at    int64 // in the payload
		clean int64 // bytes of content before the damaged chunk
	}{
		{"first byte", 0, 0},
		{"last byte of the first chunk", mib - 1, 0},
		{"checksum of the first chunk", mib, 0},
		{"second chunk", mib + 4, mib},
		{"last chunk", 3*mib + 12 + 50, 3 * mib},
		{"last checksum", h.StoredLen - 1, 3 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			flip := func() {
				w.store.Damage(p.Copies[0].Key, func(b []byte) []byte { b[payload+c.at] ^= 1; return b })
			}
			flip()
			defer flip()
			r := w.retriever()
			for _, how := range []string{"stream of the whole", "chunks behind a known header"} {
				got, err := read(t.Context(), r, "large")
				checkCorrupt(t, err, p, how)
				if got != content[:c.clean] {
					t.Errorf("%s: %d bytes before the error, want %d right ones", how, len(got), c.clean)
				}
			}
			if n := corrupted(r); n != 2 {
				t.Errorf("%d counted as corrupt, want 2", n)
			}
			f, err := r.Open(t.Context(), "large", Query{Want: WantPart})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for off := int64(0); off < f.Size(); off += mib {
				got, err := part(t.Context(), &f, off, 10)
				if off == c.clean {
					checkCorrupt(t, err, p, "range in the damaged chunk")
				} else if err != nil || got != content[off:off+10] {
					t.Errorf("range at %d, beside the damage: %v, or wrong bytes", off, err)
				}
			}
		})
	}
}

// However much of an object is lost at its end, reads of what is left succeed
// and all others are told that the pack is damaged.
func TestATruncatedObjectIsNeverServedWrongly(t *testing.T) {
	w, p, files := damaged(t)
	at := places(t, w, p)
	whole := w.store.Bytes(p.Copies[0].Key)
	for n := range p.Size {
		w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return whole[:n] })
		for _, warm := range []bool{false, true} {
			r := w.retriever()
			if warm {
				w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return whole })
				prewarm(t, r)
				w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return whole[:n] })
			}
			for name, content := range files {
				got, err := read(t.Context(), r, name)
				readable := n >= at[name].Offset+at[name].Length && (warm || n >= p.Index.Offset+p.Index.Length)
				switch {
				case readable && (err != nil || got != content):
					t.Fatalf("cut to %d, index in memory %v: %s reads as %q, %v", n, warm, name, got, err)
				case !readable:
					checkCorrupt(t, err, p, fmt.Sprintf("cut to %d, index in memory %v: %s reads as %q", n, warm, name, got))
				}
			}
		}
	}
}

// Another pack's bytes stand at the key, sound in themselves.
func TestAReplacedObjectIsNotServed(t *testing.T) {
	for _, c := range []struct {
		name  string
		other []version
	}{
		{"another version of the file", []version{{name: "a", seq: 8, content: "other!"}}},
		{"an older version of the file", []version{{name: "a", seq: 2, content: "other!"}}},
		{"of another name at the same place", []version{{name: "b", seq: 5, content: "other!"}}},
		{"of another layout", []version{{name: "a", seq: 5, content: "much longer"}, {name: "c", seq: 5, content: "C"}}},
	} {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, index in memory %v", c.name, warm), func(t *testing.T) {
				w := newWorld(t)
				p := w.pack(version{name: "a", seq: 5, content: "wanted"})
				w.manifest.set(p)
				r := w.retriever()
				if warm {
					prewarm(t, r)
				}
				other, _ := buildPack(t, desformat.WriterConfig{Pack: desformat.PackID{99}, Created: epoch, Token: token(1)}, c.other)
				w.store.Damage(p.Copies[0].Key, func([]byte) []byte { return other })
				got, err := read(t.Context(), r, "a")
				if err == nil {
					t.Fatalf("served %q", got)
				}
				for range 2 { // nothing of it is kept
					checkCorrupt(t, err, p, c.name)
					_, err = read(t.Context(), r, "a")
				}
				for _, want := range []Want{WantPart, WantHeader} {
					_, err = r.Open(t.Context(), "a", Query{Want: want})
					checkCorrupt(t, err, p, c.name)
				}
				_, err = r.Find(t.Context(), "a")
				checkCorrupt(t, err, p, c.name)
				if s := r.Stats(); s.Records != 0 {
					t.Errorf("%d records cached", s.Records)
				}
			})
		}
	}
}

// The manifest names the object's version, so an overwritten object is missing
// and not read.
func TestOnlyTheVersionOfTheManifestIsRead(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "a", seq: 1, content: "A"})
	p.Copies[0].Version = "another"
	w.manifest.set(p)
	wantDamage(t, w.retriever(), "a", p, Missing)

	p.Copies = append([]raftmeta.Copy{{Site: "elsewhere", Key: "nowhere"}}, p.Copies...)
	p.Copies[1].Version = "" // a store without versions
	wantRead(t, w.retriever(), "a", "A")

	p.Copies = nil // the key follows from the rest
	wantRead(t, w.retriever(), "a", "A")
}

// The manifest says where the index is; what cannot be there is not asked for.
func TestPlacesOutsideThePackAreCorrupt(t *testing.T) {
	for _, section := range []desformat.Section{
		{Offset: -1, Length: 10}, {Offset: 0, Length: -1}, {Offset: 1 << 40, Length: 10}, {Offset: 100, Length: 1 << 40},
	} {
		w := newWorld(t)
		p := w.pack(version{name: "a", seq: 1, content: "A"})
		p.Index = section
		w.manifest.set(p)
		if n := w.gets(func() { wantError(t, w.retriever(), "a", desformat.ErrCorrupt) }); n != 0 {
			t.Errorf("%+v: %d requests", section, n)
		}
	}
	// An index that fits, of a pack that the manifest says holds less.
	for _, shorten := range []func(*raftmeta.Pack){
		func(p *raftmeta.Pack) { p.Records-- },
		func(p *raftmeta.Pack) { p.MaxSeq = token(0) },
		func(p *raftmeta.Pack) { p.MinSeq, p.MaxSeq = token(2), token(2) },
	} {
		w := newWorld(t)
		p := w.pack(version{name: "a", seq: 1, content: "A"})
		shorten(p)
		w.manifest.set(p)
		wantError(t, w.retriever(), "a", desformat.ErrCorrupt)
	}
}

// tamperedStore changes the streams that a store gives.
type tamperedStore struct {
	Store
	tamper func(io.ReadCloser) io.ReadCloser
}

func (s tamperedStore) Get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	body, err := s.Store.Get(ctx, key, version, off, n)
	if err != nil {
		return nil, err
	}
	return s.tamper(body), nil
}

type tampered struct {
	io.Reader
	io.Closer
}

// What came is verified, so that the stream does not close well is no matter.
func TestAStreamThatFailsWhenClosedIsServed(t *testing.T) {
	w := newWorld(t)
	w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}))
	r := w.retriever(func(c *Config) {
		c.Store = tamperedStore{w.store, func(b io.ReadCloser) io.ReadCloser { return tampered{b, failingCloser{b}} }}
	})
	wantRead(t, r, "a", "A")
}

type failingCloser struct{ io.Closer }

func (c failingCloser) Close() error { return errors.Join(errInjected, c.Closer.Close()) }

// A transfer that breaks off says nothing about the object.
func TestABrokenTransferIsUnavailable(t *testing.T) {
	for _, c := range []struct {
		name   string
		tamper func(io.ReadCloser) io.ReadCloser
	}{
		{"ends early", func(b io.ReadCloser) io.ReadCloser { return tampered{io.LimitReader(b, 50), b} }},
		{"ends at once", func(b io.ReadCloser) io.ReadCloser { return tampered{strings.NewReader(""), b} }},
		{"fails", func(b io.ReadCloser) io.ReadCloser {
			return tampered{io.MultiReader(io.LimitReader(b, 50), errorReader{}), b}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.manifest.set(w.pack(version{name: "a", seq: 1, content: "A"}, version{name: "large", seq: 1, content: long("l", 2<<20)}))
			off := true
			store := tamperedStore{w.store, func(b io.ReadCloser) io.ReadCloser {
				if off {
					return b
				}
				return c.tamper(b)
			}}
			r := w.retriever(func(c *Config) { c.Store = store })
			off = false
			wantError(t, r, "a", ErrUnavailable) // the index
			off = true
			prewarm(t, r)
			off = false
			wantError(t, r, "a", ErrUnavailable) // the record
			if got, err := read(t.Context(), r, "large"); err == nil {
				t.Errorf("read %d bytes of a large record without an error", len(got))
			} else {
				wantOnly(t, err, ErrUnavailable)
			}
			if n := corrupted(r); n != 0 {
				t.Errorf("%d counted as corrupt", n)
			}
			off = true
			wantRead(t, r, "a", "A")
		})
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errInjected }

// The offset of damage is the place of the damage as far as it is known.
func TestCorruptionNamesItsPlace(t *testing.T) {
	w := newWorld(t)
	p := w.pack(version{name: "a", seq: 1, content: "AAAA"}, version{name: "b", seq: 1, content: "BBBB"})
	w.manifest.set(p)
	at := places(t, w, p)["b"]
	w.store.Damage(p.Copies[0].Key, func(b []byte) []byte {
		b[bytes.LastIndex(b[:at.Offset+at.Length], []byte("BBBB"))] ^= 1
		return b
	})
	_, err := read(t.Context(), w.retriever(), "b")
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.Offset < at.Offset || corrupt.Offset >= at.Offset+at.Length {
		t.Errorf("%v, want an offset in %+v", err, at)
	}
	if text := err.Error(); !strings.Contains(text, p.ID.String()) || !strings.Contains(text, fmt.Sprint(corrupt.Offset)) {
		t.Errorf("%q does not name pack and offset", text)
	}
}
