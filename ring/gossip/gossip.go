package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"

	"github.com/datavision/desnode/ring"
)

// ErrClosed: Run has not begun, has ended, or was called twice.
var ErrClosed = errors.New("gossip is not running")

const (
	// reclaim is how long after its death a node may return at another address:
	// its id is its own, so there is nobody to protect from it.
	reclaim = time.Millisecond
	// streamTimeout bounds a stream and looking up a host.
	streamTimeout = 5 * time.Second
	// leaveTimeout bounds telling somebody that this node leaves, lingering is
	// how long the news are then passed on before the sockets may close.
	leaveTimeout = 5 * time.Second
	lingering    = time.Second
	// settle is how long a ring must stand before its digest is told: a change
	// seldom comes alone.
	settle = time.Second
)

// Gossip is this node's part in the gossip of a cluster. Its methods may be
// called at once.
type Gossip struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	quiet    map[string]*rate.Sometimes // by reason
	delegate *delegate

	look     chan struct{} // members may have changed
	tell     chan struct{} // the ring has changed
	save     chan struct{} // the peers have changed
	joinNow  chan struct{} // somebody believes in an earlier life of this node
	tryNow   chan struct{} // the seeds may know more than before
	refusals chan refusal

	view      atomic.Pointer[View]
	meta      atomic.Pointer[[]byte]
	self      atomic.Pointer[netip.AddrPort]
	removed   atomic.Pointer[map[ring.NodeID]struct{}]
	displaced atomic.Bool
	leaving   atomic.Bool
	started   atomic.Bool

	peersMu sync.Mutex // guards peers
	peers   peers

	live atomic.Pointer[memberlist.Memberlist] // while Run runs
	turn chan struct{}                         // one at a time: Leave, and the end of live
}

// New checks cfg and returns a Gossip. It starts nothing. ErrConfig, with
// ErrMetaSize when the metadata is too large.
func New(cfg Config) (*Gossip, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, err
	}
	empty, err := ring.New(cfg.Ring, nil)
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg:      cfg,
		log:      cfg.Logger,
		quiet:    newQuiet(),
		look:     make(chan struct{}, 1),
		tell:     make(chan struct{}, 1),
		save:     make(chan struct{}, 1),
		joinNow:  make(chan struct{}, 1),
		tryNow:   make(chan struct{}, 1),
		refusals: make(chan refusal, 16),
		turn:     make(chan struct{}, 1),
		peers:    peers{},
	}
	g.delegate = &delegate{g: g, nodes: map[string]seen{}}
	g.view.Store(&View{Ring: empty, changed: make(chan struct{})})
	g.meta.Store(&meta)
	g.self.Store(&netip.AddrPort{})
	g.removed.Store(&map[ring.NodeID]struct{}{})
	if g.metrics, err = newMetrics(cfg.Registerer, func() float64 { return float64(g.HealthScore()) }); err != nil {
		return nil, err
	}
	return g, nil
}

// View returns what this node knows now. Before Run it is the empty one.
func (g *Gossip) View() *View { return g.view.Load() }

// Changed returns a channel that is closed at the next change of the view. Take
// it before the View it is to watch over. Not every change is one of the ring:
// compare View.Ring, which stays the same pointer while it does not change.
func (g *Gossip) Changed() <-chan struct{} { return g.view.Load().changed }

// HealthScore tells how far this node lags behind gossip's real time: 0 is
// healthy, 7 the worst. A node with a high score accuses others wrongly.
func (g *Gossip) HealthScore() int {
	list := g.live.Load()
	if list == nil {
		return 0
	}
	return list.GetHealthScore()
}

// SetRemoved names all nodes that were ever removed from the cluster, in place
// of those named before: they are in no ring, whatever they gossip.
func (g *Gossip) SetRemoved(ids []ring.NodeID) {
	removed := make(map[ring.NodeID]struct{}, len(ids))
	for _, id := range ids {
		removed[id] = struct{}{}
	}
	g.removed.Store(&removed)
	signal(g.look)
}

// Rejoin tries peers and seeds that are not there now, not only at the next
// Rejoin of the Config: the seeds or the keys are others than before.
func (g *Gossip) Rejoin() { signal(g.tryNow) }

// Run gossips until ctx ends, which is no error. Before it returns, its sockets
// are closed and its goroutines have ended; memberlist's own end within one
// probe, some seconds. Without Leave before, the others take this node for dead.
func (g *Gossip) Run(ctx context.Context) error {
	if g.started.Swap(true) {
		return fmt.Errorf("run: %w", ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	saved := g.loadPeers()
	list, err := g.open(ctx)
	if err != nil {
		return err
	}
	g.live.Store(list)

	var own sync.WaitGroup
	own.Go(func() { g.watch(ctx) })
	own.Go(func() { g.announce(ctx, list) })
	own.Go(func() { g.rejoin(ctx, list) })
	own.Go(func() { g.keepPeers(ctx, saved) })
	<-ctx.Done()
	own.Wait()

	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	g.live.Store(nil)
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}

// open starts memberlist.
func (g *Gossip) open(ctx context.Context) (*memberlist.Memberlist, error) {
	logger := log.New(logSink{g}, "", 0)
	transport := g.cfg.Transport
	if transport == nil {
		var err error
		if transport, err = listen(g.cfg.Bind, logger); err != nil {
			return nil, err
		}
	}
	list, err := g.create(ctx, transport, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open gossip: %w", err), transport.Shutdown())
	}
	self := g.delegate.snapshot()[string(g.cfg.ID)].addr
	g.self.Store(&self)
	g.log.Info("gossip is up", "addr", self)
	return list, nil
}

func (g *Gossip) create(ctx context.Context, transport Transport, logger *log.Logger) (*memberlist.Memberlist, error) {
	_, bound, err := transport.FinalAdvertiseAddr("", 0)
	if err != nil && g.cfg.Advertise == "" {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	if c.AdvertiseAddr, c.AdvertisePort, err = advertised(ctx, g.cfg.Advertise, uint16(bound)); err != nil {
		return nil, err
	}
	c.Name = string(g.cfg.ID)
	c.Label = g.cfg.Cluster
	c.Keyring = g.cfg.Keys.lib
	c.Transport = bounded(ctx, transport)
	c.TCPTimeout = streamTimeout
	c.DeadNodeReclaimTime = reclaim
	c.Logger = logger
	c.Delegate, c.Events, c.Alive = g.delegate, g.delegate, g.delegate
	c.Merge, c.Conflict = g.delegate, g.delegate
	return memberlist.Create(c)
}

// Leave tells the others that this node goes, so that they need not find out,
// and gives the news a second to spread. The node gossips on, as none of the
// members, until Run's ctx ends. ErrClosed: Run is not running.
func (g *Gossip) Leave(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("leave: %w", ctx.Err())
	}
	defer func() { <-g.turn }()
	list := g.live.Load() // memberlist panics when it leaves after its shutdown
	if list == nil {
		return fmt.Errorf("leave: %w", ErrClosed)
	}
	g.leaving.Store(true)
	limit := leaveTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(time.Millisecond, min(limit, time.Until(deadline)))
	}
	if err := list.Leave(limit); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return pause(ctx, lingering)
}

// pause waits, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// watch makes a View of what the delegate has seen, and logs what it refused.
func (g *Gossip) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-g.refusals:
			g.warn(r.reason, r.err.Error())
		case <-g.look:
			g.update()
		}
	}
}

// update publishes a new View if there is something new.
func (g *Gossip) update() {
	var members []Member
	for name, n := range g.delegate.snapshot() {
		if m, _, err := g.judge(name, n.meta); err == nil {
			members = append(members, Member{ID: ring.NodeID(name), Addr: n.addr, Meta: m})
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	g.notePeers(members)
	old := g.view.Load()
	if slices.Equal(old.members, members) {
		return
	}
	next := &View{Version: old.Version + 1, Ring: old.Ring, members: members, changed: make(chan struct{})}
	if set := ringMembers(members); !slices.Equal(set, old.Ring.Members()) {
		r, err := ring.New(g.cfg.Ring, set)
		if err != nil {
			g.log.Error("ring is not computed: the one before stays", "members", len(set), "err", err)
		} else {
			next.Ring = r
			moved := ring.Moved(old.Ring, r)
			g.metrics.changes.Inc()
			g.metrics.moved.Add(float64(moved))
			g.log.Info("ring changed", "members", len(set), "moved_shards", moved, "digest", r.Digest().String())
			signal(g.tell)
		}
	}
	g.metrics.members.Set(float64(len(members)))
	g.metrics.mismatched.Set(float64(len(next.Mismatched())))
	g.view.Store(next)
	close(old.changed)
}

// announce tells the digest of the ring once it stands.
func (g *Gossip) announce(ctx context.Context, list *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.tell:
		}
		if pause(ctx, settle) != nil {
			return
		}
		m := g.cfg.Meta
		m.Digest = g.view.Load().Ring.Digest()
		b, err := m.encode()
		if err != nil || string(b) == string(*g.meta.Load()) || g.leaving.Load() {
			continue // err cannot be: New has encoded the same fields
		}
		g.meta.Store(&b)
		if err := list.UpdateNode(settle); err != nil {
			g.log.Debug("digest of the ring is not told yet", "err", err)
		}
	}
}
