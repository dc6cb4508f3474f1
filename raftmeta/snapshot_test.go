package raftmeta

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// TestSnapshotIsTheWholeView: written, read and written again it is the same,
// whatever has happened, and what was read answers like what was written.
func TestSnapshotIsTheWholeView(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		if rapid.Bool().Draw(rt, "rebuilt") {
			w = newLife(t, 2)
			all, uploads := drawAdoption(rt, t)
			c := adoptPacks(all...)
			c.Uploads = uploads
			w.must(c)
		}
		for range rapid.IntRange(0, 60).Draw(rt, "commands") {
			_, _ = w.do(drawCommand(rt, w.state()))
		}
		var first, second bytes.Buffer
		if err := w.state().WriteSnapshot(&first); err != nil {
			rt.Fatal(err)
		}
		v, err := ReadSnapshot(bytes.NewReader(first.Bytes()))
		if err == nil {
			err = v.WriteSnapshot(&second)
		}
		if err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			rt.Fatalf("%v: read as\n%s\nnot\n%s", err, second.Bytes(), first.Bytes())
		}
		checkTrie(rt, v)
		a, err1 := w.state().Digest(noSetting)
		b, err2 := v.Digest(noSetting)
		if a != b || err1 != nil || err2 != nil || v.state.awaited != w.state().state.awaited {
			rt.Fatal("what was read answers otherwise")
		}
	})
}

func noSetting(string) bool { return false }

func TestSnapshotThatCannotBeWrittenSaysSo(t *testing.T) {
	full := errors.New("disk full")
	r, w := io.Pipe()
	if err := r.CloseWithError(full); err != nil {
		t.Fatal(err)
	}
	wantErr(t, smallWorld(t).state().WriteSnapshot(w), full)
}

// TestDigestTellsWhatLasts: two views need one backup when only what passes by
// itself is different.
func TestDigestTellsWhatLasts(t *testing.T) {
	w := smallWorld(t)
	digest := func() Digest {
		t.Helper()
		d, err := w.state().Digest(func(key string) bool { return key == "list" })
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	same := digest()
	w.must(&setCommand{Key: "list", Value: []byte("1")})
	w.lease(Job{Kind: JobBackup})
	w.ApplyBatch([]*raft.Log{{Index: w.index + 1, Type: raft.LogNoop}})
	if digest() != same {
		t.Error("a lease, the index or the setting left out counts")
	}
	for name, c := range map[string]command{
		"a setting":      &setCommand{Key: "k2", Value: []byte("v")},
		"a verification": &verifyPackCommand{packID(1), w.state().Pack(packID(1)).Copies[0], verified(w.state().Pack(packID(1)))},
		"a member":       &memberCommand{Member{ID: "node-e"}},
		"an upload gone": &forgetUploadCommand{w.state().Uploads()[0].Key},
		"a token":        putToken(hour("u", 1)),
	} {
		if c.kind() == kindForgetUpload {
			w.must(&releaseAllCommand{Holder: "node-a", UpTo: w.index})
		}
		before := digest()
		w.must(c)
		if digest() == before {
			t.Errorf("%s does not count", name)
		}
	}
}

func verified(p *Pack) Copy {
	c := p.Copies[0]
	c.VerifiedAt, c.VerifiedBy = p.Created, "node-b"
	return c
}
