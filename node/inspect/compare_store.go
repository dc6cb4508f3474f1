package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// unknownBatch bounds the keys held until the manifest is asked about them again.
const unknownBatch = 1000

// expected is a pack whose object should be in the store.
type expected struct {
	pack *raftmeta.Pack
	copy raftmeta.Copy
}

// compareStore lists what is under packs/ once, which costs one request for a
// thousand packs, and asks for those alone that the listing does not show as they
// should be.
func (c *comparison) compareStore(ctx context.Context) error {
	open, err := c.expected()
	if err != nil {
		return err
	}
	var unknown []store.Object
	var odd []store.Object
	err = c.store.List(ctx, "packs/", "", func(o store.Object) error {
		c.counts.Objects++
		e, known := open[o.Key]
		switch {
		case !known:
			unknown = append(unknown, o)
		case e.copy.Version != "" && o.Version != e.copy.Version:
			odd = append(odd, o)
		default:
			delete(open, o.Key)
			if err := c.held(ctx, e, o); err != nil {
				return err
			}
		}
		if len(unknown) == unknownBatch {
			if err := c.unknown(ctx, unknown); err != nil {
				return err
			}
			unknown = unknown[:0]
		}
		return c.tell(false)
	})
	if err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	if err := c.unknown(ctx, unknown); err != nil {
		return err
	}
	for _, o := range odd {
		if err := c.otherVersion(ctx, open[o.Key], o); err != nil {
			return err
		}
		delete(open, o.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(open)) {
		if err := c.unseen(ctx, open[key]); err != nil {
			return err
		}
	}
	return c.compareQuarantine(ctx)
}

// expected returns the packs by their objects' keys, and reports those that were
// found damaged.
func (c *comparison) expected() (map[string]expected, error) {
	open := map[string]expected{}
	for p := range c.view.Packs() {
		copied, has := ownCopy(p)
		if !has {
			c.broken[p.ID] = true
			if err := c.differs(Difference{
				Kind: KindPackNoCopy, Severity: AtRisk, Subject: "pack " + p.ID.String(),
				Found: "the manifest names no object of this store for it", Cure: "report it: no command makes such a pack",
			}); err != nil {
				return nil, err
			}
			continue
		}
		open[copied.Key] = expected{p, copied}
		if copied.Damage == "" {
			continue
		}
		if err := c.differs(Difference{
			Kind: KindDamaged, Severity: AtRisk, Subject: "pack " + p.ID.String(), Found: "reading it back found: " + copied.Damage,
			Cure: "bring the object " + copied.Key + " back (an older version, a copy), then desnode verify " + p.ID.String(),
		}); err != nil {
			return nil, err
		}
	}
	return open, nil
}

// held compares an object of the right version with its pack.
func (c *comparison) held(ctx context.Context, e expected, o store.Object) error {
	c.counts.Packs++
	if o.Size == e.pack.Size {
		return nil
	}
	return c.packDiffers(ctx, e, KindPackSize, fmt.Sprintf("the object has %d bytes, the manifest says %d", o.Size, e.pack.Size))
}

// packDiffers reports a pack whose object is not as it should be.
func (c *comparison) packDiffers(ctx context.Context, e expected, kind, what string) error {
	view, err := c.i.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	if !live(view.Pack(e.pack.ID)) && live(e.pack) {
		return nil // it was replaced meanwhile
	}
	c.broken[e.pack.ID] = true
	d := Difference{
		Kind: kind, Severity: AtRisk, Subject: "pack " + e.pack.ID.String(), Found: what + " (" + e.copy.Key + ")",
		Cure: "bring the object back (an older version, a copy), then desnode verify " + e.pack.ID.String(),
	}
	if kind == KindPackReplaced {
		d.Cure = "desnode verify " + e.pack.ID.String() + " takes it when its bytes are right; else bring the old one back"
	}
	return c.differs(d)
}

// otherVersion looks at a pack over whose object the listing shows another
// version: the manifest's own may still be there, below it.
func (c *comparison) otherVersion(ctx context.Context, e expected, listed store.Object) error {
	o, err := c.store.Head(ctx, e.copy.Key, e.copy.Version)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.counts.Packs++
		return c.packDiffers(ctx, e, KindPackReplaced, fmt.Sprintf("version %q stands there, the manifest says %q", listed.Version, e.copy.Version))
	case err != nil:
		return fmt.Errorf("head %s: %w", e.copy.Key, err)
	}
	if err := c.held(ctx, e, o); err != nil || c.broken[e.pack.ID] {
		return err
	}
	return c.differs(Difference{
		Kind: KindPackShadowed, Severity: AtRisk, Subject: "pack " + e.pack.ID.String(),
		Found: fmt.Sprintf("its version %q of %s lies below a newer one, %q", e.copy.Version, e.copy.Key, listed.Version),
		Cure:  "delete the newer version, before a rule of the bucket removes the older one",
	})
}

// unseen looks at a pack whose object the listing did not show.
func (c *comparison) unseen(ctx context.Context, e expected) error {
	if err := c.tell(false); err != nil {
		return err
	}
	o, err := c.store.Head(ctx, e.copy.Key, e.copy.Version)
	switch {
	case err == nil:
		return c.held(ctx, e, o)
	case !errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("head %s: %w", e.copy.Key, err)
	}
	c.counts.Packs++
	return c.packDiffers(ctx, e, KindPackMissing, "the store has no such object")
}

// unknown looks at objects that no pack of the view names, in a newer view: packs
// come while the listing goes on.
func (c *comparison) unknown(ctx context.Context, objects []store.Object) error {
	if len(objects) == 0 {
		return nil
	}
	view, err := c.i.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	known := map[string]bool{}
	for p := range view.Packs() {
		for _, copied := range p.Copies {
			known[copied.Key] = true
		}
	}
	for _, u := range view.Uploads() {
		known[u.Key] = true // told by Unfinished
	}
	list, err := c.i.cfg.Log.Quarantined(view)
	if err != nil {
		return fmt.Errorf("the list of quarantine: %w", err)
	}
	for _, q := range list {
		known[q.Key] = true
	}
	for _, o := range objects {
		if known[o.Key] {
			continue
		}
		if err := c.judgeObject(ctx, view, o); err != nil {
			return err
		}
	}
	return nil
}

// judgeObject reports an object that nothing names, by what its end says.
func (c *comparison) judgeObject(ctx context.Context, view *raftmeta.View, o store.Object) error {
	foreign := func(what string) error {
		return c.differs(Difference{
			Kind: KindForeign, Severity: Note, Subject: o.Key, Found: what,
			Cure: "nothing reads or deletes it: remove it by hand when nobody needs it",
		})
	}
	footer, err := desformat.ReadFooter(ctx, fetcher{c.store, o.Key, o.Version}, o.Size)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil // it was moved away meanwhile
	case errors.Is(err, desformat.ErrNotPack):
		return foreign("it is no whole pack")
	case errors.Is(err, desformat.ErrVersion), errors.Is(err, desformat.ErrCorrupt):
		return foreign("its end can't be read: " + err.Error())
	case err != nil:
		return fmt.Errorf("read the end of %s: %w", o.Key, err)
	case footer.Cluster != view.Cluster():
		return foreign("it is a pack of cluster " + footer.Cluster.String())
	}
	return c.differs(Difference{
		Kind: KindForgotten, Severity: AtRisk, Subject: o.Key,
		Found: fmt.Sprintf("a whole pack of this cluster with %d records, and the manifest does not know it", footer.Records),
		Cure:  "the cluster's state was rolled back: 'desnode restore' or 'desnode rebuild' on an empty data dir adopts it",
	})
}

// compareQuarantine holds what is under quarantine/ against the list of it.
func (c *comparison) compareQuarantine(ctx context.Context) error {
	before, err := c.i.cfg.Log.Quarantined(c.i.cfg.Manifest.View())
	if err != nil {
		return fmt.Errorf("the list of quarantine: %w", err)
	}
	there := map[string]bool{}
	if err := c.store.List(ctx, "quarantine/", "", func(o store.Object) error {
		there[o.Key] = true
		return c.tell(false)
	}); err != nil {
		return fmt.Errorf("list quarantine: %w", err)
	}
	view, err := c.i.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return fmt.Errorf("the manifest: %w", err)
	}
	after, err := c.i.cfg.Log.Quarantined(view)
	if err != nil {
		return fmt.Errorf("the list of quarantine: %w", err)
	}
	still := map[string]bool{}
	for _, q := range after {
		still[q.Place] = true
	}
	for _, q := range before {
		if !there[q.Place] && still[q.Place] && !announced(view, q.Key) && q.Kept == "" {
			if err := c.differs(Difference{
				Kind: KindUnquarantine, Severity: Note, Subject: q.Place, Found: "it is on the list of quarantine, and not there: its upload never ended, or somebody has removed it",
				Cure: "nothing: it leaves the list when its time is over",
			}); err != nil {
				return err
			}
		}
		delete(there, q.Place)
	}
	for _, q := range after {
		delete(there, q.Place)
	}
	for _, key := range slices.Sorted(maps.Keys(there)) {
		if err := c.differs(Difference{
			Kind: KindUnlisted, Severity: Repairable, Subject: key, Found: "it is in quarantine, and not on the list: nobody will delete it",
			Cure: "desnode pack ls shows what it holds; delete it by hand when nobody needs it",
		}); err != nil {
			return err
		}
	}
	return nil
}
