package rebuild

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// archiveWithDead leaves a record that is dead: its row changes between build and
// acknowledgement.
func (w *world) archiveWithDead(name string) {
	w.t.Helper()
	w.mark()
	w.wait = true
	w.pack()
	w.wait = false
	w.write(2, name)
	w.check(w.keeper(nil).Once(w.t.Context()))
}

// From an older base: what it knows is taken from it, what came after is found.
func TestRestoreFromAnOlderBase(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(8, "a")...)
	w.archiveWithDead("a/file-001.txt")
	if w.states()["a/file-001.txt"][:6] != "ACTIVE" {
		t.Fatalf("%s", w.states()["a/file-001.txt"])
	}
	w.check(w.life.Set(t.Context(), "roots", []byte("of the old life"), 0))
	w.check(w.life.Set(t.Context(), "secret", []byte("of the old life"), 0))
	base := w.base()
	dead := 0
	for p := range base.Packs() {
		dead += len(p.Dead)
	}
	if dead != 1 {
		t.Fatalf("the base has %d dead records, want one", dead)
	}
	w.archive() // the changed file
	w.write(1, names(8, "b")...)
	w.archive()
	want, states := w.snapshot(), w.states()

	w.claim("node-2", nil)
	p := w.rebuild(func(c *Config) {
		from(base)(c)
		c.RestoreSetting = func(key string) bool { return key == "roots" }
	})
	w.wantSnapshot(want)
	w.wantStates(states)
	w.wantServed("a/file-001.txt", 2)
	if p.FromBase+p.Adopted != len(want) || p.Adopted == 0 || p.FromBase == 0 || len(p.Odd) > 0 {
		t.Errorf("progress %+v of %d packs", p, len(want))
	}
	if v, _, _ := w.life.View().Setting("roots"); string(v) != "of the old life" {
		t.Errorf("setting roots is %q", v)
	}
	if v, _, ok := w.life.View().Setting("secret"); ok {
		t.Errorf("setting secret was taken over: %q", v)
	}
}

// An object that the base knows to be fenced and uncommitted stays dead, and is
// collected in time. One whose lease lived counts: it may have been committed
// right after.
func TestFencedUploadsOfTheBaseStayDead(t *testing.T) {
	w := newWorld(t)
	w.write(1, "dead.txt", "alive.txt")
	w.mark()
	fenced := w.abandon("dead.txt")
	var base *raftmeta.View
	var living string
	w.check(w.life.WithLease(t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		living = w.upload(ctx, l, desformat.PackID{0xcd}, nil, "alive.txt")
		base = w.base()
		return nil
	}))

	w.claim("node-2", nil)
	p := w.rebuild(from(base))
	if p.Adopted != 1 || w.life.View().Pack(desformat.PackID{0xcd}) == nil {
		t.Errorf("adopted %d packs, want the one at %s", p.Adopted, living)
	}
	uploads := w.life.View().Uploads()
	if len(uploads) != 1 || uploads[0].Key != fenced {
		t.Errorf("uploads are %+v, want %s", uploads, fenced)
	}
	for _, u := range uploads {
		if !w.life.View().Garbage(u) {
			t.Errorf("%s is no garbage", u.Key)
		}
	}
	w.wantServed("alive.txt", 1)
	w.wantServed("dead.txt", 0)
	if r := w.row("dead.txt"); r.State != "MARKED" {
		t.Errorf("the row of the dead record is %s", r.State)
	}
	// The row is packed anew, and the objects are collected as all garbage is.
	w.pack()
	w.wantServed("dead.txt", 1)
	w.clock.advance(time.Since(w.clock.Now()) + 48*time.Hour) // the store has the real time
	w.check(w.keeper(nil).Once(t.Context()))
	if left := w.life.View().Uploads(); len(left) > 0 {
		t.Errorf("uploads left: %+v", left)
	}
	for _, key := range w.store.Keys() {
		if key == fenced {
			t.Errorf("%s was not moved away", key)
		}
	}
}

// Without a base every whole object counts: nobody knows any more which were
// committed, and equal versions are harmless.
func TestWithoutABaseEveryWholeObjectCounts(t *testing.T) {
	w := newWorld(t)
	w.write(1, "one.txt", "two.txt")
	w.mark()
	w.abandon("one.txt")
	w.pack()
	w.claim("node-2", nil)
	w.rebuild(nil)
	if n := len(w.snapshot()); n != 2 {
		t.Errorf("%d packs, want both", n)
	}
	for _, n := range []string{"one.txt", "two.txt"} {
		w.wantServed(n, 1)
	}
	for id, p := range w.snapshot() {
		if !p.Acknowledged || len(p.Dead) > 0 {
			t.Errorf("pack %s: acknowledged %t, dead %v", id, p.Acknowledged, p.Dead)
		}
	}
}

// A life between the base's and ours may have relied on what was dead in the
// base's: neither its fences nor its dead records are believed.
func TestABaseOfAnOlderLifeIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	w.write(1, names(4, "a")...)
	w.write(1, "c.txt")
	w.mark()
	w.abandon("c.txt")
	w.archiveWithDead("a/file-001.txt")
	base := w.base()

	w.claim("node-2", nil) // knows nothing, and adopts all
	w.rebuild(nil)
	states := w.states()
	between := w.snapshot()

	w.claim("node-3", nil)
	if w.life.generation != 3 {
		t.Fatalf("generation %d", w.life.generation)
	}
	w.rebuild(from(base))
	w.wantSnapshot(between)
	w.wantStates(states)
	w.wantServed("c.txt", 1)
}

// What can't be the base is refused for good, and nothing was adopted from it.
func TestUnfitBases(t *testing.T) {
	foreign, err := raftmeta.OpenLocal(raftmeta.LocalConfig{Node: "x", Cluster: desformat.ClusterID{1}, Journal: &raftmeta.Journal{}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.write(1, "a.txt")
	w.archive()
	w.claim("node-2", nil)
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want error
	}{
		{"another cluster's", from(foreign.View()), ErrBase},
		{"of this life", from(w.life.View()), ErrBase},
		{"another than was begun with", func(c *Config) { from(w.life.View())(c); c.Base = "backups/1-7" }, ErrPlan},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := New(w.config(tc.edit))
			w.check(err)
			if err := r.Run(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("Run = %v, want %v", err, tc.want)
			}
			if n := len(w.snapshot()); n != 0 || w.life.View().RebuildDone(2) {
				t.Errorf("%d packs adopted", n)
			}
		})
	}
}

// A pack whose object was away while a life began, and that is there again, is no
// garbage because a base of that life does not name it. What that life knew to be
// garbage stays it.
func TestAPackThatCameBackIsFoundBesideABase(t *testing.T) {
	w := newWorld(t)
	w.write(1, "dead.txt")
	w.mark()
	dead := w.abandon("dead.txt")
	first := w.base()
	w.pack()
	packed := map[desformat.PackID]bool{firstPack(w): true}
	w.write(1, "a.txt")
	w.archive()
	var key string
	for p := range w.life.View().Packs() {
		if !packed[p.ID] {
			key = p.Copies[0].Key
		}
	}
	body := string(w.store.Bytes(key))
	w.check(w.store.Delete(t.Context(), key))
	w.claim("node-2", nil)
	w.rebuild(from(first))
	w.wantServed("a.txt", 0)
	second := w.base()
	w.put(key, body)

	w.claim("node-3", nil)
	w.rebuild(from(second))
	w.wantServed("a.txt", 1)
	w.wantServed("dead.txt", 1)
	if u := w.life.View().Uploads(); len(u) != 1 || u[0].Key != dead {
		t.Errorf("uploads are %+v, want %s", u, dead)
	}
}

// An upload that was under way when the base was made may have been committed
// since. When its object can't be read as a pack it is told, and not collected as
// one that never was.
func TestADamagedPackThatTheBaseKnowsAsAnUploadIsKept(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt")
	w.mark()
	var base *raftmeta.View
	var key string
	w.check(w.life.WithLease(t.Context(), raftmeta.Job{Kind: raftmeta.JobPack}, func(ctx context.Context, l raftmeta.Lease) error {
		key = w.upload(ctx, l, desformat.PackID{0xcd}, nil, "a.txt")
		base = w.base()
		return nil
	}))
	w.store.Damage(key, func(b []byte) []byte { return b[:len(b)-40] })

	w.claim("node-2", nil)
	p := w.rebuild(from(base))
	if p.OddCount[OddTorn] != 1 || len(p.Odd) != 1 || p.Odd[0].Key != key {
		t.Errorf("odd: %+v", p.Odd)
	}
	if u := w.life.View().Uploads(); len(u) > 0 {
		t.Errorf("announced as garbage: %+v", u)
	}
	w.clock.advance(1000 * time.Hour)
	w.check(w.keeper(nil).Once(t.Context()))
	if !slices.Contains(w.store.Keys(), key) {
		t.Errorf("%s was moved away", key)
	}
}

// The base of a life whose state was put back, and worked on, knows nothing of the
// packs that it has forgotten, though their tokens are behind it.
func TestABaseThatWentBackFencesNoPackThatItHasForgotten(t *testing.T) {
	w := newWorld(t)
	w.write(1, "a.txt")
	w.archive()
	w.deleteOriginals()
	w.begin("node-1", 1, nil) // as it was before
	for version := 1; version <= 4; version++ {
		w.write(version, "b.txt")
		w.archive()
	}
	base := w.base()
	w.claim("node-2", nil)
	w.rebuild(from(base))
	w.wantServed("a.txt", 1)
	w.wantServed("b.txt", 4)
}
