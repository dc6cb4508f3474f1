package peers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/ring/gossip"
	"github.com/datavision/desnode/transport"
)

// Peers is this node's part in knowing the others. Its methods may be called at
// once, SetMeta and SetReader before Run.
type Peers struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	id      *transport.Identity

	endpoint *transport.Endpoint
	sockets  gossip.Transport
	gossip   *gossip.Gossip
	meta     Meta
	reader   transport.Reader

	book *book
	ring *gossip.KeyRing
	ask  chan string   // addresses of nodes that know more than this one
	look chan struct{} // members may be missing

	refused     chan struct{} // see Refused
	refusedOnce sync.Once

	keysMu sync.Mutex // held while keys, their file and the ring change
	keys   atomic.Pointer[keyset]

	rafts   sync.Mutex // guards what follows
	rafted  *raft.NetworkTransport
	started bool
	closed  bool
}

// Open loads what Form or Join left and binds the sockets, so that the node's
// addresses are known. It starts nothing that needs to be waited for but Close.
// Errors: ErrConfig, ErrNoIdentity, ErrOtherNode.
func Open(cfg Config) (_ *Peers, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Peers{cfg: cfg, log: cfg.Logger, ask: make(chan string, 16), look: make(chan struct{}, 1), refused: make(chan struct{})}
	if p.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	if p.id, err = transport.LoadIdentity(p.path(identityFile), cfg.Now); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNoIdentity
		}
		return nil, fmt.Errorf("open %s: %w", cfg.Dir, err)
	}
	if err := belongs(p.id, "", cfg.Node); err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Dir, err)
	}
	if err := p.loadKeys(); err != nil {
		return nil, err
	}
	if p.book, err = loadBook(p.path(addressesFile)); err != nil {
		p.log.Error("addresses of earlier are not known", "error", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.bind(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Peers) path(file string) string { return filepath.Join(p.cfg.Dir, file) }

// bind opens the sockets and says where they are.
func (p *Peers) bind() (err error) {
	p.endpoint, err = transport.New(transport.Config{
		Identity: p.id, Bind: p.cfg.Bind, Network: p.cfg.Network,
		Allowed: p.allowed, Resolve: p.resolve,
		Reader: lateReader{p}, Issuer: issuer{p}, Handler: p,
		Logger: p.log, Registerer: p.cfg.Registerer,
	})
	if err != nil {
		return err
	}
	if p.sockets = p.cfg.GossipTransport; p.sockets == nil {
		if p.sockets, err = gossip.Listen(p.cfg.GossipBind, p.log); err != nil {
			return err
		}
	}
	boundTo, err := p.gossipBound()
	if err != nil {
		return err
	}
	self := place{
		Node:    p.id.Node(),
		Cluster: reachable(p.endpoint.Addr(), p.cfg.Advertise),
		Gossip:  reachable(boundTo, p.cfg.Advertise),
	}
	p.book.settleAt(self, p.cfg.Now().UnixMilli())
	if err := writeJSON(p.path(addressesFile), p.book.file()); err != nil {
		return fmt.Errorf("keep this node's addresses: %w", err)
	}
	p.gossip, err = gossip.New(gossip.Config{
		ID: ring.NodeID(self.Node), Cluster: p.id.Cluster(), Keys: p.ring, Ring: p.cfg.Ring,
		Bind: p.cfg.GossipBind, Advertise: self.Gossip,
		Meta:  gossip.Meta{ClusterAddr: self.Cluster, HTTPAddr: p.cfg.HTTP, Zone: p.cfg.Zone, Version: p.cfg.Version},
		Peers: p.path(peersFile), Seeds: p.book.gossipSeeds, Rejoin: p.cfg.Rejoin,
		Transport: p.sockets, Logger: p.log, Registerer: p.cfg.Registerer,
	})
	return err
}

// gossipBound returns where gossip is bound. Of all addresses memberlist picks a
// private one; a host that has none is known by what it advertises.
func (p *Peers) gossipBound() (string, error) {
	ip, port, err := p.sockets.FinalAdvertiseAddr("", 0)
	if err == nil {
		return net.JoinHostPort(ip.String(), strconv.Itoa(port)), nil
	}
	bound, ok := p.sockets.(interface{ GetAutoBindPort() int })
	if !ok || p.cfg.Advertise == "" {
		return "", fmt.Errorf("where gossip is bound: %w", err)
	}
	return net.JoinHostPort(p.cfg.Advertise, strconv.Itoa(bound.GetAutoBindPort())), nil
}

// SetMeta hands in the state machine, which itself needs RaftTransport first.
func (p *Peers) SetMeta(meta Meta) { p.meta = meta }

// SetReader hands in who answers other nodes' reads; without one they are told
// that reads are unsupported here.
func (p *Peers) SetReader(reader transport.Reader) { p.reader = reader }

// Node returns this node's id.
func (p *Peers) Node() raftmeta.NodeID { return raftmeta.NodeID(p.id.Node()) }

// Cluster returns the cluster's id.
func (p *Peers) Cluster() string { return p.id.Cluster() }

// ClusterAddr returns the host:port that others reach QUIC and raft by.
func (p *Peers) ClusterAddr() string {
	self, _, _ := p.book.own()
	return self.Cluster
}

// GossipAddr returns the host:port that others reach this node's gossip by.
func (p *Peers) GossipAddr() string {
	self, _, _ := p.book.own()
	return self.Gossip
}

// Endpoint returns what nodes read from one another by.
func (p *Peers) Endpoint() *transport.Endpoint { return p.endpoint }

// View returns who lives and the ring of them.
func (p *Peers) View() *gossip.View { return p.gossip.View() }

// Changed returns a channel that is closed at the next change of the view.
func (p *Peers) Changed() <-chan struct{} { return p.gossip.Changed() }

// HealthScore is gossip's: 0 is healthy, 7 the worst.
func (p *Peers) HealthScore() int { return p.gossip.HealthScore() }

// Leave tells the others that this node goes, before Run's context ends.
func (p *Peers) Leave(ctx context.Context) error { return p.gossip.Leave(ctx) }

// Run serves and looks for the others until ctx ends, which is no error, or
// until it cannot go on. It returns after everything it started has ended.
func (p *Peers) Run(ctx context.Context) error {
	p.rafts.Lock()
	if p.started || p.closed || p.meta == nil {
		p.rafts.Unlock()
		return errors.New("peers run once, with a state machine, before Close")
	}
	p.started = true
	p.rafts.Unlock()
	parts, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{
		p.endpoint.Run, p.gossip.Run, p.follow, p.settle, p.search, p.meet, p.doubt, p.keepBook, p.keepCertificate,
	} {
		parts.Go(func() error { return run(ctx) })
	}
	return parts.Wait()
}

// Close lets go of the sockets. Run must have returned, or never been called.
// Calling it again does nothing.
func (p *Peers) Close() error {
	p.rafts.Lock()
	defer p.rafts.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	if p.rafted != nil {
		errs = append(errs, p.rafted.Close())
	}
	if p.endpoint != nil {
		errs = append(errs, p.endpoint.Close())
	}
	if p.sockets != nil && !p.started {
		errs = append(errs, p.sockets.Shutdown())
	}
	return errors.Join(errs...)
}

// allowed reports whether a node may talk to this one: unless it was removed.
// A node that this one's state does not hold shows a certificate, and that was
// issued after its admission was committed: it is a member that this node has
// not heard of yet, be it because the state machine is behind or not yet read.
// Were such nodes refused, a joiner could not talk to followers that are late.
func (p *Peers) allowed(node string) bool {
	return !p.meta.View().Removed(raftmeta.NodeID(node))
}

// resolve returns a node's cluster address: the newest that the node, or gossip
// for it, has told; else what it announced in the state machine.
func (p *Peers) resolve(node string) (string, bool) {
	if at, ok := p.book.where(node); ok {
		return at.Cluster, true
	}
	m, ok := p.meta.View().Member(raftmeta.NodeID(node))
	return m.Cluster, ok && m.Cluster != ""
}

// lateReader is the Reader that SetReader hands in later.
type lateReader struct{ p *Peers }

// ServeRead implements transport.Reader.
func (r lateReader) ServeRead(ctx context.Context, from string, q *transport.Request) (*transport.Reply, error) {
	if r.p.reader == nil {
		return nil, transport.ErrUnsupported
	}
	return r.p.reader.ServeRead(ctx, from, q)
}
