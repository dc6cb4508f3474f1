package raftmeta

import (
	"errors"

	"github.com/hashicorp/raft"
)

// refusal is an error as it crosses the network: its text, and the codes of
// the errors of this package that it is.
type refusal struct {
	Text  string   `json:"text"`
	Codes []string `json:"codes"`
}

// coded is a sentinel error and its name on the wire. Names are never reused.
type coded struct {
	code string
	err  error
}

// codes returns the errors that keep their identity between nodes. Those about
// the process that was asked (its dir, its end) are not among them.
func codes() []coded {
	return []coded{
		{"moved", errMoved},
		{"clash", ErrClash},
		{"unacknowledged", ErrUnacknowledged},
		{"stale", ErrStale},
		{"no-upload", ErrNoUpload},
		{"in-use", ErrInUse},
		{"unconfirmed", ErrUnconfirmed},
		{"conflict", ErrConflict},
		{"unknown-pack", ErrUnknownPack},
		{"not-member", ErrNotMember},
		{"removed", ErrRemoved},
		{"last-member", ErrLastMember},
		{"vote-needed", ErrVoteNeeded},
		{"no-token", ErrNoToken},
		{"token-expired", ErrTokenExpired},
		{"token-used", ErrTokenUsed},
		{"rebuilding", ErrRebuilding},
		{"rebuilt", ErrRebuilt},
		{"invalid", ErrInvalid},
		{"unknown-command", ErrUnknownCommand},
	}
}

// refuse encodes an error. One that says nothing about the command, only about
// the one who was asked, is errMoved: the caller asks again, perhaps another.
func refuse(err error) *refusal {
	r := &refusal{Text: err.Error()}
	for _, c := range codes() {
		if errors.Is(err, c.err) {
			r.Codes = append(r.Codes, c.code)
		}
	}
	if len(r.Codes) == 0 || isMoving(err) {
		r.Codes = []string{"moved"}
	}
	return r
}

// err decodes a refusal; nil: there is none. What only a newer version knows
// is an error whose outcome is unknown.
func (r *refusal) err() error {
	if r == nil {
		return nil
	}
	e := &remoteError{text: r.Text}
	for _, c := range codes() {
		for _, code := range r.Codes {
			if c.code == code {
				e.kinds = append(e.kinds, c.err)
			}
		}
	}
	return e
}

// remoteError is an error that another node answered.
type remoteError struct {
	text  string
	kinds []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.kinds }

// isMoving: leadership was lost before or while the command was committed.
// In the second case it may yet be committed.
func isMoving(err error) bool {
	for _, moving := range []error{
		errMoved, raft.ErrLeadershipLost, raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress, raft.ErrAbortedByRestore,
	} {
		if errors.Is(err, moving) {
			return true
		}
	}
	return false
}
