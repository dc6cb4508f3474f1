package raftmeta

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/datavision/desnode/desformat"
)

// world is a state machine without a raft: a test commits commands to it at
// the indexes it likes, each through its encoding.
type world struct {
	testing.TB
	*machine
	index   uint64
	request int
}

func newWorld(t testing.TB) *world {
	w := &world{TB: t}
	w.machine = newMachine(func(err error) { t.Errorf("machine halts: %v", err) })
	w.must(&formCommand{Cluster: desformat.ClusterID{1}, ShardBits: 10, Generation: 1})
	w.must(&memberCommand{Member{ID: "node-a"}})
	w.must(&memberCommand{Member{ID: "node-b"}})
	return w
}

// do commits one command and returns its answer.
func (w *world) do(c command) (any, error) {
	w.Helper()
	data, err := encodeCommand("node-a", c)
	if err != nil {
		w.Fatal(err)
	}
	w.index++
	ans := w.Apply(&raft.Log{Index: w.index, Type: raft.LogCommand, Data: data}).(answer)
	return ans.value, ans.err
}

func (w *world) must(c command) any {
	w.Helper()
	v, err := w.do(c)
	if err != nil {
		w.Fatalf("%s: %v", c.kind(), err)
	}
	return v
}

// refused commits a command and wants it refused, with nothing changed.
func (w *world) refused(c command, want error) {
	w.Helper()
	before := w.bytes()
	_, err := w.do(c)
	wantErr(w, err, want)
	if after := w.bytes(); !bytes.Equal(sansApplied(before), sansApplied(after)) {
		w.Errorf("%s was refused and yet changed the state from\n%s\nto\n%s", c.kind(), before, after)
	}
}

func (w *world) state() *View { return w.view.Load() }

// bytes is the state's snapshot, which tells all of it.
func (w *world) bytes() []byte {
	w.Helper()
	return snapshotBytes(w, &w.state().state)
}

func snapshotBytes(t testing.TB, s *state) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeSnapshot(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sansApplied leaves out what every command changes: the applied index on the
// cluster's line, and the checksum in the last one.
func sansApplied(b []byte) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(lines[2:len(lines)-2], nil)
}

func (w *world) grantTo(holder NodeID, j Job) (Lease, error) {
	w.Helper()
	w.request++
	v, err := w.do(&grantCommand{Job: j, Holder: holder, Request: strconv.Itoa(w.request)})
	if err != nil {
		return Lease{}, err
	}
	return v.(Lease), nil
}

func (w *world) lease(j Job) Lease {
	w.Helper()
	l, err := w.grantTo("node-a", j)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

func (w *world) leaseRange(r string) Lease {
	w.Helper()
	return w.lease(Job{Kind: JobPack, Range: mustRange(w, r)})
}

func (w *world) release(l Lease) { w.Helper(); w.must(&releaseCommand{l.Token}) }

func (w *world) announce(l Lease, id desformat.PackID) {
	w.Helper()
	w.must(&beginUploadCommand{testUpload(l, id)})
}

// commit announces and adds a pack under l.
func (w *world) commit(l Lease, id desformat.PackID) *Pack {
	w.Helper()
	w.announce(l, id)
	return w.must(&addPackCommand{testPack(l, id)}).(*Pack)
}

// acked commits a pack of r, acknowledges it and lets its lease end.
func (w *world) acked(r string, id desformat.PackID) *Pack {
	w.Helper()
	l := w.leaseRange(r)
	w.commit(l, id)
	w.must(&ackPackCommand{Pack: id, Token: l.Token})
	w.release(l)
	return w.state().Pack(id)
}

func packsJob(kind JobKind, ids ...desformat.PackID) Job { return Job{Kind: kind, Packs: ids} }
