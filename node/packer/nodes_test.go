package packer

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// cluster is some members and their packers.
type cluster struct {
	members []*member
	packers []*Packer
}

func (w *world) cluster(n int, change ...func(*Config)) cluster {
	w.t.Helper()
	var c cluster
	for i := range n {
		m := w.newMember(raftmeta.NodeID(fmt.Sprint("node-", i)))
		c.members = append(c.members, m)
		c.packers = append(c.packers, m.packer(change...))
	}
	return c
}

// sum adds up what f says of each member.
func (c cluster) sum(f func(*member) int64) (n int64) {
	for _, m := range c.members {
		n += f(m)
	}
	return n
}

func (c cluster) asked() int64 { return c.sum(func(m *member) int64 { return m.asked.Load() }) }

// exhaust lets every packer do rounds, all at once, until none finds anything to
// do or to wait for.
func (c cluster) exhaust(t *testing.T, flush bool) {
	t.Helper()
	var all sync.WaitGroup
	for i, p := range c.packers {
		all.Go(func() {
			for range 1000 {
				res, err := p.Once(t.Context(), flush)
				if err != nil || res.Failed > 0 {
					t.Errorf("node %d: %+v, %v", i, res, err)
					return
				}
				if !res.progress() && res.Busy+res.Overtaken == 0 {
					return
				}
				// As Run's next round would find it, whose pause lets others go on.
				c.members[i].catchUp()
			}
			t.Errorf("node %d: the backlog never ends", i)
		})
	}
	all.Wait()
}

func smallPacks(c *Config) { c.PackSize, c.RoundBytes, c.Workers = 64<<10, 1, 2 }

// Nodes race over one backlog: every file in one pack, no more packs than one
// node would make by half, few leases in vain.
func TestThreeNodesPackOneBacklog(t *testing.T) {
	const files = 3000 // of 300 bytes and as much overhead: 27 packs
	ordinary := func(i int) int { return 20 + i%100 }
	alone := newWorld(t)
	alone.check(func() map[string][]byte {
		want := alone.add(files, ordinary)
		alone.cluster(1, smallPacks).exhaust(t, true)
		return want
	}())
	w := newWorld(t)
	want := w.add(files, ordinary)
	c := w.cluster(3, smallPacks)
	c.exhaust(t, true)
	w.check(want)
	one, three := len(alone.packs), len(w.packs)
	if 2*three > 3*one {
		t.Errorf("three nodes made %d packs, one makes %d", three, one)
	}
	for _, p := range w.packs {
		if !p.Acknowledged || len(p.Dead) > 0 {
			t.Errorf("pack %s: acknowledged %v, %d dead", p.ID, p.Acknowledged, len(p.Dead))
		}
	}
	if vain := c.asked() - int64(three); vain > int64(three) {
		t.Errorf("%d leases were asked for in vain, for %d packs", vain, three)
	}
	for i, m := range c.members {
		t.Logf("node %d: %d leases asked for, %d refused, %d counts, %d pages", i, m.asked.Load(), m.refused.Load(), m.counts.Load(), m.lists.Load())
	}
	t.Logf("packs: %d by one node, %d by three", one, three)
}

// Without a flush no small pack comes of it that one node would not make.
func TestThreeNodesLeaveNoDust(t *testing.T) {
	w := newWorld(t)
	w.add(3000, func(i int) int { return 20 + i%100 })
	w.cluster(3, smallPacks).exhaust(t, false)
	if len(w.packs) < 10 {
		t.Fatalf("%d packs", len(w.packs))
	}
	for _, p := range w.packs {
		if planned := p.PayloadBytes + int64(p.Records)*rowOverhead; planned < 64<<10/3 {
			t.Errorf("a pack of %d rows and %d bytes", p.Records, p.PayloadBytes)
		}
	}
}

// Another node packs a range between this one's count and its grant: what is
// left there is no pack of its own.
func TestACutThatWasOvertakenIsCountedAnew(t *testing.T) {
	for _, tt := range []struct {
		name   string
		newest bool // this node's view shows the other's pack before it asks
		asks   int64
	}{
		{"seen before the lease is asked for", true, 0},
		{"seen under the lease", false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.add(200, func(int) int { return 60 })
			c := w.cluster(2, func(c *Config) { c.PackSize, c.RoundBytes, c.Workers = 128<<10, 1, 1 })
			m, other := c.members[0], c.packers[1]
			meanwhile := func() {
				res, err := other.Once(t.Context(), false)
				if err != nil || res.Packs != 1 {
					t.Fatalf("the other node: %+v, %v", res, err)
				}
				w.write("late", []byte("late"))
				w.register("files", "late", "late")
				if tt.newest {
					m.catchUp()
				}
			}
			p := m.packer(func(c *Config) {
				c.PackSize, c.RoundBytes, c.Workers = 128<<10, 1, 1
				c.Pace = &interrupted{do: meanwhile}
			})
			res, err := p.Once(t.Context(), false)
			if err != nil || res.Overtaken != 1 || res.Packs != 0 || len(w.packs) != 1 {
				t.Errorf("%+v, %v, %d packs", res, err, len(w.packs))
			}
			if got := m.asked.Load(); got != tt.asks {
				t.Errorf("%d leases were asked for, want %d", got, tt.asks)
			}
			res, err = p.Once(t.Context(), false)
			if err != nil || res.Due != 1 || res.Packs+int(res.Overtaken) != 0 {
				t.Errorf("the next round: %+v, %v", res, err)
			}
		})
	}
}

// interrupted is a pace whose first Take lets something else happen.
type interrupted struct {
	fakePace
	do func()
}

func (i *interrupted) Take(ctx context.Context, want pace.Want) (*pace.Grant, error) {
	if do := i.do; do != nil {
		i.do = nil
		do()
	}
	return i.fakePace.Take(ctx, want)
}

// A node whose view shows nobody else asks for a few leases in vain, not for all.
func TestLeasesInVainAreBounded(t *testing.T) {
	w := newWorld(t)
	w.add(3000, func(i int) int { return 20 + i%100 })
	m := w.newMember("node-0")
	for i := range 16 { // all of it is in other hands, by narrower ranges
		rng, err := desformat.NewRange(uint32(i), 4)
		if err != nil {
			t.Fatal(err)
		}
		token := desformat.Token{Generation: 1, Index: uint64(i + 1)}
		w.leases[token] = raftmeta.Lease{Token: token, Job: raftmeta.Job{Kind: raftmeta.JobPack, Range: rng}}
	}
	p := m.packer(smallPacks)
	res, err := p.Once(t.Context(), true)
	if err != nil || res.Busy == 0 || res.progress() {
		t.Errorf("%+v, %v", res, err)
	}
	if got := m.asked.Load(); got == 0 || got > maxVain+1 {
		t.Errorf("%d leases were asked for", got)
	}
	// From the first refusal on the view shows the leases.
	before := m.asked.Load()
	if res, err := p.Once(t.Context(), true); err != nil || m.asked.Load() != before || res.Busy == 0 {
		t.Errorf("%+v, %v, %d more leases", res, err, m.asked.Load()-before)
	}
}

// A database that was restored lists rows that another node archived since. The
// view at the grant is enough to find them: they are acknowledged again.
func TestTheViewAtTheGrantKnowsWhatOthersPacked(t *testing.T) {
	w := newWorld(t)
	want := w.add(300, small)
	backup := filepath.Join(t.TempDir(), "rows.db")
	copyTable(t, w.dbs["files"], backup)
	behind := w.newMember("node-0") // its view stays as it is
	w.cluster(1, smallPacks).exhaust(t, true)
	packs := len(w.packs)
	// From here on the restored table is the only one.
	table := openTable(t, "files", backup)
	w.tables["files"], behind.tables["files"] = table, table
	p := behind.packer(smallPacks)
	var again int64
	for range 10 {
		res, err := p.Once(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		again += res.Again
	}
	if again != int64(len(want)) || len(w.packs) != packs {
		t.Errorf("%d rows acknowledged again, want %d; %d packs, were %d", again, len(want), len(w.packs), packs)
	}
	w.check(want)
}

// A node that does not see a root leaves its rows to those that do, after a few
// leases.
func TestANodeWithoutTheRootDoesNotKeepItsRangesFromOthers(t *testing.T) {
	for _, others := range []bool{true, false} {
		t.Run(fmt.Sprintf("others %v", others), func(t *testing.T) {
			w := newWorld(t)
			want := w.add(1000, func(i int) int { return 20 + i%100 })
			blind, sees := w.newMember("node-0"), w.newMember("node-1")
			p := blind.packer(smallPacks, func(c *Config) {
				c.Workers = 1
				c.OthersPack = func() bool { return others }
				unmounted := slices.Clone(c.Sources())
				for i := range unmounted {
					unmounted[i].Files = noRoot{unmounted[i].Files, w.dir}
				}
				c.Sources = func() []source.Source { return unmounted }
			})
			if _, err := p.Once(t.Context(), true); err == nil {
				t.Error("rows without a root are no problem")
			}
			if got := blind.asked.Load(); others && got > maxVain || !others && got <= maxVain {
				t.Errorf("%d leases were asked for", got)
			}
			cluster{[]*member{sees}, []*Packer{sees.packer(smallPacks)}}.exhaust(t, true)
			w.check(want)
		})
	}
}

// A flush waits for a range that another node holds. It counts the backlog now
// and then, and goes on as soon as the view shows the range free.
func TestAFlushWaitsForOthersWithoutCountingAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		files := w.add(30, small)
		held := raftmeta.Lease{Token: desformat.Token{Generation: 1, Index: 1}, Job: raftmeta.Job{Kind: raftmeta.JobPack}}
		w.leases[held.Token], w.index = held, 1
		var counts atomic.Int64
		w.hook = func(step string) fault {
			if step == "backlog" {
				counts.Add(1)
			}
			return noFault
		}
		p := w.packer()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		for range 600 { // an archive run asks again and again
			p.Flush()
			time.Sleep(100 * time.Millisecond) // virtual
		}
		synctest.Wait()
		if got, most := counts.Load(), int64(time.Minute/leastRecount)+2; got < 2 || got > most {
			t.Errorf("counted %d times in a minute, want at most %d", got, most)
		}
		w.mu.Lock()
		delete(w.leases, held.Token)
		w.mu.Unlock()
		time.Sleep(2 * shortPause)
		synctest.Wait()
		if len(w.packs) != 1 {
			t.Error("a free range waits for the next count")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		w.check(files)
	})
}

// noRoot is the files of a node on which their root is not mounted.
type noRoot struct {
	source.Originals
	root string
}

func (n noRoot) Open(context.Context, string) (source.Original, error) {
	return nil, &source.RootError{Root: n.root, Why: "not mounted"}
}

func copyTable(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		in, err := os.Open(from + suffix)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(to + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func openTable(t *testing.T, name, path string) *source.SQLite {
	t.Helper()
	table, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: name, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}
