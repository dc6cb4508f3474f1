package raftmeta

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/datavision/desnode/desformat"
)

// Adoption is what earlier generations have left in the store.
type Adoption struct {
	Packs   []Pack
	Uploads []Upload
}

const (
	// adoptCount and adoptBytes bound one command. Both keep it far below what
	// the log takes; a pack with a long list of dead records goes alone.
	adoptCount = 256
	adoptBytes = 1 << 20
)

// Adopt takes packs and announced uploads of earlier generations into the
// state, as long as the rebuild that began this generation is not recorded as
// done (RecordRebuild). A pack keeps what it says of itself: Created, PackedBy,
// Acknowledged and Dead, ReplacedBy, RetainUntil, Hold, Copies with their
// Damage; but AddIndex and ModIndex are those of the adoption, and no copy counts
// as verified. One that is not Acknowledged is acknowledged later. An upload is
// garbage after RecordRebuild, unless its pack is known.
//
// It may be repeated, in parts and in any order. Of a pack that is known only
// two things are taken over: that it is acknowledged, when it was not, with its
// dead records, and what replaced it, when nothing had. A pack that replaced
// another is adopted before it, or in the same call.
//
// It is many commands, of at most 256 packs and uploads and about 1 MiB each:
// an error may leave a part adopted. ErrConflict: another pack is known by an
// id. ErrUnknownPack: what replaced a pack is not known. ErrInvalid: a pack that
// contradicts itself, or of no earlier generation. ErrRebuilt: the rebuild is
// recorded as done, and not all of it is known.
func (m *Meta) Adopt(ctx context.Context, a Adoption) error { return adopt(ctx, a, m.propose) }

// adopt sends an adoption in commands of their bounded size.
func adopt(ctx context.Context, a Adoption, propose func(context.Context, command) (any, error)) error {
	c, size := &adoptCommand{}, 0
	flush := func() error {
		if len(c.Packs)+len(c.Uploads) == 0 {
			return nil
		}
		_, err := propose(ctx, c)
		c, size = &adoptCommand{}, 0
		return err
	}
	room := func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode %s: %w", kindAdopt, err)
		}
		if n := len(c.Packs) + len(c.Uploads); n == adoptCount || n > 0 && size+len(b) > adoptBytes {
			err = flush()
		}
		size += len(b)
		return err
	}
	for _, p := range replacersFirst(a.Packs) {
		one := snapshotPack{Pack: *p, Dead: p.Dead}
		one.Pack.Dead = nil
		if err := room(one); err != nil {
			return err
		}
		c.Packs = append(c.Packs, one)
	}
	for _, u := range a.Uploads {
		if err := room(u); err != nil {
			return err
		}
		c.Uploads = append(c.Uploads, u)
	}
	return flush()
}

// replacersFirst returns the packs so that what replaced one comes before it.
func replacersFirst(packs []Pack) []*Pack {
	byID := make(map[desformat.PackID]*Pack, len(packs))
	for i := range packs {
		byID[packs[i].ID] = &packs[i]
	}
	out := make([]*Pack, 0, len(packs))
	done := make(map[*Pack]bool, len(packs))
	for i := range packs {
		var chain []*Pack
		for p := &packs[i]; p != nil && !done[p]; p = byID[p.ReplacedBy] {
			done[p] = true
			chain = append(chain, p)
		}
		for len(chain) > 0 {
			out = append(out, chain[len(chain)-1])
			chain = chain[:len(chain)-1]
		}
	}
	return out
}
