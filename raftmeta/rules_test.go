package raftmeta

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
)

// The tests of this file are named after the safety rules of DESIGN.md that
// the state machine holds.

func TestStaleTokenIsRefused(t *testing.T) {
	id := packID(1)
	for _, tc := range []struct {
		name  string
		stale func(w *world, l Lease)
	}{
		{"released", func(w *world, l Lease) { w.release(l) }},
		{"expired, and the range leased again", func(w *world, l Lease) {
			w.release(l)
			w.leaseRange(l.Job.Range.String())
		}},
		{"its process is dead", func(w *world, _ Lease) {
			w.must(&releaseAllCommand{Holder: "node-a", UpTo: w.index})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			l := w.leaseRange("3a/8")
			w.announce(l, id)
			tc.stale(w, l)
			w.refused(&addPackCommand{testPack(l, id)}, ErrStale)
			w.refused(&beginUploadCommand{testUpload(l, packID(2))}, ErrStale)
			if w.state().Pack(id) != nil {
				t.Error("the pack exists")
			}
		})
	}
	t.Run("a token never granted", func(t *testing.T) {
		w := newWorld(t)
		l := w.leaseRange("3a/8")
		l.Token.Index++
		w.refused(&addPackCommand{testPack(l, id)}, ErrStale)
	})
	t.Run("a live token for another range", func(t *testing.T) {
		w := newWorld(t)
		l := w.leaseRange("3a/8")
		l.Job.Range = mustRange(t, "3/4")
		w.refused(&beginUploadCommand{testUpload(l, id)}, ErrStale)
		w.refused(&addPackCommand{testPack(l, id)}, ErrStale)
	})
	t.Run("a live token of another kind of job", func(t *testing.T) {
		w := newWorld(t)
		l := w.lease(Job{Kind: JobMark, Source: "files"})
		w.refused(&addPackCommand{testPack(l, id)}, ErrStale)
	})
}

func TestRangeWithUnacknowledgedPackGetsNoLease(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.commit(l, packID(1))
	w.release(l)
	for _, r := range []string{"3a/8", "3/4", "0/0", "074/9", "075/9", "3a000000/32"} {
		w.refused(&grantCommand{Job: Job{Kind: JobPack, Range: mustRange(t, r)}, Holder: "node-b", Request: r}, ErrUnacknowledged)
	}
	w.release(w.leaseRange("3b/8"))
	w.refused(&grantCommand{Job: packsJob(JobDelete, packID(1)), Holder: "node-a", Request: "delete"}, ErrUnacknowledged)
	w.must(&ackPackCommand{Pack: packID(1)})
	w.release(w.leaseRange("0/0"))
}

func TestPackingLeasesClashWhenOneRangeIsAPrefixOfTheOther(t *testing.T) {
	for _, tc := range []struct {
		held, asked string
		clash       bool
	}{
		{"3a/8", "3a/8", true},
		{"3a/8", "3/4", true},
		{"3a/8", "0/0", true},
		{"0/0", "3a/8", true},
		{"3/4", "3a/8", true},
		{"3a/8", "3b/8", false},
		{"3a/8", "4/4", false},
		{"0/1", "1/1", false},
	} {
		t.Run(tc.held+" and "+tc.asked, func(t *testing.T) {
			w := newWorld(t)
			l := w.leaseRange(tc.held)
			_, err := w.grantTo("node-b", Job{Kind: JobPack, Range: mustRange(t, tc.asked)})
			if got := errors.Is(err, ErrClash); got != tc.clash || err != nil && !got {
				t.Errorf("got %v, want a clash: %v", err, tc.clash)
			}
			w.release(l)
			if _, err := w.grantTo("node-b", Job{Kind: JobPack, Range: mustRange(t, tc.held)}); tc.clash && err != nil {
				t.Errorf("after the release: %v", err)
			}
		})
	}
}

func TestAllOtherJobsLockPackIDs(t *testing.T) {
	a, b := packID(1), packID(2)
	for _, tc := range []struct {
		name        string
		held, asked Job
		want        error
	}{
		{"verify and delete one pack", packsJob(JobVerify, a), packsJob(JobDelete, a), ErrClash},
		{"delete and verify one of two", packsJob(JobDelete, a, b), packsJob(JobVerify, b), ErrClash},
		{"verify different packs", packsJob(JobVerify, a), packsJob(JobVerify, b), nil},
		{"mark one source twice", Job{Kind: JobMark, Source: "x"}, Job{Kind: JobMark, Source: "x"}, ErrClash},
		{"mark two sources", Job{Kind: JobMark, Source: "x"}, Job{Kind: JobMark, Source: "y"}, nil},
		{"collect twice", Job{Kind: JobCollect}, Job{Kind: JobCollect}, ErrClash},
		{"collect and verify", Job{Kind: JobCollect}, packsJob(JobVerify, a), nil},
		{"pack beside verify", Job{Kind: JobPack}, packsJob(JobVerify, a), nil},
		{"acknowledge what is acknowledged", Job{Kind: JobCollect}, packsJob(JobAck, a), ErrClash},
		{"a pack nobody knows", Job{Kind: JobCollect}, packsJob(JobVerify, packID(9)), ErrUnknownPack},
		{"no pack", Job{Kind: JobCollect}, packsJob(JobVerify), ErrInvalid},
		{"no source", Job{Kind: JobCollect}, Job{Kind: JobMark}, ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.acked("3a/8", a)
			w.acked("3b/8", b)
			w.lease(tc.held)
			if _, err := w.grantTo("node-b", tc.asked); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	t.Run("a holder that is no member", func(t *testing.T) {
		w := newWorld(t)
		w.refused(&grantCommand{Job: Job{Kind: JobCollect}, Holder: "stranger", Request: "1"}, ErrNotMember)
	})
}

func TestAcknowledgingWaitsForThePacker(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.commit(l, packID(1))
	ack := &grantCommand{Job: packsJob(JobAck, packID(1)), Holder: "node-b", Request: "ack"}
	w.refused(ack, ErrClash)
	w.release(l)
	w.must(ack)
}

func TestUncommittedObjectIsGarbageOnlyWhenFenced(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	u := testUpload(l, packID(1))
	ahead := u
	ahead.Token.Index = w.index + 1 // granted at an index this view has not applied
	if w.state().Garbage(ahead) || w.state().Fenced(ahead.Token) {
		t.Error("a token of the future is fenced")
	}
	w.announce(l, packID(1))
	if w.state().Garbage(u) || w.state().Fenced(l.Token) {
		t.Error("garbage under a live lease")
	}
	w.refused(&forgetUploadCommand{u.Key}, ErrInUse)
	early := w.state()
	w.release(l)
	if !w.state().Garbage(u) || !w.state().Fenced(l.Token) {
		t.Error("not garbage when fenced")
	}
	if early.Garbage(u) {
		t.Error("an old view changed its answer")
	}
	w.must(&forgetUploadCommand{u.Key})
	if n := len(w.state().Uploads()); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

func TestCommittedObjectIsNeverGarbage(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	u := testUpload(l, packID(1))
	w.commit(l, packID(1))
	if n := len(w.state().Uploads()); n != 0 {
		t.Errorf("%d uploads left after the commit", n)
	}
	w.must(&beginUploadCommand{u}) // a late repetition
	w.release(l)
	w.must(&beginUploadCommand{u})
	if n := len(w.state().Uploads()); n != 0 {
		t.Error("the committed key is announced again")
	}
	if w.state().Garbage(u) {
		t.Error("a committed object is garbage")
	}
	w.must(&forgetUploadCommand{u.Key})
}

func TestGarbageOfAnEarlierGenerationWaitsForItsRebuild(t *testing.T) {
	w := newWorld(t)
	s := w.state().state
	s.generation = 3
	u := Upload{Token: desformat.Token{Generation: 1, Index: 5}, Pack: packID(1)}
	if !s.fenced(u.Token) {
		t.Error("a token of an earlier generation is not fenced")
	}
	record := func(generation uint64) {
		set := setCommand{Key: rebuildKey(generation), Value: []byte("done")}
		if _, err := set.apply(&s, 100+generation); err != nil {
			t.Fatal(err)
		}
	}
	record(2) // as a base says that is restored
	if s.garbage(u) {
		t.Error("garbage before the rebuild of this generation is done")
	}
	record(3)
	if !s.garbage(u) {
		t.Error("not garbage after the rebuild is done")
	}
	u.Token.Generation = 4
	if s.garbage(u) || s.fenced(u.Token) {
		t.Error("a token of a later generation is fenced")
	}
}

func TestForgottenUploadCannotCommit(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.announce(l, packID(1))
	w.release(l)
	w.must(&forgetUploadCommand{testUpload(l, packID(1)).Key})
	w.refused(&addPackCommand{testPack(l, packID(1))}, ErrStale)
	w.refused(&beginUploadCommand{testUpload(l, packID(1))}, ErrStale)
}

func TestPackNeedsItsAnnouncedUpload(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.refused(&addPackCommand{testPack(l, packID(1))}, ErrNoUpload)
	w.announce(l, packID(2))
	w.refused(&addPackCommand{testPack(l, packID(1))}, ErrNoUpload)
	u := testUpload(l, packID(3))
	u.Pack = packID(4)
	w.refused(&beginUploadCommand{u}, ErrInvalid)
	u = testUpload(l, packID(3))
	u.Key = "cluster.json"
	w.refused(&beginUploadCommand{u}, ErrInvalid)
}

func TestPackIDNamesOneObject(t *testing.T) {
	w := newWorld(t)
	a, b := w.leaseRange("3a/8"), w.leaseRange("3b/8")
	w.announce(a, packID(1))
	w.announce(a, packID(1))
	w.refused(&beginUploadCommand{testUpload(b, packID(1))}, ErrConflict)
	w.must(&addPackCommand{testPack(a, packID(1))})
	w.refused(&beginUploadCommand{testUpload(b, packID(1))}, ErrConflict)
	w.announce(a, packID(1))
}

func TestLeaseMakesOnePack(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.announce(l, packID(1))
	w.announce(l, packID(2))
	first := w.must(&addPackCommand{testPack(l, packID(1))})
	w.refused(&addPackCommand{testPack(l, packID(2))}, ErrConflict)
	if again := w.must(&addPackCommand{testPack(l, packID(1))}); again != first {
		t.Errorf("repeated: %v, first %v", again, first)
	}
	other := testPack(l, packID(1))
	other.SHA256[0]++
	w.refused(&addPackCommand{other}, ErrConflict)
	w.release(l)
	if again := w.must(&addPackCommand{testPack(l, packID(1))}); again != first {
		t.Error("repeating a commit after its lease has ended is not answered like the first time")
	}
}

func TestContradictoryPackIsRefused(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.announce(l, packID(1))
	newer := desformat.Token{Generation: 1, Index: l.Token.Index + 1}
	for name, change := range map[string]func(p *Pack){
		"no id":                  func(p *Pack) { p.ID = desformat.PackID{} },
		"no bytes":               func(p *Pack) { p.Size = 0 },
		"no records":             func(p *Pack) { p.Records = 0 },
		"negative payload":       func(p *Pack) { p.PayloadBytes = -1 },
		"catalog beyond the end": func(p *Pack) { p.Catalog.Length = 501 },
		"index before the start": func(p *Pack) { p.Index.Offset = -1 },
		"seq above the token":    func(p *Pack) { p.MaxSeq = newer },
		"min above max":          func(p *Pack) { p.MinSeq = newer },
		"no copy":                func(p *Pack) { p.Copies = nil },
		"another key":            func(p *Pack) { p.Copies[0].Key += "x" },
		"another site":           func(p *Pack) { p.Copies[0].Site = "b" },
		"verified already":       func(p *Pack) { p.Copies[0].VerifiedAt = time.Unix(1, 0) },
		"acknowledged already":   func(p *Pack) { p.Acknowledged = true },
		"dead already":           func(p *Pack) { p.Dead = []uint32{1} },
		"replaced already":       func(p *Pack) { p.ReplacedBy = packID(2) },
	} {
		t.Run(name, func(t *testing.T) {
			p := testPack(l, packID(1))
			p.Copies = slices.Clone(p.Copies)
			change(&p)
			w.refused(&addPackCommand{p}, ErrInvalid)
		})
	}
	w.must(&addPackCommand{testPack(l, packID(1))})
}

func TestFirstAcknowledgementCounts(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.commit(l, packID(1))
	w.refused(&ackPackCommand{Pack: packID(2)}, ErrUnknownPack)
	w.refused(&ackPackCommand{Pack: packID(1), Token: l.Token, Dead: ordinals{10}}, ErrInvalid)
	before := w.state().Pack(packID(1))
	w.must(&ackPackCommand{Pack: packID(1), Token: l.Token, Dead: ordinals{2, 5}})
	w.must(&ackPackCommand{Pack: packID(1), Token: l.Token, Dead: ordinals{1, 2, 3}})
	p := w.state().Pack(packID(1))
	if !p.Acknowledged || !slices.Equal(p.Dead, []uint32{2, 5}) {
		t.Errorf("got %+v", p)
	}
	if before.Acknowledged || before.ModIndex == p.ModIndex {
		t.Error("an old entry was changed in place")
	}
	if got := w.state().Covering(desformat.NameHash{0x3a}, nil); len(got) != 1 || got[0] != p {
		t.Errorf("the trie holds %v, not the new entry", got)
	}
}

func TestAcknowledgementIsFenced(t *testing.T) {
	w := newWorld(t)
	l := w.leaseRange("3a/8")
	w.commit(l, packID(1))
	w.refused(&ackPackCommand{Pack: packID(1)}, ErrClash) // the packer is at it
	w.release(l)
	w.refused(&ackPackCommand{Pack: packID(1), Token: l.Token}, ErrStale)
	ack := w.lease(packsJob(JobAck, packID(1)))
	w.refused(&ackPackCommand{Pack: packID(1)}, ErrClash)
	other := w.leaseRange("3b/8")
	w.refused(&ackPackCommand{Pack: packID(1), Token: other.Token}, ErrStale)
	w.must(&ackPackCommand{Pack: packID(1), Token: ack.Token})
}

func TestVerification(t *testing.T) {
	at := time.Unix(1_800_000_000, 5).UTC()
	last := func(w *world) Copy { return w.state().Pack(packID(1)).Copies[0] }
	// look begins to read the pack now and finds damage, or "" for none.
	look := func(w *world, at time.Time, damage string) *verifyPackCommand {
		found := last(w)
		found.VerifiedAt, found.VerifiedBy, found.Damage = at, "node-b", damage
		return &verifyPackCommand{packID(1), last(w), found}
	}
	fresh := func(t *testing.T) *world {
		w := newWorld(t)
		w.acked("3a/8", packID(1))
		return w
	}

	t.Run("a clock in the future does not win for ever", func(t *testing.T) {
		w := fresh(t)
		w.must(look(w, at.AddDate(10, 0, 0), ""))
		w.must(look(w, at, ""))
		if c := last(w); !c.VerifiedAt.Equal(at) || c.VerifiedBy != "node-b" {
			t.Errorf("got %+v, want the look that came after", c)
		}
	})
	t.Run("a clean look that was overtaken does not count", func(t *testing.T) {
		w := fresh(t)
		early := look(w, at.Add(time.Hour), "")
		w.must(look(w, at, "record 5 differs"))
		w.must(early)
		if c := last(w); c.Damage == "" || !c.VerifiedAt.Equal(at) {
			t.Errorf("got %+v: it took damage back that it may not have seen", c)
		}
		w.must(look(w, at.Add(-time.Hour), ""))
		if c := last(w); c.Damage != "" {
			t.Error("a later look did not take the damage back")
		}
	})
	t.Run("damage is recorded though overtaken", func(t *testing.T) {
		w := fresh(t)
		early := look(w, at, "record 5 differs")
		w.must(look(w, at.Add(time.Hour), ""))
		w.must(early)
		if last(w).Damage == "" {
			t.Error("the damage is lost")
		}
	})
	t.Run("a clean look brings the object's new version", func(t *testing.T) {
		w := fresh(t)
		moved := look(w, at, "")
		moved.Found.Version = "copied"
		old := look(w, at, "record 5 differs")
		w.must(moved)
		w.must(moved)
		if c := last(w); c.Version != "copied" || !c.VerifiedAt.Equal(at) {
			t.Errorf("got %+v", c)
		}
		w.refused(old, ErrInvalid) // it speaks of an object that the manifest does not name any more
		w.must(look(w, at.Add(time.Hour), ""))
		w.must(moved)
		if c := last(w); !c.VerifiedAt.Equal(at.Add(time.Hour)) {
			t.Errorf("got %+v: the repetition counted", c)
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := fresh(t)
		other := look(w, at, "")
		other.Pack = packID(2)
		w.refused(other, ErrUnknownPack)
		unknown := look(w, at, "")
		unknown.Seen.Version, unknown.Found.Version = "v2", "v2"
		w.refused(unknown, ErrInvalid)
		elsewhere := look(w, at, "")
		elsewhere.Seen.Key = "another"
		w.refused(elsewhere, ErrInvalid)
		damaged := look(w, at, "record 5 differs")
		damaged.Found.Version = "copied"
		w.refused(damaged, ErrInvalid)
		w.refused(look(w, time.Time{}, ""), ErrInvalid)
	})
}

func TestSettingsAreConditional(t *testing.T) {
	w := newWorld(t)
	set := func(v string, at uint64) *setCommand { return &setCommand{"k", []byte(v), at} }
	w.refused(set("a", 7), ErrConflict)
	w.must(set("a", 0))
	_, first, _ := w.state().Setting("k")
	w.must(set("a", 0)) // repeated
	w.refused(set("b", 0), ErrConflict)
	w.must(set("b", first))
	v, second, ok := w.state().Setting("k")
	if string(v) != "b" || second <= first || !ok {
		t.Errorf("got %q at %d, %v", v, second, ok)
	}
	w.must(set("b", first)) // repeated
	w.refused(set("a", 0), ErrConflict)
	w.refused(&setCommand{"k", nil, first}, ErrConflict)
	w.must(&setCommand{"k", nil, second})
	w.must(&setCommand{"k", nil, second}) // repeated
	if _, _, ok := w.state().Setting("k"); ok {
		t.Error("not deleted")
	}
	w.must(&setCommand{"k", []byte{}, 0})
	if v, _, ok := w.state().Setting("k"); !ok || len(v) != 0 {
		t.Error("an empty value is no value")
	}
	w.refused(&setCommand{"", []byte("x"), 0}, ErrInvalid)
	for _, k := range []string{"p/2", "p/1", "q"} {
		w.must(&setCommand{k, []byte(k), 0})
	}
	var keys []string
	for k, v := range w.state().Settings("p/") {
		if string(v) != k {
			t.Errorf("%s is %q", k, v)
		}
		keys = append(keys, k)
	}
	if !slices.Equal(keys, []string{"p/1", "p/2"}) {
		t.Errorf("with the prefix: %q", keys)
	}
}

func TestReleasingTheDeadSparesTheLiving(t *testing.T) {
	w := newWorld(t)
	w.leaseRange("1/4")
	w.lease(Job{Kind: JobMark, Source: "files"})
	other, err := w.grantTo("node-b", Job{Kind: JobPack, Range: mustRange(t, "2/4")})
	if err != nil {
		t.Fatal(err)
	}
	died := w.index
	later := w.leaseRange("3/4")
	w.must(&releaseAllCommand{Holder: "node-a", UpTo: died})
	w.must(&releaseAllCommand{Holder: "node-a", UpTo: died})
	var left []desformat.Token
	for _, l := range w.state().Leases() {
		left = append(left, l.Token)
	}
	if !slices.Equal(left, []desformat.Token{other.Token, later.Token}) {
		t.Errorf("left: %v", left)
	}
}

func TestClusterIsFormedOnce(t *testing.T) {
	w := newWorld(t)
	same := formCommand{Cluster: desformat.ClusterID{1}, ShardBits: 10, Generation: 1}
	w.must(&same)
	for name, change := range map[string]func(*formCommand){
		"another id":         func(c *formCommand) { c.Cluster[0]++ },
		"other shards":       func(c *formCommand) { c.ShardBits++ },
		"another generation": func(c *formCommand) { c.Generation++ },
	} {
		t.Run(name, func(t *testing.T) {
			other := same
			change(&other)
			w.refused(&other, ErrConflict)
		})
	}
	empty := &world{TB: t, machine: newMachine(func(err error) { t.Error(err) })}
	empty.refused(&formCommand{ShardBits: 3, Generation: 1}, ErrInvalid)
	empty.refused(&formCommand{ShardBits: 17, Generation: 1}, ErrInvalid)
	empty.refused(&formCommand{ShardBits: 10}, ErrInvalid)
	empty.refused(&grantCommand{Job: Job{Kind: JobCollect}, Holder: "node-a", Request: "1"}, ErrNotMember)
}

func TestMemberReportsNeverGoBack(t *testing.T) {
	w := newWorld(t)
	w.must(&memberCommand{Member{ID: "node-b", Applied: 9}})
	w.must(&memberCommand{Member{ID: "node-b", Applied: 4}})
	if m := w.state().Members(); len(m) != 2 || m[1].ID != "node-b" || m[1].Applied != 9 {
		t.Errorf("got %+v", m)
	}
	w.refused(&memberCommand{}, ErrInvalid)
}
