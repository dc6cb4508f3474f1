package peers

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/datavision/desnode/raftmeta"
)

const (
	// searchPause is the first pause between two searches for members that are
	// missing; it doubles up to Config.Rejoin.
	searchPause = time.Second
	// rendezvousAfter is how long a node is lost before the store is asked.
	// It doubles up to rendezvousMax.
	rendezvousAfter = 3 * time.Second
	rendezvousMax   = time.Minute
	// greetAtOnce is how many addresses are tried at once.
	greetAtOnce = 8
)

// search looks for members that gossip does not see: at the addresses where they
// were last, where others say they are, at the seeds, and in the store. Gossip
// finds them by itself where they were and where others see them; this is for
// those that are elsewhere, or that have other keys.
func (p *Peers) search(ctx context.Context) error {
	pause, storePause := searchPause, rendezvousAfter
	lost := p.cfg.Now() // since when this node was lost, or has asked the store
	for {
		if p.publish(ctx); len(p.missing()) == 0 {
			pause, storePause = searchPause, rendezvousAfter
			if !p.rest(ctx, p.cfg.Rejoin, true) {
				return nil
			}
			lost = p.cfg.Now()
			continue
		}
		p.greetAll(ctx)
		switch {
		case !p.lost():
			storePause, lost = rendezvousAfter, p.cfg.Now()
		case p.cfg.Now().Sub(lost) >= storePause:
			p.fetchMissing(ctx)
			storePause, lost = min(2*storePause, rendezvousMax), p.cfg.Now()
		}
		// What moves does not shorten the pause: it grows while members stay away.
		if !p.rest(ctx, pause, false) {
			return nil
		}
		pause = min(2*pause, max(p.cfg.Rejoin, searchPause))
		if storeIn := storePause - p.cfg.Now().Sub(lost); p.cfg.Rendezvous != nil && storeIn > 0 {
			pause = min(pause, max(storeIn, searchPause))
		}
	}
}

// lost reports whether this node needs the store to find the others: it sees
// nobody, or too few for a leader. Else whoever is missing is down or finds the
// others itself, and looking for it would cost requests for days.
func (p *Peers) lost() bool {
	return len(p.missing()) > 0 && (len(p.gossip.View().Members()) < 2 || p.meta.Leader() == "")
}

// rest waits; woken: until somebody may be missing at the latest. false: ctx has
// ended.
func (p *Peers) rest(ctx context.Context, d time.Duration, woken bool) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	look := p.look
	if !woken {
		look = nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-look:
		// Gossip tells of a member that goes before the state machine does.
		return pause(ctx, searchPause)
	case <-t.C:
	}
	return true
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// greetAll says hello at every address at which a missing member may be.
func (p *Peers) greetAll(ctx context.Context) {
	addrs := slices.Clone(p.cfg.Seeds)
	v := p.meta.View()
	for _, node := range p.missing() {
		if at, ok := p.book.where(node); ok {
			addrs = append(addrs, at.Cluster)
		}
		if m, ok := v.Member(raftmeta.NodeID(node)); ok && m.Cluster != "" {
			addrs = append(addrs, m.Cluster)
		}
	}
	slices.Sort(addrs)
	self, _, _ := p.book.own()
	var group sync.WaitGroup
	slots := make(chan struct{}, greetAtOnce)
	for _, addr := range slices.Compact(addrs) {
		if addr == self.Cluster {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if _, err := p.greet(ctx, addr); err != nil && ctx.Err() == nil {
				p.log.DebugContext(ctx, "hello", "addr", addr, "error", err.Error())
			}
		})
	}
	group.Wait()
}
