package raftmeta

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

func TestAnnouncementChangesNothingElse(t *testing.T) {
	w := newWorld(t)
	w.must(&memberCommand{Member{ID: "node-b", Applied: 7}})
	before, _ := w.state().Member("node-b")
	news := Member{ID: "node-b", Applied: 99, Joined: 99, Zone: "z", Version: "v1", HTTP: "h:1", Cluster: "h:2", Work: []string{"mark"}}
	w.must(&announceCommand{news})
	want := news
	want.Applied, want.Joined = before.Applied, before.Joined
	if got, _ := w.state().Member("node-b"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.refused(&announceCommand{Member{ID: "stranger"}}, ErrNotMember)
	w.refused(&announceCommand{Member{}}, ErrInvalid)
	w.refused(&announceCommand{Member{ID: "node-b", HTTP: string(make([]byte, maxAnnounced+1))}}, ErrInvalid)
}

// TestAnnouncementOfNothingNewWritesNothing: every node announces itself
// whenever it starts.
func TestAnnouncementOfNothingNewWritesNothing(t *testing.T) {
	n := startNode(t, testConfig(t))
	self := Member{ID: n.cfg.Node, Zone: "z", Work: []string{"mark", "pack"}}
	if err := n.Announce(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	last := n.raft.LastIndex()
	if err := n.Announce(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	if got := n.raft.LastIndex(); got != last {
		t.Errorf("%d entries for nothing", got-last)
	}
	self.Work = []string{"mark"}
	if err := n.Announce(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	if m, _ := n.View().Member(self.ID); !slices.Equal(m.Work, self.Work) || n.raft.LastIndex() == last {
		t.Errorf("got %+v", m)
	}
}

func TestRemovedNodeNeverComesBack(t *testing.T) {
	w := newWorld(t)
	w.must(putToken(hour("t", 0)))
	w.must(&removeMemberCommand{"node-b"})
	w.must(&removeMemberCommand{"node-b"})
	w.refused(&memberCommand{Member{ID: "node-b"}}, ErrRemoved)
	w.refused(redeem("t", "node-b", 1), ErrRemoved)
	w.refused(&announceCommand{Member{ID: "node-b"}}, ErrNotMember)
	w.refused(&grantCommand{Job: Job{Kind: JobCollect}, Holder: "node-b", Request: "1"}, ErrNotMember)
	if v := w.state(); !v.Removed("node-b") || v.Removed("node-a") || !slices.Equal(v.RemovedIDs(), []NodeID{"node-b"}) {
		t.Errorf("removed: %v", v.RemovedIDs())
	}
	s, err := readSnapshot(bytes.NewReader(w.bytes()))
	if err != nil || !s.removedNode("node-b") {
		t.Errorf("a snapshot forgets it: %v", err)
	}
	w.refused(&removeMemberCommand{"stranger"}, ErrNotMember)
	w.refused(&removeMemberCommand{"node-a"}, ErrLastMember)
}

// TestRemovedHoldersLeaseRunsOut: a node that is cut off does not know that it
// was removed, and acts on its lease until its own deadline.
func TestRemovedHoldersLeaseRunsOut(t *testing.T) {
	w := newWorld(t)
	l, err := w.grantTo("node-b", Job{Kind: JobPack, Range: mustRange(t, "3a/8")})
	if err != nil {
		t.Fatal(err)
	}
	w.must(&removeMemberCommand{"node-b"})
	if !w.state().live(l.Token) {
		t.Fatal("released at once")
	}
	w.refused(&grantCommand{Job: l.Job, Holder: "node-a", Request: "1"}, ErrClash)
	w.release(l)
	w.leaseRange("3a/8")
}

func TestPackKnowsItsPacker(t *testing.T) {
	w := newWorld(t)
	l, err := w.grantTo("node-b", Job{Kind: JobPack, Range: mustRange(t, "3a/8")})
	if err != nil {
		t.Fatal(err)
	}
	w.announce(l, packID(1))
	p := testPack(l, packID(1))
	p.PackedBy = "somebody else"
	if got := w.must(&addPackCommand{p}).(*Pack); got.PackedBy != "node-b" {
		t.Errorf("packed by %q", got.PackedBy)
	}
}

// TestSnapshotOfTheFirstVersionLoads: it was written by that version, whose
// members had two fields, and which had no removed ones and no tokens.
func TestSnapshotOfTheFirstVersionLoads(t *testing.T) {
	old, err := os.ReadFile("testdata/first-version.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	s, err := readSnapshot(bytes.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	v := &View{state: s}
	if m, ok := v.Member("node-b"); !ok || !reflect.DeepEqual(m, Member{ID: "node-b", Applied: 9}) {
		t.Errorf("member: %+v", m)
	}
	if p := v.Pack(packID(1)); p == nil || !p.Acknowledged || p.PackedBy != "" {
		t.Errorf("pack: %+v", p)
	}
	if again := snapshotBytes(t, &s); !bytes.Equal(again, old) {
		t.Errorf("written again as\n%s", again)
	}
}

// TestLogOfTheFirstVersionApplies: its commands name no proposer.
func TestLogOfTheFirstVersionApplies(t *testing.T) {
	m := newMachine(func(err error) { t.Error(err) })
	for i, data := range []string{
		`{"v":1,"kind":"form","body":{"cluster":"01000000000000000000000000000000","shard_bits":10,"generation":1}}`,
		`{"v":1,"kind":"put-member","body":{"member":{"id":"node-a","applied":0}}}`,
		`{"v":1,"kind":"set","body":{"key":"k","value":"dg==","if_mod_index":0}}`,
	} {
		ans := m.Apply(&raft.Log{Index: uint64(i + 1), Type: raft.LogCommand, Data: []byte(data)}).(answer)
		if ans.err != nil {
			t.Fatalf("%s: %v", data, ans.err)
		}
	}
	v := m.view.Load()
	if _, ok := v.Member("node-a"); !ok || len(v.Members()) != 1 {
		t.Errorf("members: %+v", v.Members())
	}
}

func TestLeavingIsSaidAndTakenBack(t *testing.T) {
	w := newWorld(t)
	leaving := func() bool { m, _ := w.state().Member("node-b"); return m.Leaving }
	w.must(&leavingCommand{"node-b", true})
	w.must(&leavingCommand{"node-b", true})
	if !leaving() {
		t.Error("it does not leave")
	}
	w.must(&leavingCommand{"node-b", false})
	if leaving() {
		t.Error("it still leaves")
	}
	w.must(&leavingCommand{"node-b", true})
	w.must(&announceCommand{Member{ID: "node-b", Zone: "z"}})
	if leaving() {
		t.Error("who announces itself, as a node does that starts, still leaves")
	}
	w.refused(&leavingCommand{"stranger", true}, ErrNotMember)
}
