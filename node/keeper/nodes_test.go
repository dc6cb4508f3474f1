package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// as makes the world's keepers those of another node, with a data dir and an
// audit log of its own.
func (w *world) as(node raftmeta.NodeID) *world {
	w.node = node
	return w
}

// join makes a node a member that has applied all there is.
func (w *world) join(node raftmeta.NodeID) {
	w.t.Helper()
	w.check(w.meta.PutMember(w.t.Context(), raftmeta.Member{ID: node, Applied: 1 << 40}))
}

func always() bool { return true }

func (w *world) verifiedBy(p *raftmeta.Pack) raftmeta.NodeID {
	return w.meta.View().Pack(p.ID).Copies[0].VerifiedBy
}

// Who packed it does not have the first word on it, unless nobody else is there.
func TestTheFirstVerificationIsAnothers(t *testing.T) {
	keeps := func(others bool) func(*Config) {
		return func(c *Config) { c.DeleteSource, c.OthersKeep = false, func() bool { return others } }
	}
	w := newWorld(t)
	p := w.archived("a")
	w.as("node-a").once(keeps(true))
	if by := w.verifiedBy(p); by != "" {
		t.Errorf("the packer's own node verified it: %s", by)
	}
	w.as("node-b").once(keeps(true))
	if by := w.verifiedBy(p); by != "node-b" {
		t.Errorf("verified by %q, want node-b", by)
	}
	w.clock.advance(31 * 24 * time.Hour) // scrubbing is anybody's
	w.as("node-a").once(keeps(true))
	if by := w.verifiedBy(p); by != "node-a" {
		t.Errorf("read again by %q, want node-a", by)
	}
	alone := newWorld(t)
	p = alone.archived("a")
	alone.once(keeps(false))
	if by := alone.verifiedBy(p); by != "node-a" {
		t.Errorf("alone it was verified by %q", by)
	}
}

// A packer's own node deletes nothing before another has read the pack, and then
// does: its roots may be mounted there only.
func TestDeletionWaitsForAnothersVerification(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	others := func(c *Config) { c.OthersKeep = always }
	w.as("node-a").once(others)
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	w.as("node-b").once(func(c *Config) { c.DeleteSource, c.OthersKeep = false, always })
	w.wantFile(w.path("a"), "content of a")
	w.as("node-a").once(others)
	w.wantFile(w.path("a"), "")
	w.wantRow("a", source.DeletedSource, "")
}

// Its packer's own node tells him what it finds, but that is not the verification
// that deletion waits for.
func TestAnOperatorReadsAPackOnWhateverNode(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	others := func(c *Config) { c.OthersKeep = always }
	k := w.as("node-a").keeper(others)
	w.check(k.Verify(t.Context(), nil, func(r Result) error {
		if r.Err != nil || r.Records != 1 {
			t.Errorf("%+v", r)
		}
		return nil
	}))
	if by := w.verifiedBy(p); by != "" {
		t.Errorf("verified by %q", by)
	}
	w.as("node-a").once(others)
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
}

// What somebody works on is not asked for: a refusal is an entry of the log.
func TestALeasedPackIsNotAskedFor(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	for _, kind := range []raftmeta.JobKind{raftmeta.JobVerify, raftmeta.JobDelete} {
		job := raftmeta.Job{Kind: kind, Packs: []desformat.PackID{p.ID}}
		w.check(w.meta.WithLease(t.Context(), job, func(context.Context, raftmeta.Lease) error {
			w.faults.reset()
			w.as("node-b").once(nil)
			return nil
		}))
		if n := count(w.faults.calls, "meta.WithLease"); n != 0 {
			t.Errorf("%s: asked %d times for a pack that is leased", kind, n)
		}
	}
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}

// Between the look and the grant another node has verified the pack.
func TestAPackIsNotVerifiedTwice(t *testing.T) {
	w := newWorld(t)
	p := w.archived("a")
	noDelete := func(c *Config) { c.DeleteSource = false }
	k := w.as("node-b").keeper(noDelete)
	other := w.as("node-c").keeper(noDelete)
	w.faults.reset()
	w.faults.on = func(op string) error {
		if op == "meta.WithLease" {
			w.faults.mu.Lock()
			w.faults.on = nil
			w.faults.mu.Unlock()
			return other.Once(t.Context())
		}
		return nil
	}
	w.check(k.Once(t.Context()))
	if by, n := w.verifiedBy(p), count(w.faults.calls, "meta.VerifyPack"); by != "node-c" || n != 1 {
		t.Errorf("verified by %q, %d times", by, n)
	}
}

// Three nodes keep at once: each pack is acknowledged, read once by a node other
// than its packer's, and its originals go.
func TestThreeNodesKeep(t *testing.T) {
	w := newWorld(t)
	var names []string
	var packs []*raftmeta.Pack
	for i := range 8 {
		name := fmt.Sprintf("f%d", i)
		names = append(names, name)
		w.register(name)
		p := w.pack()
		w.check(w.keeper(nil).Acknowledge(t.Context(), p))
		packs = append(packs, p)
	}
	w.register("last")
	packs, names = append(packs, w.pack()), append(names, "last") // its packer died
	w.clock.advance(2 * time.Hour)
	w.faults.reset()
	run := func(grace time.Duration) {
		t.Helper()
		var all sync.WaitGroup
		for _, node := range []raftmeta.NodeID{"node-a", "node-b", "node-c"} {
			k := w.as(node).keeper(func(c *Config) { c.OthersKeep, c.Workers, c.DeleteGrace, c.Logger = always, 2, grace, nil })
			all.Go(func() {
				if err := k.Once(t.Context()); err != nil && !errors.Is(err, errNotSafe) {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	run(1000 * time.Hour) // nothing is due
	for _, p := range packs {
		now := w.meta.View().Pack(p.ID)
		if !now.Acknowledged || w.verifiedBy(p) == "node-a" || w.verifiedBy(p) == "" {
			t.Errorf("pack %s: acknowledged %v, verified by %q", p.ID, now.Acknowledged, w.verifiedBy(p))
		}
	}
	if n := count(w.faults.calls, "meta.VerifyPack"); n != len(packs) {
		t.Errorf("%d packs were read %d times", len(packs), n)
	}
	if n := count(w.faults.calls, "meta.AckPack"); n != 1 {
		t.Errorf("one pack was acknowledged %d times", n)
	}
	w.clock.advance(2 * time.Hour)
	for range 2 { // a lease that clashed is asked for in the next
		run(time.Hour)
	}
	for _, n := range names {
		w.wantFile(w.path(n), "")
		w.wantRow(n, source.DeletedSource, "")
	}
	if h := w.hidden(); len(h) > 0 {
		t.Errorf("left behind: %q", h)
	}
}

// One node's deletion is cut at any step, and another node of the same host goes
// on, which has an audit log of its own; then the first one comes back.
func TestAnotherNodeFinishesADeletion(t *testing.T) {
	next := func(w *world) {
		if w.node == "" {
			w.as("node-a")
		} else {
			w.as("node-b")
		}
		tryOnce(w)
	}
	failureTable(t,
		func(w *world) { w.archived("sub/a", "b") },
		next,
		func(w *world) {
			w.wantSafe("sub/a", "content of sub/a")
			w.wantSafe("b", "content of b")
		},
		func(w *world) {
			for _, node := range []raftmeta.NodeID{"node-a", "node-b"} {
				tryOnce(w.as(node))
				w.wantNoIntents()
			}
			for _, n := range []string{"sub/a", "b"} {
				w.wantFile(w.path(n), "")
				w.wantRow(n, source.DeletedSource, "")
			}
			if h := w.hidden(); len(h) > 0 {
				w.t.Errorf("left behind: %q", h)
			}
		})
}

// What a dead node has left in the store is collected by whichever node comes
// first, once.
func TestThreeNodesCollectOnce(t *testing.T) {
	w := newWorld(t)
	key := w.abandoned([]byte("garbage"))
	w.clock.advance(25 * time.Hour)
	w.faults.reset()
	run := func() {
		t.Helper()
		var all sync.WaitGroup
		for _, node := range []raftmeta.NodeID{"node-b", "node-c", "node-d"} {
			k := w.as(node).keeper(func(c *Config) { c.Logger = nil })
			all.Go(func() {
				if err := k.Once(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	run()
	w.wantKeys("quarantine/2026-03-02/" + key)
	w.clock.advance(8 * 24 * time.Hour)
	run()
	w.wantKeys()
	if moves, deletes := count(w.faults.calls, "store.Move"), count(w.faults.calls, "store.Delete"); moves != 1 || deletes != 1 {
		t.Errorf("moved %d times, deleted %d times", moves, deletes)
	}
}

// elsewhere makes a keeper's files those of a host on which another folder, not
// empty, stands where the root should be.
func (w *world) elsewhere(c *Config) {
	w.t.Helper()
	c.Host = "other host"
	w.write(filepath.Join(w.mkdir("other disk"), "something"), "else")
	for i, s := range c.Sources {
		c.Sources[i].Files = moved{s.Files, w.root, filepath.Join(w.dir, "other disk")}
	}
}

// moved is files whose paths lead below another folder.
type moved struct {
	source.Originals
	from, to string
}

func (m moved) at(path string) (source.Originals, string) {
	rel, err := filepath.Rel(m.from, path)
	if err != nil {
		return m.Originals, path
	}
	return source.NewFolders(func() []string { return []string{m.to} }), filepath.Join(m.to, rel)
}

func (m moved) Open(ctx context.Context, path string) (source.Original, error) {
	files, path := m.at(path)
	return files.Open(ctx, path)
}

func (m moved) OpenHidden(ctx context.Context, path string) (source.Original, error) {
	files, path := m.at(path)
	return files.OpenHidden(ctx, path)
}

func (m moved) FileID(ctx context.Context, path string) (string, error) {
	files, path := m.at(path)
	return files.FileID(ctx, path)
}

// A host that does not see the root, but another folder in its place, must not
// take its files for missing, whatever stands half done.
func TestAHostWithoutTheRootLeavesItsRowsAlone(t *testing.T) {
	for _, tc := range []struct {
		name string
		cut  string // where the deletion of the host that sees it is cut; "": it did not begin
	}{
		{"nobody began", ""},
		{"claimed", "files.Hide"},
		{"hidden", "files.OpenHidden"},
		{"removed", "rows.Deleted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.archived("a")
			w.join("node-b")
			if tc.cut != "" {
				seen := 0
				w.faults.on = func(op string) error {
					if op == tc.cut {
						if seen++; tc.cut != "files.OpenHidden" || seen > 2 {
							return errInjected
						}
					}
					return nil
				}
				tryOnce(w.as("node-a"))
				w.faults.reset()
			}
			before := w.row("a")
			w.faults.reset()
			for range 2 {
				w.as("node-b").once(w.elsewhere)
			}
			if after := w.row("a"); after.State != before.State || after.Claim != before.Claim || after.ErrorCode != before.ErrorCode {
				t.Errorf("the row was %s, claimed by %q, %q; it is %s, %q, %q",
					before.State, before.Claim, before.ErrorCode, after.State, after.Claim, after.ErrorCode)
			}
			for _, op := range []string{"rows.Claim", "rows.Unclaim", "rows.Deleted"} {
				if count(w.faults.calls, op) > 0 {
					t.Errorf("the other host called %s", op)
				}
			}
			tryOnce(w.as("node-a"))
			w.wantFile(w.path("a"), "")
			w.wantRow("a", source.DeletedSource, "")
		})
	}
}

// Device numbers are a host's own. A host that sees the root takes over only when
// no node is left on the one before, and finds all file ids out anew.
func TestAHostTakesOverWhatAnotherHasLost(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b")
	w.join("node-b")
	w.as("node-a").once(func(c *Config) { c.DeleteSource = false })
	k := w.as("node-a").keeper(nil)
	may, err := k.mayDelete(t.Context(), w.src, w.row("a"))
	if h, _, _ := k.filesHost(); !may || err != nil || h != (filesHost{"host", "node-a", true}) {
		t.Fatalf("%v, %v; the host is %+v", may, err, h)
	}
	w.setFileIDs("77:1", "a", "b") // as found out on the first host
	otherHost := func(c *Config) { c.Host = "host-b" }
	w.as("node-b").once(otherHost)
	w.wantFile(w.path("a"), "content of a")
	w.check(w.meta.RemoveMember(t.Context(), "node-b")) // not itself the one to go
	w.join("node-c")
	w.as("node-c").once(otherHost)
	w.wantFile(w.path("a"), "content of a")
	// The first host's node is gone: its claim stands in the setting alone.
	w.check(w.setHostOf("host", "node-x"))
	w.as("node-c").once(otherHost)
	for _, n := range []string{"a", "b"} {
		w.wantFile(w.path(n), "")
		w.wantRow(n, source.DeletedSource, "")
		if id := w.row(n).FileID; id == "77:1" {
			t.Errorf("%s was judged by another host's file id", n)
		}
	}
	w.archived("c")
	w.as("node-a").once(nil)
	w.wantFile(w.path("c"), "content of c")
	w.as("node-c").once(otherHost)
	w.wantRow("c", source.DeletedSource, "")
}

// A take-over that was cut before the file ids were forgotten is finished before
// anything is deleted.
func TestATakeOverThatWasCutIsFinished(t *testing.T) {
	w := newWorld(t)
	w.archived("a", "b")
	w.join("node-b")
	w.check(w.setHostOf("lost", "node-x"))
	w.setFileIDs("77:1", "a", "b") // two files, one number: of another host
	sets := 0
	w.faults.on = func(op string) error {
		if op == "meta.Set" {
			if sets++; sets == 2 {
				return errInjected
			}
		}
		return nil
	}
	tryOnce(w.as("node-b"))
	w.wantFile(w.path("a"), "content of a")
	w.faults.reset()
	tryOnce(w)
	w.wantRow("a", source.DeletedSource, "")
	w.wantRow("b", source.DeletedSource, "")
}

func TestFileIDsAreKeptFromOtherHosts(t *testing.T) {
	for _, tc := range []struct {
		name, host, id string
		ok             bool
	}{
		{"nobody's host, a file", "", "77:1", false},
		{"nobody's host, no file", "", source.NoFileID, true},
		{"nobody's host, an object", "", "s3:b/k", true},
		{"this host, a file", "host", "77:1", true},
		{"this host, no file", "host", source.NoFileID, true},
		{"another host, a file", "other", "77:1", false},
		{"another host, no file", "other", source.NoFileID, false},
		{"another host, an object", "other", "s3:b/k", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.host != "" {
				w.check(w.setHostOf(tc.host, "node-x"))
			}
			if err := w.keeper(nil).mayIdentify(tc.id); (err == nil) != tc.ok || err != nil && !errors.Is(err, errElsewhere) {
				t.Errorf("%v, want %v", err, tc.ok)
			}
		})
	}
}

func TestAHostIsNamedByItsMachineOrItsNode(t *testing.T) {
	id, err := os.ReadFile("/etc/machine-id")
	if got := hostID("node-a"); (err != nil || len(id) < 2) != (got == "node/node-a") || got != hostID("node-a") {
		t.Errorf("the host is %q", got)
	}
}

// setHostOf writes the setting as if another node had.
func (w *world) setHostOf(host string, node raftmeta.NodeID) error {
	k := w.keeper(nil)
	_, modIndex, err := k.filesHost()
	if err != nil {
		return err
	}
	return k.setHost(w.t.Context(), filesHost{host, node, true}, modIndex)
}

// setFileIDs gives rows the file id that another host found out.
func (w *world) setFileIDs(id string, names ...string) {
	w.t.Helper()
	w.check(w.rows.ForgetFiles(w.t.Context()))
	for _, n := range names {
		w.check(w.rows.Identify(w.t.Context(), []source.Row{w.row(n)}, []string{id}))
	}
}

// Rows that this node does not see may reach the same files.
func TestNothingIsDeletedByANodeThatLacksASource(t *testing.T) {
	w := newWorld(t)
	w.archived("a")
	lacks := errors.New("another source")
	err := w.keeper(func(c *Config) { c.AllSources = func() error { return lacks } }).Once(t.Context())
	if !errors.Is(err, lacks) {
		t.Errorf("deleted: %v, want %v", err, lacks)
	}
	w.wantFile(w.path("a"), "content of a")
	w.wantRow("a", source.Packed, "")
	w.once(nil)
	w.wantRow("a", source.DeletedSource, "")
}
