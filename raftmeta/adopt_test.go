package raftmeta

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
)

// newLife is a world in a generation that begins with a rebuild.
func newLife(t testing.TB, generation uint64) *world {
	w := &world{TB: t}
	w.machine = newMachine(func(err error) { t.Errorf("machine halts: %v", err) })
	w.must(&formCommand{Cluster: desformat.ClusterID{1}, ShardBits: 10, Generation: generation})
	w.must(&memberCommand{Member{ID: "node-b"}})
	return w
}

func (w *world) rebuilt() {
	w.Helper()
	w.must(&setCommand{Key: rebuildKey(w.state().Generation()), Value: []byte("done")})
}

// oldPack is a pack of generation 1, as its footer tells of it.
func oldPack(t testing.TB, r string, n uint64) Pack {
	l := Lease{Token: desformat.Token{Generation: 1, Index: 10 + n}, Job: Job{Kind: JobPack, Range: mustRange(t, r)}}
	return testPack(l, packID(n))
}

func oldUpload(t testing.TB, r string, n uint64) Upload {
	l := Lease{Token: desformat.Token{Generation: 1, Index: 10 + n}, Job: Job{Kind: JobPack, Range: mustRange(t, r)}}
	return testUpload(l, packID(n))
}

func adoptPacks(packs ...Pack) *adoptCommand {
	c := &adoptCommand{}
	for _, p := range packs {
		one := snapshotPack{Pack: p, Dead: p.Dead}
		one.Pack.Dead = nil
		c.Packs = append(c.Packs, one)
	}
	return c
}

func TestAdoptedPackIsAsItWas(t *testing.T) {
	w := newLife(t, 2)
	p := oldPack(t, "3a/8", 1)
	p.PackedBy, p.Acknowledged, p.Dead = "a node of then", true, []uint32{2, 3}
	p.AddIndex, p.ModIndex = 7, 9
	p.RetainUntil, p.Hold = time.Unix(2_000_000_000, 0).UTC(), true
	p.Copies[0].VerifiedAt, p.Copies[0].VerifiedBy = time.Unix(1_700_000_100, 0).UTC(), "node-b"
	p.Copies = append(p.Copies, Copy{Site: "far", Key: "k", Damage: "torn"})
	w.must(adoptPacks(p))
	w.must(adoptPacks(p))
	want := p
	want.AddIndex, want.ModIndex = w.index-1, w.index-1 // of the first, so that every member has applied it before anything goes
	want.Copies = slices.Clone(p.Copies)
	want.Copies[0].VerifiedAt, want.Copies[0].VerifiedBy = time.Time{}, "" // nothing is deleted before it is read again
	got := w.state().Pack(p.ID)
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("adopted as\n%+v\nnot\n%+v", got, &want)
	}
	if got := w.state().Covering(desformat.NameHash{0x3a}, nil); len(got) != 1 || got[0].ID != p.ID {
		t.Errorf("reads find %v", got)
	}
	if w.state().state.awaited != want.AddIndex {
		t.Error("nobody waits until all members have applied it")
	}
}

func TestAdoptedPackWithoutAnAcknowledgementWaitsForIt(t *testing.T) {
	w := newLife(t, 2)
	w.must(adoptPacks(oldPack(t, "3a/8", 1)))
	w.rebuilt()
	w.refused(&grantCommand{Job: Job{Kind: JobPack, Range: mustRange(t, "3/4")}, Holder: "node-a", Request: "r"}, ErrUnacknowledged)
	l := w.lease(packsJob(JobAck, packID(1)))
	w.must(&ackPackCommand{Pack: packID(1), Token: l.Token, Dead: ordinals{4}})
	w.release(l)
	w.leaseRange("3/4")
}

// TestAdoptionLearnsTwoThings: packs are found by their footers first and in
// the base later, or the other way round, and nothing else may change.
func TestAdoptionLearnsTwoThings(t *testing.T) {
	bare := oldPack(t, "3a/8", 1)
	acked := bare
	acked.Acknowledged, acked.Dead = true, []uint32{1}
	replaced := acked
	replaced.Dead, replaced.ReplacedBy = []uint32{7}, packID(2)
	by := oldPack(t, "3a/8", 2)

	w := newLife(t, 2)
	w.must(adoptPacks(bare))
	w.must(adoptPacks(acked))
	if p := w.state().Pack(packID(1)); !p.Acknowledged || !slices.Equal(p.Dead, []uint32{1}) || p.ModIndex != w.index {
		t.Errorf("not acknowledged: %+v", p)
	}
	other := acked
	other.Dead = []uint32{7}
	w.must(adoptPacks(other))
	w.must(adoptPacks(bare))
	if p := w.state().Pack(packID(1)); !slices.Equal(p.Dead, []uint32{1}) || p.ModIndex != w.index-2 {
		t.Errorf("the first acknowledgement does not count: %+v", p)
	}
	w.must(adoptPacks(by))
	w.must(adoptPacks(replaced))
	w.must(adoptPacks(acked))
	if got := w.state().Covering(desformat.NameHash{0x3a}, nil); len(got) != 1 || got[0].ID != by.ID {
		t.Errorf("reads find %v", got)
	}
	if p := w.state().Pack(packID(1)); p.ReplacedBy != by.ID || !slices.Equal(p.Dead, []uint32{1}) {
		t.Errorf("not replaced: %+v", p)
	}
}

// TestPackGivesWayOnlyToOneThatIsKnown: reads would find neither.
func TestPackGivesWayOnlyToOneThatIsKnown(t *testing.T) {
	a, b := oldPack(t, "3a/8", 1), oldPack(t, "3a/8", 2)
	a.ReplacedBy = b.ID
	w := newLife(t, 2)
	w.refused(adoptPacks(a), ErrUnknownPack)
	w.must(adoptPacks(a, b))
	ring := b
	ring.ReplacedBy = a.ID
	w.refused(adoptPacks(ring), ErrInvalid)
}

func TestAdoptionEndsWithTheRebuild(t *testing.T) {
	w := newLife(t, 2)
	a, u := oldPack(t, "3a/8", 1), oldUpload(t, "3b/8", 2)
	first := adoptPacks(a)
	first.Uploads = []Upload{u}
	w.must(first)
	w.rebuilt()
	w.must(first) // a late repetition
	w.refused(adoptPacks(a, oldPack(t, "3c/8", 3)), ErrRebuilt)
	w.refused(&adoptCommand{Uploads: []Upload{oldUpload(t, "3c/8", 3)}}, ErrRebuilt)
	acked := a
	acked.Acknowledged = true
	w.refused(adoptPacks(acked), ErrRebuilt)

	formed := newWorld(t) // generation 1 begins with no rebuild
	formed.refused(adoptPacks(a), ErrInvalid)
}

// TestAdoptedUploadIsGarbageOnlyAfterTheRebuild: until then it may yet turn
// out to be a pack.
func TestAdoptedUploadIsGarbageOnlyAfterTheRebuild(t *testing.T) {
	w := newLife(t, 3)
	u, v := oldUpload(t, "3a/8", 1), oldUpload(t, "3b/8", 2)
	w.must(&adoptCommand{Uploads: []Upload{u, v}})
	w.must(&adoptCommand{Uploads: []Upload{u}})
	if w.state().Garbage(u) {
		t.Error("garbage before the rebuild is done")
	}
	w.refused(&forgetUploadCommand{u.Key}, ErrInUse)
	w.must(adoptPacks(oldPack(t, "3b/8", 2))) // it was a pack
	w.must(&adoptCommand{Uploads: []Upload{v}})
	if got := w.state().Uploads(); len(got) != 1 || got[0] != u {
		t.Errorf("uploads: %v", got)
	}
	w.rebuilt() // of generation 3; the one of 2 was never done, and nobody will ever do it
	if !w.state().Garbage(u) || w.state().Garbage(v) {
		t.Errorf("garbage %v, and of what is a pack %v", w.state().Garbage(u), w.state().Garbage(v))
	}
	w.must(&forgetUploadCommand{u.Key})
}

func TestContradictoryAdoptionIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(p *Pack)
		want   error
	}{
		"of this generation":      {func(p *Pack) { p.Token.Generation, p.MaxSeq.Generation, p.MinSeq.Generation = 2, 2, 2 }, ErrInvalid},
		"of a later generation":   {func(p *Pack) { p.Token.Generation = 3 }, ErrInvalid},
		"of generation 0":         {func(p *Pack) { p.Token.Generation, p.MaxSeq.Generation, p.MinSeq.Generation = 0, 0, 0 }, ErrInvalid},
		"no id":                   {func(p *Pack) { p.ID = desformat.PackID{} }, ErrInvalid},
		"no bytes":                {func(p *Pack) { p.Size = 0 }, ErrInvalid},
		"no records":              {func(p *Pack) { p.Records = 0 }, ErrInvalid},
		"an index beyond the end": {func(p *Pack) { p.Index.Length = 500 }, ErrInvalid},
		"a seq above the token":   {func(p *Pack) { p.MaxSeq.Index++ }, ErrInvalid},
		"no copy":                 {func(p *Pack) { p.Copies = nil }, ErrInvalid},
		"another key":             {func(p *Pack) { p.Copies[0].Key += "x" }, ErrInvalid},
		"first elsewhere":         {func(p *Pack) { p.Copies[0].Site = "far" }, ErrInvalid},
		"dead, not acknowledged":  {func(p *Pack) { p.Dead = []uint32{1} }, ErrInvalid},
		"a dead one too many":     {func(p *Pack) { p.Acknowledged, p.Dead = true, []uint32{10} }, ErrInvalid},
		"other bytes":             {func(p *Pack) { p.SHA256[0]++ }, ErrConflict},
		"another token": {func(p *Pack) {
			p.Token.Index++
			p.Copies[0].Key = desformat.PackKey(p.Range, p.Token, p.ID)
		}, ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			w := newLife(t, 2)
			w.must(adoptPacks(oldPack(t, "3a/8", 1)))
			p := oldPack(t, "3a/8", 1)
			tc.change(&p)
			w.refused(adoptPacks(oldPack(t, "3b/8", 2), p), tc.want) // all or none
		})
	}
	for name, change := range map[string]func(u *Upload){
		"another pack":       func(u *Upload) { u.Pack = packID(9) },
		"another token":      func(u *Upload) { u.Token.Index++ },
		"no pack's key":      func(u *Upload) { u.Key = "cluster.json" },
		"of this generation": func(u *Upload) { *u = testUpload(Lease{Token: desformat.Token{Generation: 2, Index: 9}}, packID(1)) },
	} {
		t.Run("upload of "+name, func(t *testing.T) {
			u := oldUpload(t, "3a/8", 1)
			change(&u)
			newLife(t, 2).refused(&adoptCommand{Uploads: []Upload{u}}, ErrInvalid)
		})
	}
}

// TestWorkWaitsForTheRebuild: until it is done the manifest may lack a pack.
func TestWorkWaitsForTheRebuild(t *testing.T) {
	r := mustRange(t, "3b/8")
	waits := map[string]Job{
		"mark": {Kind: JobMark, Source: "files"}, "pack": {Kind: JobPack, Range: r}, "delete": packsJob(JobDelete, packID(1)),
		"collect": {Kind: JobCollect}, "back up": {Kind: JobBackup},
	}
	may := map[string]Job{"rebuild": {Kind: JobRebuild}, "verify": packsJob(JobVerify, packID(1)), "acknowledge": packsJob(JobAck, packID(2))}
	w := newLife(t, 2)
	acked := oldPack(t, "3a/8", 1)
	acked.Acknowledged = true
	w.must(adoptPacks(acked, oldPack(t, "4/4", 2)))
	for name, job := range waits {
		w.refused(&grantCommand{Job: job, Holder: "node-a", Request: name}, ErrRebuilding)
	}
	for _, job := range may {
		w.release(w.lease(job))
	}
	w.rebuilt()
	for _, job := range waits {
		w.release(w.lease(job))
	}
	w.release(w.lease(Job{Kind: JobRebuild}))
	for _, kind := range []JobKind{JobBackup, JobRebuild} {
		l := w.lease(Job{Kind: kind})
		w.refused(&grantCommand{Job: Job{Kind: kind}, Holder: "node-b", Request: "again"}, ErrClash)
		w.release(l)
	}
	w.lease(Job{Kind: JobBackup})
	w.lease(Job{Kind: JobRebuild}) // not with each other
}

func TestFencedAndGarbageByGeneration(t *testing.T) {
	w := newLife(t, 3)
	at := func(generation, index uint64) Upload {
		return testUpload(Lease{Token: desformat.Token{Generation: generation, Index: index}}, packID(1))
	}
	applied := w.state().Applied()
	for _, tc := range []struct {
		name                   string
		upload                 Upload
		fenced, before, garbed bool // garbage before the rebuild is done, and after
	}{
		{"two lives ago", at(1, 5), true, false, true},
		{"the life before", at(2, 1000), true, false, true},
		{"this life, never live again", at(3, applied), true, true, true},
		{"this life, not heard of yet", at(3, 1000), false, false, false},
		{"the life after this", at(4, 1), false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			early := w.state()
			late := early.state
			set := setCommand{Key: rebuildKey(3), Value: []byte("done")}
			if _, err := set.apply(&late, applied); err != nil {
				t.Fatal(err)
			}
			if early.Fenced(tc.upload.Token) != tc.fenced || early.Garbage(tc.upload) != tc.before || late.garbage(tc.upload) != tc.garbed {
				t.Errorf("fenced %v, garbage %v and then %v", early.Fenced(tc.upload.Token), early.Garbage(tc.upload), late.garbage(tc.upload))
			}
		})
	}
}

// drawAdoption draws what an earlier generation may have left: packs, some of
// them replaced by others, uploads, and what is known of each from where.
func drawAdoption(t *rapid.T, tb testing.TB) (all []Pack, uploads []Upload) {
	ranges := []string{"3a/8", "3b/8", "3/4", "0/0"}
	for i := range rapid.IntRange(1, 8).Draw(t, "packs") {
		p := oldPack(tb, rapid.SampledFrom(ranges).Draw(t, "range"), uint64(i))
		if p.Acknowledged = rapid.Bool().Draw(t, "acknowledged"); p.Acknowledged {
			p.Dead = rapid.SampledFrom([][]uint32{nil, {1}, {2, 3}}).Draw(t, "dead")
		}
		if by := rapid.IntRange(-3, i-1).Draw(t, "by"); by >= 0 {
			p.ReplacedBy = packID(uint64(by))
		}
		all = append(all, p)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "uploads") {
		uploads = append(uploads, oldUpload(tb, "3a/8", uint64(100+i)))
	}
	for _, p := range all[:rapid.IntRange(0, len(all)).Draw(t, "announced")] {
		uploads = append(uploads, Upload{Key: p.Copies[0].Key, Pack: p.ID, Token: p.Token, BeganAt: time.Unix(1, 0).UTC()})
	}
	return all, uploads
}

// sansIndexes leaves out when each thing came to be known, which is all that
// the order of adoption decides.
func sansIndexes(t testing.TB, v *View) []byte {
	s := v.state
	for p := range v.Packs() {
		bare := *p
		bare.AddIndex, bare.ModIndex = 0, 0
		s.packs = s.packs.set(packKey(p.ID), &bare)
	}
	return sansApplied(snapshotBytes(t, &s))
}

// TestAdoptionInAnyOrder: any parts of what there is, in any order and any
// number of times, with what only the footers tell before or after what the base
// tells, give the same state in the end.
func TestAdoptionInAnyOrder(t *testing.T) {
	replacements := 0
	rapid.Check(t, func(rt *rapid.T) {
		all, uploads := drawAdoption(rt, t)
		straight := newLife(t, 2)
		whole := adoptPacks(all...)
		whole.Uploads = uploads
		straight.must(whole)

		w := newLife(t, 2)
		for range rapid.IntRange(0, 20).Draw(rt, "parts") {
			c := &adoptCommand{}
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(all)-1), 0, 4).Draw(rt, "part") {
				p := all[i]
				if rapid.Bool().Draw(rt, "by its footer") {
					p.Acknowledged, p.Dead, p.ReplacedBy = false, nil, desformat.PackID{}
				}
				c.Packs = append(c.Packs, adoptPacks(p).Packs...)
			}
			if len(uploads) > 0 {
				c.Uploads = rapid.SliceOfN(rapid.SampledFrom(uploads), 0, 3).Draw(rt, "uploads")
			}
			mayLack(rt, w, c)
			checkTrie(rt, w.state())
		}
		order := make([]int, len(all))
		for i := range order {
			order[i] = i
		}
		for _, i := range rapid.Permutation(order).Draw(rt, "order") {
			mayLack(rt, w, adoptPacks(all[i]))
		}
		w.must(whole)
		if got, want := sansIndexes(t, w.state()), sansIndexes(t, straight.state()); !bytes.Equal(got, want) {
			rt.Fatalf("in parts:\n%s\nat once:\n%s", got, want)
		}
		for p := range w.state().Packs() {
			if !p.ReplacedBy.IsZero() {
				replacements++
			}
		}
		for _, u := range uploads {
			if w.state().Garbage(u) {
				rt.Fatalf("%s is garbage before the rebuild is done", u.Key)
			}
		}
	})
	if replacements == 0 {
		t.Error("no pack was ever replaced: the test proves little")
	}
}

// mayLack commits a command that may be refused because what replaced a pack is
// not known yet.
func mayLack(t *rapid.T, w *world, c *adoptCommand) {
	if _, err := w.do(c); err != nil && !errors.Is(err, ErrUnknownPack) {
		t.Fatal(err)
	}
}

// checkTrie: reads find exactly what is not replaced.
func checkTrie(t *rapid.T, v *View) {
	live := map[desformat.PackID]bool{}
	for p := range v.Packs() {
		if p.ReplacedBy.IsZero() {
			live[p.ID] = true
		}
	}
	found := v.Overlapping(desformat.Range{})
	if len(found) != len(live) {
		t.Fatalf("%d packs are live, reads find %d", len(live), len(found))
	}
	for _, p := range found {
		if !live[p.ID] || v.Pack(p.ID) != p {
			t.Fatalf("reads find %+v", p)
		}
	}
}

// TestAdoptOverRaft adopts more than one command takes, what replaced a pack
// behind it, through a real log and a restart.
func TestAdoptOverRaft(t *testing.T) {
	cfg := testConfig(t)
	cfg.Generation = 2
	n := startNode(t, cfg)
	var a Adoption
	const many = 2*adoptCount + 10
	for i := range uint64(many) {
		p := oldPack(t, fmt.Sprintf("%02x/8", i%256), i)
		p.Acknowledged = true
		if i < 20 {
			p.ReplacedBy = packID(many - 1 - i)
		}
		a.Packs = append(a.Packs, p)
	}
	a.Packs[1].Dead = make([]uint32, 0, 500_000) // of which the text alone is more than a command takes
	a.Packs[1].Records = 1_000_000
	for i := range uint32(cap(a.Packs[1].Dead)) {
		a.Packs[1].Dead = append(a.Packs[1].Dead, 2*i)
	}
	a.Uploads = append(a.Uploads, oldUpload(t, "3a/8", many))
	before := n.View().Applied()
	for range 2 {
		if err := n.Adopt(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if used := n.View().Applied() - before; used != 10 {
		t.Errorf("two adoptions of %d packs are %d commands", many, used)
	}
	if err := n.RecordRebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, n.Adopt(t.Context(), Adoption{Packs: []Pack{oldPack(t, "3a/8", many+1)}}), ErrRebuilt)
	n.restart()
	v := n.View()
	if got := len(slices.Collect(v.Packs())); got != many || len(v.Overlapping(desformat.Range{})) != many-20 || len(v.Uploads()) != 1 {
		t.Errorf("%d packs, %d live, %d uploads", got, len(v.Overlapping(desformat.Range{})), len(v.Uploads()))
	}
	if !v.Pack(packID(1)).IsDead(999_998) {
		t.Error("dead records are lost")
	}
}
