package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/peers"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/ring"
)

// rendezvous is the store as the place where nodes that lost sight of each other
// leave their addresses.
type rendezvous struct{ n *Node }

// causeRendezvous is the cause of the requests for them.
const causeRendezvous = "rendezvous"

// maxAddresses is more than a node's addresses take, in bytes.
const maxAddresses = 64 << 10

func (r rendezvous) Publish(ctx context.Context, key string, body []byte) error {
	_, err := r.n.store.Put(store.WithCause(ctx, causeRendezvous), key, bytes.NewReader(body), int64(len(body)))
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	return err
}

func (r rendezvous) Fetch(ctx context.Context, key string) ([]byte, error) {
	body, err := r.n.store.Get(store.WithCause(ctx, causeRendezvous), key, "", 0, -1)
	if errors.Is(err, store.ErrNotFound) {
		return nil, peers.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(body, maxAddresses))
	return b, errors.Join(err, body.Close())
}

// joinerSettings is what a joiner is told: see clusterSettings.
func (n *Node) joinerSettings() ([]byte, error) {
	s, err := settingsOf(n.meta.View())
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

// advertisedHTTP is where others reach the HTTP face.
func (n *Node) advertisedHTTP() (string, error) {
	host, port, err := net.SplitHostPort(n.HTTPAddr())
	if err != nil {
		return "", fmt.Errorf("HTTP address: %w", err)
	}
	if n.cfg.Advertise != "" {
		host = n.cfg.Advertise
	}
	return net.JoinHostPort(host, port), nil
}

// someoneDoes reports whether this node or another living one takes part in that
// kind of work.
func (n *Node) someoneDoes(work string) bool { return n.cfg.Does(work) || n.othersDo(work) }

// othersDo reports whether another living node takes part in that kind of work.
func (n *Node) othersDo(work string) bool {
	alive := n.peers.View()
	for _, m := range n.meta.View().Members() {
		if m.ID == n.id.Node || !slices.Contains(m.Work, work) {
			continue
		}
		if _, ok := alive.Member(ring.NodeID(m.ID)); ok {
			return true
		}
	}
	return false
}

// living is how many nodes share the work's pace.
func (n *Node) living() int { return max(1, len(n.peers.View().Members())) }

// rings are the owners as gossip sees them now.
type rings struct{ peers *peers.Peers }

func (r rings) Owners(shard uint32, n int) []ring.NodeID { return r.peers.View().Ring.Owners(shard, n) }

// owns reports whether this node owns a shard of the range. A node that gossip
// does not see yet owns all: it serves alone.
func (n *Node) owns(r desformat.Range) bool {
	placed := n.peers.View().Ring
	self := ring.NodeID(n.id.Node)
	if placed.Share(self) == 0 {
		return true
	}
	below := 32 - placed.Config().ShardBits
	first, last := r.First()>>below, r.Last()>>below
	for shard := first; shard <= last; shard++ {
		if placed.Owner(shard) == self {
			return true
		}
	}
	return false
}
