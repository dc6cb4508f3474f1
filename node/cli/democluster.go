package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// demoCluster is the nodes of a demo, and the folder that holds all of theirs:
// store, source, data dirs, logs.
type demoCluster struct {
	dir      string
	packSize config.Size
	cache    config.Size // of each node, for content
	outlives bool        // the nodes stay when this process dies
	nodes    []*demoNode // in the order of starting, those that ended too
}

// demoNode is one of them.
type demoNode struct {
	*client
	proc *child
	name string // n1, n2, …
	id   raftmeta.NodeID
	end  string // endKilled or endLeft; empty: it lives
}

// How nodes of a demo end.
const (
	endKilled = "killed"
	endLeft   = "left"
)

// form starts the first node, which forms the cluster.
func (c *demoCluster) form(ctx context.Context) error {
	file := func(scheme, name string) string {
		return (&url.URL{Scheme: scheme, Path: filepath.ToSlash(filepath.Join(c.dir, name))}).String()
	}
	settings := c.settings()
	settings["store"] = map[string]any{"url": file("file", "store")}
	settings["sources"] = map[string]any{"files": map[string]any{"url": file("sqlite", "files.db")}}
	n, err := c.start(ctx, "n1", settings, nil, "start")
	if n != nil {
		c.nodes = append(c.nodes, n)
	}
	return err
}

// settings are what each node is configured with; a joining one is told the
// rest by the cluster.
func (c *demoCluster) settings() map[string]any {
	return map[string]any{
		"archive": map[string]any{"pack_size": c.packSize.String()},
		"cache":   map[string]any{"data": c.cache.String()},
	}
}

// join starts that many nodes, which join by one token of a living node.
func (c *demoCluster) join(ctx context.Context, count int) error {
	by := c.living()[0]
	token, err := call[api.TokenCreated](ctx, by.client, http.MethodPost, api.PathTokens, api.TokenRequest{TTLSeconds: 600, Uses: uint16(count)})
	if err != nil {
		return err
	}
	self, err := by.self(ctx)
	if err != nil {
		return err
	}
	joined := make([]*demoNode, count)
	var group errgroup.Group
	for i := range count {
		name := fmt.Sprintf("n%d", len(c.nodes)+i+1)
		group.Go(func() (err error) {
			joined[i], err = c.start(ctx, name, c.settings(), []string{tokenVariable + "=" + token.Token}, "join", self.Cluster)
			return err
		})
	}
	err = group.Wait()
	for _, n := range joined {
		if n != nil {
			c.nodes = append(c.nodes, n)
		}
	}
	return err
}

// start starts one node. A node that is returned beside an error runs.
func (c *demoCluster) start(ctx context.Context, name string, settings map[string]any, environ []string, command ...string) (*demoNode, error) {
	b, err := json.Marshal(settings) // JSON is YAML
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir, name+".yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	args := append(command, "--config", file, "--data-dir", filepath.Join(c.dir, name), "--http", "127.0.0.1:0")
	proc, err := launch{log: filepath.Join(c.dir, name+".log"), args: args, environ: environ, outlives: c.outlives}.start(ctx)
	if err != nil {
		return nil, err
	}
	n := &demoNode{proc: proc, name: name}
	if n.client, err = newClient("http://" + proc.addr); err != nil {
		return n, err
	}
	self, err := n.self(ctx)
	n.id = self.Node
	return n, err
}

// members asks the node who the members are.
func (n *demoNode) members(ctx context.Context) (api.MemberList, error) {
	return call[api.MemberList](ctx, n.client, http.MethodGet, api.PathMembers, nil)
}

// self asks the node about itself.
func (n *demoNode) self(ctx context.Context) (api.MemberInfo, error) {
	list, err := n.members(ctx)
	if err != nil {
		return api.MemberInfo{}, err
	}
	for _, m := range list.Members {
		if m.Self {
			return m, nil
		}
	}
	return api.MemberInfo{}, fmt.Errorf("%w: %s is no member of its own cluster", errFailed, n.name)
}

func (n *demoNode) status(ctx context.Context) (api.Status, error) {
	return call[api.Status](ctx, n.client, http.MethodGet, api.PathStatus, nil)
}

// living returns the nodes that were neither killed nor have left.
func (c *demoCluster) living() (nodes []*demoNode) {
	for _, n := range c.nodes {
		if n.end == "" {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// nameOf returns the demo's name of a node.
func (c *demoCluster) nameOf(id raftmeta.NodeID) string {
	for _, n := range c.nodes {
		if n.id == id {
			return n.name
		}
	}
	return short(id)
}

// remove ends the nodes and removes what they kept. They are killed: in order
// they would take seconds, for the sake of what goes with them.
func (c *demoCluster) remove() error {
	var errs []error
	for _, n := range c.nodes {
		if n.client != nil {
			n.close()
		}
		errs = append(errs, n.proc.kill())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// lastWords returns the end of the logs of nodes that ended unasked; of all
// that live when there is none. A wrong command line is none of their business.
func (c *demoCluster) lastWords(ctx context.Context, err error) string {
	if exitCode(ctx, err) == exitUsage {
		return ""
	}
	var words string
	for _, n := range c.nodes {
		if n.proc.hasExited() && !n.proc.told {
			words += "\n" + n.name + " has ended." + n.proc.logTail(err)
		}
	}
	if words != "" {
		return words
	}
	for _, n := range c.living() {
		if tail := n.proc.logTail(err); tail != "" {
			words += "\n" + n.name + " runs." + tail
		}
	}
	return words
}
