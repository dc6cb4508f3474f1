package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// A pack that a rebuild has found was built in an earlier life of the cluster.
// Whether its rows were acknowledged then, and which of them have moved on since,
// nobody knows: the database may be older than the archive, or have lost what
// desnode wrote, and an original may be gone. So none of its records is dead
// unless that is proven, for a live record that should be dead costs nothing but
// space: the newest seq decides what is served. A dead one that should be live
// is a lost file.

// AcknowledgeAgain acknowledges a pack that a rebuild has adopted, under a lease
// of its own. On one that is acknowledged it changes nothing.
func (k *Keeper) AcknowledgeAgain(ctx context.Context, p *raftmeta.Pack) error {
	if cur := k.cfg.Manifest.View().Pack(p.ID); cur != nil && cur.Acknowledged {
		return nil
	}
	return k.acknowledgeLeased(ctx, p)
}

// ofEarlierLife reports whether p was built before this generation began.
func (k *Keeper) ofEarlierLife(p *raftmeta.Pack) bool {
	return p.Token.Generation < k.cfg.Manifest.View().Generation()
}

// isDead judges a record by what its row's acknowledgement has found.
func (a *acknowledging) isDead(ctx context.Context, s source.Source, ack source.Ack, r source.AckResult) (bool, error) {
	switch r {
	case source.AckDone:
		return false, nil
	case source.AckGone:
		if a.earlier {
			return a.provenDead(ctx, s, ack)
		}
		return true, nil
	case source.AckRefused, source.AckNoRow, source.AckOtherPack, source.AckOlder:
		return !a.earlier, nil
	}
	return false, fmt.Errorf("unknown result %d", r)
}

// provenDead reports whether a record that no acknowledgement has ever reached
// can be done without: its row lists another file by now, no pack has the row,
// and that file stands where the row says, to be archived.
func (a *acknowledging) provenDead(ctx context.Context, s source.Source, ack source.Ack) (bool, error) {
	row, err := s.Rows.ByID(ctx, ack.ID)
	switch {
	case errors.Is(err, source.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case !row.Pack.IsZero(), row.Size == ack.Size && row.ModTime.Equal(ack.ModTime):
		return false, nil
	}
	f, err := s.Files.Open(ctx, row.Path)
	if err != nil {
		return false, ctx.Err() // whatever hides it, nothing is proven
	}
	info := f.Info()
	if err := f.Close(); err != nil {
		return false, nil //nolint:nilerr // as above
	}
	return info.Size == row.Size && !info.Modified(row.ModTime, s.Rows.TimePrecision()), nil
}
