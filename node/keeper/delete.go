package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

const (
	// rowsPerPass bounds the rows held in memory; each pass reads the catalog once.
	rowsPerPass = 16 * source.MaxBatch
	// maxRowErrors ends a pass, or its part below one root: so many failures are
	// the database's or the root's, not the rows'.
	maxRowErrors = 16
	// maxUnfit ends a pass: so many rows with faults of their own, one after the
	// other, are the disk's or the bucket's. Each was let go of with its code.
	maxUnfit = 64
	// verifyAhead renews a verification that would run out in mid-pass.
	verifyAhead = time.Hour
)

// errNotSafe says that a pack's originals must stay, for now.
var errNotSafe = errors.New("originals stay")

// deletePack deletes the originals of one pack, as far as they are due, and
// finishes or undoes what an earlier pass left half done.
func (k *Keeper) deletePack(ctx context.Context, p *raftmeta.Pack) error {
	ctx = store.WithCause(ctx, causeDelete)
	due, held := false, k.cfg.Pace.Held() != nil // what stands half done is settled all the same
	var unsafe error                             // and here as well
	if k.cfg.DeleteSource && deletable(p) && !held {
		var err error
		if due, err = k.anyDue(ctx, p.ID); err != nil {
			return fmt.Errorf("delete originals of pack %s: %w", p.ID, err)
		}
		if due {
			if unsafe = k.cfg.AllSources(); unsafe == nil {
				unsafe = k.CheckStore(ctx)
			}
			due = unsafe == nil
		}
	}
	due = due && !k.forOthers(p)
	if due && k.cfg.Now().Sub(verifiedAt(p)) > verifiedWithin-verifyAhead {
		if err := k.verifyDue(ctx, p); err != nil {
			return err
		}
	}
	if !due && len(k.audit.intents(p.ID)) == 0 {
		if unsafe != nil {
			return fmt.Errorf("delete originals of pack %s: %w", p.ID, unsafe)
		}
		if !held {
			k.setDrained(p)
		}
		return nil
	}
	if err := k.audit.rotate(auditRotate); err != nil {
		return err
	}
	job := raftmeta.Job{Kind: raftmeta.JobDelete, Packs: []desformat.PackID{p.ID}}
	err := k.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, l raftmeta.Lease) error {
		return k.deleteLeased(ctx, p.ID, due, l.Token.String())
	})
	if err = errors.Join(unsafe, err); err != nil {
		return fmt.Errorf("delete originals of pack %s: %w", p.ID, err)
	}
	if !held { // else nobody has looked for due rows
		k.setDrained(p)
	}
	return nil
}

func (k *Keeper) deleteLeased(ctx context.Context, id desformat.PackID, due bool, claim string) error {
	if err := k.current(ctx); err != nil {
		return err
	}
	if _, err := k.cfg.Manifest.Confirm(ctx); err != nil {
		return err
	}
	if due {
		_, err := k.maySafelyDelete(id)
		if err == nil {
			d := &deletion{k: k, pack: id, claim: claim, roots: map[string]troubled{}}
			err = d.run(ctx)
		}
		switch {
		case errors.Is(err, errNotSafe): // a verdict on the pack undoes what stands half done
			return errors.Join(err, k.settle(ctx, id))
		case err != nil: // anything else leaves it for the next pass
			return err
		}
	}
	return k.settle(ctx, id)
}

// deletable reports whether the manifest speaks against deleting originals of
// p, its verification's age apart.
func deletable(p *raftmeta.Pack) bool { return live(p) && p.Acknowledged && undamaged(p) }

// maySafelyDelete holds a pack against every condition of DESIGN.md §4.9 that
// does not depend on the row, in the newest view. It is asked before a pass
// and again right before each original is removed.
func (k *Keeper) maySafelyDelete(id desformat.PackID) (*raftmeta.Pack, error) {
	p := k.cfg.Manifest.View().Pack(id)
	switch {
	case !k.cfg.DeleteSource:
		return nil, fmt.Errorf("deletion is switched off: %w", errNotSafe)
	case !live(p):
		return nil, fmt.Errorf("%w: %w", ErrNotLive, errNotSafe)
	case !p.Acknowledged:
		return nil, fmt.Errorf("pack is not acknowledged: %w", errNotSafe)
	case !undamaged(p):
		return nil, fmt.Errorf("pack is damaged: %w", errNotSafe)
	}
	if err := k.cfg.AllSources(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errNotSafe)
	}
	at := verifiedAt(p)
	if age := k.cfg.Now().Sub(at); at.IsZero() || age > verifiedWithin || age < 0 {
		return nil, fmt.Errorf("pack was last verified %s: %w", at.Format(time.RFC3339), errNotSafe)
	}
	if !k.cfg.Manifest.AppliedEverywhere(p.AddIndex) {
		return nil, fmt.Errorf("a member has not applied the pack yet: %w", errNotSafe)
	}
	return p, nil
}

func (k *Keeper) packedBefore() time.Time { return k.cfg.Now().Add(-k.cfg.DeleteGrace) }

// dueLook is how many due rows of a pack are looked at to find one whose
// original is this host's to delete.
const dueLook = 16

// anyDue reports whether some row of the pack is past the grace, and this
// host's.
func (k *Keeper) anyDue(ctx context.Context, id desformat.PackID) (bool, error) {
	for name, s := range k.sources {
		rows, err := s.Rows.Deletable(ctx, id, k.packedBefore(), "", dueLook)
		if err != nil {
			return false, fmt.Errorf("source %s: %w", name, err)
		}
		if here, err := k.anyHere(ctx, s, rows); here || err != nil {
			return here, err
		}
	}
	return false, nil
}

// setDrained puts the next look at a pack without due rows off, by half of the
// time that has gone since its rows fell due, between a second and an hour: a
// young pack's last rows fall due soon, an old one's come back by a retry only.
func (k *Keeper) setDrained(p *raftmeta.Pack) {
	now := k.cfg.Now()
	wait := now.Sub(p.Created.Add(k.cfg.DeleteGrace)) / 2
	wait = min(max(wait, time.Second), drainedMost)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drained[p.ID] = now.Add(wait)
}

// deletion is one pass over the due rows of one pack, under one lease.
type deletion struct {
	k     *Keeper
	pack  desformat.PackID
	claim string // the lease's token

	mu     sync.Mutex // guards what follows
	errs   []error
	broken bool                // so many rows failed that the rest would
	failed int                 // rows that failed for no root's trouble
	roots  map[string]troubled // roots that made rows fail, by their names
	unfit  int                 // rows with faults of their own, one after the other
}

// troubled is a root below which rows failed.
type troubled struct {
	source string
	err    *source.RootError
	rows   int
}

// candidate is a due row and the record that archived it.
type candidate struct {
	row   source.Row
	entry desformat.Entry
	found bool
}

func (d *deletion) run(ctx context.Context) error {
	for name, s := range d.k.sources {
		if err := s.Rows.ForgetMissing(ctx); err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
	}
	for name, s := range d.k.sources {
		after := ""
		for {
			rows, err := d.due(ctx, s, after)
			if err != nil {
				return fmt.Errorf("source %s: %w", name, err)
			}
			if len(rows) == 0 {
				break
			}
			if err := d.deleteRows(ctx, s, rows); err != nil {
				return fmt.Errorf("source %s: %w", name, err)
			}
			after = rows[len(rows)-1].ID
		}
	}
	return errors.Join(d.errs...)
}

// due lists up to rowsPerPass due rows behind after.
func (d *deletion) due(ctx context.Context, s source.Source, after string) ([]source.Row, error) {
	var rows []source.Row
	for len(rows) < rowsPerPass {
		page, err := s.Rows.Deletable(ctx, d.pack, d.k.packedBefore(), after, source.MaxBatch)
		if err != nil {
			return nil, err
		}
		rows = append(rows, page...)
		if len(page) < source.MaxBatch {
			break
		}
		after = page[len(page)-1].ID
	}
	return rows, nil
}

func (d *deletion) deleteRows(ctx context.Context, s source.Source, rows []source.Row) error {
	byID := make(map[string]*candidate, len(rows))
	for _, r := range rows {
		byID[r.ID] = &candidate{row: r}
	}
	p, err := d.k.maySafelyDelete(d.pack)
	if err != nil {
		return err
	}
	if err := d.match(ctx, p, s.Name, byID); err != nil {
		return err
	}
	work := make(chan *candidate)
	var wg sync.WaitGroup
	for range d.k.cfg.DeleteWorkers {
		wg.Go(func() {
			for c := range work {
				d.one(ctx, s, c)
			}
		})
	}
	held := d.k.paced(ctx, rows, func(r source.Row) bool {
		if ctx.Err() != nil || d.over() {
			return false
		}
		if !d.down(s.Name, r.Path) {
			work <- byID[r.ID]
		}
		return true
	})
	close(work)
	wg.Wait()
	switch {
	case d.over():
		return errors.Join(d.errs...)
	case held != nil && len(d.errs) == 0:
		return held
	case held != nil:
		return errors.Join(d.errs...)
	}
	return ctx.Err()
}

// match finds the live record of each candidate in the pack's catalog. The
// version is not asked for: a row that was marked again unchanged has a higher
// one than the record that was found to be its, and the content is hashed.
func (d *deletion) match(ctx context.Context, p *raftmeta.Pack, src string, byID map[string]*candidate) error {
	c, err := ownCopy(p)
	if err != nil {
		return err
	}
	for e, err := range desformat.ReadCatalog(ctx, objectFetcher{d.k.cfg.Store, c.Key, c.Version}, p.Catalog) {
		if err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		cand := byID[e.ID]
		if cand == nil || e.Source != src || e.Type != desformat.TypeFile || p.IsDead(e.Ordinal) {
			continue
		}
		r := &cand.row
		if e.Name == r.DesName && e.SourceSize == r.Size && e.SourceTime.Equal(r.ModTime) {
			cand.entry, cand.found = e, true
		}
	}
	return nil
}

// one handles one row and counts how it ended.
func (d *deletion) one(ctx context.Context, s source.Source, c *candidate) {
	outcome, err := d.deleteOriginal(ctx, s, c)
	if err != nil {
		outcome = outcomeError
	}
	d.note(s.Name, outcome, c.row.ID, err)
	d.k.metrics.deletions.WithLabelValues(outcome).Inc()
}

// note judges from how one row ended whether to go on with the others.
func (d *deletion) note(src, outcome, id string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch outcome {
	case outcomeError:
		d.fail(src, id, err)
	case outcomeUnfit:
		if d.unfit++; d.unfit == maxUnfit {
			d.broken = true
			d.errs = append(d.errs, fmt.Errorf("%d originals, one after the other, can't be read or deleted; desnode failed lists them", d.unfit))
		}
	case outcomeDeleted:
		d.unfit = 0
	}
}

// fail counts a row's error: a root's against the root, any other against the
// pass. The caller holds mu.
func (d *deletion) fail(src, id string, err error) {
	root, ok := errors.AsType[*source.RootError](err)
	if !ok {
		d.failed++
		d.broken = d.broken || d.failed >= maxRowErrors
		d.errs = append(d.errs, fmt.Errorf("row %s: %w", id, err))
		return
	}
	t := d.roots[root.Root]
	t.source, t.err, t.rows = src, root, t.rows+1
	d.roots[root.Root] = t
	if t.rows <= maxRowErrors {
		d.errs = append(d.errs, fmt.Errorf("row %s: %w", id, err))
	}
}

// down reports whether the row's root has made so many rows fail that its
// others are left for the next pass.
func (d *deletion) down(src, path string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.roots {
		if t.rows >= maxRowErrors && t.source == src && t.err.Holds(path) {
			return true
		}
	}
	return false
}

// over reports whether the rest of the pass is left alone.
func (d *deletion) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}
