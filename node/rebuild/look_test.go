package rebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/node/store/storetest"
	"github.com/datavision/desnode/raftmeta"
)

// What is no whole pack of this cluster is told, and left as it is: not adopted,
// not announced as garbage, not touched.
func TestOddObjectsAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(8, "a")...)
	w.archive()
	good := slices.DeleteFunc(w.store.Keys(), func(k string) bool { return !strings.HasPrefix(k, "packs/") })
	whole := w.store.Bytes(good[0])
	token := func(i uint64) desformat.Token { return desformat.Token{Generation: 1, Index: 1000 + i} }
	id := func(i byte) desformat.PackID { return desformat.PackID{0xee, i} }
	key := func(i byte) string { return desformat.PackKey(desformat.Range{}, token(uint64(i)), id(i)) }
	mine := func(i byte) []byte { return w.sealed(token(uint64(i)), id(i), nil, "a/file-000.txt") }
	change := func(b []byte, fromEnd int) []byte { b[len(b)-fromEnd] ^= 0x40; return b }
	want := map[string]OddKind{
		"packs/readme.txt":          OddKey,
		"packs/0-0/1-1-xyz.des":     OddKey,
		key(1):                      OddTorn, // empty
		key(2):                      OddTorn, // cut
		key(3):                      OddTorn, // text
		key(4):                      OddDamaged,
		key(5):                      OddVersion,
		key(6):                      OddPlace, // a copy of another pack
		key(7):                      OddCluster,
		"packs/1-1/" + key(8)[10:]:  OddPlace, // of another range
		"packs/0-0/0" + key(9)[11:]: OddPlace, // of no generation
		desformat.PackKey(desformat.Range{}, token(99), w.life.View().Pack(firstPack(w)).ID): OddPlace,
	}
	put := func(key string, b []byte) {
		_, err := w.store.Put(t.Context(), key, bytes.NewReader(b), int64(len(b)))
		w.check(err)
	}
	put("packs/readme.txt", []byte("hello"))
	put("packs/0-0/1-1-xyz.des", mine(1))
	put(key(1), nil)
	put(key(2), mine(2)[:800])
	put(key(3), bytes.Repeat([]byte("text "), 1000))
	put(key(4), change(mine(4), 100))
	put(key(5), change(mine(5), 10))
	put(key(6), whole)
	put(key(7), w.foreign(token(7), id(7)))
	put("packs/1-1/"+key(8)[10:], mine(8))
	put("packs/0-0/0"+key(9)[11:], mine(9))
	put(desformat.PackKey(desformat.Range{}, token(99), w.life.View().Pack(firstPack(w)).ID), mine(10))
	before := w.store.Keys()

	manifest := w.snapshot()
	w.claim("node-2", nil)
	p := w.rebuild(nil)
	w.wantSnapshot(manifest)
	got := map[string]OddKind{}
	total := 0
	for _, o := range p.Odd {
		got[o.Key] = o.Kind
		if o.Why == "" {
			t.Errorf("%s: nothing is said about why", o.Key)
		}
	}
	for _, n := range p.OddCount {
		total += n
	}
	for k, kind := range want {
		if got[k] != kind {
			t.Errorf("%s is told as %q, want %q", k, got[k], kind)
		}
	}
	if len(got) != len(want) || total != len(want) {
		t.Errorf("%d odd objects and a count of %d, want %d: %+v", len(got), total, len(want), p.Odd)
	}
	if u := w.life.View().Uploads(); len(u) > 0 {
		t.Errorf("announced as garbage: %+v", u)
	}
	w.clock.advance(1000 * time.Hour)
	w.check(w.keeper(nil).Once(t.Context()))
	own := func(k string) bool { return strings.HasPrefix(k, generationPrefix) }
	if after := w.store.Keys(); !slices.Equal(slices.DeleteFunc(after, own), slices.DeleteFunc(before, own)) {
		t.Errorf("objects are %q, were %q", after, before)
	}
}

func firstPack(w *world) desformat.PackID {
	for p := range w.life.View().Packs() {
		return p.ID
	}
	return desformat.PackID{}
}

// foreign returns a whole pack of another cluster.
func (w *world) foreign(token desformat.Token, id desformat.PackID) []byte {
	w.t.Helper()
	f := &memFile{}
	dw, err := desformat.NewWriter(f, desformat.WriterConfig{Pack: id, Cluster: desformat.ClusterID{1}, Token: token, Created: w.clock.Now()})
	w.check(err)
	_, err = dw.Append(desformat.Record{Type: desformat.TypeFile, Name: "x", Seq: token, Source: "files", ID: "1", ModTime: w.clock.Now(), SourceTime: w.clock.Now()}, bytes.NewReader(nil))
	w.check(err)
	_, err = dw.Seal()
	w.check(err)
	return f.b
}

// memFile is a desformat.File in memory.
type memFile struct{ b []byte }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(f.b) {
		f.b = append(f.b, make([]byte, need-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) Truncate(size int64) error { f.b = f.b[:size]; return nil }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.b).ReadAt(p, off)
}

// A newer life has packed: this one is over, whatever it believes.
func TestAPackOfANewerLifeEndsTheRebuild(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt")
	w.mark()
	token := desformat.Token{Generation: 9, Index: 5}
	w.put(desformat.PackKey(desformat.Range{}, token, desformat.PackID{5}), string(w.sealed(token, desformat.PackID{5}, nil, "a.txt")))
	w.claim("node-2", nil)
	r, err := New(w.config(nil))
	w.check(err)
	if err := r.Run(t.Context()); !errors.Is(err, ErrSuperseded) || w.life.View().RebuildDone(2) {
		t.Errorf("Run = %v, want ErrSuperseded", err)
	}
}

// Packs that stand for others take their places, in whichever order they are
// found, also those that stand for one which stands for others.
func TestReplacedPacks(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt", "b.txt")
	w.mark()
	add := func(i byte, name string, replaces ...desformat.PackID) desformat.PackID {
		id, token := desformat.PackID{i}, desformat.Token{Generation: 1, Index: 100 + uint64(i)}
		w.put(desformat.PackKey(desformat.Range{}, token, id), string(w.sealed(token, id, replaces, name)))
		return id
	}
	one, two := add(9, "a.txt"), add(4, "b.txt")
	three := add(10, "a.txt", one, two, desformat.PackID{77}) // one that is gone
	four := add(11, "b.txt", three)
	self := desformat.PackID{12}
	add(12, "a.txt", self)
	w.claim("node-2", nil)
	w.rebuild(nil)
	want := map[desformat.PackID]desformat.PackID{one: three, two: three, three: four, four: {}, self: {}}
	for id, by := range want {
		if p := w.life.View().Pack(id); p == nil || p.ReplacedBy != by {
			t.Errorf("pack %s is %+v, want replaced by %s", id, p, by)
		}
	}
}

// A pack that the base names and the store has lost stays in the manifest: its
// files are missed, not forgotten.
func TestMissingObjectsStayInTheManifest(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(30, "a")...)
	w.archive()
	base, want := w.base(), w.snapshot()
	lost := w.life.View().Pack(firstPack(w)).Copies[0].Key
	w.store.Lose(lost)
	w.claim("node-2", nil)
	p := w.rebuild(from(base))
	w.wantSnapshot(want)
	if p.OddCount[OddMissing] != 1 || len(p.Odd) != 1 || p.Odd[0].Key != lost {
		t.Errorf("odd: %+v", p.Odd)
	}
}

// Open uploads are announced, objects in quarantine noted; both are looked
// after as those of this life are.
func TestOpenUploadsAndQuarantine(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt")
	w.archive()
	key := func(i byte) string {
		return desformat.PackKey(desformat.Range{}, desformat.Token{Generation: 1, Index: uint64(i)}, desformat.PackID{i})
	}
	hidden := "quarantine/2026-01-05/" + key(200)
	w.put(hidden, "torn")
	begun := w.clock.Now().Add(-time.Hour)
	open := openUploads{
		{Key: key(100), ID: "u1", Begun: begun},
		{Key: key(100), ID: "u2", Begun: begun},
		{Key: "packs/x", ID: "u3"},
		{Key: desformat.PackKey(desformat.Range{}, desformat.Token{Generation: 2, Index: 3}, desformat.PackID{3}), ID: "u4"},
	}
	w.claim("node-2", nil)
	p := w.rebuild(func(c *Config) { c.Uploads = open })
	got := w.life.View().Uploads()
	if len(got) != 1 || got[0].Key != key(100) || !got[0].BeganAt.Equal(begun) || !w.life.View().Garbage(got[0]) {
		t.Errorf("uploads are %+v", got)
	}
	if p.Uploads != 1 || p.Hidden != 1 {
		t.Errorf("progress %+v", p)
	}
	// In quarantine its time begins anew.
	for _, step := range []struct {
		after time.Duration
		there bool
	}{{6 * 24 * time.Hour, true}, {2 * 24 * time.Hour, false}} {
		w.clock.advance(step.after)
		w.check(w.keeper(nil).Once(t.Context()))
		if slices.Contains(w.store.Keys(), hidden) != step.there {
			t.Errorf("after %s more: objects %q", step.after, w.store.Keys())
		}
	}
	if list, _, _ := w.life.View().Setting("keeper/quarantine"); strings.Contains(string(list), quarantinePrefix) {
		t.Errorf("the list is %s", list)
	}
}

type openUploads []store.Upload

func (o openUploads) Uploads(_ context.Context, prefix string, f func(store.Upload) error) error {
	for _, u := range o {
		if !strings.HasPrefix(u.Key, prefix) {
			return fmt.Errorf("asked for %q", prefix)
		}
		if err := f(u); err != nil {
			return err
		}
	}
	return nil
}

// No payload is read: footers, and the catalogs of what is acknowledged.
func TestNoPayloadIsRead(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(60, "a")...)
	w.archive()
	var catalogs int64
	payload := map[string][2]int64{}
	packs := 0
	for p := range w.life.View().Packs() {
		packs++
		catalogs += p.Catalog.Length
		payload[p.Copies[0].Key] = [2]int64{0, p.Catalog.Offset}
	}
	w.claim("node-2", nil)
	before := w.store.Counts()
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if part, ok := payload[c.Key]; c.Kind == store.KindGet && ok && c.N < 0 {
			t.Errorf("Get of all of %s from %d, payload to %d", c.Key, c.Off, part[1])
		}
		return storetest.Fault{}
	})
	p := w.rebuild(nil)
	got := w.store.Counts().Sub(before)
	// Small packs end within 4 KiB: what a footer's read takes along is bounded.
	if most := catalogs + int64(packs)*4096; got.BytesGot > most {
		t.Errorf("%d bytes read, want at most %d", got.BytesGot, most)
	}
	if got.Head != 0 || got.Put != 0 || got.Get != int64(2*packs) || got.List != 2 {
		t.Errorf("requests %+v for %d packs", got, packs)
	}
	if p.Requests != int64(packs)+2 {
		t.Errorf("progress counts %d requests of its own for %d packs", p.Requests, packs)
	}
}

// A store that does not answer says nothing about what it holds: the rebuild
// waits, and tells why.
func TestStoreOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.write(1, names(30, "a")...)
		w.archive()
		want := w.snapshot()
		w.claim("node-2", nil)
		down := time.Now().Add(10 * time.Minute)
		w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
			if c.Kind == store.KindGet && time.Now().Before(down) {
				return storetest.Fault{Err: storetest.ErrInjected}
			}
			return storetest.Fault{}
		})
		r, err := New(w.config(nil))
		w.check(err)
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if p := r.Progress(); p.Phase != PhasePacks || !strings.Contains(p.Problem, storetest.ErrInjected.Error()) || p.Read != 0 {
			t.Errorf("during the outage: %+v", p)
		}
		w.check(<-done)
		w.wantSnapshot(want)
		if p := r.Progress(); p.Problem != "" || p.Phase != PhaseDone {
			t.Errorf("afterwards: %+v", p)
		}
	})
}

// An object that goes between its listing and its reading is listed again.
func TestVanishedObjectsAreListedAgain(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(30, "a")...)
	w.archive()
	lost := w.life.View().Pack(firstPack(w)).Copies[0].Key
	w.claim("node-2", nil)
	lists := 0
	w.store.SetHook(func(_ context.Context, c storetest.Call) storetest.Fault {
		if c.Kind == store.KindGet {
			w.store.Lose(lost)
		}
		if c.Kind == store.KindList && c.Key == packPrefix {
			lists++
		}
		return storetest.Fault{}
	})
	p := w.rebuild(nil)
	if w.life.View().Pack(firstPackOf(lost)) != nil || lists != 2 || len(p.Odd) > 0 {
		t.Errorf("%d listings, odd %+v", lists, p.Odd)
	}
}

func firstPackOf(key string) desformat.PackID {
	_, _, id, _ := desformat.ParsePackKey(key)
	return id
}

// What an earlier life could still archive is looked for after it no longer can:
// a pack that comes between the first look and the fence is found.
func TestTheLookThatCountsBeginsBehindTheFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.write(1, "early.txt", "late.txt")
		w.mark()
		w.abandon("early.txt")
		token, id := desformat.Token{Generation: 1, Index: 50}, desformat.PackID{50}
		late := w.sealed(token, id, nil, "late.txt")
		w.claim("node-2", nil)
		asked := 0
		r, err := New(w.config(func(c *Config) {
			c.Fence = func(context.Context) error {
				switch asked++; {
				case asked < 4:
					return errors.New("the source does not answer")
				case asked == 4:
					w.put(desformat.PackKey(desformat.Range{}, token, id), string(late))
				}
				return nil
			}
		}))
		w.check(err)
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		w.wantServed("early.txt", 1) // reads do not wait
		if p := r.Progress(); p.Phase != PhaseFence || !strings.Contains(p.Problem, "does not answer") || w.life.View().RebuildDone(2) {
			t.Errorf("before the fence: %+v", p)
		}
		w.check(<-done)
		w.wantServed("late.txt", 1)
		if asked != 4 {
			t.Errorf("the fence was asked for %d times", asked)
		}
	})
}

// noted notes what is adopted, in its order.
type noted struct {
	Commands
	calls [][]raftmeta.Pack
}

func (n *noted) Adopt(ctx context.Context, a raftmeta.Adoption) error {
	n.calls = append(n.calls, slices.Clone(a.Packs))
	return n.Commands.Adopt(ctx, a)
}

// Names are served while packs are still being adopted: of two versions the newer
// one comes first, from a base as from the store.
func TestNewerPacksAreAdoptedFirst(t *testing.T) {
	for _, tc := range []struct {
		name string
		base bool
	}{{"the packs alone", false}, {"from a base", true}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			for version := 1; version <= 6; version++ {
				w.write(version, "a.txt")
				w.archive()
			}
			base := w.base()
			w.claim("node-2", nil)
			n := &noted{Commands: w.life}
			w.rebuild(func(c *Config) {
				if tc.base {
					from(base)(c)
				}
				c.Commands, c.Footers = n, 1
			})
			packs := 0
			for _, call := range n.calls {
				packs += len(call)
				if !slices.IsSortedFunc(call, func(a, b raftmeta.Pack) int { return b.MaxSeq.Compare(a.MaxSeq) }) {
					t.Errorf("adopted in the order %v", call)
				}
			}
			if packs != 6 {
				t.Errorf("%d packs adopted, want 6", packs)
			}
		})
	}
}

// A file that was changed, and changed back before its new content was
// acknowledged, is what its row says it is, though a newer record is found that
// was dead: its original is gone, and nobody will archive it as the newest again.
func TestAFileThatWentBackIsServedAsItsRowSays(t *testing.T) {
	for _, committed := range []bool{true, false} {
		t.Run(fmt.Sprintf("the newer pack was committed %t", committed), func(t *testing.T) {
			w := newWorld(t)
			w.write(1, "a.txt")
			w.archive()
			w.write(2, "a.txt")
			w.mark()
			if committed {
				w.wait = true
				w.pack()
				w.wait = false
			} else {
				w.abandon("a.txt")
			}
			w.write(1, "a.txt")
			w.check(w.keeper(nil).Once(t.Context()))
			w.archive() // the archive has it: it is acknowledged again
			w.deleteOriginals()
			w.wantServed("a.txt", 1)
			states := w.states()
			if !strings.HasPrefix(states["a.txt"], "DELETED_SOURCE version 3") || len(w.snapshot()) != map[bool]int{true: 2, false: 1}[committed] {
				t.Fatalf("%v, %d packs", states, len(w.snapshot()))
			}

			w.claim("node-2", nil)
			w.rebuild(nil)
			w.wantServed("a.txt", 1)
			w.wantStates(states)
		})
	}
}
