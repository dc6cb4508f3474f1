package raftmeta

import (
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
)

const kindAdopt = "adopt"

// adoptCommand takes packs and announced uploads of earlier generations into
// the state of a cluster that is being rebuilt: all of them, or none.
//
// What is known already stays, but that it may learn two things which are never
// taken back: that it is acknowledged, and what has replaced it. So the order
// in which packs are found, and repetitions, make no difference.
type adoptCommand struct {
	Packs   []snapshotPack `json:"packs,omitempty"`
	Uploads []Upload       `json:"uploads,omitempty"`
}

func (*adoptCommand) kind() string { return kindAdopt }

func (c *adoptCommand) apply(s *state, index uint64) (any, error) {
	next := *s
	if err := c.adopt(&next, index); err != nil {
		return nil, err
	}
	if s.rebuildDone(s.generation) && (next.packs != s.packs || next.uploads != s.uploads) {
		return nil, fmt.Errorf("adopt %d packs and %d uploads: %w", len(c.Packs), len(c.Uploads), ErrRebuilt)
	}
	*s = next
	return nil, nil
}

func (c *adoptCommand) adopt(s *state, index uint64) error {
	for i := range c.Packs {
		p := c.Packs[i].Pack
		p.Dead = c.Packs[i].Dead
		if err := s.adoptPack(&p, index); err != nil {
			return fmt.Errorf("adopt pack %s: %w", p.ID, err)
		}
	}
	for i := range c.Packs {
		if err := s.checkReplaced(c.Packs[i].Pack.ID); err != nil {
			return fmt.Errorf("adopt pack %s: %w", c.Packs[i].Pack.ID, err)
		}
	}
	for _, u := range c.Uploads {
		if err := s.adoptUpload(u); err != nil {
			return fmt.Errorf("adopt upload %s: %w", u.Key, err)
		}
	}
	return nil
}

// adoptPack adds a pack, or what it tells anew of one that is known.
func (s *state) adoptPack(p *Pack, index uint64) error {
	if err := s.checkAdopted(p); err != nil {
		return err
	}
	old, known := s.packs.get(packKey(p.ID))
	if !known {
		p.Created, p.RetainUntil = p.Created.UTC(), p.RetainUntil.UTC()
		p.Copies = slices.Clone(p.Copies)
		for i := range p.Copies {
			// Whoever looked has a clock of another life, and the object may have
			// changed since: nothing is deleted before it was read again.
			p.Copies[i].VerifiedAt, p.Copies[i].VerifiedBy = time.Time{}, ""
		}
		p.AddIndex, p.ModIndex = index, index
		s.uploads = s.uploads.delete(p.Copies[0].Key)
		s.put(nil, p)
		return nil
	}
	if !old.sameObject(p) {
		return fmt.Errorf("another pack has this id: %w", ErrConflict)
	}
	next := *old
	if p.Acknowledged && !old.Acknowledged { // else the first word counts
		next.Acknowledged, next.Dead = true, p.Dead
	}
	if !p.ReplacedBy.IsZero() && old.ReplacedBy.IsZero() {
		next.ReplacedBy = p.ReplacedBy
	}
	if next.Acknowledged == old.Acknowledged && next.ReplacedBy == old.ReplacedBy {
		return nil
	}
	next.ModIndex = index
	s.put(old, &next)
	return nil
}

// checkAdopted refuses what contradicts itself, and what is of no earlier
// generation: only of that is it certain that nobody adds it otherwise.
func (s *state) checkAdopted(p *Pack) error {
	invalid := func(what string) error { return fmt.Errorf("%s: %w", what, ErrInvalid) }
	n := len(p.Dead)
	switch what := contradiction(p); {
	case what != "":
		return invalid(what)
	case !s.earlier(p.Token):
		return invalid(fmt.Sprintf("token %s in generation %d", p.Token, s.generation))
	case len(p.Copies) == 0 || p.Copies[0].Site != "" || p.Copies[0].Key != desformat.PackKey(p.Range, p.Token, p.ID):
		return invalid("its first copy must be in the cluster's own store, under the pack's key")
	case n > 0 && !p.Acknowledged:
		return invalid("dead records before it was acknowledged")
	case n > 0 && p.Dead[n-1] >= p.Records:
		return invalid(fmt.Sprintf("dead ordinal %d of %d records", p.Dead[n-1], p.Records))
	}
	return nil
}

func (s *state) earlier(t desformat.Token) bool {
	return t.Generation > 0 && t.Generation < s.generation
}

// sameObject reports whether two entries tell of the same bytes.
func (p *Pack) sameObject(q *Pack) bool {
	return p.Token == q.Token && p.Range == q.Range && p.Size == q.Size && p.SHA256 == q.SHA256
}

// checkReplaced refuses a pack that gives way to one that nobody knows: reads
// would find neither.
func (s *state) checkReplaced(id desformat.PackID) error {
	p, _ := s.packs.get(packKey(id))
	for range s.packs.len() {
		if p.ReplacedBy.IsZero() {
			return nil
		}
		by, ok := s.packs.get(packKey(p.ReplacedBy))
		if !ok {
			return fmt.Errorf("pack %s is replaced by %s: %w", p.ID, p.ReplacedBy, ErrUnknownPack)
		}
		p = by
	}
	return fmt.Errorf("it replaces itself: %w", ErrInvalid)
}

// adoptUpload announces an object of an earlier generation that is no pack, so
// that it is collected like any other.
func (s *state) adoptUpload(u Upload) error {
	_, token, id, err := desformat.ParsePackKey(u.Key)
	if err != nil || token != u.Token || id != u.Pack || !s.earlier(token) {
		return fmt.Errorf("of pack %s under token %s in generation %d: %w", u.Pack, u.Token, s.generation, ErrInvalid)
	}
	if p, known := s.packs.get(packKey(u.Pack)); known {
		if p.Copies[0].Key != u.Key {
			return fmt.Errorf("its pack is stored at %s: %w", p.Copies[0].Key, ErrConflict)
		}
		return nil
	}
	if _, known := s.uploads.get(u.Key); known {
		return nil
	}
	u.BeganAt = u.BeganAt.UTC()
	s.uploads = s.uploads.set(u.Key, u)
	return nil
}
