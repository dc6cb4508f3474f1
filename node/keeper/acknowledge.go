package keeper

import (
	"context"
	"fmt"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Acknowledge moves the rows of a committed pack to PACKED, from the pack's
// own catalog in the store, and tells the manifest which records are dead. It
// may be repeated and cut anywhere. An error means that the outcome is open:
// the pack stays unacknowledged and Run takes it up again.
func (k *Keeper) Acknowledge(ctx context.Context, p *raftmeta.Pack) error {
	ctx = store.WithCause(ctx, causeAcknowledge)
	c, err := ownCopy(p)
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return k.AcknowledgeFrom(ctx, p, objectFetcher{k.cfg.Store, c.Key, c.Version}, nil)
}

// AcknowledgeFrom is Acknowledge with the pack's bytes at hand, for a packer
// that still has its spool file. It calls refused, unless that is nil, for each
// row that the database refused to change.
func (k *Keeper) AcknowledgeFrom(ctx context.Context, p *raftmeta.Pack, f desformat.Fetcher,
	refused func(source, id string, version uint32),
) error {
	k.countAck(p.ID, 1)
	defer k.countAck(p.ID, -1)
	a := acknowledging{k: k, pack: p, acks: map[string]*batch{}, refused: refused, earlier: k.ofEarlierLife(p)}
	for e, err := range desformat.ReadCatalog(ctx, f, p.Catalog) {
		if err != nil {
			return fmt.Errorf("acknowledge pack %s: catalog: %w", p.ID, err)
		}
		if err := a.add(ctx, e); err != nil {
			return fmt.Errorf("acknowledge pack %s: %w", p.ID, err)
		}
	}
	if a.records != p.Records {
		return fmt.Errorf("acknowledge pack %s: catalog lists %d records, manifest %d: %w", p.ID, a.records, p.Records, desformat.ErrCorrupt)
	}
	for name := range a.acks {
		if err := a.flush(ctx, name); err != nil {
			return fmt.Errorf("acknowledge pack %s: %w", p.ID, err)
		}
	}
	slices.Sort(a.dead)
	if err := k.cfg.Commands.AckPack(ctx, p.ID, a.dead); err != nil {
		return fmt.Errorf("acknowledge pack %s: %w", p.ID, err)
	}
	k.metrics.acknowledged.Add(float64(a.live))
	k.metrics.dead.Add(float64(len(a.dead)))
	k.metrics.unproven.Add(float64(a.unproven))
	k.log.InfoContext(ctx, "pack acknowledged", "pack", p.ID, "range", p.Range, "live", a.live, "dead", len(a.dead), "unproven", a.unproven)
	return nil
}

// countAck keeps Run from taking up what a packer is acknowledging right now.
// Doing it twice is harmless, only wasteful.
func (k *Keeper) countAck(id desformat.PackID, by int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.acking[id] += by; k.acking[id] == 0 {
		delete(k.acking, id)
	}
}

// acknowledging is one run of AcknowledgeFrom.
type acknowledging struct {
	k       *Keeper
	pack    *raftmeta.Pack
	acks    map[string]*batch // by source
	dead    []uint32
	live    int
	refused func(source, id string, version uint32)
	records uint32

	earlier  bool // the pack was built in an earlier life of the cluster
	unproven int  // live records whose row does not say so
}

// batch is what waits to be acknowledged in one source; ordinals[i] is the
// record of acks[i].
type batch struct {
	acks     []source.Ack
	ordinals []uint32
}

func (a *acknowledging) add(ctx context.Context, e desformat.Entry) error {
	a.records++
	if e.Type != desformat.TypeFile {
		return nil // no row waits for a tombstone or a void
	}
	if _, ok := a.k.sources[e.Source]; !ok {
		// Not dead: the rows exist, in a source that this node was not given.
		return fmt.Errorf("record %d: source %q: %w", e.Ordinal, e.Source, ErrUnknownSource)
	}
	b := a.acks[e.Source]
	if b == nil {
		b = &batch{}
		a.acks[e.Source] = b
	}
	b.acks = append(b.acks, source.Ack{
		ID: e.ID, Name: e.Name, Version: e.Version,
		Size: e.SourceSize, ModTime: e.SourceTime, SHA256: e.SHA256, Pack: a.pack.ID,
	})
	b.ordinals = append(b.ordinals, e.Ordinal)
	if len(b.acks) < source.MaxBatch {
		return nil
	}
	return a.flush(ctx, e.Source)
}

func (a *acknowledging) flush(ctx context.Context, name string) error {
	b := a.acks[name]
	if len(b.acks) == 0 {
		return nil
	}
	results, err := a.k.sources[name].Rows.Acknowledge(ctx, b.acks, a.k.cfg.MaxAttempts, a.k.cfg.Now())
	if err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	if len(results) != len(b.acks) {
		return fmt.Errorf("source %s: %d results for %d rows", name, len(results), len(b.acks))
	}
	elsewhere, err := a.elsewhere(ctx, a.k.sources[name], b.acks, results)
	if err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	for i, r := range results {
		if r == source.AckRefused && a.refused != nil {
			a.refused(name, b.acks[i].ID, b.acks[i].Version)
		}
		dead, err := a.isDead(ctx, a.k.sources[name], b.acks[i], r, elsewhere)
		switch {
		case err != nil:
			return fmt.Errorf("source %s: row %s: %w", name, b.acks[i].ID, err)
		case dead:
			a.dead = append(a.dead, b.ordinals[i])
			a.k.log.WarnContext(ctx, "record is dead", "pack", a.pack.ID, "ordinal", b.ordinals[i],
				"source", name, "id", b.acks[i].ID, "refused", r == source.AckRefused)
		case r != source.AckDone:
			a.unproven++
		default:
			a.live++
		}
	}
	b.acks, b.ordinals = b.acks[:0], b.ordinals[:0]
	return nil
}
