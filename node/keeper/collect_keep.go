package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

const (
	// keepFor is how long an object that is needed is left before the next look.
	keepFor = 24 * time.Hour
	// keepBatch bounds the records held in memory while an object is judged.
	keepBatch = 1 << 16
)

// needed says why an object that no pack owns must stay; "" when all it holds
// is safe elsewhere. The manifest alone can't tell: one that was restored from
// a backup has forgotten packs whose originals are gone. So each file that a
// whole pack lists must live in the manifest, in the same or a newer version,
// or still be where it was archived from.
func (k *Keeper) needed(ctx context.Context, key string) (why string, err error) {
	obj, err := k.cfg.Store.Head(ctx, key, "")
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	}
	f := objectFetcher{k.cfg.Store, key, obj.Version}
	r, err := desformat.OpenPack(ctx, f, obj.Size)
	switch {
	case errors.Is(err, desformat.ErrNotPack):
		return "", nil // cut or torn: no commit can have followed such an upload
	case errors.Is(err, desformat.ErrVersion), errors.Is(err, desformat.ErrCorrupt):
		return err.Error(), nil // whole, as far as its end tells; its records may be too
	case err != nil:
		return "", err
	}
	v := k.cfg.Manifest.View()
	footer := r.Footer()
	switch {
	case footer.Cluster != v.Cluster():
		return "it is a pack of cluster " + footer.Cluster.String(), nil
	case v.Pack(footer.Pack) != nil:
		return "the manifest names it", nil
	}
	j := judging{k: k, view: v, pack: footer.Pack, packs: v.Overlapping(footer.Range), open: map[string]desformat.Entry{}}
	for e, err := range r.Catalog(ctx) {
		switch {
		case errors.Is(err, desformat.ErrCorrupt):
			return "its catalog is damaged: " + err.Error(), nil
		case err != nil:
			return "", err
		case e.Type != desformat.TypeFile:
			continue
		}
		j.open[e.Name] = e
		if len(j.open) < keepBatch {
			continue
		}
		if why, err := j.settle(ctx); why != "" || err != nil {
			return why, err
		}
	}
	return j.settle(ctx)
}

// judging is one run of needed.
type judging struct {
	k     *Keeper
	view  *raftmeta.View
	pack  desformat.PackID           // the object's own
	packs []*raftmeta.Pack           // live ones that may hold the same names
	open  map[string]desformat.Entry // records not yet found elsewhere, by name
}

// settle looks for the open records elsewhere and names one that is nowhere.
func (j *judging) settle(ctx context.Context) (why string, err error) {
	for _, p := range j.packs {
		if len(j.open) == 0 {
			return "", nil
		}
		if !p.Acknowledged || !undamaged(p) {
			continue // its records may yet be dead, or lost
		}
		if err := j.strike(ctx, p); err != nil {
			return "", err
		}
	}
	for name, e := range j.open {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if err := j.k.original(ctx, j.pack, e); err != nil {
			return fmt.Sprintf("it alone holds %q: %s", name, err.Error()), nil
		}
	}
	clear(j.open)
	return "", nil
}

// strike drops the records that live in p in the same or a newer version.
func (j *judging) strike(ctx context.Context, p *raftmeta.Pack) error {
	c, err := ownCopy(p)
	if err != nil {
		return nil //nolint:nilerr // it can't be read here, so it vouches for nothing
	}
	for e, err := range desformat.ReadCatalog(ctx, objectFetcher{j.k.cfg.Store, c.Key, c.Version}, p.Catalog) {
		if err != nil {
			return fmt.Errorf("pack %s: catalog: %w", p.ID, err)
		}
		mine, open := j.open[e.Name]
		if !open || p.IsDead(e.Ordinal) {
			continue
		}
		if e.Type == desformat.TypeFile && e.SHA256 == mine.SHA256 || e.Seq.Compare(mine.Seq) > 0 {
			delete(j.open, e.Name)
		}
	}
	return nil
}

// original returns nil when the record's row and its file are as they were
// when the record was made, and the row still waits to be packed. A row that
// says it is packed in this very pack is never packed again: whoever reads it
// may take the original away.
func (k *Keeper) original(ctx context.Context, pack desformat.PackID, e desformat.Entry) error {
	s, ok := k.sources[e.Source]
	if !ok {
		return fmt.Errorf("source %q: %w", e.Source, ErrUnknownSource)
	}
	row, err := s.Rows.ByID(ctx, e.ID)
	if err != nil {
		return err
	}
	if row.DesName != e.Name || row.Size != e.SourceSize || !row.ModTime.Equal(e.SourceTime) {
		return fmt.Errorf("row %s of source %s has moved on", e.ID, e.Source)
	}
	if row.Pack == pack && (row.State == source.Packed || row.State == source.DeletedSource) {
		return fmt.Errorf("row %s of source %s says that it is packed here", e.ID, e.Source)
	}
	f, err := s.Files.Open(ctx, row.Path)
	if err != nil {
		return err
	}
	info := f.Info()
	if err := f.Close(); err != nil {
		return err
	}
	if info.Size != e.SourceSize || info.Modified(e.SourceTime, s.Rows.TimePrecision()) {
		return fmt.Errorf("%s: %w", row.Path, source.ErrChanged)
	}
	return nil
}

// keep notes in the list why an object stays, and when to look again.
func (k *Keeper) keep(ctx context.Context, q quarantined, place, why string) error {
	k.log.ErrorContext(ctx, "an object without a pack is kept: was the cluster's state rolled back?",
		"key", q.Key, "place", place, "reason", why)
	k.metrics.kept.Inc()
	q.Kept, q.LookAt = why, k.cfg.Now().Add(keepFor)
	return k.editList(ctx, q.Key, &q)
}

// Problem returns what keeps packs from being acknowledged, originals from being
// deleted, or objects without a pack from being collected; nil: nothing does.
func (k *Keeper) Problem() error {
	v := k.cfg.Manifest.View()
	var found []error
	k.mu.Lock()
	if k.superseded != nil {
		found = append(found, k.superseded)
	}
	for p := range v.Packs() {
		if r := k.retryAt[taskKey{raftmeta.JobAck, p.ID}]; r.err != nil && live(p) && !p.Acknowledged {
			found = append(found, r.err)
		}
		if r := k.retryAt[taskKey{raftmeta.JobDelete, p.ID}]; r.err != nil && live(p) {
			found = append(found, r.err)
		}
	}
	k.mu.Unlock()
	list, _, err := quarantineList(v)
	if err != nil {
		found = append(found, err)
	}
	for _, q := range list {
		if q.Kept != "" {
			found = append(found, fmt.Errorf("object %s without a pack is kept: %s", q.Key, q.Kept))
		}
	}
	if len(found) > 1 {
		return fmt.Errorf("%w (and %d more)", found[0], len(found)-1)
	}
	return errors.Join(found...)
}
