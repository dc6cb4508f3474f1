package raftmeta

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// commandVersion is the version of the encoding of all commands. A node that
// does not know a kind or a field of it stops by that, rather than diverge;
// another meaning of what is known needs a new version. Version 1, still read,
// did not name the proposer.
const commandVersion = 2

// command is one change of the state. apply runs on every node and must reach
// the same state and answer on each: nothing but the state, the command and
// the log index may enter it. On an error it has changed nothing.
type command interface {
	kind() string
	apply(s *state, index uint64) (any, error)
}

// envelope is a command as it stands in the Raft log: JSON, one object.
type envelope struct {
	Version int             `json:"v"`
	Kind    string          `json:"kind"`
	From    NodeID          `json:"from,omitempty"` // who proposed it; refused when that is no member
	Term    uint64          `json:"term,omitempty"` // refused in an entry of another term; 0: any
	Body    json.RawMessage `json:"body"`
}

// newCommand returns an empty command of that kind to decode into.
func newCommand(kind string) (command, bool) {
	switch kind {
	case kindForm:
		return new(formCommand), true
	case kindMember:
		return new(memberCommand), true
	case kindAnnounce:
		return new(announceCommand), true
	case kindLeaving:
		return new(leavingCommand), true
	case kindRemoveMember:
		return new(removeMemberCommand), true
	case kindPutToken:
		return new(putTokenCommand), true
	case kindRevokeToken:
		return new(revokeTokenCommand), true
	case kindRedeem:
		return new(redeemCommand), true
	case kindSet:
		return new(setCommand), true
	case kindApplied:
		return new(appliedCommand), true
	case kindGrant:
		return new(grantCommand), true
	case kindRelease:
		return new(releaseCommand), true
	case kindReleaseAll:
		return new(releaseAllCommand), true
	case kindBeginUpload:
		return new(beginUploadCommand), true
	case kindForgetUpload:
		return new(forgetUploadCommand), true
	case kindAddPack:
		return new(addPackCommand), true
	case kindAckPack:
		return new(ackPackCommand), true
	case kindVerifyPack:
		return new(verifyPackCommand), true
	case kindAdopt:
		return new(adoptCommand), true
	}
	return nil, false
}

// encodeCommand encodes a command that a node proposes.
func encodeCommand(from NodeID, c command) ([]byte, error) { return encodeInTerm(from, 0, c) }

// encodeInTerm encodes a command that must not take effect in another term.
func encodeInTerm(from NodeID, term uint64, c command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.kind(), err)
	}
	return json.Marshal(envelope{Version: commandVersion, Kind: c.kind(), From: from, Term: term, Body: body})
}

// decodeCommand returns ErrUnknownCommand for whatever this version does not
// fully understand, an unknown field included.
func decodeCommand(b []byte) (command, envelope, error) {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, e, fmt.Errorf("%w: %w", ErrUnknownCommand, err)
	}
	c, ok := newCommand(e.Kind)
	known := e.Version == commandVersion || e.Version == 1 && e.From == "" && e.Term == 0
	if !known || !ok {
		return nil, e, fmt.Errorf("command %q of version %d: %w", e.Kind, e.Version, ErrUnknownCommand)
	}
	if err := decodeStrict(e.Body, c); err != nil {
		return nil, e, fmt.Errorf("command %q: %w: %w", e.Kind, ErrUnknownCommand, err)
	}
	return c, e, nil
}

// permit says whether a command may take effect at all. A node that was
// removed may still hold a certificate, so each command is held against the
// members of the state it is applied to.
func (e *envelope) permit(s *state, term uint64) error {
	if e.Term != 0 && e.Term != term {
		return fmt.Errorf("%s: meant for term %d, written in %d: %w", e.Kind, e.Term, term, ErrNotLeader)
	}
	if e.Version == 1 || e.Kind == kindForm && s.members.len() == 0 {
		return nil
	}
	if _, member := s.members.get(string(e.From)); !member {
		return fmt.Errorf("%s proposed by %q: %w", e.Kind, e.From, ErrNotMember)
	}
	return nil
}

// decodeStrict refuses fields that v does not have.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
