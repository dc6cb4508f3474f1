package raftmeta

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// wires connects the nodes of a test: raft's own traffic over its in-memory
// transports, calls by handing them over. Each direction between two nodes can
// be cut by itself; what a cut swallows is never answered.
type wires struct {
	mu    sync.Mutex // guards the fields below
	nodes map[NodeID]*Meta
	trans map[NodeID]*raft.InmemTransport
	down  map[[2]NodeID]bool // from, to
	delay func(from, to NodeID, request []byte) time.Duration
	lose  func(from, to NodeID, request []byte) bool // the answer is lost
	forge func(from NodeID) []byte                   // what it is answered instead; nil: nothing
	calls int
}

func newWires() *wires {
	return &wires{
		nodes: map[NodeID]*Meta{},
		trans: map[NodeID]*raft.InmemTransport{},
		down:  map[[2]NodeID]bool{},
	}
}

// from is one node's end of the wires.
func (w *wires) from(id NodeID) wireEnd { return wireEnd{w, id} }

type wireEnd struct {
	*wires
	id NodeID
}

// Call implements Peers.
func (e wireEnd) Call(ctx context.Context, to NodeID, request []byte) ([]byte, error) {
	e.mu.Lock()
	e.calls++
	there, back := e.down[[2]NodeID{e.id, to}], func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.down[[2]NodeID{to, e.id}] || e.lose != nil && e.lose(e.id, to, request)
	}
	node, wait := e.nodes[to], time.Duration(0)
	if e.delay != nil {
		wait = e.delay(e.id, to, request)
	}
	var forged []byte
	if e.forge != nil {
		forged = e.forge(e.id)
	}
	e.mu.Unlock()
	if forged != nil {
		return forged, nil
	}
	if there {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if node == nil {
		return nil, errors.New("connection refused")
	}
	if !pause(ctx, wait) {
		return nil, context.Cause(ctx)
	}
	answer, err := node.ServeCall(ctx, e.id, request)
	if back() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return answer, err
}

// plug gives a node that is about to start a transport that reaches all whom
// it may reach.
func (w *wires) plug(id NodeID) *raft.InmemTransport {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, mine := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), time.Second)
	w.trans[id] = mine
	for other := range w.trans {
		if other != id {
			w.connect(id, other)
			w.connect(other, id)
		}
	}
	return mine
}

// connect makes one direction what down says of it; mu is held.
func (w *wires) connect(from, to NodeID) {
	if w.down[[2]NodeID{from, to}] {
		w.trans[from].Disconnect(raft.ServerAddress(to))
	} else {
		w.trans[from].Connect(raft.ServerAddress(to), w.trans[to])
	}
}

// cutOneWay stops what goes from one node to another, or lets it through again.
func (w *wires) cutOneWay(from, to NodeID, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[[2]NodeID{from, to}] = down
	if w.trans[from] != nil && w.trans[to] != nil {
		w.connect(from, to)
	}
}

func (w *wires) set(change func(*wires)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// cluster is several nodes over wires.
type cluster struct {
	t     *testing.T
	nodes []*node
	wires *wires
	cfg   func(*Config) // what is different from a test's usual config; may be nil
}

// startCluster forms a cluster of n voters. It must run in a synctest bubble.
func startCluster(t *testing.T, n int) *cluster {
	t.Helper()
	return startClusterOf(t, n, nil)
}

func startClusterOf(t *testing.T, n int, cfg func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, wires: newWires(), cfg: cfg}
	t.Cleanup(func() { time.Sleep(time.Minute) }) // virtual: raft leaves a call alone that nobody answers any more
	c.grow(n)
	return c
}

// grow adds nodes until there are n, all of them voters.
func (c *cluster) grow(n int) {
	c.t.Helper()
	for i := len(c.nodes); i < n; i++ {
		cfg := testConfig(c.t)
		cfg.Node = NodeID("node-" + string(rune('a'+i)))
		cfg.Join = i > 0
		if c.cfg != nil {
			c.cfg(&cfg)
		}
		node := &node{t: c.t, cfg: cfg, wires: c.wires}
		var added raft.IndexFuture
		if i > 0 {
			lead := c.leaderAmong(c.nodes...)
			if err := lead.PutMember(c.t.Context(), Member{ID: cfg.Node}); err != nil {
				c.t.Fatal(err)
			}
			added = lead.raft.AddVoter(raft.ServerID(cfg.Node), raft.ServerAddress(cfg.Node), 0, 0)
		}
		node.start()
		c.t.Cleanup(func() {
			if err := node.stop(); err != nil {
				c.t.Errorf("run: %v", err)
			}
		})
		c.nodes = append(c.nodes, node)
		if added != nil {
			if err := added.Error(); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// separate cuts every wire between the nodes of two sides; with down false it
// mends them. It lets the answers arrive that were on their way.
func (c *cluster) separate(a, b []*node, down bool) {
	for _, x := range a {
		for _, y := range b {
			if x != y {
				c.wires.cutOneWay(x.cfg.Node, y.cfg.Node, down)
				c.wires.cutOneWay(y.cfg.Node, x.cfg.Node, down)
			}
		}
	}
	synctest.Wait()
}

// cut separates one node from all others, in both directions.
func (c *cluster) cut(i int) { c.separate(c.nodes[i:i+1], c.nodes, true) }

func (c *cluster) heal() { c.separate(c.nodes, c.nodes, false) }

// reopen ends a node and starts it again, reached by all others.
func (c *cluster) reopen(i int) {
	c.t.Helper()
	if err := c.nodes[i].stop(); err != nil {
		c.t.Fatal(err)
	}
	c.separate(c.nodes[i:i+1], c.nodes, false)
	c.nodes[i].start()
}

// others are all nodes but the given ones.
func (c *cluster) others(but ...*node) (out []*node) {
next:
	for _, n := range c.nodes {
		for _, b := range but {
			if n == b {
				continue next
			}
		}
		out = append(out, n)
	}
	return out
}

// leaderAmong waits until one of the nodes leads and has settled in.
func (c *cluster) leaderAmong(nodes ...*node) *node {
	c.t.Helper()
	for range 6000 {
		for _, n := range nodes {
			if n.leading.now() != nil {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
	c.t.Fatal("no leader")
	return nil
}

// converge waits until all nodes show the same index and compares their states.
func (c *cluster) converge() {
	c.t.Helper()
	for range 6000 {
		views := make([]*View, len(c.nodes))
		same := true
		for i, n := range c.nodes {
			views[i] = n.View()
			same = same && views[i].applied == views[0].applied
		}
		if !same {
			time.Sleep(10 * time.Millisecond) // virtual
			continue
		}
		want := snapshotBytes(c.t, &views[0].state)
		for i, v := range views {
			if got := snapshotBytes(c.t, &v.state); !bytes.Equal(got, want) {
				c.t.Errorf("%s has\n%s\nnot\n%s", c.nodes[i].cfg.Node, got, want)
			}
		}
		return
	}
	c.t.Fatal("the nodes do not converge")
}
