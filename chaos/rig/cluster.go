package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Limits of a cluster.
const (
	// SettleWithin is how long a new member may take to vote: it must be seen to
	// be stable first.
	SettleWithin = 2 * time.Minute

	workWithin = 4 * time.Minute // for one archive run
)

// Cluster is several nodes over one store and one source, which only the
// founder's configuration names: a join delivers them.
type Cluster struct {
	bin   string
	Dir   string
	Src   string // the originals, a root of the source
	Store string // the object store's folder
	DB    string // the source's database
	Nodes []*Node
	Hosts []*Host // of the nodes to come, in order; none: this machine's network
	Env   []string

	Common string // lines of every node's configuration
	Own    string // lines of the founder's only

	// Servers are what the cluster uses in place of the folder and the file;
	// nil: those.
	Servers *Servers

	logf func(format string, args ...any)
}

// NewCluster makes the folders of a cluster of that binary in dir, a new one. common is
// YAML for every node, such as the archive's settings; logf is told what goes on.
func NewCluster(bin, dir, common string, logf func(format string, args ...any)) (*Cluster, error) {
	c := &Cluster{
		bin: bin, Dir: dir, Common: common, logf: logf,
		Src: filepath.Join(dir, "src"), Store: filepath.Join(dir, "store"), DB: filepath.Join(dir, "files.db"),
	}
	c.Own = fmt.Sprintf("store: {url: %q}\nsources: {files: {url: %q, roots: [%q]}}\n", "file://"+c.Store, "sqlite://"+c.DB, c.Src)
	for _, d := range []string{dir, c.Src, c.Store} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Add makes a node without starting it.
func (c *Cluster) Add() (*Node, error) {
	var h *Host
	if i := len(c.Nodes); i < len(c.Hosts) {
		h = c.Hosts[i]
	}
	n, err := NewNode(c.bin, c.Dir, fmt.Sprintf("n%d", len(c.Nodes)+1), h)
	if err != nil {
		return nil, err
	}
	config := c.Common
	if len(c.Nodes) == 0 {
		config += c.Own
	}
	n.Env = c.Env
	c.Nodes = append(c.Nodes, n)
	return n, os.WriteFile(n.Config(), []byte(config), 0o600)
}

// Grow brings the cluster to count nodes, founding it when there is none, and
// waits until all of them see one another and as many vote as should.
func (c *Cluster) Grow(ctx context.Context, count int) error {
	for len(c.Nodes) < count {
		if len(c.Nodes) == 0 {
			n, err := c.Add()
			if err != nil {
				return err
			}
			if err := errors.Join(n.Start("start"), n.Ready(ctx)); err != nil {
				return err
			}
			continue
		}
		if _, err := c.Join(ctx, c.Nodes[0]); err != nil {
			return err
		}
	}
	return c.Settled(ctx, SettleWithin, c.Nodes...)
}

// Join adds a node by a token of a member's.
func (c *Cluster) Join(ctx context.Context, through *Node) (*Node, error) {
	verb, err := through.Invite(ctx)
	if err != nil {
		return nil, err
	}
	n, err := c.Add()
	if err != nil {
		return nil, err
	}
	if err := n.Start(verb...); err != nil {
		return nil, err
	}
	return n, n.Ready(ctx)
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

// Settled waits until each of the nodes sees all of them alive, knows one
// leader, and counts as many voters as there should be.
func (c *Cluster) Settled(ctx context.Context, within time.Duration, nodes ...*Node) error {
	began := time.Now()
	err := Await(ctx, "the cluster is settled", within, func(ctx context.Context) error {
		for _, n := range nodes {
			l, err := n.Members(ctx)
			if err != nil {
				return err
			}
			if err := l.Lacks(nodes); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if want := wantedVoters(len(nodes)); l.Voters != want {
				return fmt.Errorf("%s: %d voters, not %d", n.Name, l.Voters, want)
			}
		}
		return nil
	})
	if err == nil {
		c.logf("%d nodes are settled after %.1fs", len(nodes), time.Since(began).Seconds())
	}
	return err
}

// Lacks says what keeps a member list from being that of nodes, all alive,
// under a leader; nil: nothing.
func (l MemberList) Lacks(nodes []*Node) error {
	alive := map[string]bool{}
	for _, m := range l.Members {
		alive[m.Node] = m.Alive
	}
	for _, n := range nodes {
		if !alive[n.ID] {
			return fmt.Errorf("%s is not alive", n.Name)
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

// Leader returns the node that leads.
func (c *Cluster) Leader(ctx context.Context, ask *Node) (*Node, error) {
	l, err := ask.Members(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if n.ID == l.Leader {
			return n, nil
		}
	}
	return nil, fmt.Errorf("leader %q is no node of ours", l.Leader)
}

// Others returns the nodes without some.
func (c *Cluster) Others(without ...*Node) (rest []*Node) {
	for _, n := range c.Nodes {
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

// Imported writes files and registers them, together with all there are.
func (c *Cluster) Imported(ctx context.Context, through *Node, files []*File) error {
	if err := Write(c.Src, files); err != nil {
		return err
	}
	_, err := through.CLI(ctx, "import", c.Src)
	return err
}

// Archived has the files that are eligible archived, and waits for it.
func (c *Cluster) Archived(ctx context.Context, through *Node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, workWithin, fmt.Errorf("archiving took more than %s", workWithin))
	defer cancel()
	began := time.Now()
	_, err := through.CLI(ctx, "archive")
	if err == nil {
		c.logf("archived through %s in %.1fs", through.Name, time.Since(began).Seconds())
	}
	return err
}

// Fill imports and archives files through one node.
func (c *Cluster) Fill(ctx context.Context, through *Node, files []*File) error {
	return errors.Join(c.Imported(ctx, through, files), c.Archived(ctx, through))
}

// CaughtUp waits until the nodes have applied what one of them has.
func (c *Cluster) CaughtUp(ctx context.Context, with *Node, nodes ...*Node) error {
	var first Status
	if err := with.Get(ctx, "/cluster/status", &first); err != nil {
		return err
	}
	return Await(ctx, "all nodes have applied the same", time.Minute, func(ctx context.Context) error {
		for _, n := range nodes {
			var s Status
			if err := n.Get(ctx, "/cluster/status", &s); err != nil {
				return err
			}
			if s.Applied < first.Applied {
				return fmt.Errorf("%s has applied %d of %d", n.Name, s.Applied, first.Applied)
			}
		}
		return nil
	})
}

// Close ends all processes, whatever state they are in. How those end that
// were never told to stop is of no interest.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		if n.Running() {
			_ = n.Kill() // it ends, or has
		}
		n.Client.CloseIdleConnections()
	}
}
