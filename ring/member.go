package ring

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Errors of this package, returned wrapped; compare with errors.Is.
var (
	// ErrBadID: the text is not a UUID in its canonical form.
	ErrBadID = errors.New("not a node id")
	// ErrConfig: a field of Config is outside its range.
	ErrConfig = errors.New("invalid ring configuration")
	// ErrMembers: a member has no id, or one that is in two zones at once, or
	// there are more than MaxMembers.
	ErrMembers = errors.New("invalid ring members")
)

// NodeID names one node for good: a UUID as text, in lower case.
type NodeID string

// ParseNodeID returns s as a NodeID, or ErrBadID unless it is a UUID in its
// canonical form of 36 characters.
func ParseNodeID(s string) (NodeID, error) {
	if id, err := uuid.Parse(s); err != nil || id.String() != s {
		return "", fmt.Errorf("%q: %w", s, ErrBadID)
	}
	return NodeID(s), nil
}

// String returns the id as text.
func (id NodeID) String() string { return string(id) }

// Member is a node that takes its share of the shards.
type Member struct {
	ID   NodeID
	Zone string // what fails together; "" is a zone too
}

// memberSet returns the members sorted by id, each of them once.
func memberSet(members []Member) ([]Member, error) {
	set := slices.Clone(members)
	slices.SortFunc(set, func(a, b Member) int {
		return cmp.Or(strings.Compare(string(a.ID), string(b.ID)), strings.Compare(a.Zone, b.Zone))
	})
	set = slices.Compact(set)
	if len(set) > MaxMembers {
		return nil, fmt.Errorf("%d members: %w", len(set), ErrMembers)
	}
	for i, m := range set {
		switch {
		case m.ID == "":
			return nil, fmt.Errorf("member without an id: %w", ErrMembers)
		case i > 0 && set[i-1].ID == m.ID:
			return nil, fmt.Errorf("%s in the zones %q and %q: %w", m.ID, set[i-1].Zone, m.Zone, ErrMembers)
		}
	}
	return set, nil
}

// Digest tells rings apart; as text it is lower-case hex. The zero Digest is
// nobody's.
type Digest [8]byte

// String returns d in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }
