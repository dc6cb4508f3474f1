package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
)

// realCluster is a cluster over real servers and sockets.
type realCluster struct {
	*real
	cfg  config.Config // of the first node; of the others but for the data dir
	want map[string]string
}

// joinTo starts another node, which joins by way of n.
func (c *realCluster) joinTo(n *Node) *Node {
	c.t.Helper()
	cfg := c.cfg
	cfg.DataDir = filepath.Join(c.t.TempDir(), "data")
	token, err := n.CreateToken(c.t.Context(), api.TokenRequest{TTLSeconds: 3600, Uses: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := Join(c.t.Context(), cfg, JoinRequest{Addr: n.peers.ClusterAddr(), Token: token.Token}, slog.New(slog.DiscardHandler)); err != nil {
		c.t.Fatal(err)
	}
	joined, _ := start(c.t, cfg)
	return joined
}

// until waits for what other processes and sockets take their time for.
func (c *realCluster) until(what string, check func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("not %s: %v", what, err)
		case <-ticker.C:
		}
	}
}

// settled waits until all nodes see each other and have three voters.
func (c *realCluster) settled(nodes ...*Node) {
	c.t.Helper()
	c.until("settled", func() error {
		for _, n := range nodes {
			if seen, voters := len(n.peers.View().Members()), n.voters(); seen != len(nodes) || voters != 3 {
				return fmt.Errorf("%s sees %d nodes and %d voters", n.id.Node, seen, voters)
			}
		}
		return nil
	})
}

// insert writes files and lists them.
func (c *realCluster) insert(first, n int) {
	c.t.Helper()
	for i := first; i < first+n; i++ {
		name, content := fmt.Sprintf("reports/%03d.txt", i), strings.Repeat(fmt.Sprintf("file %03d\n", i), i%7*1000)
		path := c.file(fmt.Sprintf("in/%03d", i), content)
		c.exec(c.sql, `INSERT INTO documents (nr, name, path, size, modified_at) VALUES ($1, $2, $3, $4, $5)`, i, name, path, len(content), old)
		c.want[name] = content
	}
}

// archive has all nodes archive at once.
func (c *realCluster) archive(nodes ...*Node) {
	c.t.Helper()
	var group errgroup.Group
	for _, n := range nodes {
		group.Go(func() error {
			return n.Archive(c.t.Context(), api.ArchiveRequest{}, func(e api.ArchiveEvent) error {
				if e.Failed > 0 {
					return fmt.Errorf("%s: %+v", n.id.Node, e)
				}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

// reads reads every file through these nodes, by name and by id.
func (c *realCluster) reads(nodes ...*Node) {
	c.t.Helper()
	for _, n := range nodes {
		for name, want := range c.want {
			if status, h, got := n.get(c.t, name); status != http.StatusOK || got != want || h.Get("X-Des-Pack") == "" {
				c.t.Errorf("%s at %s: %d, %d of %d bytes, %v", name, n.id.Node, status, len(got), len(want), h)
			}
			var id int
			if _, err := fmt.Sscanf(name, "reports/%d.txt", &id); err != nil {
				c.t.Fatal(err)
			}
			if status, got := n.byID(c.t, "docs", fmt.Sprint(id)); status != http.StatusOK || got != want {
				c.t.Errorf("id %d at %s: %d, %d of %d bytes", id, n.id.Node, status, len(got), len(want))
			}
		}
	}
}

// The whole life of files in a cluster with Postgres and S3, each role with the
// least of privileges: archived by three nodes at once, their originals
// deleted, read by name and by id through nodes that do not own them, by one
// that joined later, and while one that gossip sees alive answers nobody.
func TestEndToEndInACluster(t *testing.T) {
	r := newReal(t)
	r.exec(r.sql, `CREATE TABLE documents (nr int PRIMARY KEY, name text NOT NULL UNIQUE, path text NOT NULL UNIQUE,
 size bigint NOT NULL, modified_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'ACTIVE')`)
	c := &realCluster{real: r, want: map[string]string{}}
	c.cfg = r.config(config.Source{URLs: r.roles(), Table: "public.documents", Columns: map[string]string{"id": "nr"}})
	c.cfg.Archive.DeleteSource, c.cfg.Archive.DeleteGrace = true, 0
	c.cfg.Archive.PackSize = 256 << 10
	c.cfg.Cache.Data = 1 // nobody has an answer at hand
	r.prepare(c.cfg)
	c.insert(0, 60)

	first, _ := start(t, c.cfg)
	second := c.joinTo(first)
	third := c.joinTo(second)
	three := []*Node{first, second, third}
	c.settled(three...)
	c.archive(three...)
	c.until("deleted", func() error {
		if states := r.states("documents", "status"); states["DELETED_SOURCE"] != 60 {
			return fmt.Errorf("states %v", states)
		}
		return nil
	})
	if left, err := filepath.Glob(filepath.Join(r.folder, "in", "*")); err != nil || len(left) > 0 {
		t.Errorf("originals left: %v, %v", left, err)
	}
	c.reads(three...)
	for _, n := range three {
		if owner := n.route(t, "owner"); owner == 0 {
			t.Errorf("%s asked no owner for anything", n.id.Node)
		}
	}
	fourth := c.joinTo(third)
	c.until("seen", func() error {
		if seen := len(first.peers.View().Members()); seen != 4 {
			return fmt.Errorf("the first sees %d nodes", seen)
		}
		return nil
	})
	c.reads(fourth)

	if err := third.peers.Endpoint().Close(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	alive := []*Node{first, second, fourth}
	c.reads(alive...)
	for _, n := range alive {
		if n.route(t, "fallback")+n.route(t, "hedge") == 0 {
			t.Errorf("%s never missed the node that answers nobody", n.id.Node)
		}
	}
	c.insert(60, 10)
	c.archive(alive...)
	c.reads(alive...)
}
