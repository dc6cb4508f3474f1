package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

func TestVerificationIsRecorded(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a", "b")
	began := w.clock.Now()
	w.once(func(c *Config) { c.DeleteSource = false })
	c := w.meta.View().Pack(p.ID).Copies[0]
	if c.VerifiedBy != "node-a" || c.VerifiedAt.Before(began) || c.Damage != "" {
		t.Errorf("copy = %+v", c)
	}
}

// A flipped byte anywhere in a stored pack is recorded as damage, and no
// original of it is deleted.
func TestFlippedByteIsDamage(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a", "b")
	c := p.Copies[0]
	for _, tc := range []struct {
		name   string
		offset int64
	}{
		{"magic", 0},
		{"pack header", 20},
		{"payload", p.Catalog.Offset - 3},
		{"catalog", p.Catalog.Offset + p.Catalog.Length/2},
		{"index", p.Index.Offset + p.Index.Length/2},
		{"footer", p.Size - 40},
		{"last byte", p.Size - 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.spoil(p, tc.offset)
			defer w.spoil(p, tc.offset)
			res, err := w.keeper(nil).verify(t.Context(), p)
			if err != nil || res.Damage == "" {
				t.Errorf("verify = %+v, %v; want damage", res, err)
			}
			if got := w.meta.View().Pack(p.ID).Copies[0]; got.Damage == "" || got.Key != c.Key {
				t.Errorf("copy = %+v, want damage", got)
			}
			if deletable(w.meta.View().Pack(p.ID)) {
				t.Error("a damaged pack lets its originals go")
			}
		})
	}
	res, err := w.keeper(nil).verify(t.Context(), p)
	if err != nil || res.Damage != "" || res.Records != 2 {
		t.Errorf("whole again: %+v, %v", res, err)
	}
}

// A verification asks for nothing but the pack's bytes.
func TestVerificationSendsNoHead(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a", "b")
	w.faults.reset()
	if res, err := w.keeper(nil).verify(t.Context(), p); err != nil || res.Damage != "" || res.Records != 2 {
		t.Fatalf("verify = %+v, %v", res, err)
	}
	if heads, gets := count(w.faults.calls, "store.Head"), count(w.faults.calls, "store.Get"); heads != 0 || gets != 3 {
		t.Errorf("%d HEADs and %d GETs: %q", heads, gets, w.faults.calls)
	}
}

func TestObjectThatIsNotThePackIsDamage(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(w *world, path string)
		want  string
	}{
		{"missing", func(w *world, path string) { w.check(os.Remove(path)) }, "no object"},
		{"cut", func(w *world, path string) {
			fi, err := os.Stat(path)
			w.check(err)
			w.check(os.Chmod(path, 0o600))
			w.check(os.Truncate(path, fi.Size()-1))
			w.check(os.Chtimes(path, fi.ModTime(), fi.ModTime()))
		}, "bytes"},
		{"longer", func(w *world, path string) {
			fi, err := os.Stat(path)
			w.check(err)
			w.check(os.Chmod(path, 0o600))
			b, err := os.ReadFile(path)
			w.check(err)
			w.check(os.WriteFile(path, append(b, 0), 0o600))
			w.check(os.Chtimes(path, fi.ModTime(), fi.ModTime()))
		}, "goes on"},
		{"another version of other bytes", func(w *world, path string) {
			b, err := os.ReadFile(path)
			w.check(err)
			b[len(b)/2] ^= 1
			w.check(os.Chmod(path, 0o600))
			w.check(os.WriteFile(path, b, 0o600))
			w.check(os.Chtimes(path, time.Now(), time.Now()))
		}, "pack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a")
			tc.spoil(w, filepath.Join(w.dir, "store", filepath.FromSlash(p.Copies[0].Key)))
			res, err := w.keeper(nil).verify(t.Context(), p)
			if err != nil || !strings.Contains(res.Damage, tc.want) {
				t.Errorf("verify = %+v, %v; want damage %q", res, err, tc.want)
			}
		})
	}
}

// A store that was copied with other times has other versions of the same bytes.
func TestCopiedStoreIsNotDamage(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a", "b")
	old := p.Copies[0].Version
	path := filepath.Join(w.dir, "store", filepath.FromSlash(p.Copies[0].Key))
	w.check(os.Chtimes(path, time.Unix(1000, 0), time.Unix(1000, 0)))
	res, err := w.keeper(nil).verify(t.Context(), p)
	if err != nil || res.Damage != "" || res.Records != 2 {
		t.Fatalf("verify = %+v, %v; want no damage", res, err)
	}
	obj, err := w.folder.Head(t.Context(), p.Copies[0].Key, "")
	w.check(err)
	got := w.meta.View().Pack(p.ID).Copies[0]
	if got.Version == old || got.Version != obj.Version || got.VerifiedAt.IsZero() {
		t.Errorf("copy = %+v, want version %s, verified", got, obj.Version)
	}
	p = w.meta.View().Pack(p.ID)
	if s, err := w.stored(p, "a"); err != nil || s != "content of a" {
		t.Errorf("read by the new version: %q, %v", s, err)
	}
}

// A verification of tomorrow vouches for nothing, and does not keep today's out.
func TestVerificationOfTheFutureIsNone(t *testing.T) {
	const decade = 10 * 365 * 24 * time.Hour
	w := newWorld(t)
	w.noDelete = true
	p := w.archived("a", "b")
	w.clock.advance(decade)
	w.once(nil)
	w.clock.advance(-decade)
	w.noDelete = false
	w.once(nil)
	if at := w.meta.View().Pack(p.ID).Copies[0].VerifiedAt; at.IsZero() || at.After(w.clock.Now()) {
		t.Errorf("verified at %s, which is to come", at)
	}
	w.wantRow("a", source.DeletedSource, "")
}

// Another pack of the same size at the key is whole, and wrong.
func TestSwappedPackIsDamage(t *testing.T) {
	w := newWorld(t)
	bySize := map[int64]*raftmeta.Pack{}
	for i := range 20 {
		p := w.archived(fmt.Sprintf("file-%02d", i))
		other := bySize[p.Size]
		if bySize[p.Size] = p; other == nil {
			continue
		}
		at := filepath.Join(w.dir, "store", filepath.FromSlash(p.Copies[0].Key))
		fi, err := os.Stat(at)
		w.check(err)
		b, err := os.ReadFile(filepath.Join(w.dir, "store", filepath.FromSlash(other.Copies[0].Key)))
		w.check(err)
		w.check(os.Chmod(at, 0o600))
		w.check(os.WriteFile(at, b, 0o600))
		w.check(os.Chtimes(at, fi.ModTime(), fi.ModTime()))
		res, err := w.keeper(nil).verify(t.Context(), p)
		if err != nil || !strings.Contains(res.Damage, "pack id") {
			t.Errorf("verify = %+v, %v; want another pack id", res, err)
		}
		return
	}
	t.Fatal("no two packs of one size")
}

func TestFooterIsHeldAgainstTheManifest(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	f := desformat.Footer{
		Pack: p.ID, Cluster: w.meta.View().Cluster(), Token: p.Token, MinSeq: p.MinSeq, MaxSeq: p.MaxSeq, Range: p.Range,
		Records: p.Records, PayloadBytes: p.PayloadBytes, Catalog: p.Catalog, Index: p.Index, SHA256: p.SHA256, Size: p.Size,
	}
	cluster := w.meta.View().Cluster()
	if what := disagrees(p, f, cluster); what != "" {
		t.Fatalf("its own footer's %s disagrees", what)
	}
	narrow, err := desformat.NewRange(1, 1)
	w.check(err)
	for want, edit := range map[string]func(*desformat.Footer){
		"pack id":      func(f *desformat.Footer) { f.Pack[0]++ },
		"cluster id":   func(f *desformat.Footer) { f.Cluster[0]++ },
		"token":        func(f *desformat.Footer) { f.Token.Index++ },
		"range":        func(f *desformat.Footer) { f.Range = narrow },
		"SHA-256":      func(f *desformat.Footer) { f.SHA256[31]++ },
		"size":         func(f *desformat.Footer) { f.Size++ },
		"record count": func(f *desformat.Footer) { f.Records++ },
		"payload size": func(f *desformat.Footer) { f.PayloadBytes++ },
		"sequence":     func(f *desformat.Footer) { f.MinSeq.Index-- },
		"catalog":      func(f *desformat.Footer) { f.Catalog.CRC++ },
		"index":        func(f *desformat.Footer) { f.Index.CRC++ },
	} {
		g := f
		edit(&g)
		if got := disagrees(p, g, cluster); got != want {
			t.Errorf("disagrees = %q, want %q", got, want)
		}
	}
}

func TestStoreErrorIsNotDamage(t *testing.T) {
	for _, op := range []string{"store.Head", "store.Get"} {
		t.Run(op, func(t *testing.T) {
			w := newWorld(t)
			p := w.archived("a")
			if op == "store.Head" { // asked only when the version is another
				path := filepath.Join(w.dir, "store", filepath.FromSlash(p.Copies[0].Key))
				w.check(os.Chtimes(path, time.Unix(1000, 0), time.Unix(1000, 0)))
			}
			w.faults.on = func(o string) error {
				if o == op {
					return errInjected
				}
				return nil
			}
			if _, err := w.keeper(nil).verify(t.Context(), p); !errors.Is(err, errInjected) {
				t.Errorf("verify = %v", err)
			}
			if c := w.meta.View().Pack(p.ID).Copies[0]; c.Damage != "" || !c.VerifiedAt.IsZero() {
				t.Errorf("copy = %+v, want nothing recorded", c)
			}
		})
	}
}

func TestVerifyForTheOperator(t *testing.T) {
	w := newWorld(t)
	good := w.archived("a")
	bad := w.archived("b")
	w.spoil(bad, bad.Catalog.Offset-3)
	k := w.keeper(nil)
	got := map[desformat.PackID]Result{}
	collect := func(r Result) error { got[r.Pack] = r; return nil }
	w.check(k.Verify(t.Context(), nil, collect))
	if r := got[good.ID]; len(got) != 2 || r.Err != nil || r.Damage != "" || r.Records != 1 || r.Bytes != good.Size {
		t.Errorf("good pack: %+v", r)
	}
	if r := got[bad.ID]; r.Err != nil || r.Damage == "" {
		t.Errorf("bad pack: %+v", r)
	}
	unknown := newPackID()
	w.check(k.Verify(t.Context(), []desformat.PackID{unknown}, collect))
	if r := got[unknown]; !errors.Is(r.Err, ErrNotLive) {
		t.Errorf("unknown pack: %+v", r)
	}
	stop := errors.New("enough")
	if err := k.Verify(t.Context(), nil, func(Result) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Verify = %v, want the callback's error", err)
	}
	// Another job's lease on the pack does not keep an operator from reading it.
	job := raftmeta.Job{Kind: raftmeta.JobVerify, Packs: []desformat.PackID{good.ID}}
	w.check(w.meta.WithLease(t.Context(), job, func(_ context.Context, _ raftmeta.Lease) error {
		return k.Verify(t.Context(), []desformat.PackID{good.ID}, func(r Result) error { return r.Err })
	}))
}

func TestScrubbingIsOldestFirstWithinTheBudget(t *testing.T) {
	w := newWorld(t)
	var packs []*raftmeta.Pack
	for _, n := range []string{"a", "b", "c"} {
		packs = append(packs, w.archived(n))
		w.once(noDelete)
		w.clock.advance(time.Hour)
	}
	first := map[desformat.PackID]time.Time{}
	for _, p := range packs {
		first[p.ID] = verifiedAt(w.meta.View().Pack(p.ID))
	}
	again := func() (n int) {
		for _, p := range packs {
			if !verifiedAt(w.meta.View().Pack(p.ID)).Equal(first[p.ID]) {
				n++
			}
		}
		return n
	}
	budget := func(c *Config) { c.DeleteSource, c.ScrubBytesPerDay = false, packs[0].Size+1 }
	w.once(budget)
	if n := again(); n != 0 {
		t.Fatalf("%d packs read again before ScrubInterval", n)
	}
	w.clock.advance(31 * 24 * time.Hour)
	w.once(budget)
	// The budget is spent with the second pack; the oldest two were first.
	if n := again(); n != 2 || verifiedAt(w.meta.View().Pack(packs[2].ID)) != first[packs[2].ID] {
		t.Errorf("%d packs read again, want the two oldest", n)
	}
	w.once(budget) // a restart gives no new budget
	if n := again(); n != 2 {
		t.Errorf("%d packs read again on the same day, want 2", n)
	}
	w.clock.advance(25 * time.Hour)
	w.once(budget)
	if n := again(); n != 3 {
		t.Errorf("%d packs read again a day later, want 3", n)
	}
}

func noDelete(c *Config) { c.DeleteSource = false }

func TestDamagedPackIsReadAgainTheNextDay(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	w.spoil(p, p.Catalog.Offset-3)
	w.once(noDelete)
	if deletable(w.meta.View().Pack(p.ID)) {
		t.Fatal("no damage found")
	}
	w.spoil(p, p.Catalog.Offset-3) // whole again
	w.once(noDelete)
	if deletable(w.meta.View().Pack(p.ID)) {
		t.Error("read again at once")
	}
	w.clock.advance(25 * time.Hour)
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}
