package inspect

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// compareCatalogs reads the catalog of each live, acknowledged pack and holds its
// records against their rows.
func (c *comparison) compareCatalogs(ctx context.Context) error {
	for p := range c.view.Packs() {
		if !live(p) || !p.Acknowledged || c.broken[p.ID] {
			continue // told as such already, here or by Unfinished
		}
		copied, has := ownCopy(p)
		if !has {
			continue
		}
		if err := c.compareCatalog(ctx, p, copied); err != nil {
			return err
		}
		if err := c.tell(false); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.lacked)) {
		if err := c.differs(Difference{
			Kind: KindNoSource, Severity: Note, Subject: name,
			Found: fmt.Sprintf("%d records are of a source that this node does not have", c.lacked[name]),
			Cure:  "compare on a node that has it",
		}); err != nil {
			return err
		}
	}
	if !c.opts.wants(LegRows) {
		return nil
	}
	return c.compareAbsent(ctx)
}

// reading is one catalog on its way through the rows.
type reading struct {
	c       *comparison
	pack    *raftmeta.Pack
	entries map[string][]desformat.Entry // by source
	matched map[string]int64             // rows that name this pack and are in it, by source
}

func (c *comparison) compareCatalog(ctx context.Context, p *raftmeta.Pack, copied raftmeta.Copy) error {
	r := &reading{c: c, pack: p, entries: map[string][]desformat.Entry{}, matched: map[string]int64{}}
	err := c.catalog(ctx, p, copied, func(e desformat.Entry) error { return r.add(ctx, e) })
	if err != nil {
		return err
	}
	if c.broken[p.ID] {
		return nil
	}
	for name := range r.entries {
		if err := r.flush(ctx, name); err != nil {
			return err
		}
	}
	c.counts.Catalogs++
	for _, s := range c.i.cfg.Sources {
		if n := c.named[pledge{s.Name, p.ID}]; n > r.matched[s.Name] {
			c.absent[p.ID] += n - r.matched[s.Name]
		}
	}
	return nil
}

// catalog hands each entry of a pack's catalog to f. One that can't be read for a
// reason of its own is reported, and the pack is broken from then on.
func (c *comparison) catalog(ctx context.Context, p *raftmeta.Pack, copied raftmeta.Copy, f func(desformat.Entry) error) error {
	var stopped error
	for e, err := range desformat.ReadCatalog(ctx, fetcher{c.store, copied.Key, copied.Version}, p.Catalog) {
		if err != nil {
			return c.unreadCatalog(ctx, p, copied, err)
		}
		if stopped = f(e); stopped != nil {
			break
		}
	}
	return stopped
}

// unreadCatalog reports a catalog that could not be read, if that is the object's
// fault; an error that says nothing about the object is returned.
func (c *comparison) unreadCatalog(ctx context.Context, p *raftmeta.Pack, copied raftmeta.Copy, err error) error {
	e := expected{p, copied}
	if errors.Is(err, desformat.ErrCorrupt) || errors.Is(err, desformat.ErrVersion) {
		return c.packDiffers(ctx, e, KindCatalog, "its list of records can't be read: "+err.Error())
	}
	o, errHead := c.store.Head(ctx, copied.Key, copied.Version)
	switch {
	case errors.Is(errHead, store.ErrNotFound):
		return c.unreadVersion(ctx, e)
	case errHead == nil && o.Size != p.Size:
		return c.held(ctx, e, o)
	}
	return fmt.Errorf("pack %s: catalog: %w", p.ID, err)
}

// unreadVersion tells a pack whose object is gone from one in whose place another
// version stands.
func (c *comparison) unreadVersion(ctx context.Context, e expected) error {
	o, err := c.store.Head(ctx, e.copy.Key, "")
	switch {
	case errors.Is(err, store.ErrNotFound):
		return c.packDiffers(ctx, e, KindPackMissing, "the store has no such object")
	case err != nil:
		return fmt.Errorf("head %s: %w", e.copy.Key, err)
	}
	return c.packDiffers(ctx, e, KindPackReplaced, fmt.Sprintf("version %q stands there, the manifest says %q", o.Version, e.copy.Version))
}

func (r *reading) add(ctx context.Context, e desformat.Entry) error {
	if e.Type != desformat.TypeFile {
		return nil
	}
	if r.c.sourceOf(e.Source) == nil {
		r.c.lacked[e.Source]++
		return nil
	}
	r.entries[e.Source] = append(r.entries[e.Source], e)
	if len(r.entries[e.Source]) < source.MaxBatch {
		return nil
	}
	return r.flush(ctx, e.Source)
}

func (c *comparison) sourceOf(name string) *Source {
	for i, s := range c.i.cfg.Sources {
		if s.Name == name {
			return &c.i.cfg.Sources[i]
		}
	}
	return nil
}

// flush holds the records of one source that have come together against their
// rows.
func (r *reading) flush(ctx context.Context, name string) error {
	entries := r.entries[name]
	if len(entries) == 0 {
		return nil
	}
	s := r.c.sourceOf(name)
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	found, err := s.Rows.ByIDs(ctx, slices.Compact(ids))
	if err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	rows := make(map[string]source.Row, len(found))
	for _, row := range found {
		rows[row.ID] = row
	}
	for _, e := range entries {
		r.c.counts.Records++
		row, there := rows[e.ID]
		if there && archived(row) && row.Pack == r.pack.ID && row.Version == e.Version {
			r.matched[name]++
		}
		if d := r.judge(s, e, row, there); d != nil {
			if err := r.c.differs(*d); err != nil {
				return err
			}
		}
	}
	r.entries[name] = entries[:0]
	return r.c.tell(false)
}

// judge returns what does not fit between a record and its row; nil: nothing. All
// rows of an acknowledged pack were PACKED by it once, so what is found here is no
// work under way.
func (r *reading) judge(s *Source, e desformat.Entry, row source.Row, there bool) *Difference {
	d := &Difference{Subject: subject(s.Name, e.ID)}
	record := fmt.Sprintf("version %d in pack %s", e.Version, r.pack.ID)
	switch {
	case r.pack.IsDead(e.Ordinal):
		if !there || !archived(row) || row.Pack != r.pack.ID || row.Version != e.Version {
			return nil
		}
		d.Kind, d.Severity = KindRowDead, AtRisk
		d.Found = fmt.Sprintf("the row is %s as %s, whose record is dead: reads skip it", row.State, record)
		d.Cure = "desnode stat tells whether another pack has the file; if not, archive it again while its original is there (source check, contract.md)"
	case !there:
		d.Kind, d.Severity = KindNoRow, Note
		d.Found = record + " is served as " + e.Name + ", and the source has no such row"
		d.Cure = "nothing: the source system has removed the row, the archive keeps the file"
	case row.Version > e.Version:
		return nil // archived again since, or about to be
	case row.Version < e.Version, row.Pack.IsZero():
		d.Kind, d.Severity = KindRowBehind, Repairable
		d.Found = fmt.Sprintf("the row is %s at version %d, the archive has %s", row.State, row.Version, record)
		d.Cure = "the database was restored: packing finds the record and acknowledges it again (desnode archive); 'desnode rebuild --source' for all at once"
	case row.Pack != r.pack.ID:
		d.Kind, d.Severity = KindRowElsewhere, Note
		d.Found = fmt.Sprintf("the row names pack %s, the archive has the same %s as well", row.Pack, record)
		d.Cure = "nothing: equal versions are harmless"
	case archived(row):
		return r.judgeFields(d, s, e, row)
	default:
		return nil // re-activated: archived again soon
	}
	return d
}

// judgeFields compares what row and record both say of the file.
func (r *reading) judgeFields(d *Difference, s *Source, e desformat.Entry, row source.Row) *Difference {
	off := row.ModTime.Sub(e.SourceTime).Abs()
	switch {
	case row.DesName != "" && row.DesName != e.Name:
		d.Found = fmt.Sprintf("the row is served as %q, the record as %q", row.DesName, e.Name)
	case row.Size != e.SourceSize:
		d.Found = fmt.Sprintf("the row lists %d bytes, the record %d", row.Size, e.SourceSize)
	case off >= max(s.Rows.TimePrecision(), 1):
		d.Found = fmt.Sprintf("the row lists %s, the record %s", row.ModTime.UTC(), e.SourceTime.UTC())
	case row.SHA256 != nil && *row.SHA256 != e.SHA256:
		d.Found = fmt.Sprintf("the row's checksum is %s, the record's %s", hex.EncodeToString(row.SHA256[:]), hex.EncodeToString(e.SHA256[:]))
	default:
		return nil
	}
	d.Kind, d.Severity = KindRowDiffers, Repairable
	d.Cure = "when the file has changed, set the row back to ACTIVE (contract.md): it is archived again as a newer version"
	return d
}
