package raftmeta

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// stopAll ends all nodes of a cluster of three that holds a pack, and returns
// the last one's file of what it had applied, as it was a while before the end.
func stopAll(t *testing.T) (c *cluster, last *node, file string, written []byte) {
	t.Helper()
	c = startCluster(t, 3)
	c.leaderAmong(c.nodes...).addPack("00/8", packID(1))
	c.converge()
	time.Sleep(2 * appliedEvery)
	last = c.nodes[2]
	file = filepath.Join(last.cfg.Dir, appliedFile)
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("a crash would find nothing: %v", err)
	}
	for _, n := range c.nodes {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
	}
	return c, last, file, written
}

func TestNodeThatStartsWithoutAQuorumKnowsWhatItHadApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, last, file, written := stopAll(t)
		if err := os.WriteFile(file, written, 0o600); err != nil { // as after a crash
			t.Fatal(err)
		}
		last.run()
		<-last.started
		if v := last.View(); v.Pack(packID(1)) == nil || len(v.Members()) != 3 || v.ShardBits() == 0 {
			t.Errorf("it knows pack %v, members %v", v.Pack(packID(1)), v.Members())
		}
		_, err := last.Confirm(t.Context())
		wantErr(t, err, ErrUnconfirmed)
		c.nodes[0].start()
		c.nodes[1].start()
		c.leaderAmong(c.nodes...).addPack("01/8", packID(2))
		c.converge() // what raft applies again changes nothing
	})
}

// A log that has another entry there may hold what was never committed.
func TestNodeDoesNotApplyALogThatIsNotTheOneItHadApplied(t *testing.T) {
	for name, text := range map[string]string{
		"another term":   `{"index":3,"term":77}`,
		"beyond the log": `{"index":1000,"term":2}`,
		"damaged":        `{"index":`,
		"empty":          "",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, last, file, _ := stopAll(t)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				last.run()
				<-last.started
				if v := last.View(); v.Applied() != 0 {
					t.Errorf("it has applied %d", v.Applied())
				}
				c.nodes[0].start()
				c.nodes[1].start()
				c.leaderAmong(c.nodes...)
				c.converge()
			})
		})
	}
}

func TestAppliedFileDoesNotOutliveTheLog(t *testing.T) {
	cfg := testConfig(t)
	if err := writeApplied(cfg.Dir, entryID{1000, 1}); err != nil {
		t.Fatal(err)
	}
	startNode(t, cfg)
	if _, err := os.Stat(filepath.Join(cfg.Dir, appliedFile)); !os.IsNotExist(err) {
		t.Errorf("the file is there: %v", err)
	}
}
