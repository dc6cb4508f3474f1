package rebuild

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// statsAtOnce is how many originals of one batch are looked for at once.
const statsAtOnce = 16

// rowKey names a row.
type rowKey struct{ source, id string }

// record is one record of a pack, as far as rows are concerned.
type record struct {
	pack  *raftmeta.Pack
	entry desformat.Entry
}

// newer reports whether a is the later record of their row.
func (a record) newer(b record) bool {
	if c := a.entry.Seq.Compare(b.entry.Seq); c != 0 {
		return c > 0
	}
	return a.entry.Version > b.entry.Version
}

// restoring writes rows back. Of several records of a row the newest wins: packs
// are taken by falling seq, and a row that has its pack keeps it. Nothing is kept
// of how far it came: cut, it reads all catalogs and asks for all rows again,
// and writes none twice.
type restoring struct {
	r       *Rebuild
	view    *raftmeta.View
	sources map[string]source.Source

	gone map[rowKey]bool // rows whose newest record is a tombstone
}

// restoreRows writes the state columns of the sources' rows back from the
// catalogs of all adopted packs.
func (r *Rebuild) restoreRows(ctx context.Context) error {
	r.progress.enter(PhaseRows)
	w := &restoring{r: r, view: r.cfg.Manifest.View(), sources: map[string]source.Source{}, gone: map[rowKey]bool{}}
	for _, s := range r.cfg.Sources {
		w.sources[s.Name] = s
	}
	packs := r.adopted(func(*raftmeta.Pack) bool { return true })
	r.progress.add(func(s *Progress) {
		s.ToRestore, s.Restored = len(packs), 0
		s.RowsRestored, s.RowsAlready, s.RowsNewer, s.RowsMissing, s.RowsRefused = 0, 0, 0, 0, 0
	})
	for _, g := range bySeq(packs) {
		if err := w.group(ctx, g); err != nil {
			return fmt.Errorf("write rows back: %w", err)
		}
		r.progress.add(func(s *Progress) { s.Restored += len(g); s.Problem = "" })
	}
	return nil
}

// bySeq cuts packs, sorted by falling MaxSeq, into groups by falling seq: all
// records of a group are newer than those of the next. Packs that were never
// merged hold one seq each, and are a group each.
func bySeq(packs []*raftmeta.Pack) (groups [][]*raftmeta.Pack) {
	var lowest desformat.Token // MinSeq of the last group
	for _, p := range packs {
		if n := len(groups); n > 0 && p.MaxSeq.Compare(lowest) >= 0 {
			groups[n-1] = append(groups[n-1], p)
			if p.MinSeq.Compare(lowest) < 0 {
				lowest = p.MinSeq
			}
			continue
		}
		groups = append(groups, []*raftmeta.Pack{p})
		lowest = p.MinSeq
	}
	return groups
}

// group writes back the rows of one group of packs.
func (w *restoring) group(ctx context.Context, packs []*raftmeta.Pack) error {
	var newest map[rowKey]record // nil: no row stands in the group twice
	if len(packs) > 1 || packs[0].MinSeq != packs[0].MaxSeq {
		newest = map[rowKey]record{}
		for _, p := range packs {
			err := w.each(ctx, p, func(rec record) error {
				key := rowKey{rec.entry.Source, rec.entry.ID}
				if have, ok := newest[key]; !ok || rec.newer(have) {
					newest[key] = rec
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	b := batches{w: w, ctx: ctx, open: map[string][]record{}, slots: make(chan struct{}, w.r.cfg.RowWorkers)}
	defer b.wg.Wait()
	var tombs []rowKey
	for _, p := range packs {
		err := w.each(ctx, p, func(rec record) error {
			key := rowKey{rec.entry.Source, rec.entry.ID}
			if best, ok := newest[key]; ok && (best.pack != p || best.entry.Ordinal != rec.entry.Ordinal) {
				return nil
			}
			switch {
			case rec.entry.Type == desformat.TypeTombstone:
				tombs = append(tombs, key)
			case rec.entry.Type == desformat.TypeFile && !w.gone[key]:
				return b.add(rec)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := b.end(); err != nil {
		return err
	}
	for _, key := range tombs {
		w.gone[key] = true
	}
	return nil
}

// each calls f for the live records of a pack. A catalog that is damaged, or
// whose object is missing, ends the pack: its rows are found by those who mark
// and pack them, in the manifest.
func (w *restoring) each(ctx context.Context, p *raftmeta.Pack, f func(record) error) error {
	from := fetcher{w.r, p.Copies[0].Key, p.Copies[0].Version}
	for e, err := range desformat.ReadCatalog(ctx, from, p.Catalog) {
		switch {
		case unreadable(err):
			w.r.log.WarnContext(ctx, "rows of a pack are not written back", "pack", p.ID, "error", err)
			return nil
		case err != nil:
			return fmt.Errorf("pack %s: catalog: %w", p.ID, err)
		case p.IsDead(e.Ordinal):
			continue
		}
		if err := f(record{p, e}); err != nil {
			return err
		}
	}
	return nil
}

// batches gathers records by source and writes them back in batches, some at
// once. Only one goroutine calls add and end.
type batches struct {
	w    *restoring
	ctx  context.Context //nolint:containedctx // lives for one group
	open map[string][]record

	slots chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex // guards err
	err   error
}

func (b *batches) add(rec record) error {
	name := rec.entry.Source
	b.open[name] = append(b.open[name], rec)
	if len(b.open[name]) < source.MaxBatch {
		return b.failed()
	}
	return b.flush(name)
}

func (b *batches) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *batches) flush(name string) error {
	full := b.open[name]
	delete(b.open, name)
	select {
	case b.slots <- struct{}{}:
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
	b.wg.Go(func() {
		defer func() { <-b.slots }()
		if err := b.w.batch(b.ctx, name, full); err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.err = errors.Join(b.err, err)
		}
	})
	return b.failed()
}

// end writes what is left, and returns when all is written.
func (b *batches) end() error {
	for name := range b.open {
		if err := b.flush(name); err != nil {
			return err
		}
	}
	b.wg.Wait()
	return b.failed()
}

// batch writes the rows of some records of one source back. A database that
// does not answer is asked again.
func (w *restoring) batch(ctx context.Context, name string, recs []record) error {
	s, ok := w.sources[name]
	if !ok {
		return fmt.Errorf("source %q is not known to this node", name)
	}
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := w.write(ctx, s, recs)
		if err == nil || errors.Is(err, source.ErrSuperseded) {
			return err
		}
		if ctx.Err() == nil {
			w.r.failed(ctx, fmt.Errorf("source %s: %w", name, err))
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

func (w *restoring) write(ctx context.Context, s source.Source, recs []record) error {
	ids := make([]string, len(recs))
	for i, rec := range recs {
		ids[i] = rec.entry.ID
	}
	found, err := s.Rows.ByIDs(ctx, ids)
	if err != nil {
		return err
	}
	byID := make(map[string]source.Row, len(found))
	for _, row := range found {
		byID[row.ID] = row
	}
	var count Progress
	var out []source.Restored
	var paths []string
	for _, rec := range recs {
		row, there := byID[rec.entry.ID]
		switch {
		case !there:
			count.RowsMissing++
		case row.Pack == rec.pack.ID:
			count.RowsAlready++
		default:
			out = append(out, w.restored(s, rec))
			paths = append(paths, row.Path)
		}
	}
	err = parallel(ctx, statsAtOnce, len(out), func(i int) error {
		if absent(ctx, s.Files, paths[i]) {
			out[i].State = source.DeletedSource
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(out) > 0 {
		results, err := s.Rows.Restore(ctx, out)
		if err != nil {
			return err
		}
		for _, res := range results {
			count.result(res)
		}
	}
	w.r.progress.add(func(p *Progress) {
		p.RowsRestored += count.RowsRestored
		p.RowsAlready += count.RowsAlready
		p.RowsNewer += count.RowsNewer
		p.RowsMissing += count.RowsMissing
		p.RowsRefused += count.RowsRefused
	})
	return nil
}

func (p *Progress) result(r source.RestoreResult) {
	switch r {
	case source.RestoreDone:
		p.RowsRestored++
	case source.RestoreAlready:
		p.RowsAlready++
	case source.RestoreNewer:
		p.RowsNewer++
	case source.RestoreMissing:
		p.RowsMissing++
	case source.RestoreRefused:
		p.RowsRefused++
	}
}

// restored is what a record says of its row.
func (w *restoring) restored(s source.Source, rec record) source.Restored {
	e := rec.entry
	return source.Restored{
		ID: e.ID, Name: e.Name, Version: e.Version, Size: e.SourceSize, ModTime: e.SourceTime, SHA256: e.SHA256,
		Pack: rec.pack.ID, PackedAt: rec.pack.Created, State: source.Packed,
		Cluster: w.view.Cluster(), ShardBits: w.view.ShardBits(), Generated: s.Generated,
	}
}

// absent reports whether an original is gone: its root is there, and neither the
// file nor one hidden in its place. A root that is empty, or not there, says
// nothing about a file; then the row is PACKED, and whoever deletes originals
// finds out in time.
func absent(ctx context.Context, files source.Originals, path string) bool {
	for _, open := range []func(context.Context, string) (source.Original, error){files.Open, files.OpenHidden} {
		f, err := open(ctx, path)
		if err == nil {
			_ = f.Close() // opened only to see that it is there
			return false
		}
		if _, root := errors.AsType[*source.RootError](err); root || !errors.Is(err, source.ErrNoFile) {
			return false
		}
	}
	return true
}
