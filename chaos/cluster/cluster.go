package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Limits of a cluster.
const (
	settleWithin = 2 * time.Minute // until a new member votes: it must be seen to be stable first
	workWithin   = 4 * time.Minute // for one archive run
)

// cluster is several nodes over one store and one source, which only the
// founder's configuration names: a join delivers them.
type cluster struct {
	t     *trial
	dir   string
	src   string // the originals, a root of the source
	store string // the object store's folder
	db    string // the source's database
	nodes []*node
	hosts []*host // of the nodes to come, in order; none: this machine's network
	env   []string

	// patience is how long the last steps of archiving may take after the run.
	patience time.Duration

	common string // lines of every node's configuration
	own    string // lines of the founder's only

	// servers are what the cluster uses in place of the folder and the file;
	// nil: those.
	servers *servers
}

// newCluster makes the folders of a cluster in the trial's. common is YAML for
// every node, such as the archive's settings.
func newCluster(t *trial, name, common string) (*cluster, error) {
	dir := filepath.Join(t.dir, name)
	c := &cluster{
		t: t, dir: dir, common: common, patience: 30 * time.Second,
		src: filepath.Join(dir, "src"), store: filepath.Join(dir, "store"), db: filepath.Join(dir, "files.db"),
	}
	c.own = fmt.Sprintf("store: {url: %q}\nsources: {files: {url: %q, roots: [%q]}}\n", "file://"+c.store, "sqlite://"+c.db, c.src)
	for _, d := range []string{dir, c.src, c.store} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add makes a node without starting it.
func (c *cluster) add() (*node, error) {
	var h *host
	if i := len(c.nodes); i < len(c.hosts) {
		h = c.hosts[i]
	}
	n, err := newNode(c.t.bin, c.dir, fmt.Sprintf("n%d", len(c.nodes)+1), h)
	if err != nil {
		return nil, err
	}
	config := c.common
	if len(c.nodes) == 0 {
		config += c.own
	}
	n.env = c.env
	c.nodes = append(c.nodes, n)
	return n, os.WriteFile(n.config(), []byte(config), 0o600)
}

// grow brings the cluster to count nodes, founding it when there is none, and
// waits until all of them see one another and as many vote as should.
func (c *cluster) grow(ctx context.Context, count int) error {
	for len(c.nodes) < count {
		if len(c.nodes) == 0 {
			n, err := c.add()
			if err != nil {
				return err
			}
			if err := errors.Join(n.start("start"), n.ready(ctx)); err != nil {
				return err
			}
			continue
		}
		if _, err := c.join(ctx, c.nodes[0]); err != nil {
			return err
		}
	}
	return c.settled(ctx, settleWithin, c.nodes...)
}

// join adds a node by a token of a member's.
func (c *cluster) join(ctx context.Context, through *node) (*node, error) {
	var token tokenCreated
	if err := through.cliJSON(ctx, &token, "token"); err != nil {
		return nil, err
	}
	// The line is for a shell: desnode join ADDR --token T.
	words := strings.Fields(token.JoinCommand)
	if len(words) < 3 || words[1] != "join" {
		return nil, fmt.Errorf("token: join_command is %q", token.JoinCommand)
	}
	n, err := c.add()
	if err != nil {
		return nil, err
	}
	if err := n.start("join", words[2], "--token", token.Token); err != nil {
		return nil, err
	}
	return n, n.ready(ctx)
}

// wantedVoters is how many of so many members vote.
func wantedVoters(members int) int {
	switch {
	case members < 3:
		return 1
	case members < 5:
		return 3
	default:
		return 5
	}
}

// settled waits until each of the nodes sees all of them alive, knows one
// leader, and counts as many voters as there should be.
func (c *cluster) settled(ctx context.Context, within time.Duration, nodes ...*node) error {
	began := time.Now()
	err := await(ctx, "the cluster is settled", within, func(ctx context.Context) error {
		for _, n := range nodes {
			l, err := n.members(ctx)
			if err != nil {
				return err
			}
			if err := l.lacks(nodes); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			if want := wantedVoters(len(nodes)); l.Voters != want {
				return fmt.Errorf("%s: %d voters, not %d", n.name, l.Voters, want)
			}
		}
		return nil
	})
	if err == nil {
		c.t.logf("%d nodes are settled after %.1fs", len(nodes), time.Since(began).Seconds())
	}
	return err
}

// lacks says what keeps a member list from being that of nodes, all alive,
// under a leader; nil: nothing.
func (l memberList) lacks(nodes []*node) error {
	alive := map[string]bool{}
	for _, m := range l.Members {
		alive[m.Node] = m.Alive
	}
	for _, n := range nodes {
		if !alive[n.id] {
			return fmt.Errorf("%s is not alive", n.name)
		}
	}
	switch {
	case l.Leader == "":
		return errors.New("no leader")
	case !l.Quorum:
		return errors.New("no quorum")
	}
	return nil
}

// leader returns the node that leads.
func (c *cluster) leader(ctx context.Context, ask *node) (*node, error) {
	l, err := ask.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if n.id == l.Leader {
			return n, nil
		}
	}
	return nil, fmt.Errorf("leader %q is no node of ours", l.Leader)
}

// others returns the nodes without some.
func (c *cluster) others(without ...*node) (rest []*node) {
	for _, n := range c.nodes {
		keep := true
		for _, w := range without {
			keep = keep && n != w
		}
		if keep {
			rest = append(rest, n)
		}
	}
	return rest
}

// imported writes files and registers them, together with all there are.
func (c *cluster) imported(ctx context.Context, through *node, files []*file) error {
	if err := write(c.src, files); err != nil {
		return err
	}
	_, err := through.cli(ctx, "import", c.src)
	return err
}

// archived has the files that are eligible archived, and waits for it.
func (c *cluster) archived(ctx context.Context, through *node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, workWithin, fmt.Errorf("archiving took more than %s", workWithin))
	defer cancel()
	began := time.Now()
	_, err := through.cli(ctx, "archive")
	if err == nil {
		c.t.logf("archived through %s in %.1fs", through.name, time.Since(began).Seconds())
	}
	return err
}

// fill imports and archives files through one node.
func (c *cluster) fill(ctx context.Context, through *node, files []*file) error {
	return errors.Join(c.imported(ctx, through, files), c.archived(ctx, through))
}

// caughtUp waits until the nodes have applied what one of them has.
func (c *cluster) caughtUp(ctx context.Context, with *node, nodes ...*node) error {
	var first status
	if err := with.get(ctx, "/cluster/status", &first); err != nil {
		return err
	}
	return await(ctx, "all nodes have applied the same", time.Minute, func(ctx context.Context) error {
		for _, n := range nodes {
			var s status
			if err := n.get(ctx, "/cluster/status", &s); err != nil {
				return err
			}
			if s.Applied < first.Applied {
				return fmt.Errorf("%s has applied %d of %d", n.name, s.Applied, first.Applied)
			}
		}
		return nil
	})
}

// close ends all processes, whatever state they are in. How those end that
// were never told to stop is of no interest.
func (c *cluster) close() {
	for _, n := range c.nodes {
		if n.running() {
			_ = n.kill() // it ends, or has
		}
		n.client.CloseIdleConnections()
	}
}
