package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/datavision/desnode/raftmeta"
)

const (
	rendezvousPurpose = "address"
	// rendezvousTime bounds publishing, and looking for all that are missing.
	rendezvousTime = 10 * time.Second
)

// rendezvousKey is the key of the n-th place of a node.
func rendezvousKey(node string, n uint64) string {
	return "nodes/" + node + "/" + strconv.FormatUint(n, 10)
}

// noted is one object: the key names node and n as well, but a key is not sealed.
type noted struct {
	Place place  `json:"place"`
	N     uint64 `json:"n"`
}

// publish puts this node's place into the store when it is not the one that
// stands there and there is somebody to read it. A failure is told and tried
// again by the next search.
func (p *Peers) publish(ctx context.Context) {
	self, n, at := p.book.own()
	// The book, since the state machine knows nobody before it has a leader.
	alone := len(p.book.places()) < 2 && len(p.meta.View().Members()) < 2
	if p.cfg.Rendezvous == nil || self == at || alone {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rendezvousTime)
	defer cancel()
	err := p.publishAs(ctx, self, n)
	if err == nil {
		p.metrics.rendezvous.WithLabelValues(opPublish, resultOK).Inc()
		return
	}
	p.metrics.rendezvous.WithLabelValues(opPublish, resultError).Inc()
	p.log.WarnContext(ctx, "this node's address is not in the store; others may not find it when all have moved", "error", err.Error())
}

func (p *Peers) publishAs(ctx context.Context, self place, n uint64) error {
	// What was written last is looked for, should the dir have forgotten it or an
	// attempt have ended in between: an object that exists is never replaced.
	found, n, err := p.newest(ctx, self.Node, n)
	if err != nil {
		return err
	}
	if found != self {
		body, err := json.Marshal(noted{self, n + 1})
		if err != nil {
			return err
		}
		sealed, err := p.id.Secret().Seal(rendezvousPurpose, p.id.Cluster(), body)
		if err != nil {
			return err
		}
		n++
		if err := p.cfg.Rendezvous.Publish(ctx, rendezvousKey(self.Node, n), sealed); err != nil {
			return err
		}
	}
	p.book.published(n, self)
	return nil
}

// fetchMissing looks in the store for the members that gossip does not see, and
// says hello to those that are elsewhere.
func (p *Peers) fetchMissing(ctx context.Context) {
	if p.cfg.Rendezvous == nil {
		return
	}
	v := p.meta.View()
	limited, cancel := context.WithTimeout(ctx, rendezvousTime) // of all: greeting must not wait for a store that hangs
	defer cancel()
	var news atomic.Bool
	var group errgroup.Group
	group.SetLimit(greetAtOnce)
	for _, node := range p.missing() {
		if _, member := v.Member(raftmeta.NodeID(node)); !member && v.ShardBits() != 0 {
			continue
		}
		group.Go(func() error {
			if p.fetchNode(limited, node) {
				news.Store(true)
			}
			return nil
		})
	}
	_ = group.Wait() // none of them returns an error
	if news.Load() && ctx.Err() == nil {
		p.gossip.Rejoin()
		p.greetAll(ctx)
	}
}

// fetchNode reads a node's newest place from the store: true, it was news.
func (p *Peers) fetchNode(ctx context.Context, node string) bool {
	at, n, err := p.newest(ctx, node, p.book.readUpTo(node))
	switch {
	case err != nil:
		p.metrics.rendezvous.WithLabelValues(opFetch, resultError).Inc()
		p.log.WarnContext(ctx, "the store does not tell where a member is", "member", node, "error", err.Error())
		return false
	case n == 0:
		p.metrics.rendezvous.WithLabelValues(opFetch, resultNone).Inc()
		return false
	}
	p.metrics.rendezvous.WithLabelValues(opFetch, resultOK).Inc()
	news := p.book.heard(at)
	p.book.read(node, n)
	return news
}

// newest returns the newest place of a node that stands in the store and its n;
// 0: there is none. from is an n that is known to stand there, or 0. Objects are
// numbered without gaps, so it doubles its steps until one is missing and halves
// them then: a handful of requests, and no LIST.
func (p *Peers) newest(ctx context.Context, node string, from uint64) (at place, n uint64, err error) {
	last, step := from, uint64(1)
	fetch := func(n uint64) (bool, error) {
		got, err := p.fetch(ctx, node, n)
		if errors.Is(err, ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		at, last = got, n
		return true, nil
	}
	if from > 0 {
		there, err := fetch(from)
		if err != nil {
			return at, 0, err
		}
		if !there { // somebody tidied up: the count begins again
			last = 0
		}
	}
	missing := uint64(0)
	for missing == 0 {
		there, err := fetch(last + step)
		if err != nil {
			return at, 0, err
		}
		if !there {
			missing = last + step
			break
		}
		step *= 2
	}
	for missing-last > 1 {
		mid := last + (missing-last)/2
		there, err := fetch(mid)
		if err != nil {
			return at, 0, err
		}
		if !there {
			missing = mid
		}
	}
	return at, last, nil
}

func (p *Peers) fetch(ctx context.Context, node string, n uint64) (place, error) {
	key := rendezvousKey(node, n)
	sealed, err := p.cfg.Rendezvous.Fetch(ctx, key)
	if err != nil {
		return place{}, err
	}
	body, err := p.id.Secret().Open(rendezvousPurpose, p.id.Cluster(), sealed)
	if err != nil {
		return place{}, fmt.Errorf("%s: %w", key, err)
	}
	var o noted
	if err := json.Unmarshal(body, &o); err != nil {
		return place{}, fmt.Errorf("%s: %w: %w", key, ErrMalformed, err)
	}
	if o.Place.Node != node || o.N != n || !o.Place.valid() {
		return place{}, fmt.Errorf("%s: the object is another's: %w", key, ErrMalformed)
	}
	return o.Place, nil
}
