package raftmeta

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
)

// node is a Meta that a test runs, and may stop and start again.
type node struct {
	*Meta
	t     *testing.T
	cfg   Config
	wires *wires // nil: alone
	wrap  func(logStore) logStore
	stop  func() error
}

func testConfig(t *testing.T) Config {
	return Config{Dir: t.TempDir(), Node: "node-a", Cluster: desformat.ClusterID{1, 2, 3}}
}

// startNode runs a node until the test ends or stop is called.
func startNode(t *testing.T, cfg Config) *node {
	t.Helper()
	n := &node{t: t, cfg: cfg}
	n.start()
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.run()
	if err := n.Ready(context.Background()); err != nil {
		n.t.Fatalf("ready: %v", err)
	}
}

// run is start that does not wait until the node is ready.
func (n *node) run() {
	n.t.Helper()
	if n.wires != nil {
		n.cfg.Transport, n.cfg.Peers = n.wires.plug(n.cfg.Node), n.wires.from(n.cfg.Node)
	}
	m, err := open(n.cfg, n.wrap)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Meta = m
	if n.wires != nil {
		n.wires.set(func(w *wires) { w.nodes[n.cfg.Node] = m })
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	n.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		if n.wires != nil {
			n.wires.set(func(w *wires) { delete(w.nodes, n.cfg.Node) })
		}
		cancel()
		return <-done
	}
}

// restart ends the node as a crash of its process would, but for the files'
// buffers: nothing is released first.
func (n *node) restart() {
	n.t.Helper()
	if err := n.stop(); err != nil {
		n.t.Fatalf("stop: %v", err)
	}
	n.start()
}

// grant commits a lease that nobody renews or releases.
func (n *node) grant(job Job) Lease {
	n.t.Helper()
	l, err := n.tryGrant(job)
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}

func (n *node) tryGrant(job Job) (Lease, error) {
	v, err := n.propose(context.Background(), &grantCommand{Job: job, Holder: n.cfg.Node, Request: n.t.Name() + time.Now().String()})
	if err != nil {
		return Lease{}, err
	}
	return v.(Lease), nil
}

func (n *node) end(l Lease) {
	n.t.Helper()
	if _, err := n.propose(context.Background(), &releaseCommand{l.Token}); err != nil {
		n.t.Fatal(err)
	}
}

func packID(n uint64) (id desformat.PackID) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	copy(id[:], sum[:])
	return id
}

func mustRange(t testing.TB, text string) desformat.Range {
	t.Helper()
	r, err := desformat.ParseRange(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testPack is a pack as its builder hands it in.
func testPack(l Lease, id desformat.PackID) Pack {
	return Pack{
		ID: id, Token: l.Token, Range: l.Job.Range,
		Size: 1000, SHA256: Digest(sha256.Sum256(id[:])), Records: 10, PayloadBytes: 500,
		Catalog: desformat.Section{Offset: 500, Length: 300, CRC: 1},
		Index:   desformat.Section{Offset: 800, Length: 100, CRC: 2},
		MinSeq:  l.Token, MaxSeq: l.Token,
		Created: time.Unix(1_700_000_000, 0).UTC(),
		Copies:  []Copy{{Key: desformat.PackKey(l.Job.Range, l.Token, id), Version: "v1"}},
	}
}

func testUpload(l Lease, id desformat.PackID) Upload {
	return Upload{
		Key: desformat.PackKey(l.Job.Range, l.Token, id), Pack: id, Token: l.Token,
		BeganAt: time.Unix(1_700_000_000, 0).UTC(),
	}
}

// addPack leases r, commits a pack in it and lets the lease end.
func (n *node) addPack(r string, id desformat.PackID) *Pack {
	n.t.Helper()
	ctx := context.Background()
	var added *Pack
	err := n.WithLease(ctx, Job{Kind: JobPack, Range: mustRange(n.t, r)}, func(ctx context.Context, l Lease) error {
		err := n.BeginUpload(ctx, testUpload(l, id))
		if err != nil {
			return err
		}
		added, err = n.AddPack(ctx, testPack(l, id))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return added
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
