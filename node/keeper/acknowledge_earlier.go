package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
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

// isDead judges a record by what its row's acknowledgement has found; elsewhere
// are rows that other packs have.
func (a *acknowledging) isDead(ctx context.Context, s source.Source, ack source.Ack, r source.AckResult, elsewhere map[string]source.Row) (bool, error) {
	switch r {
	case source.AckDone:
		return false, nil
	case source.AckGone:
		if a.earlier {
			return a.provenDead(ctx, s, ack)
		}
		return true, nil
	case source.AckOtherPack:
		if row, ok := elsewhere[ack.ID]; ok && a.earlier {
			return a.wentBack(ctx, row, ack)
		}
		return !a.earlier, nil
	case source.AckRefused, source.AckNoRow, source.AckOlder:
		return !a.earlier, nil
	}
	return false, fmt.Errorf("unknown result %d", r)
}

// elsewhere returns the rows that other packs have by now, of a pack of an
// earlier life; by their ids.
func (a *acknowledging) elsewhere(ctx context.Context, s source.Source, acks []source.Ack, results []source.AckResult) (map[string]source.Row, error) {
	var ids []string
	for i, r := range results {
		if a.earlier && r == source.AckOtherPack {
			ids = append(ids, acks[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil //nolint:nilnil // there are none
	}
	rows, err := s.Rows.ByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	found := make(map[string]source.Row, len(rows))
	for _, r := range rows {
		found[r.ID] = r
	}
	return found, nil
}

// wentBack reports whether the record's row was acknowledged to an older pack at
// a later version than the record's: its file was changed, and changed back
// before this record was acknowledged. It is dead then, or it would hide the
// record that the row has, for good: nobody archives that file as the newest
// again. A row at the record's version or below says nothing: its table may have
// been put back.
func (a *acknowledging) wentBack(ctx context.Context, row source.Row, ack source.Ack) (bool, error) {
	older := a.k.cfg.Manifest.View().Pack(row.Pack)
	switch {
	case row.State != source.Packed && row.State != source.DeletedSource,
		row.DesName != ack.Name, row.Version <= ack.Version,
		!live(older) || !undamaged(older) || older.Token.Compare(a.pack.Token) >= 0:
		return false, nil
	}
	c, err := ownCopy(older)
	if err != nil {
		return false, nil //nolint:nilerr // it can't be read here, so it proves nothing
	}
	for e, err := range desformat.ReadCatalog(ctx, objectFetcher{a.k.cfg.Store, c.Key, c.Version}, older.Catalog) {
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, desformat.ErrCorrupt):
			return false, nil // as above
		case err != nil:
			return false, fmt.Errorf("pack %s: catalog: %w", older.ID, err)
		case e.Type == desformat.TypeFile && e.Source == row.Source && e.ID == row.ID && e.Name == row.DesName &&
			e.SourceSize == row.Size && e.SourceTime.Equal(row.ModTime) && !older.IsDead(e.Ordinal):
			return true, nil
		}
	}
	return false, nil
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
	case row.DesName != ack.Name: // the id may be another file's by now
		return false, nil
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
