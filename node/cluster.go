package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/peers"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/ring"
	"github.com/datavision/desnode/ring/gossip"
)

// serversWait bounds how long the list of members waits for what only the
// leader knows.
const serversWait = 2 * time.Second

// Members lists the nodes of the cluster: who they are by the state machine,
// how gossip sees them, and what the leader last heard of them.
func (n *Node) Members(ctx context.Context) (api.MemberList, error) {
	limited, cancel := context.WithTimeout(ctx, serversWait)
	defer cancel()
	servers, err := n.meta.ServersConfirmed(limited)
	quorum := err == nil
	if !quorum {
		servers = n.meta.Servers()
	}
	v, alive := n.meta.View(), n.peers.View()
	list := api.MemberList{Members: []api.MemberInfo{}, Removed: v.RemovedIDs(), Leader: n.meta.Leader(), Quorum: quorum}
	refused := map[string]bool{}
	for _, p := range n.peers.Endpoint().Peers() {
		refused[p.Node] = p.Refused
	}
	for _, m := range v.Members() {
		info := n.memberInfo(v, alive, m)
		info.Leader, info.Breaker = m.ID == list.Leader, refused[string(m.ID)]
		if i := slices.IndexFunc(servers, func(s raftmeta.Server) bool { return s.ID == m.ID }); i >= 0 {
			addServer(&info, servers[i], v.Applied())
		}
		if info.Voter {
			list.Voters++
		}
		list.Members = append(list.Members, info)
	}
	return list, nil
}

// memberInfo is what the state machine and gossip know of a member.
func (n *Node) memberInfo(v *raftmeta.View, alive *gossip.View, m raftmeta.Member) api.MemberInfo {
	info := api.MemberInfo{
		Node: m.ID, Self: m.ID == n.id.Node, State: api.MemberUnreachable, Zone: m.Zone, Version: m.Version,
		HTTP: m.HTTP, Cluster: m.Cluster, Work: m.Work, Joined: m.Joined, Applied: m.Applied,
	}
	if info.Work == nil {
		info.Work = []string{}
	}
	id := ring.NodeID(m.ID)
	if seen, ok := alive.Member(id); ok {
		agrees := !slices.Contains(alive.Mismatched(), id)
		info.Alive, info.State, info.RingAgrees = true, api.MemberAlive, &agrees
		info.Zone, info.Version, info.HTTP, info.Cluster = seen.Meta.Zone, seen.Meta.Version, seen.Meta.HTTPAddr, seen.Meta.ClusterAddr
		info.Gossip = seen.Addr.String()
		info.Shards = alive.Ring.Share(id)
		info.Share = float64(info.Shards) / float64(alive.Ring.Shards())
	} else if m.HTTP == "" {
		info.State = api.MemberJoining
	}
	if info.Self {
		score := n.peers.HealthScore()
		info.HealthScore, info.Applied = &score, v.Applied()
	}
	return info
}

// addServer adds what Raft knows of a member.
func addServer(info *api.MemberInfo, s raftmeta.Server, applied uint64) {
	info.Voter = s.Voter
	info.Applied = max(info.Applied, s.Applied)
	if applied > info.Applied {
		info.Lag = applied - info.Applied
	}
	if s.Heard > 0 {
		seconds := s.Heard.Seconds()
		info.LastHeardSeconds = &seconds
	}
}

// memberCounts are for the status.
func (n *Node) memberCounts() api.MemberCounts {
	alive := n.peers.View()
	c := api.MemberCounts{}
	for _, m := range n.meta.View().Members() {
		c.Known++
		if _, ok := alive.Member(ring.NodeID(m.ID)); ok {
			c.Alive++
		}
	}
	return c
}

// voters is how many voters Raft has, as this node knows.
func (n *Node) voters() (count int) {
	for _, s := range n.meta.Servers() {
		if s.Voter {
			count++
		}
	}
	return count
}

// Ring tells who owns what.
func (n *Node) Ring(_ context.Context, q api.RingQuery) (api.RingInfo, error) {
	seen := n.peers.View()
	r := seen.Ring
	cfg := r.Config()
	info := api.RingInfo{
		Digest: r.Digest().String(), Format: ring.Format, Shards: int(r.Shards()), Vnodes: cfg.Vnodes, Load: cfg.Load,
		Skew: r.Skew(), Members: []api.RingMember{}, Mismatched: nodeIDs(seen.Mismatched()),
	}
	for _, m := range r.Members() {
		shards := r.Share(m.ID)
		info.Members = append(info.Members, api.RingMember{
			Node: raftmeta.NodeID(m.ID), Zone: m.Zone, Shards: shards, Share: float64(shards) / float64(r.Shards()),
		})
	}
	if !q.Owners {
		return info, nil
	}
	for shard := range r.Shards() {
		owners := nodeIDs(r.Owners(shard, ownersShown))
		if len(owners) > 0 {
			info.Owners = append(info.Owners, api.ShardOwners{Shard: shard, Owner: owners[0], Fallbacks: owners[1:]})
		}
	}
	return info, nil
}

// ownersShown is how many nodes are shown for a shard: its owner and those that
// are asked when it does not answer.
const ownersShown = 3

func nodeIDs(ids []ring.NodeID) []raftmeta.NodeID {
	out := make([]raftmeta.NodeID, 0, len(ids))
	for _, id := range ids {
		out = append(out, raftmeta.NodeID(id))
	}
	return out
}

// RemoveMember removes another node for ever: one that died, or, by force, one
// that is alive.
func (n *Node) RemoveMember(ctx context.Context, req api.RemoveMemberRequest) error {
	v := n.meta.View()
	_, alive := n.peers.View().Member(ring.NodeID(req.Node))
	_, member := v.Member(req.Node)
	switch {
	case v.Removed(req.Node):
		return nil
	case !member:
		return &api.Problem{Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: fmt.Sprintf("no member %s", req.Node)}
	case req.Node == n.id.Node:
		return fmt.Errorf("%w: a node is not removed by itself; it leaves", api.ErrInvalidRequest)
	case alive && !req.Force:
		return fmt.Errorf("%w: node %s is alive; let it leave, or remove it by force", api.ErrConflict, req.Node)
	}
	if err := n.meta.RemoveMember(ctx, req.Node); err != nil {
		return asConflict(err)
	}
	n.log.WarnContext(ctx, "member removed", "member", string(req.Node), "alive", alive)
	return nil
}

// asConflict puts the refusal to take a member away into the API's words.
func asConflict(err error) error {
	switch {
	case errors.Is(err, raftmeta.ErrLastMember):
		return fmt.Errorf("%w: it is the last node of the cluster; stop it instead, or remove its data dir", api.ErrConflict)
	case errors.Is(err, raftmeta.ErrVoteNeeded):
		return fmt.Errorf("%w: %w; wait until other nodes have caught up, or start those that are down", api.ErrConflict, err)
	}
	return err
}

// CreateToken lets nodes join.
func (n *Node) CreateToken(ctx context.Context, req api.TokenRequest) (api.TokenCreated, error) {
	token, err := n.peers.CreateToken(ctx, time.Duration(req.TTLSeconds)*time.Second, req.Uses)
	if err != nil {
		return api.TokenCreated{}, err
	}
	return api.TokenCreated{
		ID: token.ID.String(), Token: token.String(), Expires: token.Expires, Uses: token.Uses,
		JoinCommand: fmt.Sprintf("desnode join %s --token %s", n.peers.ClusterAddr(), token),
	}, nil
}

// Tokens lists the join tokens that the cluster still knows.
func (n *Node) Tokens(context.Context) (api.TokenList, error) {
	list := api.TokenList{Tokens: []api.TokenInfo{}}
	for _, t := range n.meta.View().Tokens() {
		info := api.TokenInfo{ID: t.ID, State: api.TokenValid, Expires: t.Expires, Uses: t.Uses, UsedBy: t.UsedBy}
		switch {
		case !t.Expires.IsZero() && n.now().After(t.Expires):
			info.State = api.TokenExpired
		case t.Uses > 0 && len(t.UsedBy) >= int(t.Uses):
			info.State = api.TokenUsedUp
		}
		if info.UsedBy == nil {
			info.UsedBy = []raftmeta.NodeID{}
		}
		list.Tokens = append(list.Tokens, info)
	}
	return list, nil
}

// RevokeToken makes a join token useless.
func (n *Node) RevokeToken(ctx context.Context, id string) error {
	if _, known := n.meta.View().Token(id); !known {
		return &api.Problem{Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: fmt.Sprintf("no token %s", id)}
	}
	return n.meta.RevokeToken(ctx, id)
}

// RotateKeys changes the key that gossip is encrypted with.
func (n *Node) RotateKeys(ctx context.Context, _ api.RotateRequest, event func(api.RotateEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := n.peers.RotateGossipKey(ctx, func(p peers.Rotation) {
		if err := event(api.RotateEvent{Phase: p.Phase, Applied: p.Done, Of: p.Of}); err != nil {
			cancel(err)
		}
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}
