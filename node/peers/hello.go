package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/transport"
)

// hello is what a node says of itself; welcome is the answer. Both travel under
// mutual TLS as JSON, so a node that gossip's keys have left behind gets them
// here, and each learns where the other is.
type hello struct {
	Place place  `json:"place"`
	Keys  uint64 `json:"keys"` // version of the gossip keys that it uses
}

type welcome struct {
	Place  place   `json:"place"`
	Keys   uint64  `json:"keys"`
	Keyset *keyset `json:"keyset,omitempty"` // when the caller's is older
	Places []place `json:"places"`           // of the members it knows
}

// helloTime bounds one call.
const helloTime = 3 * time.Second

// serveHello answers another node.
func (p *Peers) serveHello(from string, body []byte) ([]byte, error) {
	var q hello
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrInvalid, err)
	}
	if q.Place.Node != from || !q.Place.valid() {
		return nil, fmt.Errorf("%w: node %s speaks for %q", transport.ErrInvalid, from, q.Place.Node)
	}
	if p.book.told(q.Place) {
		p.log.Info("a member is elsewhere", "member", from, "addr", q.Place.Cluster)
		p.gossip.Rejoin()
	}
	keys := p.keys.Load()
	if q.Keys > keys.Version {
		select {
		case p.ask <- q.Place.Cluster:
		default: // meet is busy, and there is a next time
		}
	}
	self, _, _ := p.book.own()
	w := welcome{Place: self, Keys: keys.Version, Places: p.book.places()}
	if q.Keys < keys.Version {
		w.Keyset = keys
	}
	return json.Marshal(w)
}

func (p *Peers) hello() ([]byte, error) {
	self, _, _ := p.book.own()
	return json.Marshal(hello{Place: self, Keys: p.keys.Load().Version})
}

// greet says hello to whoever is at an address, and takes what it answers.
func (p *Peers) greet(ctx context.Context, addr string) (welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	body, err := p.hello()
	if err != nil {
		return welcome{}, err
	}
	answer, node, err := p.endpoint.CallAddr(ctx, addr, methodHello, body)
	return p.welcomed(node, answer, err)
}

// greetNode says hello to a node, wherever it is.
func (p *Peers) greetNode(ctx context.Context, node string) (welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	body, err := p.hello()
	if err != nil {
		return welcome{}, err
	}
	answer, err := p.endpoint.Call(ctx, node, methodHello, body)
	return p.welcomed(node, answer, err)
}

// welcomed takes an answer: where its node is, where it thinks others are, and
// newer keys.
func (p *Peers) welcomed(node string, answer []byte, err error) (w welcome, _ error) {
	p.heed(node, err)
	if err == nil {
		err = json.Unmarshal(answer, &w)
	}
	if err == nil && w.Place.Node != node {
		err = fmt.Errorf("node %s speaks for %q: %w", node, w.Place.Node, ErrMalformed)
	}
	switch {
	case errors.Is(err, transport.ErrNotMember), errors.Is(err, transport.ErrIdentity), errors.Is(err, transport.ErrRefused):
		p.metrics.hello.WithLabelValues(resultRefused).Inc()
		return w, err
	case err != nil:
		p.metrics.hello.WithLabelValues(resultError).Inc()
		return w, err
	}
	p.metrics.hello.WithLabelValues(resultOK).Inc()
	news := p.book.told(w.Place)
	for _, at := range w.Places {
		if at.Node != node && !p.removed(at.Node) {
			news = p.book.heard(at) || news
		}
	}
	if news {
		p.gossip.Rejoin()
		signal(p.look)
	}
	if w.Keyset != nil {
		err = p.adopt(*w.Keyset)
	}
	return w, err
}

// meet asks those that were heard to know more than this node.
func (p *Peers) meet(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case addr := <-p.ask:
			if _, err := p.greet(ctx, addr); err != nil && ctx.Err() == nil {
				p.log.DebugContext(ctx, "hello", "addr", addr, "error", err.Error())
			}
		}
	}
}
