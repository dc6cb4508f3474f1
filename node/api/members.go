package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/datavision/desnode/raftmeta"
)

// Paths of what the cluster's nodes are and how they come and go.
const (
	PathMembers      = "/cluster/members"        // GET → MemberList
	PathRemoveMember = "/cluster/members/remove" // POST RemoveMemberRequest → MemberList
	PathRing         = "/cluster/ring"           // GET ?owners=1 → RingInfo
	PathTokens       = "/cluster/tokens"         // GET → TokenList; POST TokenRequest → TokenCreated
	PathRevokeToken  = "/cluster/tokens/revoke"  // POST RevokeRequest → TokenList
	PathLeave        = "/cluster/leave"          // POST LeaveRequest → Left
	PathRotateKeys   = "/cluster/keys/rotate"    // POST RotateRequest → stream of RotateEvent
)

// MemberState is how a member is seen by the node that answers.
type MemberState string

// The states of a member.
const (
	MemberAlive       MemberState = "alive"
	MemberJoining     MemberState = "joining"     // admitted, not seen yet
	MemberUnreachable MemberState = "unreachable" // not seen any more
	MemberLeft        MemberState = "left"        // stopped or left in order
)

// MemberList is the nodes of the cluster, as the answering node sees them.
type MemberList struct {
	Members []MemberInfo      `json:"members"`
	Removed []raftmeta.NodeID `json:"removed"` // never to come back
	Leader  raftmeta.NodeID   `json:"leader,omitempty"`
	Voters  int               `json:"voters"`
	Quorum  bool              `json:"quorum"` // a majority of the voters answered
}

// MemberInfo is one node. What is not known of it is left out.
type MemberInfo struct {
	Node    raftmeta.NodeID `json:"node"`
	Self    bool            `json:"self"` // the node that answers
	Alive   bool            `json:"alive"`
	State   MemberState     `json:"state"`
	Leader  bool            `json:"leader"`
	Voter   bool            `json:"voter"`
	Zone    string          `json:"zone,omitempty"`
	Version string          `json:"version,omitempty"`
	HTTP    string          `json:"http,omitempty"`    // host:port, as are the next two
	Cluster string          `json:"cluster,omitempty"` // QUIC and Raft
	Gossip  string          `json:"gossip,omitempty"`
	Work    []string        `json:"work"`    // mark, pack, keep
	Joined  uint64          `json:"joined"`  // Raft index
	Applied uint64          `json:"applied"` // Raft index
	Lag     uint64          `json:"lag"`     // commands that it has still to apply

	LastHeardSeconds *float64 `json:"last_heard_seconds,omitempty"`
	Shards           int      `json:"shards"` // that it owns by the ring
	Share            float64  `json:"share"`  // of all shards, 0 to 1
	RingAgrees       *bool    `json:"ring_agrees,omitempty"`
	HealthScore      *int     `json:"health_score,omitempty"` // of gossip: 0 is healthy
	Breaker          bool     `json:"breaker"`                // reads are not sent to it for a moment
}

// RemoveMemberRequest asks for a node to be removed for ever. One that is alive
// is removed with Force only: it had better leave.
type RemoveMemberRequest struct {
	Node  raftmeta.NodeID `json:"node"`
	Force bool            `json:"force,omitempty"`
}

// RingQuery says how much of the ring is asked for.
type RingQuery struct {
	Owners bool // with the owners of each shard
}

// RingInfo is who owns what, as the answering node sees it.
type RingInfo struct {
	Digest     string            `json:"digest"`
	Format     int               `json:"format"`
	Shards     int               `json:"shards"`
	Vnodes     int               `json:"vnodes"` // places of each member
	Load       float64           `json:"load"`   // what a member owns at most, in multiples of the average
	Skew       float64           `json:"skew"`   // what the largest owner owns, likewise
	Members    []RingMember      `json:"members"`
	Mismatched []raftmeta.NodeID `json:"mismatched"`       // those that see another ring
	Owners     []ShardOwners     `json:"owners,omitempty"` // by shard
}

// RingMember is one owner.
type RingMember struct {
	Node   raftmeta.NodeID `json:"node"`
	Zone   string          `json:"zone,omitempty"`
	Shards int             `json:"shards"`
	Share  float64         `json:"share"` // of all shards, 0 to 1
}

// ShardOwners says who serves one shard.
type ShardOwners struct {
	Shard     uint32            `json:"shard"`
	Owner     raftmeta.NodeID   `json:"owner"`
	Fallbacks []raftmeta.NodeID `json:"fallbacks"` // asked when the owner does not answer, best first
}

// Bounds of join tokens.
const (
	DefaultTokenTTL  = 24 * time.Hour
	MaxTokenTTL      = 30 * 24 * time.Hour
	DefaultTokenUses = 1
)

// TokenRequest asks for a join token. A Cluster gets it with the defaults filled
// in.
type TokenRequest struct {
	TTLSeconds int64  `json:"ttl_seconds,omitempty"` // default DefaultTokenTTL, at most MaxTokenTTL
	Uses       uint16 `json:"uses,omitempty"`        // how many nodes may join by it; default DefaultTokenUses
}

// TokenCreated is a new join token, the only answer that has the secret.
type TokenCreated struct {
	ID          string    `json:"id"`
	Token       string    `json:"token"`
	JoinCommand string    `json:"join_command"`
	Expires     time.Time `json:"expires"`
	Uses        uint16    `json:"uses"`
}

// TokenList is the join tokens, without their secrets.
type TokenList struct {
	Tokens []TokenInfo `json:"tokens"`
}

// TokenState says whether a token still lets a node in.
type TokenState string

// The states of a join token.
const (
	TokenValid   TokenState = "valid"
	TokenExpired TokenState = "expired"
	TokenUsedUp  TokenState = "used-up"
)

// TokenInfo is one join token.
type TokenInfo struct {
	ID      string            `json:"id"`
	State   TokenState        `json:"state"`
	Expires time.Time         `json:"expires"`
	Uses    uint16            `json:"uses"`
	UsedBy  []raftmeta.NodeID `json:"used_by"`
}

// RevokeRequest asks for a join token to be forgotten. Nodes that joined by it
// stay.
type RevokeRequest struct {
	ID string `json:"id"`
}

// LeaveRequest asks the node that answers to leave its cluster.
type LeaveRequest struct{}

// Left says which node has left. Its process ends after the answer.
type Left struct {
	Node raftmeta.NodeID `json:"node"`
	// Shared are the folders and files in its data dir that the other nodes go on
	// using: the store, embedded sources.
	Shared []string `json:"shared,omitempty"`
}

// KeysGossip are the only keys that can be rotated.
const KeysGossip = "gossip"

// RotateRequest asks for new keys.
type RotateRequest struct {
	What string `json:"what"` // KeysGossip
}

// RotateEvent says how far a rotation is. The phases are adding the new key,
// using it, removing the old one; each waits for all living members.
type RotateEvent struct {
	Phase   string `json:"phase"`   // adding, using, removing
	Applied int    `json:"applied"` // living members that have done what the phase asks for
	Of      int    `json:"of"`      // living members
	End
}

// Cluster tells who the nodes are and changes who they are. Each change is
// durable in the cluster when the method returns nil, and may be repeated.
// Errors as Operator's: what the present members forbid wraps ErrConflict, an
// unknown token or node is a *Problem with CodeNotFound.
type Cluster interface {
	Membership
	Admission
}

// Membership is the part of Cluster about the nodes that are there.
type Membership interface {
	Members(ctx context.Context) (MemberList, error)
	Ring(ctx context.Context, q RingQuery) (RingInfo, error)
	RemoveMember(ctx context.Context, req RemoveMemberRequest) error
	// Leave returns when the cluster knows this node no more. The node ends by
	// itself after the answer has been sent.
	Leave(ctx context.Context, req LeaveRequest) error
	// RotateKeys hands over events as Operator's methods do. One that was cut
	// goes on where it was when it is repeated.
	RotateKeys(ctx context.Context, req RotateRequest, event func(RotateEvent) error) error
}

// Admission is the part of Cluster about the nodes that may come.
type Admission interface {
	// CreateToken gets a request whose defaults are filled in.
	CreateToken(ctx context.Context, req TokenRequest) (TokenCreated, error)
	Tokens(ctx context.Context) (TokenList, error)
	RevokeToken(ctx context.Context, id string) error
}

// membership answers the endpoints of the cluster's nodes; false: path is none
// of them.
func (x *exchange) membership(path string) bool {
	c := x.s.cfg.Cluster
	if c == nil {
		return false
	}
	switch path {
	case PathMembers:
		show(x, c.Members)
	case PathRemoveMember:
		x.removeMember(c)
	case PathRing:
		show(x, func(ctx context.Context) (RingInfo, error) {
			q, err := x.ringQuery()
			if err != nil {
				return RingInfo{}, err
			}
			return c.Ring(ctx, q)
		})
	case PathTokens:
		x.tokens(c)
	case PathRevokeToken:
		x.revokeToken(c)
	case PathLeave:
		var req LeaveRequest
		if x.accept(&req) {
			x.changed(c.Leave(x.r.Context(), req), func(context.Context) (any, error) { return Left{x.s.cfg.Node, x.s.cfg.Shared}, nil })
		}
	case PathRotateKeys:
		follow(x, x.rotateKeys, func(e RotateEvent, end End) any { e.End = end; return e })
	default:
		return false
	}
	return true
}

// ringQuery reads ?owners=1.
func (x *exchange) ringQuery() (RingQuery, error) {
	params, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return RingQuery{}, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	switch params.Get("owners") {
	case "", "0":
		return RingQuery{}, nil
	case "1":
		return RingQuery{Owners: true}, nil
	}
	return RingQuery{}, fmt.Errorf("%w: owners is 0 or 1", ErrInvalidRequest)
}

func (x *exchange) removeMember(c Cluster) {
	var req RemoveMemberRequest
	if !x.accept(&req) {
		return
	}
	if req.Node == "" {
		x.fail(fmt.Errorf("%w: name the node", ErrInvalidRequest))
		return
	}
	x.changed(c.RemoveMember(x.r.Context(), req), func(ctx context.Context) (any, error) { return c.Members(ctx) })
}

// tokens lists join tokens, or makes one.
func (x *exchange) tokens(c Cluster) {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
		show(x, c.Tokens)
	case http.MethodPost:
		x.createToken(c)
	default:
		x.allow(http.MethodGet, http.MethodHead, http.MethodPost)
	}
}

func (x *exchange) createToken(c Cluster) {
	var req TokenRequest
	if !x.accept(&req) {
		return
	}
	if req.TTLSeconds < 0 || req.TTLSeconds > int64(MaxTokenTTL/time.Second) {
		x.fail(fmt.Errorf("%w: ttl_seconds is from 1 to %d; 0: %d", ErrInvalidRequest, int64(MaxTokenTTL/time.Second), int64(DefaultTokenTTL/time.Second)))
		return
	}
	req.TTLSeconds = or(req.TTLSeconds, int64(DefaultTokenTTL/time.Second))
	req.Uses = or(req.Uses, DefaultTokenUses)
	created, err := c.CreateToken(x.r.Context(), req)
	if err != nil {
		x.fail(err)
		return
	}
	x.json(created)
}

func (x *exchange) revokeToken(c Cluster) {
	var req RevokeRequest
	if !x.accept(&req) {
		return
	}
	if req.ID == "" {
		x.fail(fmt.Errorf("%w: name the token by its id", ErrInvalidRequest))
		return
	}
	x.changed(c.RevokeToken(x.r.Context(), req.ID), func(ctx context.Context) (any, error) { return c.Tokens(ctx) })
}

func (x *exchange) rotateKeys(ctx context.Context, req RotateRequest, event func(RotateEvent) error) error {
	if req.What != KeysGossip {
		return fmt.Errorf("%w: what is %s, there are no other keys to rotate", ErrInvalidRequest, KeysGossip)
	}
	return x.s.cfg.Cluster.RotateKeys(ctx, req, event)
}

// changed answers a change with what follows from it.
func (x *exchange) changed(err error, now func(context.Context) (any, error)) {
	var v any
	if err == nil {
		v, err = now(x.r.Context())
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.json(filled(v))
}
