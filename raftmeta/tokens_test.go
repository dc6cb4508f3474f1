package raftmeta

import (
	"slices"
	"testing"
	"time"
)

// at is a moment some seconds after the tests' midnight.
func at(seconds int) time.Time { return time.Unix(1_800_000_000+int64(seconds), 0).UTC() }

// hour is a token that a number of nodes may join by for an hour; 0: any number.
func hour(id string, uses uint16) JoinToken {
	return JoinToken{ID: id, Verifier: []byte("verifier of " + id), Expires: at(3600), Uses: uses}
}

func putToken(t JoinToken) *putTokenCommand { return &putTokenCommand{Token: t, At: at(0)} }

func redeem(token string, node NodeID, seconds int) *redeemCommand {
	return &redeemCommand{Token: token, Member: Member{ID: node, Zone: "room 1", Work: []string{"pack"}}, At: at(seconds)}
}

func TestTokenMakesMembersWithinItsUses(t *testing.T) {
	w := newWorld(t)
	w.must(putToken(hour("two", 2)))
	w.must(putToken(hour("any", 0)))
	w.must(redeem("two", "node-c", 1))
	joined := w.index
	w.must(redeem("two", "node-d", 3600)) // its last second
	w.refused(redeem("two", "node-e", 2), ErrTokenUsed)
	w.must(redeem("any", "node-e", 2))
	w.must(redeem("any", "node-f", 2))
	w.must(redeem("any", "node-g", 2))
	m, ok := w.state().Member("node-c")
	if !ok || m.Joined != joined || m.Zone != "room 1" || !slices.Equal(m.Work, []string{"pack"}) {
		t.Errorf("member: %+v, joined at %d", m, joined)
	}
	two, ok := w.state().Token("two")
	if !ok || !slices.Equal(two.UsedBy, []NodeID{"node-c", "node-d"}) {
		t.Errorf("token: %+v", two)
	}
}

func TestRepeatedJoinTakesOneUse(t *testing.T) {
	w := newWorld(t)
	w.must(putToken(hour("t", 2)))
	w.must(redeem("t", "node-c", 1))
	w.must(&announceCommand{Member{ID: "node-c", Zone: "room 2"}})
	before := w.state().state
	w.must(redeem("t", "node-c", 2))
	after := w.state().state
	after.applied = before.applied
	if got, want := snapshotBytes(t, &after), snapshotBytes(t, &before); string(got) != string(want) {
		t.Errorf("the repetition made\n%s\nof\n%s", got, want)
	}
	w.must(redeem("t", "node-d", 2)) // the second use is still there
	w.refused(redeem("t", "node-e", 2), ErrTokenUsed)
	w.must(redeem("t", "node-c", 2)) // used up, and still the answer of the first time
}

func TestJoinIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		prep func(w *world)
		join *redeemCommand
		want error
	}{
		{"nobody knows the token", nil, redeem("other", "node-c", 1), ErrNoToken},
		{"the token was revoked", func(w *world) { w.must(&revokeTokenCommand{"t"}) }, redeem("t", "node-c", 1), ErrNoToken},
		{"the token has expired", nil, redeem("t", "node-c", 3601), ErrTokenExpired},
		{"expired, even for who has joined by it", func(w *world) { w.must(redeem("t", "node-c", 1)) }, redeem("t", "node-c", 3601), ErrTokenExpired},
		{"the node was removed", func(w *world) { w.must(&removeMemberCommand{"node-b"}) }, redeem("t", "node-b", 1), ErrRemoved},
		{"removed after it joined by this token", func(w *world) {
			w.must(redeem("t", "node-c", 1))
			w.must(&removeMemberCommand{"node-c"})
		}, redeem("t", "node-c", 1), ErrRemoved},
		{"a member that did not join by a token", nil, redeem("t", "node-b", 1), ErrConflict},
		{"a member by another token", func(w *world) {
			w.must(putToken(hour("u", 1)))
			w.must(redeem("u", "node-c", 1))
		}, redeem("t", "node-c", 1), ErrConflict},
		{"in the name of a member that has announced where it is", func(w *world) {
			w.must(redeem("t", "node-c", 1))
			w.must(&announceCommand{Member{ID: "node-c", Cluster: "10.0.0.3:7947"}})
		}, redeem("t", "node-c", 2), ErrConflict},
		{"no id", nil, redeem("t", "", 1), ErrInvalid},
		{"a novel for a zone", nil, &redeemCommand{Token: "t", At: at(1), Member: Member{ID: "node-c", Zone: string(make([]byte, 600))}}, ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(putToken(hour("t", 1)))
			if tc.prep != nil {
				tc.prep(w)
			}
			w.refused(tc.join, tc.want)
		})
	}
}

func TestTokensArePutOnce(t *testing.T) {
	w := newWorld(t)
	w.must(putToken(hour("t", 1)))
	w.must(redeem("t", "node-c", 1))
	w.must(putToken(hour("t", 1))) // repeated after its use: the use stays
	w.refused(redeem("t", "node-d", 1), ErrTokenUsed)
	for name, other := range map[string]func(*JoinToken){
		"another verifier": func(t *JoinToken) { t.Verifier = []byte("x") },
		"another end":      func(t *JoinToken) { t.Expires = at(1) },
		"other uses":       func(t *JoinToken) { t.Uses = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			token := hour("t", 1)
			other(&token)
			w.refused(putToken(token), ErrConflict)
		})
	}
	for name, bad := range map[string]func(*JoinToken){
		"no id":        func(t *JoinToken) { t.ID = "" },
		"no verifier":  func(t *JoinToken) { t.Verifier = nil },
		"no end":       func(t *JoinToken) { t.Expires = time.Time{} },
		"used already": func(t *JoinToken) { t.UsedBy = []NodeID{"node-c"} },
	} {
		t.Run(name, func(t *testing.T) {
			token := hour("new", 1)
			bad(&token)
			w.refused(putToken(token), ErrInvalid)
		})
	}
}

// TestRevokedTokenStaysWorthless: a command that put it may arrive once more.
func TestRevokedTokenStaysWorthless(t *testing.T) {
	w := newWorld(t)
	w.must(putToken(hour("t", 0)))
	w.must(redeem("t", "node-c", 1))
	w.must(&revokeTokenCommand{"t"})
	w.must(&revokeTokenCommand{"t"})
	w.refused(putToken(hour("t", 0)), ErrConflict)
	w.refused(redeem("t", "node-d", 1), ErrNoToken)
	if _, ok := w.state().Token("t"); ok || len(w.state().Tokens()) != 0 {
		t.Errorf("shown: %+v", w.state().Tokens())
	}
	if _, member := w.state().Member("node-c"); !member {
		t.Error("who joined by it is no member any more")
	}
	w.refused(&revokeTokenCommand{"other"}, ErrNoToken)
}

func TestOldTokensAreDropped(t *testing.T) {
	w := newWorld(t)
	w.must(putToken(hour("old", 1)))
	w.must(putToken(hour("revoked", 1)))
	w.must(&revokeTokenCommand{"revoked"})
	day := 24 * 3600
	fresh := hour("fresh", 1)
	fresh.Expires = at(10 * day)
	put := func(id string, seconds int) {
		token := fresh
		token.ID = id
		w.must(&putTokenCommand{Token: token, At: at(seconds)})
	}
	put("fresh", 3600+day)
	w.refused(redeem("old", "node-c", 3700), ErrTokenExpired) // it says why
	put("fresher", 3600+day+1)
	w.refused(redeem("old", "node-c", 3700), ErrNoToken)
	w.refused(&revokeTokenCommand{"revoked"}, ErrNoToken)
	if got := w.state().Tokens(); len(got) != 2 || got[0].ID != "fresh" || got[1].ID != "fresher" {
		t.Errorf("left: %+v", got)
	}
}
