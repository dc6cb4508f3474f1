package inspect

import (
	"context"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// scan hands each batch of a source's rows to f.
func scan(ctx context.Context, s Source, f func([]source.Row) error) error {
	for after := ""; ; {
		rows, err := s.Rows.Rows(ctx, after, source.MaxBatch)
		if err != nil {
			return fmt.Errorf("source %s: rows after %q: %w", s.Name, after, err)
		}
		if len(rows) == 0 {
			return nil
		}
		if err := f(rows); err != nil {
			return err
		}
		after = rows[len(rows)-1].ID
	}
}

// compareRows reads every row and holds the pack that it names against the
// manifest.
func (c *comparison) compareRows(ctx context.Context) error {
	for _, s := range c.i.cfg.Sources {
		if err := scan(ctx, s, func(rows []source.Row) error {
			var odd []source.Row
			for _, row := range rows {
				c.counts.Rows++
				if archived(row) && c.view.Pack(row.Pack) != nil {
					c.named[pledge{s.Name, row.Pack}]++
				}
				if c.oddRow(c.i.cfg.Manifest.View(), s.Name, row) != nil {
					odd = append(odd, row)
				}
			}
			if err := c.oddRows(ctx, s, odd); err != nil {
				return err
			}
			return c.tell(false)
		}); err != nil {
			return err
		}
	}
	return nil
}

// archived reports whether the row says that its file is in a pack.
func archived(row source.Row) bool {
	return row.State == source.Packed || row.State == source.DeletedSource
}

// oddRows looks again at rows that did not fit, and at the manifest: what was
// archived or deleted meanwhile is no difference.
func (c *comparison) oddRows(ctx context.Context, s Source, rows []source.Row) error {
	if len(rows) == 0 {
		return nil
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	now, err := s.Rows.ByIDs(ctx, ids)
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	view, err := c.i.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	claims := map[string]string{}
	for _, row := range rows {
		claims[row.ID] = row.Claim
	}
	for _, row := range now {
		d := c.oddRow(view, s.Name, row)
		if d == nil || d.Kind == KindRowClaimed && row.Claim != claims[row.ID] {
			continue
		}
		if err := c.differs(*d); err != nil {
			return err
		}
	}
	return nil
}

// oddRow returns what does not fit between a row and the manifest; nil: nothing.
func (c *comparison) oddRow(view *raftmeta.View, src string, row source.Row) *Difference {
	d := &Difference{Subject: subject(src, row.ID)}
	switch {
	case archived(row) && row.Pack.IsZero():
		d.Kind, d.Severity = KindRowPackless, AtRisk
		d.Found = fmt.Sprintf("the row is %s and names no pack", row.State)
		d.Cure = "desnode locate says where the file is; when it is archived, 'desnode rebuild --source' writes the columns back"
	case archived(row) && view.Pack(row.Pack) == nil:
		d.Kind, d.Severity = KindRowUnknown, AtRisk
		d.Found = fmt.Sprintf("the row is %s in pack %s, which the manifest does not know", row.State, row.Pack)
		d.Cure = "the cluster's state was rolled back: 'desnode restore' or 'desnode rebuild' on an empty data dir finds the pack again"
	case row.State == source.Packed && row.Claim != "" && !claimHeld(view, row.Claim):
		d.Kind, d.Severity = KindRowClaimed, Repairable
		d.Found = "a deletion that holds no lease any more has claimed it (" + row.Claim + ")"
		d.Cure = "the next pass over its pack takes it over; desnode recover --fix on the node whose audit log has it"
	default:
		return nil
	}
	return d
}

// claimHeld reports whether the claim is of a deletion that is under way.
func claimHeld(view *raftmeta.View, claim string) bool {
	token, err := desformat.ParseToken(claim)
	return err == nil && !view.Fenced(token)
}

// subject names a row.
func subject(src, id string) string { return src + " row " + id }
