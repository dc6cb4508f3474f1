package raftmeta

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

const (
	kindAnnounce     = "announce"
	kindLeaving      = "leaving"
	kindRemoveMember = "remove-member"
	kindPutToken     = "put-token"
	kindRevokeToken  = "revoke-token"
	kindRedeem       = "redeem"
)

// announceCommand records what a member tells of itself.
type announceCommand struct {
	Member Member `json:"member"`
}

func (*announceCommand) kind() string { return kindAnnounce }

func (c *announceCommand) apply(s *state, _ uint64) (any, error) {
	if err := checkMember(&c.Member); err != nil {
		return nil, fmt.Errorf("announce: %w", err)
	}
	old, member := s.members.get(string(c.Member.ID))
	if !member {
		return nil, fmt.Errorf("announce %s: %w", c.Member.ID, ErrNotMember)
	}
	s.members = s.members.set(string(old.ID), old.announced(c.Member))
	return nil, nil
}

// leavingCommand says that a member is about to leave, or not any more.
type leavingCommand struct {
	ID      NodeID `json:"id"`
	Leaving bool   `json:"leaving"`
}

func (*leavingCommand) kind() string { return kindLeaving }

func (c *leavingCommand) apply(s *state, _ uint64) (any, error) {
	m, member := s.members.get(string(c.ID))
	if !member {
		return nil, fmt.Errorf("leaving %q: %w", c.ID, ErrNotMember)
	}
	if c.Leaving && s.members.len() == 1 {
		return nil, fmt.Errorf("leaving %s: %w", c.ID, ErrLastMember)
	}
	m.Leaving = c.Leaving
	s.members = s.members.set(string(c.ID), m)
	return nil, nil
}

// removeMemberCommand takes a node out of the cluster for ever. Its leases
// stay until their time is over: it may still act on them.
type removeMemberCommand struct {
	ID NodeID `json:"id"`
}

func (*removeMemberCommand) kind() string { return kindRemoveMember }

func (c *removeMemberCommand) apply(s *state, index uint64) (any, error) {
	if s.removedNode(c.ID) {
		return nil, nil
	}
	if _, member := s.members.get(string(c.ID)); !member {
		return nil, fmt.Errorf("remove %q: %w", c.ID, ErrNotMember)
	}
	if s.members.len() == 1 {
		return nil, fmt.Errorf("remove %s: %w", c.ID, ErrLastMember)
	}
	s.members = s.members.delete(string(c.ID))
	s.removed = s.removed.set(string(c.ID), index)
	return nil, nil
}

// putTokenCommand adds a join token, and drops old ones.
type putTokenCommand struct {
	Token JoinToken `json:"token"`
	At    time.Time `json:"at"` // by the proposer's clock
}

func (*putTokenCommand) kind() string { return kindPutToken }

func (c *putTokenCommand) apply(s *state, _ uint64) (any, error) {
	t := c.Token
	if t.ID == "" || len(t.ID) > maxAnnounced || len(t.Verifier) == 0 || len(t.Verifier) > maxAnnounced ||
		t.Expires.IsZero() || len(t.UsedBy) > 0 {
		return nil, fmt.Errorf("put token %.40q: no id, verifier or end, or used before it is put: %w", t.ID, ErrInvalid)
	}
	if old, ok := s.tokens.get(t.ID); ok {
		same := bytes.Equal(old.Verifier, t.Verifier) && old.Expires.Equal(t.Expires) && old.Uses == t.Uses
		if !same || old.Revoked {
			return nil, fmt.Errorf("put token %s: another one, or revoked: %w", t.ID, ErrConflict)
		}
		return nil, nil
	}
	for id, old := range s.tokens.all() {
		if c.At.Sub(old.Expires) > tokensKept {
			s.tokens = s.tokens.delete(id) // the iteration goes over the old table
		}
	}
	t.Expires = t.Expires.UTC()
	s.tokens = s.tokens.set(t.ID, tokenEntry{JoinToken: t})
	return nil, nil
}

// revokeTokenCommand makes a join token worthless.
type revokeTokenCommand struct {
	ID string `json:"id"`
}

func (*revokeTokenCommand) kind() string { return kindRevokeToken }

func (c *revokeTokenCommand) apply(s *state, _ uint64) (any, error) {
	t, ok := s.tokens.get(c.ID)
	if !ok {
		return nil, fmt.Errorf("revoke token %.40q: %w", c.ID, ErrNoToken)
	}
	t.Revoked = true
	s.tokens = s.tokens.set(c.ID, t)
	return nil, nil
}

// redeemCommand takes one use of a join token and makes a node a member.
type redeemCommand struct {
	Token  string    `json:"token"`
	Member Member    `json:"member"`
	At     time.Time `json:"at"` // by the proposer's clock
}

func (*redeemCommand) kind() string { return kindRedeem }

func (c *redeemCommand) apply(s *state, index uint64) (any, error) {
	refuse := func(why error) (any, error) {
		return nil, fmt.Errorf("token %.40q for %s: %w", c.Token, c.Member.ID, why)
	}
	id := c.Member.ID
	t, ok := s.tokens.get(c.Token)
	if !ok || t.Revoked {
		return refuse(ErrNoToken)
	}
	if s.removedNode(id) {
		return refuse(ErrRemoved)
	}
	if c.At.After(t.Expires) {
		return refuse(ErrTokenExpired)
	}
	old, member := s.members.get(string(id))
	switch {
	case slices.Contains(t.UsedBy, id) && old.Cluster == "":
		return nil, nil // repeated, since the answer was lost
	case member:
		// It has announced where it is, so it has its certificate, or it came
		// otherwise: whoever asks now is another, with a token that he found.
		return refuse(ErrConflict)
	}
	if t.spent() {
		return refuse(ErrTokenUsed)
	}
	if err := s.admit(c.Member, index); err != nil {
		return refuse(err)
	}
	t.UsedBy = append(slices.Clone(t.UsedBy), id)
	s.tokens = s.tokens.set(t.ID, t)
	return nil, nil
}
