package gossip

import (
	"bytes"
	"context"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/ring"
)

const (
	// firstRetry is the first pause while nobody else is there; it doubles.
	firstRetry = time.Second
	// displacedRetry is the pause while others still believe in an earlier life
	// of this node, which has to be found dead first.
	displacedRetry = 2 * time.Second
	// joins is how many peers are tried at once.
	joins = 8
)

// rejoin tries seeds and peers that are not there: at start, then ever sooner
// while nobody is there, then every Rejoin for good.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist) {
	retry := firstRetry
	suspicious := false
	for {
		g.joinMissing(ctx, list)
		wait := g.cfg.Rejoin
		if len(g.delegate.snapshot()) < 2 {
			wait = min(wait, retry)
			retry *= 2
		} else {
			retry = firstRetry
		}
		suspicious = g.reportMismatch(suspicious)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-g.tryNow:
		case <-g.joinNow:
			_ = pause(ctx, displacedRetry)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// joinMissing exchanges all state with each peer and seed that is not there;
// with all of them while this node is not believed in.
func (g *Gossip) joinMissing(ctx context.Context, list *memberlist.Memberlist) {
	if g.leaving.Load() {
		return
	}
	everybody := g.displaced.Swap(false)
	var tries errgroup.Group
	tries.SetLimit(joins)
	for addr := range g.targets(ctx) {
		tries.Go(func() error {
			if ctx.Err() != nil || g.leaving.Load() || !everybody && g.present(addr) {
				return nil
			}
			if _, err := list.Join([]string{addr.String()}); err != nil {
				g.metrics.rejoins.WithLabelValues("error").Inc()
				g.log.Debug("peer cannot be joined", "addr", addr, "err", err)
				return nil
			}
			g.metrics.rejoins.WithLabelValues("ok").Inc()
			return nil
		})
	}
	_ = tries.Wait() // none of them returns an error
}

// targets are the addresses of all seeds and peers but this node's own.
func (g *Gossip) targets(ctx context.Context) map[netip.AddrPort]struct{} {
	to := map[netip.AddrPort]struct{}{}
	for _, seed := range g.cfg.Seeds() {
		addrs, err := resolve(ctx, seed)
		if err != nil {
			g.log.Warn("seed has no address", "seed", seed, "err", err)
		}
		for _, addr := range addrs {
			to[addr] = struct{}{}
		}
	}
	g.peersMu.Lock()
	for _, addr := range g.peers {
		to[addr] = struct{}{}
	}
	g.peersMu.Unlock()
	delete(to, *g.self.Load())
	return to
}

// present tells whether a living node is at addr.
func (g *Gossip) present(addr netip.AddrPort) bool {
	for _, n := range g.delegate.snapshot() {
		if n.addr == addr {
			return true
		}
	}
	return false
}

// reportMismatch warns of rings that differ for longer than a round.
func (g *Gossip) reportMismatch(before bool) bool {
	v := g.view.Load()
	ids := v.Mismatched()
	if before && len(ids) > 0 {
		g.log.Warn("members compute another ring", "members", ids, "digest", v.Ring.Digest().String())
	}
	return len(ids) > 0
}

// loadPeers reads the file of peers and returns its bytes. An unreadable one
// costs the node nothing but hints, so it is told and then replaced.
func (g *Gossip) loadPeers() []byte {
	if g.cfg.Peers == "" {
		return nil
	}
	p, err := readPeers(g.cfg.Peers)
	if err != nil {
		g.metrics.peersErrors.Inc()
		g.log.Error("peers of earlier are not known", "file", g.cfg.Peers, "err", err)
		return nil
	}
	delete(p, g.cfg.ID)
	g.peersMu.Lock()
	defer g.peersMu.Unlock()
	g.peers = p
	return p.encode()
}

// notePeers remembers where the members are, and forgets removed nodes.
func (g *Gossip) notePeers(members []Member) {
	removed := *g.removed.Load()
	g.peersMu.Lock()
	defer g.peersMu.Unlock()
	changed := false
	for _, m := range members {
		if m.ID != g.cfg.ID && g.peers[m.ID] != m.Addr {
			g.peers[m.ID] = m.Addr
			changed = true
		}
	}
	for id := range g.peers {
		if _, ok := removed[id]; ok || len(g.peers) > ring.MaxMembers && !contains(members, id) {
			delete(g.peers, id)
			changed = true
		}
	}
	if changed {
		signal(g.save)
	}
}

func contains(members []Member, id ring.NodeID) bool {
	for _, m := range members {
		if m.ID == id {
			return true
		}
	}
	return false
}

// keepPeers writes the file of peers when they change; after a failure, again
// at the next change or after Rejoin.
func (g *Gossip) keepPeers(ctx context.Context, written []byte) {
	if g.cfg.Peers == "" {
		return
	}
	again := time.NewTicker(g.cfg.Rejoin)
	defer again.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done(): // once more: the last change may have come with the end
		case <-g.save:
		case <-again.C:
		}
		g.peersMu.Lock()
		b := g.peers.encode()
		g.peersMu.Unlock()
		if bytes.Equal(b, written) {
			continue
		}
		if err := writePeers(g.cfg.Peers, b); err != nil {
			g.metrics.peersErrors.Inc()
			g.log.Error("peers are not saved", "err", err)
			continue
		}
		written = b
	}
}
