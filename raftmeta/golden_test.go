package raftmeta

import (
	"bytes"
	"os"
	"testing"

	"github.com/hashicorp/raft"
)

// The files of testdata were written by the versions they are named after, and
// are never written again.

// TestSnapshotOfTheSecondVersionLoads: the one with several nodes and tokens,
// and without backups, rebuilds and adopted packs.
func TestSnapshotOfTheSecondVersionLoads(t *testing.T) {
	old := golden(t, "second-version.snapshot")
	v, err := ReadSnapshot(bytes.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	if p := v.Pack(packID(1)); p == nil || !p.Acknowledged || !p.IsDead(5) || p.Copies[0].VerifiedBy != "node-b" {
		t.Errorf("pack: %+v", p)
	}
	if !v.Removed("node-d") || len(v.Members()) != 3 || len(v.Leases()) != 2 || len(v.Uploads()) != 1 || !v.RebuildDone(1) {
		t.Errorf("members %v, leases %v, uploads %v", v.Members(), v.Leases(), v.Uploads())
	}
	var again bytes.Buffer
	if err := v.WriteSnapshot(&again); err != nil || !bytes.Equal(again.Bytes(), old) {
		t.Errorf("written again, %v:\n%s", err, again.Bytes())
	}
}

// TestLogOfTheSecondVersionGivesItsState: a node that is upgraded applies what
// it applied before, and comes to the same.
func TestLogOfTheSecondVersionGivesItsState(t *testing.T) {
	w := &world{TB: t, machine: newMachine(func(err error) { t.Error(err) })}
	for _, data := range bytes.Split(bytes.TrimSpace(golden(t, "second-version.log")), []byte("\n")) {
		w.index++
		if ans := w.Apply(&raft.Log{Index: w.index, Type: raft.LogCommand, Data: data}).(answer); ans.err != nil {
			t.Fatalf("%s: %v", data, ans.err)
		}
	}
	if got, want := w.bytes(), golden(t, "second-version.snapshot"); !bytes.Equal(got, want) {
		t.Errorf("the log gives\n%s\nnot\n%s", got, want)
	}
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
