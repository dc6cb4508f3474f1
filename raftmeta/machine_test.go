package raftmeta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/datavision/desnode/desformat"
)

// drawCommand draws a command that fits the state often enough to get
// anywhere: tokens, packs and keys are mostly ones that exist.
func drawCommand(t *rapid.T, v *View) command {
	node := func() NodeID { return rapid.SampledFrom([]NodeID{"node-a", "node-b", "stranger"}).Draw(t, "node") }
	id := func() desformat.PackID { return packID(rapid.Uint64Range(1, 6).Draw(t, "pack")) }
	lease := func() Lease {
		l := Lease{Token: desformat.Token{Generation: 1, Index: 3}, Job: Job{Kind: JobPack}}
		if live := v.Leases(); len(live) > 0 {
			l = rapid.SampledFrom(live).Draw(t, "lease")
		}
		return l
	}
	kind := rapid.IntRange(0, 21).Draw(t, "command")
	if kind > 15 {
		return drawMemberCommand(t, kind, v)
	}
	switch kind {
	case 0:
		return &setCommand{
			Key:        rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"),
			Value:      rapid.SampledFrom([][]byte{nil, {}, []byte("x"), []byte("y")}).Draw(t, "value"),
			IfModIndex: rapid.Uint64Range(0, v.Applied()).Draw(t, "at"),
		}
	case 1:
		return &memberCommand{Member{ID: node(), Applied: rapid.Uint64Range(0, 9).Draw(t, "applied")}}
	case 2, 3, 4, 5:
		job := Job{Kind: JobPack, Range: drawRange(t)}
		if kind == 5 {
			kinds := []JobKind{JobMark, JobAck, JobVerify, JobDelete, JobCollect, JobBackup, JobRebuild}
			job = Job{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Source: "files", Packs: []desformat.PackID{id()}}
		}
		return &grantCommand{Job: job, Holder: node(), Request: rapid.StringN(1, 1, 4).Draw(t, "request")}
	case 6, 7:
		return &releaseCommand{lease().Token}
	case 8:
		return &releaseAllCommand{Holder: node(), UpTo: rapid.Uint64Range(0, v.Applied()).Draw(t, "upto")}
	case 9, 10:
		return &beginUploadCommand{testUpload(lease(), id())}
	case 11:
		if us := v.Uploads(); len(us) > 0 {
			return &forgetUploadCommand{rapid.SampledFrom(us).Draw(t, "upload").Key}
		}
		return &forgetUploadCommand{"packs/none"}
	case 12, 13:
		if us := v.Uploads(); len(us) > 0 {
			u := rapid.SampledFrom(us).Draw(t, "upload")
			r, _, _, _ := desformat.ParsePackKey(u.Key)
			return &addPackCommand{testPack(Lease{Token: u.Token, Job: Job{Range: r}}, u.Pack)}
		}
		return &addPackCommand{testPack(lease(), id())}
	case 14:
		return &ackPackCommand{Pack: id(), Dead: rapid.SampledFrom([]ordinals{nil, {1}, {2, 3}, {10}}).Draw(t, "dead")}
	default:
		pack := id()
		c := Copy{
			VerifiedAt: time.Unix(rapid.Int64Range(1, 5).Draw(t, "verified"), 0).UTC(),
			Damage:     rapid.SampledFrom([]string{"", "", "torn"}).Draw(t, "damage"),
		}
		var seen Copy
		if p := v.Pack(pack); p != nil {
			seen = p.Copies[0]
			c.Key, c.Version = seen.Key, rapid.SampledFrom([]string{seen.Version, "other"}).Draw(t, "version")
		}
		if rapid.Bool().Draw(t, "overtaken") {
			seen.VerifiedBy = "another"
		}
		return &verifyPackCommand{pack, seen, c}
	}
}

// drawMemberCommand draws a command about members and tokens. One node is
// never among the nodes that are removed: somebody has to propose the rest.
func drawMemberCommand(t *rapid.T, kind int, v *View) command {
	node := rapid.SampledFrom([]NodeID{"node-b", "node-c", "node-d", "node-e"}).Draw(t, "member")
	token := rapid.SampledFrom([]string{"t", "u"}).Draw(t, "token")
	seconds := rapid.SampledFrom([]int{0, 1, 3600, 3601, 2 * 24 * 3600}).Draw(t, "at")
	switch kind {
	case 16:
		put := putToken(hour(token, rapid.Uint16Range(0, 2).Draw(t, "uses")))
		put.At = at(seconds)
		return put
	case 17, 18:
		return redeem(token, node, seconds)
	case 19:
		if rapid.Bool().Draw(t, "revoke") {
			return &revokeTokenCommand{token}
		}
		return &announceCommand{Member{ID: node, Zone: rapid.SampledFrom([]string{"", "z"}).Draw(t, "zone")}}
	case 20:
		return &leavingCommand{node, rapid.Bool().Draw(t, "leaving")}
	default:
		return &removeMemberCommand{node}
	}
}

// checkMembers: an id is a member or was one, never both, and never a member
// again; no token was used more often than it allows.
func checkMembers(t *rapid.T, v *View, removed map[NodeID]bool) {
	for _, id := range v.RemovedIDs() {
		removed[id] = true
	}
	for id := range removed {
		if _, member := v.Member(id); member || !v.Removed(id) {
			t.Fatalf("%s was removed and is back", id)
		}
	}
	if len(v.Members()) == 0 {
		t.Fatal("no member is left")
	}
	for _, token := range v.Tokens() {
		if token.Uses != 0 && len(token.UsedBy) > int(token.Uses) {
			t.Fatalf("used too often: %+v", token)
		}
	}
}

// TestRandomHistories holds the package's invariants after each command of a
// random history, commits each command twice, and at the end compares with a
// replay of the log, and with a snapshot restored in the middle.
func TestRandomHistories(t *testing.T) {
	committed, joined := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		var log []*raft.Log
		replay := newWorld(t)
		restored := newWorld(t)
		known := map[desformat.PackID]Digest{}
		fenced := map[desformat.Token]bool{}
		forgotten := map[string]bool{}
		removed := map[NodeID]bool{}
		n := rapid.IntRange(1, 80).Draw(rt, "commands")
		half := rapid.IntRange(0, n).Draw(rt, "snapshot after")
		for i := range n {
			if i == half {
				if err := restored.Restore(io.NopCloser(bytes.NewReader(w.bytes()))); err != nil {
					rt.Fatal(err)
				}
				log = log[:0:0]
			}
			c := drawCommand(rt, w.state())
			data, err := encodeCommand("node-a", c)
			if err != nil {
				rt.Fatal(err)
			}
			var texts, states [2]string
			for twice := range 2 {
				w.index++
				l := &raft.Log{Index: w.index, Type: raft.LogCommand, Data: data}
				log = append(log, l)
				replay.Apply(l)
				ans := w.Apply(l).(answer)
				texts[twice] = fmt.Sprintf("%v %v", ans.value, ans.err)
				states[twice] = string(sansApplied(w.bytes()))
				if a, ok := c.(*addPackCommand); ok && ans.err == nil {
					committed++
					if forgotten[a.Pack.Copies[0].Key] {
						rt.Fatalf("a forgotten key was committed: %+v", a.Pack)
					}
				}
				if f, ok := c.(*forgetUploadCommand); ok && ans.err == nil && w.state().Pack(packOf(f.Key)) == nil {
					forgotten[f.Key] = true
				}
			}
			if texts[0] != texts[1] || states[0] != states[1] {
				rt.Fatalf("%s %s repeated:\n%s\n%s\nthen\n%s\n%s", c.kind(), data, texts[0], states[0], texts[1], states[1])
			}
			checkInvariants(rt, w.state(), known, fenced)
			checkMembers(rt, w.state(), removed)
			for _, token := range w.state().Tokens() {
				joined += len(token.UsedBy)
			}
		}
		if got, want := replay.bytes(), w.bytes(); !bytes.Equal(got, want) {
			rt.Fatalf("a replay gives\n%s\nnot\n%s", got, want)
		}
		if half < n {
			for _, l := range log {
				restored.Apply(l)
			}
			if got, want := restored.bytes(), w.bytes(); !bytes.Equal(got, want) {
				rt.Fatalf("from the snapshot on:\n%s\nnot\n%s", got, want)
			}
		}
	})
	if committed == 0 || joined == 0 {
		t.Errorf("%d packs committed and %d nodes joined: the test proves nothing", committed, joined)
	}
}

func packOf(key string) desformat.PackID {
	_, _, id, _ := desformat.ParsePackKey(key)
	return id
}

func checkInvariants(t *rapid.T, v *View, known map[desformat.PackID]Digest, fenced map[desformat.Token]bool) {
	leases := v.Leases()
	for i, a := range leases {
		if fenced[a.Token] {
			t.Fatalf("token %s is live again", a.Token)
		}
		for _, b := range leases[i+1:] {
			if clash(a.Job, b.Job) {
				t.Fatalf("%s and %s are live at once", a.Job, b.Job)
			}
		}
	}
	for index := range v.Applied() {
		token := desformat.Token{Generation: 1, Index: index}
		if v.Fenced(token) {
			fenced[token] = true
		} else if fenced[token] {
			t.Fatalf("token %s is not fenced any more", token)
		}
	}
	for _, u := range v.Uploads() {
		if v.Pack(u.Pack) != nil {
			t.Fatalf("upload %s of a pack in the manifest", u.Key)
		}
		if v.Garbage(u) != v.Fenced(u.Token) {
			t.Fatalf("upload %s: garbage %v, fenced %v", u.Key, v.Garbage(u), v.Fenced(u.Token))
		}
	}
	byToken := map[desformat.Token]desformat.PackID{}
	n := 0
	for p := range v.Packs() {
		if other, ok := byToken[p.Token]; ok {
			t.Fatalf("token %s made %s and %s", p.Token, p.ID, other)
		}
		byToken[p.Token] = p.ID
		if _, ok := known[p.ID]; ok {
			n++
		}
		known[p.ID] = p.SHA256
	}
	if n != len(known) && len(byToken) != len(known) {
		t.Fatalf("%d of %d packs left", n, len(known))
	}
}

func smallWorld(t testing.TB) *world {
	w := newWorld(t)
	w.acked("3a/8", packID(1))
	l := w.leaseRange("3b/8")
	w.commit(l, packID(2))
	w.must(&ackPackCommand{Pack: packID(2), Token: l.Token, Dead: ordinals{0, 1, 9}})
	w.announce(w.leaseRange("3c/8"), packID(3))
	w.must(&setCommand{"k", []byte("v"), 0})
	w.must(putToken(hour("t", 2)))
	w.must(redeem("t", "node-c", 1))
	w.must(redeem("t", "node-d", 1))
	w.must(&removeMemberCommand{"node-d"})
	return w
}

func TestSnapshotRestores(t *testing.T) {
	w := smallWorld(t)
	b := w.bytes()
	s, err := readSnapshot(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if again := snapshotBytes(t, &s); !bytes.Equal(again, b) {
		t.Errorf("restored as\n%s\nnot\n%s", again, b)
	}
	v := &View{state: s}
	if p := v.Pack(packID(2)); p == nil || !p.IsDead(9) || p.IsDead(2) {
		t.Errorf("pack 2: %+v", p)
	}
	if got := v.Covering(hashAt(0x3b000000), nil); len(got) != 1 || got[0] != v.Pack(packID(2)) {
		t.Errorf("covering: %v", got)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	b := smallWorld(t).bytes()
	known := func(err error) bool { return errors.Is(err, ErrSnapshot) || errors.Is(err, ErrUnknownCommand) }
	for n := range b {
		if _, err := readSnapshot(bytes.NewReader(b[:n])); !known(err) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range b {
		for _, flip := range []byte{1, 0x20, 0x80} {
			bad := bytes.Clone(b)
			bad[i] ^= flip
			if _, err := readSnapshot(bytes.NewReader(bad)); !known(err) {
				t.Fatalf("byte %d flipped by %#x (%q): %v", i, flip, b[max(0, i-20):i+1], err)
			}
		}
	}
	_, err := readSnapshot(bytes.NewReader(append(bytes.Clone(b), ' ')))
	wantErr(t, err, ErrSnapshot)
	_, err = readSnapshot(bytes.NewReader(bytes.Replace(b, []byte("raftmeta 1"), []byte("raftmeta 2"), 1)))
	wantErr(t, err, ErrUnknownCommand)
}

// TestUnknownCommandHalts: a node that does not understand an entry keeps its
// view where it is and refuses whatever follows.
func TestUnknownCommandHalts(t *testing.T) {
	good, err := encodeCommand("node-a", &setCommand{"k", []byte("v"), 0})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"newer version": `{"v":3,"kind":"set","body":{}}`,
		"unknown kind":  `{"v":1,"kind":"frobnicate","body":{}}`,
		"unknown field": `{"v":1,"kind":"set","body":{"key":"k","value":null,"if_mod_index":0,"tag":1}}`,
		"no JSON":       `\x00`,
		"no body":       `{"v":1,"kind":"set"}`,
		"unknown job":   `{"v":1,"kind":"grant","body":{"job":{"kind":"dance"},"holder":"node-a","request":"1"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var told error
			w.onHalt = func(err error) { told = err }
			before := w.state()
			logs := []*raft.Log{
				{Index: w.index + 1, Type: raft.LogCommand, Data: []byte(data)},
				{Index: w.index + 2, Type: raft.LogConfiguration},
				{Index: w.index + 3, Type: raft.LogCommand, Data: good},
			}
			answers := w.ApplyBatch(logs)
			wantErr(t, answers[0].(answer).err, ErrUnknownCommand)
			wantErr(t, answers[2].(answer).err, ErrUnknownCommand)
			wantErr(t, told, ErrUnknownCommand)
			if w.state() != before {
				t.Error("the view has moved")
			}
			if _, err := w.Snapshot(); !errors.Is(err, ErrUnknownCommand) {
				t.Errorf("a snapshot was taken: %v", err)
			}
		})
	}
}

// TestPanicHalts: whatever a command does to this node it does to all, but a
// process that ends each time it starts tells nobody why.
func TestPanicHalts(t *testing.T) {
	w := newWorld(t)
	var told error
	w.onHalt = func(err error) { told = err }
	s := w.state().state
	s.packs = s.packs.set(packKey(packID(1)), nil)
	w.publish(s)
	before := w.state()
	if _, err := w.do(&ackPackCommand{Pack: packID(1)}); err == nil || !errors.Is(err, told) || w.state() != before {
		t.Errorf("got %v, told %v", err, told)
	}
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add(newWorld(f).bytes())
	f.Add(smallWorld(f).bytes())
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readSnapshot(bytes.NewReader(data))
		if err != nil {
			return
		}
		b := snapshotBytes(t, &s)
		if again, err := readSnapshot(bytes.NewReader(b)); err != nil || !bytes.Equal(snapshotBytes(t, &again), b) {
			t.Errorf("read, but not written again the same: %v", err)
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	w := smallWorld(f)
	l := Lease{Token: desformat.Token{Generation: 1, Index: 9}, Job: Job{Kind: JobPack}}
	for _, c := range []command{
		&formCommand{Cluster: desformat.ClusterID{1}, ShardBits: 10, Generation: 1},
		&memberCommand{Member{ID: "node-a"}}, &announceCommand{Member{ID: "node-a", Zone: "z"}},
		&leavingCommand{"node-b", true}, &removeMemberCommand{"node-b"},
		putToken(hour("t", 1)), redeem("t", "node-c", 1), &revokeTokenCommand{"t"},
		&setCommand{"k", []byte("v"), 3},
		&grantCommand{Job: packsJob(JobVerify, packID(1)), Holder: "node-a", Request: "1"},
		&releaseCommand{l.Token}, &releaseAllCommand{"node-a", 9},
		&beginUploadCommand{testUpload(l, packID(4))}, &forgetUploadCommand{testUpload(l, packID(4)).Key},
		&addPackCommand{testPack(l, packID(4))}, &ackPackCommand{Pack: packID(1), Dead: ordinals{1, 2}},
		&verifyPackCommand{packID(1), Copy{Key: "k"}, Copy{Key: "k", VerifiedAt: time.Unix(1, 0).UTC()}},
		adoptPacks(oldPack(f, "3d/8", 7)), &adoptCommand{Uploads: []Upload{oldUpload(f, "3d/8", 8)}},
	} {
		data, err := encodeCommand("node-a", c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := decodeCommand(data)
		if err != nil {
			wantErr(t, err, ErrUnknownCommand)
			return
		}
		s := w.state().state
		if c.kind() == kindAdopt {
			s.generation = 2 // there is something to adopt
		}
		before := snapshotBytes(t, &s)
		next := s
		_, _ = c.apply(&next, 1000)
		if !bytes.Equal(snapshotBytes(t, &s), before) {
			t.Error("applying a command changed an earlier state")
		}
		b := snapshotBytes(t, &next)
		if again, err := readSnapshot(bytes.NewReader(b)); err != nil || !bytes.Equal(snapshotBytes(t, &again), b) {
			t.Errorf("the state after it does not survive a snapshot: %v", err)
		}
	})
}

// BenchmarkRestoreSnapshot is what a node's start takes for 8,192 packs.
func BenchmarkRestoreSnapshot(b *testing.B) {
	v := manyPacks(13)
	for p := range v.Packs() { // the entries are this benchmark's own
		p.Copies = []Copy{{Key: desformat.PackKey(p.Range, p.Token, p.ID), Version: "v1"}}
	}
	data := snapshotBytes(b, &v.state)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := readSnapshot(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}
