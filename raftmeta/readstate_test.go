package raftmeta

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// files returns all that can be told of a dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var b []byte
		if !e.IsDir() {
			if b, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = fmt.Sprint(info.Mode(), info.ModTime(), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// readUnchanged is ReadState of a dir in which it must change nothing.
func readUnchanged(t *testing.T, dir string) (*View, error) {
	t.Helper()
	before := files(t, dir)
	v, err := ReadState(dir)
	after := files(t, dir)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if before[name] != after[name] {
			t.Errorf("%s was changed or made", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files of %d are left", len(after), len(before))
	}
	return v, err
}

// stopped returns the dir of a node that votes alone, with a snapshot, and
// commands behind it, and its state.
func stopped(t *testing.T) (dir string, want []byte) {
	t.Helper()
	n := startNode(t, testConfig(t))
	n.addPack("3a/8", packID(1))
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if err := n.AckPack(t.Context(), packID(1), []uint32{4}); err != nil {
		t.Fatal(err)
	}
	n.addPack("3b/8", packID(2))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	return n.cfg.Dir, snapshotBytes(t, &n.View().state)
}

func TestStateOfAStoppedNodeIsReadAndLeftAlone(t *testing.T) {
	dir, want := stopped(t)
	for range 2 {
		v, err := readUnchanged(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := snapshotBytes(t, &v.state); !bytes.Equal(got, want) {
			t.Errorf("read\n%s\nnot\n%s", got, want)
		}
	}
}

func TestStateOfADirThatCannotBeWrittenIsRead(t *testing.T) {
	dir, want := stopped(t)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o400)
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := readUnchanged(t, dir)
	if err != nil || !bytes.Equal(snapshotBytes(t, &v.state), want) {
		t.Errorf("read %v, %v", v, err)
	}
}

func TestStateOfARunningNodeIsNotRead(t *testing.T) {
	n := startNode(t, testConfig(t))
	_, err := ReadState(n.cfg.Dir)
	wantErr(t, err, ErrLocked)
	if err := n.Set(t.Context(), "k", []byte("v"), 0); err != nil {
		t.Errorf("the node is disturbed: %v", err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	held, err := lockExisting(filepath.Join(n.cfg.Dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), n.cfg) // a node that starts meanwhile
	wantErr(t, errors.Join(err, held.Close()), ErrLocked)
}

// TestOnlyWhatIsCommittedIsRead: a voter among several has entries in its log
// that no majority has; those behind the file `applied` may be such.
func TestOnlyWhatIsCommittedIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		lead.addPack("00/8", packID(1))
		c.converge()
		time.Sleep(2 * appliedEvery)
		i := slices.Index(c.nodes, lead)
		c.cut(i)
		// It writes this into its log, and nobody else ever hears of it.
		uncommitted, err := encodeCommand(lead.cfg.Node, &setCommand{Key: "alone", Value: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		f := lead.raft.Apply(uncommitted, time.Second)
		if f.Error() == nil {
			t.Fatal("committed alone")
		}
		last := lead.raft.LastIndex()
		next := c.leaderAmong(c.others(lead)...)
		if err := next.Set(t.Context(), "all", []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
		v, err := readUnchanged(t, lead.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := v.Setting("alone"); ok || v.Pack(packID(1)) == nil || v.Applied() >= last {
			t.Errorf("index %d of %d, the uncommitted entry applied: %v", v.Applied(), last, ok)
		}
		v, err = readUnchanged(t, next.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok := v.Setting("all"); !ok || !bytes.Equal(snapshotBytes(t, &v.state), snapshotBytes(t, &next.View().state)) {
			t.Error("what the majority had applied is not read")
		}

		// Without the file there is only what a snapshot holds: nothing yet.
		if err := os.Remove(filepath.Join(next.cfg.Dir, appliedFile)); err != nil {
			t.Fatal(err)
		}
		_, err = readUnchanged(t, next.cfg.Dir)
		wantErr(t, err, ErrNoState)
	})
}

func TestNotesThatDoNotFitTheLogAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"another term":   `{"index":3,"term":77}`,
		"beyond the log": `{"index":1000,"term":2}`,
		"damaged":        `{"index":`,
		"empty":          "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, last, file, _ := stopAll(t)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := readUnchanged(t, last.cfg.Dir)
				wantErr(t, err, ErrStorage)
			})
		})
	}
}

func TestDirWithoutAStateIsRefused(t *testing.T) {
	_, err := ReadState(t.TempDir())
	wantErr(t, err, ErrNoState)
	_, err = ReadState(filepath.Join(t.TempDir(), "none"))
	wantErr(t, err, ErrNoState)
	cfg := testConfig(t) // opened once, and nothing written
	m, err := Open(t.Context(), cfg)
	if err == nil {
		err = m.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = readUnchanged(t, cfg.Dir)
	wantErr(t, err, ErrNoState)
}

func TestCommandOfANewerVersionIsNotReadOver(t *testing.T) {
	n := startNode(t, testConfig(t))
	_, _, _ = n.apply(t.Context(), []byte(`{"v":3,"kind":"set","body":{}}`))
	<-n.done
	wantErr(t, n.stop(), ErrUnknownCommand)
	_, err := readUnchanged(t, n.cfg.Dir)
	wantErr(t, err, ErrUnknownCommand)
}

// statesOf returns the states that the log in dir goes through, by index.
func statesOf(t *testing.T, dir string) map[uint64][]byte {
	t.Helper()
	log, meta, err := openLogReadOnly(filepath.Join(dir, "wal"), newRaftLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(log.Close(), meta.Close()); err != nil {
			t.Error(err)
		}
	}()
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint64][]byte{}
	m := newMachine(func(err error) { t.Error(err) })
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		m.Apply(&l)
		all[m.view.Load().Applied()] = snapshotBytes(t, &m.view.Load().state)
	}
	return all
}

// glob returns the one file below dir that fits.
func glob(t *testing.T, dir, pattern string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) != 1 {
		t.Fatalf("%s: %v, %v", pattern, all, err)
	}
	return all[0]
}

// TestDamagedDirIsNeverReadWrong: with any byte of its small files changed, or
// of the log, what is read is the state, or an older one that the node had, or
// a documented error. The log reaches back to the beginning, so a damaged
// snapshot costs nothing.
func TestDamagedDirIsNeverReadWrong(t *testing.T) {
	dir, want := stopped(t)
	history := statesOf(t, dir)
	if !bytes.Equal(history[slices.Max(slices.Collect(maps.Keys(history)))], want) {
		t.Fatal("the log does not give the node's last state")
	}
	known := func(err error) bool {
		return errors.Is(err, ErrStorage) || errors.Is(err, ErrSnapshot) || errors.Is(err, ErrNoState) || errors.Is(err, ErrUnknownCommand)
	}
	for pattern, mustNotice := range map[string]bool{
		"snapshots/*/state.bin": false,
		"snapshots/*/meta.json": false,
		"wal/*.wal":             true,
	} {
		path := glob(t, dir, pattern)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := len(bytes.TrimRight(whole, "\x00"))
		read, refused := 0, 0
		for i := 0; i < n; i += 1 + n/300 {
			bad := bytes.Clone(whole)
			bad[i] ^= 1
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := ReadState(dir)
			switch {
			case err != nil && !known(err):
				t.Fatalf("%s, byte %d: %v", pattern, i, err)
			case err != nil:
				refused++
			case bytes.Equal(snapshotBytes(t, &v.state), history[v.Applied()]):
				read++ // a log that is cut by damage looks like one that was never longer
			default:
				t.Fatalf("%s, byte %d (%q): read as\n%s", pattern, i, whole[max(0, i-20):i+1], snapshotBytes(t, &v.state))
			}
		}
		if read+refused == 0 || mustNotice && refused == 0 {
			t.Errorf("%s: %d read, %d refused", pattern, read, refused)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedSnapshotIsNamed: the log behind it does not reach back.
func TestDamagedSnapshotIsNamed(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string) error{
		"cut":      func(t *testing.T, dir string) error { return os.Truncate(glob(t, dir, "snapshots/*/state.bin"), 40) },
		"lost":     func(t *testing.T, dir string) error { return os.Remove(glob(t, dir, "snapshots/*/state.bin")) },
		"unnamed":  func(t *testing.T, dir string) error { return os.Truncate(glob(t, dir, "snapshots/*/meta.json"), 4) },
		"all gone": func(_ *testing.T, dir string) error { return os.RemoveAll(filepath.Join(dir, "snapshots")) },
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, testConfig(t))
			n.addPack("3a/8", packID(1))
			if err := n.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			last, err := n.guard.LastIndex()
			if err == nil {
				err = n.guard.DeleteRange(1, last-1)
			}
			if err := errors.Join(err, n.stop()); err != nil {
				t.Fatal(err)
			}
			v, err := readUnchanged(t, n.cfg.Dir)
			if err != nil || v.Pack(packID(1)) == nil {
				t.Fatalf("undamaged: %v", err)
			}
			if err := damage(t, n.cfg.Dir); err != nil {
				t.Fatal(err)
			}
			_, err = readUnchanged(t, n.cfg.Dir)
			wantErr(t, err, ErrStorage)
			if !strings.Contains(err.Error(), n.cfg.Dir) || name == "cut" && !strings.Contains(err.Error(), "corrupt snapshot") {
				t.Errorf("it says only: %v", err)
			}
		})
	}
}

// TestNewestReadableSnapshotIsTaken: an older one, and the log behind it.
func TestNewestReadableSnapshotIsTaken(t *testing.T) {
	n := startNode(t, testConfig(t))
	for i := range uint64(3) {
		n.addPack(fmt.Sprintf("3%d/8", i), packID(i))
		if err := n.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(n.cfg.Dir, "snapshots", "*", "state.bin"))
	if err != nil || len(all) != snapshotsKept {
		t.Fatal(all, err)
	}
	if err := os.Truncate(slices.Max(all), 40); err != nil {
		t.Fatal(err)
	}
	v, err := readUnchanged(t, n.cfg.Dir)
	if err != nil || !bytes.Equal(snapshotBytes(t, &v.state), snapshotBytes(t, &n.View().state)) {
		t.Errorf("read %v", err)
	}
}

// TestLongLogIsRead: segments that are sealed, and one whose file was never
// made, as after a power cut.
func TestLongLogIsRead(t *testing.T) {
	n := startNode(t, testConfig(t))
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for i := range 12 {
		if err := n.Set(t.Context(), fmt.Sprintf("k%d", i), value, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(n.cfg.Dir, "wal", "*.wal"))
	if err != nil || len(segments) < 2 {
		t.Fatal(segments, err)
	}
	v, err := readUnchanged(t, n.cfg.Dir)
	if err != nil || !bytes.Equal(snapshotBytes(t, &v.state), snapshotBytes(t, &n.View().state)) {
		t.Fatalf("read %v", err)
	}
	sealed, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(sealed)
	bad[len(bad)/3] ^= 1
	if err := os.WriteFile(segments[0], bad, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = readUnchanged(t, n.cfg.Dir)
	wantErr(t, err, ErrStorage)
	if err := os.WriteFile(segments[0], sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(slices.Max(segments)); err != nil {
		t.Fatal(err)
	}
	v, err = readUnchanged(t, n.cfg.Dir)
	if err != nil || v.Applied() != n.View().Applied() { // nothing was in it yet
		t.Errorf("without its tail: index %d of %d, %v", v.Applied(), n.View().Applied(), err)
	}
}

// TestVotingAloneIsReadFromTheLog: the newest configuration in it counts.
func TestVotingAloneIsReadFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3)
		lead := c.leaderAmong(c.nodes...)
		lead.addPack("00/8", packID(1))
		c.converge()
		for _, n := range c.others(lead) {
			if err := lead.raft.RemoveServer(raft.ServerID(n.cfg.Node), 0, 0).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if err := lead.Set(t.Context(), "k", []byte("v"), 0); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
		if err := forgetApplied(lead.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		v, err := readUnchanged(t, lead.cfg.Dir)
		if err != nil || !bytes.Equal(snapshotBytes(t, &v.state), snapshotBytes(t, &lead.View().state)) {
			t.Errorf("read %v", err)
		}
	})
}
