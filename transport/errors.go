package transport

import (
	"errors"
	"fmt"
	"time"
)

// Errors of this package, returned wrapped; compare with errors.Is.
var (
	// ErrMalformed: the bytes are not a frame or message of the protocol.
	ErrMalformed = errors.New("malformed frame")
	// ErrTooLarge: a length is beyond the protocol's bound for it.
	ErrTooLarge = errors.New("frame or field too large")
	// ErrChecksum: bytes were changed between the writer and the reader.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrVersion: written by a version of desnode whose frames, tokens or
	// envelopes this one does not know, or with a critical field unknown here.
	ErrVersion = errors.New("unsupported version")

	// ErrIdentity: the certificate does not belong to the node, the cluster or
	// the CA that was expected, or is out of its time.
	ErrIdentity = errors.New("the peer's identity was refused")
	// ErrNotMember: the node is not, or no longer, a member of the cluster.
	ErrNotMember = errors.New("not a member of the cluster")
	// ErrRefused: the peer did not accept our certificate, or does not serve the
	// plane.
	ErrRefused = errors.New("refused by the peer")
	// ErrUnreachable: no connection, or the connection broke.
	ErrUnreachable = errors.New("the peer cannot be reached")
	// ErrBreaker: the peer failed lately and is left alone for a moment.
	ErrBreaker = errors.New("the peer failed lately")
	// ErrClosed: the endpoint does not run, or not any more.
	ErrClosed = errors.New("transport is closed")

	// ErrToken: the text is not a join token, or the cluster does not know it, or
	// its secret is another.
	ErrToken = errors.New("wrong join token")
	// ErrTokenExpired: the join token's time is over.
	ErrTokenExpired = errors.New("the join token has expired")
	// ErrTokenUsed: the join token was used as often as it may be.
	ErrTokenUsed = errors.New("the join token is used up")
	// ErrCAChanged: the cluster that answers is not the one that gave the token.
	ErrCAChanged = errors.New("the cluster's CA is not the token's")
	// ErrAlreadyMember: another node of that id is a member.
	ErrAlreadyMember = errors.New("already a member of the cluster")
	// ErrSealed: the cluster secret does not open what is sealed, or its bytes
	// were changed.
	ErrSealed = errors.New("the cluster secret does not open it")
)

// What an answering node says, as *RemoteError. A Reader returns them, wrapped
// or not, and its caller finds them again.
var (
	// ErrNotFound: no such file, as far as the answering node has applied.
	ErrNotFound = errors.New("no such file")
	// ErrGone: the file was there and has been deleted.
	ErrGone = errors.New("the file is gone")
	// ErrDeclined: the answering node has not applied the least index yet.
	ErrDeclined = errors.New("declined: behind the index asked for")
	// ErrNotOwner: the answering node does not own the shard and will not answer.
	ErrNotOwner = errors.New("not an owner of the shard")
	// ErrBusy: too much is under way there.
	ErrBusy = errors.New("the node is busy")
	// ErrUnavailable: the store or a source does not answer there.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnconfirmed: a miss that no leader confirmed.
	ErrUnconfirmed = errors.New("a miss that is not confirmed")
	// ErrCorrupt: the record is damaged.
	ErrCorrupt = errors.New("corrupt record")
	// ErrInvalid: the request contradicts itself.
	ErrInvalid = errors.New("invalid request")
	// ErrHopLoop: the request was forwarded already.
	ErrHopLoop = errors.New("forwarded more than once")
	// ErrUnsupported: the answering node does not know what is asked.
	ErrUnsupported = errors.New("unsupported request")
	// ErrRange: the range lies outside the content.
	ErrRange = errors.New("range outside the content")
	// ErrTooLate: the time left was over before the answer.
	ErrTooLate = errors.New("too late for an answer")
	// ErrInternal: anything else that went wrong there.
	ErrInternal = errors.New("internal error of the node")
)

// Status says how a request ended.
type Status uint8

// The statuses; numbers are on the wire.
const (
	StatusOK          Status = 1
	StatusNotFound    Status = 2
	StatusGone        Status = 3
	StatusDeclined    Status = 4
	StatusNotOwner    Status = 5
	StatusBusy        Status = 6
	StatusUnavailable Status = 7
	StatusUnconfirmed Status = 8
	StatusCorrupt     Status = 9
	StatusInvalid     Status = 10
	StatusHopLoop     Status = 11
	StatusUnsupported Status = 12
	StatusRange       Status = 13
	StatusTooLate     Status = 14
	StatusInternal    Status = 15
)

// statusErrors pairs statuses and errors; what is not found here is internal.
func statusErrors() []struct {
	status Status
	err    error
} {
	return []struct {
		status Status
		err    error
	}{
		{StatusNotFound, ErrNotFound},
		{StatusGone, ErrGone},
		{StatusDeclined, ErrDeclined},
		{StatusNotOwner, ErrNotOwner},
		{StatusBusy, ErrBusy},
		{StatusUnavailable, ErrUnavailable},
		{StatusUnconfirmed, ErrUnconfirmed},
		{StatusCorrupt, ErrCorrupt},
		{StatusInvalid, ErrInvalid},
		{StatusHopLoop, ErrHopLoop},
		{StatusUnsupported, ErrUnsupported},
		{StatusRange, ErrRange},
		{StatusTooLate, ErrTooLate},
		{StatusInternal, ErrInternal},
	}
}

// err returns the sentinel of a status that is not OK.
func (s Status) err() error {
	for _, p := range statusErrors() {
		if p.status == s {
			return p.err
		}
	}
	return ErrInternal
}

// String returns the status in words.
func (s Status) String() string {
	if s == StatusOK {
		return "ok"
	}
	return s.err().Error()
}

// statusOf returns the status that an error of a Reader stands for.
func statusOf(err error) Status {
	for _, p := range statusErrors() {
		if errors.Is(err, p.err) {
			return p.status
		}
	}
	return StatusInternal
}

// RemoteError is an answer that is not OK. errors.Is finds the sentinel of its
// status in it. A Reader may return one to set the fields itself.
type RemoteError struct {
	Node       string // who answered; set by the caller's side
	Status     Status
	Code       string        // stable problem code, at most 64 bytes
	Detail     string        // for people, at most 1024 bytes
	Applied    uint64        // Raft index that the node has applied
	RetryAfter time.Duration // 0: not said; whole milliseconds
}

// Error implements error.
func (e *RemoteError) Error() string {
	text := e.Status.String()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Node == "" {
		return text
	}
	return fmt.Sprintf("node %s: %s", e.Node, text)
}

// Unwrap returns the sentinel of the status.
func (e *RemoteError) Unwrap() error { return e.Status.err() }
