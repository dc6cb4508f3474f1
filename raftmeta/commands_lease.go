package raftmeta

import (
	"fmt"
	"slices"

	"github.com/datavision/desnode/desformat"
)

const (
	kindGrant      = "grant"
	kindRelease    = "release"
	kindReleaseAll = "release-all"
)

// grantCommand asks for a lease. The token is the index it is applied at.
type grantCommand struct {
	Job     Job    `json:"job"`
	Holder  NodeID `json:"holder"`
	Request string `json:"request"` // random; a repetition finds its lease by it
}

func (*grantCommand) kind() string { return kindGrant }

func (c *grantCommand) apply(s *state, index uint64) (any, error) {
	if s.shardBits == 0 {
		return nil, fmt.Errorf("grant before the cluster is formed: %w", ErrInvalid)
	}
	for _, l := range s.leases.all() {
		if l.Holder == c.Holder && l.Request == c.Request {
			return l.Lease, nil
		}
	}
	if _, member := s.members.get(string(c.Holder)); !member {
		return nil, fmt.Errorf("grant to %q: %w", c.Holder, ErrNotMember)
	}
	if err := s.grantable(c.Job); err != nil {
		return nil, err
	}
	l := Lease{
		Token:  desformat.Token{Generation: s.generation, Index: index},
		Job:    c.Job,
		Holder: c.Holder,
	}
	s.leases = s.leases.set(tokenKey(l.Token), leaseEntry{Lease: l, Request: c.Request})
	return l, nil
}

// grantable holds the job against the live leases and the manifest.
func (s *state) grantable(j Job) error {
	for _, l := range s.leases.all() {
		if clash(l.Job, j) {
			return fmt.Errorf("%s: %s holds %s under token %s: %w", j, l.Holder, l.Job, l.Token, ErrClash)
		}
	}
	if !s.rebuildDone(s.generation) && j.waitsForRebuild() {
		return fmt.Errorf("%s: %w", j, ErrRebuilding)
	}
	switch j.Kind {
	case JobMark:
		if j.Source == "" {
			return fmt.Errorf("%s without a source: %w", j.Kind, ErrInvalid)
		}
	case JobPack:
		if s.ranges.anyUnacked(j.Range) {
			return fmt.Errorf("%s: %w", j, ErrUnacknowledged)
		}
	case JobCollect, JobBackup, JobRebuild:
	case JobAck, JobVerify, JobDelete:
		return s.packsGrantable(j)
	default:
		// An older node that refused what a newer one grants would diverge.
		return fmt.Errorf("job of kind %q: %w", j.Kind, ErrUnknownCommand)
	}
	return nil
}

func (s *state) packsGrantable(j Job) error {
	if len(j.Packs) == 0 {
		return fmt.Errorf("%s without a pack: %w", j.Kind, ErrInvalid)
	}
	for _, id := range j.Packs {
		p, ok := s.packs.get(packKey(id))
		if !ok {
			return fmt.Errorf("%s: pack %s: %w", j.Kind, id, ErrUnknownPack)
		}
		switch {
		case j.Kind == JobAck && p.Acknowledged:
			return fmt.Errorf("pack %s is acknowledged already: %w", id, ErrClash)
		case j.Kind == JobAck && s.live(p.Token):
			return fmt.Errorf("pack %s is being acknowledged by its packer: %w", id, ErrClash)
		case j.Kind == JobDelete && !p.Acknowledged:
			return fmt.Errorf("delete originals of pack %s: %w", id, ErrUnacknowledged)
		}
	}
	return nil
}

// clash reports whether two jobs may not run at once.
func clash(a, b Job) bool {
	if a.locksPacks() && b.locksPacks() {
		return slices.ContainsFunc(a.Packs, func(id desformat.PackID) bool { return slices.Contains(b.Packs, id) })
	}
	if a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case JobPack:
		return a.Range.Overlaps(b.Range)
	case JobMark:
		return a.Source == b.Source
	default:
		return true
	}
}

func (j Job) locksPacks() bool {
	return j.Kind == JobAck || j.Kind == JobVerify || j.Kind == JobDelete
}

// waitsForRebuild: before the manifest names every pack of earlier generations,
// a row would be packed a second time, an original deleted on the word of one
// pack of two, or an object collected that is a pack; and the newest backup
// would hold less than those before it.
func (j Job) waitsForRebuild() bool {
	switch j.Kind {
	case JobMark, JobPack, JobDelete, JobCollect, JobBackup:
		return true
	}
	return false
}

// String names the job in errors and logs.
func (j Job) String() string {
	switch {
	case j.Kind == JobPack:
		return "pack " + j.Range.String()
	case j.Kind == JobMark:
		return "mark " + j.Source
	case len(j.Packs) == 1:
		return string(j.Kind) + " " + j.Packs[0].String()
	case len(j.Packs) > 1:
		return fmt.Sprintf("%s %s and %d more", j.Kind, j.Packs[0], len(j.Packs)-1)
	default:
		return string(j.Kind)
	}
}

// live reports whether t is the token of a live lease.
func (s *state) live(t desformat.Token) bool {
	_, ok := s.leases.get(tokenKey(t))
	return ok
}

// releaseCommand ends one lease: its holder is done, or its time is over.
type releaseCommand struct {
	Token desformat.Token `json:"token"`
}

func (*releaseCommand) kind() string { return kindRelease }

func (c *releaseCommand) apply(s *state, _ uint64) (any, error) {
	s.leases = s.leases.delete(tokenKey(c.Token))
	return nil, nil
}

// releaseAllCommand ends the leases of one holder up to a token index: the
// process that held them is dead. Later ones, of the process that lives, stay.
type releaseAllCommand struct {
	Holder NodeID `json:"holder"`
	UpTo   uint64 `json:"up_to"`
}

func (*releaseAllCommand) kind() string { return kindReleaseAll }

func (c *releaseAllCommand) apply(s *state, _ uint64) (any, error) {
	for key, l := range s.leases.all() {
		if l.Holder == c.Holder && (l.Token.Generation < s.generation || l.Token.Index <= c.UpTo) {
			s.leases = s.leases.delete(key) // the iteration goes over the old table
		}
	}
	return nil, nil
}
