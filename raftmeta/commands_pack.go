package raftmeta

import (
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
)

const (
	kindBeginUpload  = "begin-upload"
	kindForgetUpload = "forget-upload"
	kindAddPack      = "add-pack"
	kindAckPack      = "ack-pack"
	kindVerifyPack   = "verify-pack"
)

// beginUploadCommand announces an object before its first byte is sent.
type beginUploadCommand struct {
	Upload Upload `json:"upload"`
}

func (*beginUploadCommand) kind() string { return kindBeginUpload }

func (c *beginUploadCommand) apply(s *state, _ uint64) (any, error) {
	u := c.Upload
	r, token, id, err := desformat.ParsePackKey(u.Key)
	if err != nil || token != u.Token || id != u.Pack {
		return nil, fmt.Errorf("begin upload %q of pack %s under token %s: key and upload differ: %w", u.Key, u.Pack, u.Token, ErrInvalid)
	}
	// The key of a pack that has been added is not announced again: that would
	// make a live object look like garbage.
	known := false
	if p, added := s.packs.get(packKey(u.Pack)); added {
		known = p.Copies[0].Key == u.Key
		if !known {
			return nil, fmt.Errorf("begin upload %s: its pack is stored at %s: %w", u.Key, p.Copies[0].Key, ErrConflict)
		}
	}
	for _, other := range s.uploads.all() {
		known = known || other.Key == u.Key
		if other.Pack == u.Pack && other.Key != u.Key {
			return nil, fmt.Errorf("begin upload %s: its pack is announced at %s: %w", u.Key, other.Key, ErrConflict)
		}
	}
	if known {
		return nil, nil
	}
	l, ok := s.leases.get(tokenKey(u.Token))
	if !ok || l.Job.Kind != JobPack || l.Job.Range != r {
		return nil, fmt.Errorf("begin upload %s: %w", u.Key, ErrStale)
	}
	u.BeganAt = u.BeganAt.UTC()
	s.uploads = s.uploads.set(u.Key, u)
	return nil, nil
}

// forgetUploadCommand drops an announced key whose object has been collected.
type forgetUploadCommand struct {
	Key string `json:"key"`
}

func (*forgetUploadCommand) kind() string { return kindForgetUpload }

func (c *forgetUploadCommand) apply(s *state, _ uint64) (any, error) {
	u, ok := s.uploads.get(c.Key)
	if !ok {
		return nil, nil
	}
	if !s.garbage(u) {
		return nil, fmt.Errorf("forget upload %s: %w", c.Key, ErrInUse)
	}
	s.uploads = s.uploads.delete(c.Key)
	return nil, nil
}

// addPackCommand commits a pack. From here on it exists.
type addPackCommand struct {
	Pack Pack `json:"pack"`
}

func (*addPackCommand) kind() string { return kindAddPack }

func (c *addPackCommand) apply(s *state, index uint64) (any, error) {
	p := c.Pack
	if err := checkPack(&p); err != nil {
		return nil, err
	}
	if old, ok := s.packs.get(packKey(p.ID)); ok {
		if old.Token != p.Token || old.Range != p.Range || old.Size != p.Size || old.SHA256 != p.SHA256 {
			return nil, fmt.Errorf("add pack %s: another pack has this id: %w", p.ID, ErrConflict)
		}
		return old, nil
	}
	l, ok := s.leases.get(tokenKey(p.Token))
	if !ok || l.Job.Kind != JobPack || l.Job.Range != p.Range {
		return nil, fmt.Errorf("add pack %s under token %s: %w", p.ID, p.Token, ErrStale)
	}
	u, ok := s.uploads.get(p.Copies[0].Key)
	if !ok || u.Pack != p.ID || u.Token != p.Token {
		return nil, fmt.Errorf("add pack %s: %w", p.ID, ErrNoUpload)
	}
	for _, q := range s.ranges.at(p.Range) {
		if q.Token == p.Token {
			// Two packs of one lease could hold one name under one seq.
			return nil, fmt.Errorf("add pack %s: token %s has made pack %s: %w", p.ID, p.Token, q.ID, ErrConflict)
		}
	}
	p.Created = p.Created.UTC()
	p.PackedBy = l.Holder
	p.AddIndex, p.ModIndex = index, index
	s.uploads = s.uploads.delete(u.Key)
	s.put(nil, &p)
	return &p, nil
}

// checkPack refuses what contradicts itself, whatever the state is.
func checkPack(p *Pack) error {
	fail := func(what string) error {
		return fmt.Errorf("add pack %s: %s: %w", p.ID, what, ErrInvalid)
	}
	switch what := contradiction(p); {
	case what != "":
		return fail(what)
	case len(p.Copies) != 1 || p.Copies[0].Site != "" || p.Copies[0].Key != desformat.PackKey(p.Range, p.Token, p.ID):
		return fail("its one copy must be in the cluster's own store, under the pack's key")
	case !p.Copies[0].VerifiedAt.IsZero() || p.Copies[0].VerifiedBy != "" || p.Copies[0].Damage != "":
		return fail("verified before it was added")
	case p.Acknowledged || len(p.Dead) > 0 || !p.ReplacedBy.IsZero():
		return fail("acknowledged or replaced before it was added")
	}
	return nil
}

// contradiction says what is impossible in what a pack says of its bytes; "":
// nothing.
func contradiction(p *Pack) string {
	switch {
	case p.ID.IsZero():
		return "no id"
	case p.Size <= 0 || p.Records == 0 || p.PayloadBytes < 0:
		return "empty"
	case !inside(p.Catalog, p.Size) || !inside(p.Index, p.Size):
		return "a section beyond the object's end"
	case p.MinSeq.Compare(p.MaxSeq) > 0 || p.MaxSeq.Compare(p.Token) > 0:
		return fmt.Sprintf("seqs %s to %s under token %s", p.MinSeq, p.MaxSeq, p.Token)
	}
	return ""
}

func inside(s desformat.Section, size int64) bool {
	return s.Offset >= 0 && s.Length >= 0 && s.Length <= size && s.Offset <= size-s.Length
}

// put replaces old by p in the manifest; old is nil for a new pack.
func (s *state) put(old, p *Pack) {
	s.packs = s.packs.set(packKey(p.ID), p)
	s.awaited = max(s.awaited, p.awaitedAt())
	if old != nil && !old.ReplacedBy.IsZero() {
		old = nil // it is not in the trie any more
	}
	shown := p
	if !p.ReplacedBy.IsZero() {
		shown = nil
	}
	if old != nil || shown != nil {
		s.ranges = s.ranges.with(p.Range, old, shown)
	}
}

// ackPackCommand records that every row of a pack has been acknowledged, and
// which records are dead. The first one counts: a record it left alive may
// have become the only copy of its file.
type ackPackCommand struct {
	Pack  desformat.PackID `json:"pack"`
	Dead  ordinals         `json:"dead"`
	Token desformat.Token  `json:"token,omitzero"` // the lease it was done under; zero: none
}

func (*ackPackCommand) kind() string { return kindAckPack }

func (c *ackPackCommand) apply(s *state, index uint64) (any, error) {
	old, ok := s.packs.get(packKey(c.Pack))
	if !ok {
		return nil, fmt.Errorf("acknowledge pack %s: %w", c.Pack, ErrUnknownPack)
	}
	if old.Acknowledged {
		return nil, nil
	}
	if err := s.mayAck(old, c.Token); err != nil {
		return nil, err
	}
	if n := len(c.Dead); n > 0 && c.Dead[n-1] >= old.Records {
		return nil, fmt.Errorf("acknowledge pack %s: ordinal %d of %d records: %w", c.Pack, c.Dead[n-1], old.Records, ErrInvalid)
	}
	p := *old
	p.Acknowledged, p.Dead, p.ModIndex = true, c.Dead, index
	s.put(old, &p)
	return nil, nil
}

// mayAck fences acknowledgements: who lost the lease may have judged rows that
// its successor judged otherwise. Without a lease it is allowed only while
// nobody else holds one for this pack.
func (s *state) mayAck(p *Pack, token desformat.Token) error {
	if !token.IsZero() {
		l, live := s.leases.get(tokenKey(token))
		own := token == p.Token || l.Job.Kind == JobAck && slices.Contains(l.Job.Packs, p.ID)
		if !live || !own {
			return fmt.Errorf("acknowledge pack %s under token %s: %w", p.ID, token, ErrStale)
		}
		return nil
	}
	for _, l := range s.leases.all() {
		if l.Token == p.Token || l.Job.Kind == JobAck && slices.Contains(l.Job.Packs, p.ID) {
			return fmt.Errorf("acknowledge pack %s: %s holds %s: %w", p.ID, l.Holder, l.Job, ErrClash)
		}
	}
	return nil
}

// verifyPackCommand records what reading a copy back has found.
type verifyPackCommand struct {
	Pack  desformat.PackID `json:"pack"`
	Seen  Copy             `json:"seen"` // the manifest's word when the reading began
	Found Copy             `json:"found"`
}

func (*verifyPackCommand) kind() string { return kindVerifyPack }

func (c *verifyPackCommand) apply(s *state, index uint64) (any, error) {
	old, ok := s.packs.get(packKey(c.Pack))
	if !ok {
		return nil, fmt.Errorf("verify pack %s: %w", c.Pack, ErrUnknownPack)
	}
	seen, found := c.Seen, c.Found
	i := slices.IndexFunc(old.Copies, func(have Copy) bool {
		return have.Site == found.Site && have.Key == found.Key && (have.Version == seen.Version || have.Version == found.Version)
	})
	if i < 0 || seen.Site != found.Site || seen.Key != found.Key || found.VerifiedAt.IsZero() {
		return nil, fmt.Errorf("verify pack %s: no such copy, or no time: %w", c.Pack, ErrInvalid)
	}
	if found.Damage != "" && found.Version != seen.Version {
		return nil, fmt.Errorf("verify pack %s: a damaged object in the place of another: %w", c.Pack, ErrInvalid)
	}
	found.VerifiedAt = found.VerifiedAt.UTC()
	have := old.Copies[i]
	if sameCopy(have, found) {
		return nil, nil // repeated
	}
	// Which of two looks is the newer one is not a question for their clocks:
	// one that was in the future once would win for ever.
	if !sameCopy(have, seen) && (found.Damage == "" || have.Version != found.Version) {
		return nil, nil // overtaken by another look
	}
	p := *old
	p.Copies = slices.Clone(old.Copies)
	p.Copies[i] = found
	p.ModIndex = index
	s.put(old, &p)
	return nil, nil
}

func sameCopy(a, b Copy) bool {
	sameTime := a.VerifiedAt.Equal(b.VerifiedAt)
	a.VerifiedAt, b.VerifiedAt = time.Time{}, time.Time{}
	return sameTime && a == b
}
