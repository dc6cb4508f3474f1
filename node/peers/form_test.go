package peers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

// TestFormIsRepeated: whatever a cut Form left, the next one ends in parts that
// belong together, and one that has ended is never made again.
func TestFormIsRepeated(t *testing.T) {
	const node = "00000000-0000-4000-8000-000000000001"
	for _, tc := range []struct {
		name string
		left []string
	}{
		{"nothing", nil},
		{"the CA", []string{authorityFile}},
		{"the gossip keys", []string{keysFile}},
		{"all but the identity", []string{authorityFile, keysFile}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cut, dir := t.TempDir(), filepath.Join(t.TempDir(), "cluster")
			if err := errors.Join(Form(cut, "c", node, nil), os.Mkdir(dir, 0o700)); err != nil {
				t.Fatal(err)
			}
			for _, file := range tc.left {
				if err := os.Rename(filepath.Join(cut, file), filepath.Join(dir, file)); err != nil {
					t.Fatal(err)
				}
			}
			if formed, err := HasIdentity(dir); err != nil || formed {
				t.Fatalf("before: %t, %v", formed, err)
			}
			if err := Form(dir, "c", node, nil); err != nil {
				t.Fatal(err)
			}
			id, err := transport.LoadIdentity(filepath.Join(dir, identityFile), nil)
			if err != nil {
				t.Fatal(err)
			}
			var a authority
			if err := readJSON(filepath.Join(dir, authorityFile), &a); err != nil {
				t.Fatal(err)
			}
			ca, err := transport.OpenAuthority("c", a.CA, a.Sealed, id.Secret())
			if err != nil || ca.Pin() != id.Pin() {
				t.Fatalf("the CA is not the identity's: %v", err)
			}
			if err := Form(dir, "c", node, nil); err != nil {
				t.Fatal(err)
			}
			again, err := transport.LoadIdentity(filepath.Join(dir, identityFile), nil)
			if err != nil || again.Pin() != id.Pin() || again.Secret() != id.Secret() {
				t.Errorf("formed a second time: %v", err)
			}
			for _, file := range []string{identityFile, authorityFile, keysFile} {
				if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", file, st, err)
				}
			}
		})
	}
}

// TestClusterOfAnOlderVersion: one node that ran alone, without identity, gets
// one and lets others in.
func TestClusterOfAnOlderVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.newNode()
		alone, err := raftmeta.Open(t.Context(), raftmeta.Config{
			Dir: filepath.Join(first.dir, "raft"), Node: raftmeta.NodeID(first.id), Cluster: w.cluster,
		})
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan error, 1)
		go func() { ran <- alone.Run(t.Context()) }()
		if err := errors.Join(alone.Ready(t.Context()), alone.Set(t.Context(), "kept", []byte("x"), 0), alone.Close(), <-ran); err != nil {
			t.Fatal(err)
		}
		if err := Form(first.peersDir(), w.cluster.String(), first.id, nil); err != nil {
			t.Fatal(err)
		}
		first.start()
		w.await("the CA is in the state", func() bool {
			_, _, ok := first.meta.View().Setting(keysSetting)
			return ok
		})
		second := w.join(first)
		w.awaitAll(first, second)
		if _, _, ok := second.meta.View().Setting("kept"); !ok {
			t.Error("the state of before is lost")
		}
	})
}

// TestLostIdentity: made anew, it is of no use in a cluster that has a CA.
func TestLostIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n := w.form()
		n.stop()
		if err := os.RemoveAll(n.peersDir()); err != nil {
			t.Fatal(err)
		}
		if err := Form(n.peersDir(), w.cluster.String(), n.id, nil); err != nil {
			t.Fatal(err)
		}
		n.wantEnd = ErrOtherCA
		n.start()
		time.Sleep(time.Minute) // virtual
		n.stop()
	})
}
