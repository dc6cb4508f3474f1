package raftmeta

import (
	"context"

	"github.com/hashicorp/raft"
)

// relay is the transport as raft sees it: all that other nodes send, and
// before that, when asked for, an order to this node to stand for election at
// once. A node that is alone need not wait until it has missed a leader for a
// whole election time, and the election times may be those that many nodes
// need. An election is safe whenever it is held.
type relay struct {
	raft.Transport
	rpcs chan raft.RPC
}

// preVotingRelay is a relay whose transport knows pre-votes; raft looks for
// the method.
type preVotingRelay struct {
	*relay
	raft.WithPreVote
}

func newRelay(inner raft.Transport) *relay {
	return &relay{Transport: inner, rpcs: make(chan raft.RPC)}
}

// transport returns what raft is given.
func (r *relay) transport() raft.Transport {
	if p, ok := r.Transport.(raft.WithPreVote); ok {
		return preVotingRelay{r, p}
	}
	return r
}

// Consumer implements raft.Transport.
func (r *relay) Consumer() <-chan raft.RPC { return r.rpcs }

// Close implements raft.WithClose.
func (r *relay) Close() error {
	if c, ok := r.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// run hands raft what arrives until ctx ends.
func (r *relay) run(ctx context.Context, standNow bool) {
	if standNow {
		order := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
		r.deliver(ctx, raft.RPC{Command: order, RespChan: make(chan raft.RPCResponse, 1)})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case rpc := <-r.Transport.Consumer():
			if !r.deliver(ctx, rpc) {
				return // unanswered, as all that comes later
			}
		}
	}
}

func (r *relay) deliver(ctx context.Context, rpc raft.RPC) bool {
	select {
	case r.rpcs <- rpc:
		return true
	case <-ctx.Done():
		return false
	}
}

// voters returns the ids of the voters of the newest configuration that this
// node knows, committed or not.
func voters(r *raft.Raft) (ids []NodeID) {
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, NodeID(s.ID))
		}
	}
	return ids
}
