package raftmeta

import (
	"context"
	"slices"
	"time"
)

// JoinToken lets nodes join the cluster. What a joiner has to show is not in
// it: Verifier is enough to check that, and no more.
type JoinToken struct {
	ID       string    `json:"id"`
	Verifier []byte    `json:"verifier"`
	Expires  time.Time `json:"expires"`
	Uses     uint16    `json:"uses,omitempty"`    // how many nodes may join by it; 0: any number
	UsedBy   []NodeID  `json:"used_by,omitempty"` // who did, in that order
}

// tokenEntry is a token in the state. A revoked one is kept until tokens of
// its age are dropped: forgotten at once, a late repetition of the command
// that added it would bring it back.
type tokenEntry struct {
	JoinToken
	Revoked bool `json:"revoked,omitempty"`
}

// tokensKept is how long after its end a token is still known, so that a
// joiner that comes late is told why it is refused.
const tokensKept = 24 * time.Hour

// spent reports that t has no use left.
func (t *JoinToken) spent() bool { return t.Uses != 0 && len(t.UsedBy) >= int(t.Uses) }

// Token returns a join token that has not been revoked. It may have expired or
// be spent. The caller changes nothing in it.
func (v *View) Token(id string) (JoinToken, bool) {
	t, ok := v.tokens.get(id)
	if !ok || t.Revoked {
		return JoinToken{}, false
	}
	return t.JoinToken, true
}

// Tokens returns the join tokens that have not been revoked, by rising id.
func (v *View) Tokens() []JoinToken {
	out := make([]JoinToken, 0, v.tokens.len())
	for _, t := range v.tokens.all() {
		if !t.Revoked {
			out = append(out, t.JoinToken)
		}
	}
	return out
}

// PutToken adds a join token that nobody has used, and drops those that ended
// more than a day ago. Adding it again changes nothing. ErrConflict: another
// token has its id, or it was revoked. ErrInvalid: no id, verifier or end.
func (m *Meta) PutToken(ctx context.Context, t JoinToken) error {
	_, err := m.propose(ctx, &putTokenCommand{Token: t, At: time.Now().UTC()})
	return err
}

// RevokeToken makes a join token worthless; nodes that joined by it stay.
// ErrNoToken: nobody knows the id. Revoking it again changes nothing.
func (m *Meta) RevokeToken(ctx context.Context, id string) error {
	_, err := m.propose(ctx, &revokeTokenCommand{id})
	return err
}

// Redeem takes one use of a join token and makes the node a member, in one
// command. at is the time now by the clock of the member that was asked.
// Repeated for the same token and node it takes no use and changes nothing.
//
// ErrNoToken: there is none, or it was revoked. ErrTokenExpired, ErrTokenUsed.
// ErrRemoved: the id was a member once; a wiped disk is a new node.
// ErrConflict: the id is a member that did not join by this token, or that has
// announced itself since: it needs no second admission.
func (m *Meta) Redeem(ctx context.Context, token string, member Member, at time.Time) error {
	member.Work = slices.Clone(member.Work)
	_, err := m.propose(ctx, &redeemCommand{Token: token, Member: member, At: at.UTC()})
	return err
}
