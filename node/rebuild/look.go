package rebuild

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

const (
	packPrefix       = "packs/"
	quarantinePrefix = "quarantine/"

	// adoptBatch is how many packs are adopted in one call: reads want them soon.
	adoptBatch = 256
)

// look lists the store and adopts what is there: each whole pack of this
// cluster's earlier generations, and for collecting what is known to be none.
func (r *Rebuild) look(ctx context.Context, p Plan) error {
	r.progress.enter(PhasePacks)
	for {
		l := &looking{
			r: r, plan: p, view: r.cfg.Manifest.View(), seen: map[desformat.PackID]bool{},
			merged: map[desformat.PackID]raftmeta.Pack{}, replacers: map[desformat.PackID]raftmeta.Pack{},
		}
		if err := l.list(ctx); err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		if err := l.read(ctx); err != nil {
			return err
		}
		if err := l.replace(ctx); err != nil {
			return err
		}
		if l.vanished {
			continue // moved or replaced since it was listed: only a new listing tells
		}
		if err := l.uploads(ctx); err != nil {
			return err
		}
		l.missing(ctx)
		r.report(ctx, l.odd)
		return r.quarantined(ctx)
	}
}

// looking is one look at the store.
type looking struct {
	r    *Rebuild
	plan Plan
	view *raftmeta.View // when it began

	listed, known int
	wanted        []candidate               // whose footers are read
	dead          []raftmeta.Upload         // objects that the base knows to be no packs
	seen          map[desformat.PackID]bool // packs whose object is where it should be

	vanished  bool
	merged    map[desformat.PackID]raftmeta.Pack // to be adopted together, at the end
	replacers map[desformat.PackID]raftmeta.Pack // by what they stand for
	odd       []Odd
}

// candidate is an object that may be a pack, and the token in its key.
type candidate struct {
	store.Object
	token desformat.Token
}

func (l *looking) oddity(kind OddKind, key, why string) {
	l.odd = append(l.odd, Odd{Kind: kind, Key: key, Why: why})
}

// list sorts the objects below packs/ by what their keys say.
func (l *looking) list(ctx context.Context) error {
	l.r.request()
	err := l.r.cfg.Store.List(ctx, packPrefix, "", func(o store.Object) error {
		l.listed++
		return errors.Join(l.object(o), ctx.Err())
	})
	// Reads go on meanwhile: of two versions of a file the newer one is found first.
	slices.SortStableFunc(l.wanted, func(a, b candidate) int { return b.token.Compare(a.token) })
	l.r.progress.add(func(s *Progress) {
		s.Listed, s.Known, s.ToRead = l.listed, l.known, s.Read+len(l.wanted)
	})
	return err
}

func (l *looking) object(o store.Object) error {
	_, token, id, err := desformat.ParsePackKey(o.Key)
	if err != nil {
		l.oddity(OddKey, o.Key, err.Error())
		return nil
	}
	if token.Generation == l.view.Generation() {
		// Nothing is packed before the rebuild is done, so others have lived under
		// this number: their claim is gone from the store, or it was given twice.
		return fmt.Errorf("%s is of generation %d, in which this life has packed nothing yet: %w", o.Key, token.Generation, ErrSuperseded)
	}
	switch p := l.view.Pack(id); {
	case p != nil && p.Copies[0].Key != o.Key:
		l.oddity(OddPlace, o.Key, "the manifest knows its pack at "+p.Copies[0].Key)
	case p != nil:
		l.known++
		l.seen[id] = true
		if p.Size != o.Size {
			l.oddity(OddSize, o.Key, fmt.Sprintf("it has %d bytes, the manifest says %d", o.Size, p.Size))
		}
	case l.plan.Dead.has(token):
		at := o.Modified
		if at.IsZero() {
			at = l.r.cfg.Now()
		}
		l.dead = append(l.dead, raftmeta.Upload{Key: o.Key, Pack: id, Token: token, BeganAt: at})
	default:
		l.wanted = append(l.wanted, candidate{o, token})
	}
	return nil
}

// finding is what reading one footer has come to.
type finding struct {
	pack     raftmeta.Pack
	replaces []desformat.PackID
	odd      *Odd
	vanished bool
	err      error
}

// read reads the footers that are wanted, many at once, and adopts as it goes.
// It ends when all are read: a store that does not answer is asked again.
func (l *looking) read(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make(chan finding)
	ended := make(chan error, 1)
	go func() {
		defer close(found)
		ended <- parallel(ctx, l.r.cfg.Footers, len(l.wanted), func(i int) error {
			f := l.r.footer(ctx, l.view, l.wanted[i].Object)
			select {
			case found <- f:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	var adopt []raftmeta.Pack
	var failed error
	flush := func() {
		if failed == nil && len(adopt) > 0 {
			if failed = l.adopt(ctx, adopt); failed != nil {
				cancel(failed)
			}
		}
		adopt = adopt[:0]
	}
	for f := range found {
		switch {
		case f.err != nil:
			failed = f.err
			cancel(failed)
		case f.vanished:
			l.vanished = true
		case f.odd != nil:
			l.odd = append(l.odd, *f.odd)
		case len(f.replaces) > 0:
			l.replaced(f)
		default:
			if adopt = append(adopt, f.pack); len(adopt) == adoptBatch {
				flush()
			}
		}
	}
	flush()
	if err := <-ended; failed == nil {
		failed = err
	}
	return failed
}

func (l *looking) adopt(ctx context.Context, packs []raftmeta.Pack) error {
	if err := l.r.cfg.Commands.Adopt(ctx, raftmeta.Adoption{Packs: packs}); err != nil {
		return err
	}
	var bytes int64
	for i := range packs {
		l.seen[packs[i].ID] = true
		bytes += packs[i].Size
	}
	l.r.progress.add(func(s *Progress) { s.Adopted += len(packs); s.Objects += bytes })
	return nil
}

// footer reads what one object says of itself. A store's error is waited out.
func (r *Rebuild) footer(ctx context.Context, v *raftmeta.View, o store.Object) finding {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		f, err := desformat.ReadFooter(ctx, fetcher{r, o.Key, o.Version}, o.Size)
		odd := func(kind OddKind, why string) finding {
			r.progress.add(func(s *Progress) { s.Read++ })
			return finding{odd: &Odd{Kind: kind, Key: o.Key, Why: why}}
		}
		switch {
		case err == nil:
			r.progress.add(func(s *Progress) { s.Read++ })
			return judge(v, o, f)
		case errors.Is(err, store.ErrNotFound):
			return finding{vanished: true}
		case errors.Is(err, desformat.ErrNotPack):
			return odd(OddTorn, err.Error())
		case errors.Is(err, desformat.ErrVersion):
			return odd(OddVersion, err.Error())
		case errors.Is(err, desformat.ErrCorrupt):
			return odd(OddDamaged, err.Error())
		}
		if ctx.Err() == nil {
			r.failed(ctx, fmt.Errorf("%s: %w", o.Key, err))
		}
		if err := wait(ctx, pause); err != nil {
			return finding{err: err}
		}
	}
}

// unreadable reports whether an object was found to be no pack that can be read:
// not an error of the store, which says nothing about it.
func unreadable(err error) bool {
	return errors.Is(err, desformat.ErrCorrupt) || errors.Is(err, desformat.ErrNotPack) ||
		errors.Is(err, desformat.ErrVersion) || errors.Is(err, store.ErrNotFound)
}

// judge says what becomes of an object that ends as a whole pack does.
func judge(v *raftmeta.View, o store.Object, f desformat.Footer) finding {
	odd := func(kind OddKind, why string) finding { return finding{odd: &Odd{Kind: kind, Key: o.Key, Why: why}} }
	switch {
	case f.Cluster != v.Cluster():
		return odd(OddCluster, "it is a pack of cluster "+f.Cluster.String())
	case desformat.PackKey(f.Range, f.Token, f.Pack) != o.Key:
		return odd(OddPlace, "its footer is that of "+desformat.PackKey(f.Range, f.Token, f.Pack))
	case f.Token.Generation > v.Generation():
		return finding{err: fmt.Errorf("pack %s is of generation %d, this life is %d: %w", o.Key, f.Token.Generation, v.Generation(), ErrSuperseded)}
	case f.Pack.IsZero(), f.Records == 0, f.Token.Generation == 0, f.MinSeq.Compare(f.MaxSeq) > 0, f.MaxSeq.Compare(f.Token) > 0:
		return odd(OddDamaged, fmt.Sprintf("it says %d records with seqs %s to %s under token %s", f.Records, f.MinSeq, f.MaxSeq, f.Token))
	}
	return finding{replaces: f.Replaces, pack: raftmeta.Pack{
		ID: f.Pack, Token: f.Token, Range: f.Range, Size: f.Size, SHA256: f.SHA256,
		Records: f.Records, PayloadBytes: f.PayloadBytes, Catalog: f.Catalog, Index: f.Index,
		MinSeq: f.MinSeq, MaxSeq: f.MaxSeq, Created: f.Created,
		Copies: []raftmeta.Copy{{Key: o.Key, Version: o.Version}},
	}}
}

// replaced notes a pack that stands for others. Of two that stand for the same,
// one was never committed: both hold the same records, so either will do.
func (l *looking) replaced(f finding) {
	l.merged[f.pack.ID] = f.pack
	for _, id := range f.replaces {
		if other, taken := l.replacers[id]; !taken || other.Token.Compare(f.pack.Token) < 0 {
			l.replacers[id] = f.pack
		}
	}
}

// replace adopts the packs that stand for others, together with those that they
// stand for, which are known by now.
func (l *looking) replace(ctx context.Context) error {
	if len(l.merged) == 0 {
		return nil
	}
	v := l.r.cfg.Manifest.View()
	for id, by := range l.replacers {
		p, ok := l.merged[id]
		if known := v.Pack(id); known != nil {
			p, ok = *known, true
		}
		// Who stands for another was made after it: no two stand for each other.
		if ok && by.Token.Compare(p.Token) > 0 && p.ReplacedBy.IsZero() {
			p.ReplacedBy = by.ID
			l.merged[id] = p
		}
	}
	return l.adopt(ctx, slices.Collect(maps.Values(l.merged)))
}

// uploads announces what is no pack and never will be: what the base says, and
// what was begun in parts and never ended.
func (l *looking) uploads(ctx context.Context) error {
	found := l.dead
	if l.r.cfg.Uploads != nil {
		l.r.request()
		err := l.r.cfg.Uploads.Uploads(ctx, packPrefix, func(u store.Upload) error {
			_, token, id, err := desformat.ParsePackKey(u.Key)
			if err == nil && token.Generation > 0 && token.Generation < l.view.Generation() {
				found = append(found, raftmeta.Upload{Key: u.Key, Pack: id, Token: token, BeganAt: u.Begun})
			}
			return ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("list open uploads: %w", err)
		}
	}
	v := l.r.cfg.Manifest.View()
	announced := map[string]bool{}
	for _, u := range v.Uploads() {
		announced[u.Key] = true
	}
	found = slices.DeleteFunc(found, func(u raftmeta.Upload) bool {
		known := announced[u.Key] || v.Pack(u.Pack) != nil
		announced[u.Key] = true
		return known
	})
	if len(found) == 0 {
		return nil
	}
	if err := l.r.cfg.Commands.Adopt(ctx, raftmeta.Adoption{Uploads: found}); err != nil {
		return fmt.Errorf("announce uploads: %w", err)
	}
	l.r.progress.add(func(s *Progress) { s.Uploads += len(found) })
	return nil
}

// missing notes live packs whose object the store does not list. They stay in
// the manifest, so that their files are missed and not forgotten.
func (l *looking) missing(context.Context) {
	for p := range l.r.cfg.Manifest.View().Packs() {
		if p.Token.Generation < l.view.Generation() && p.ReplacedBy.IsZero() && !l.seen[p.ID] {
			l.oddity(OddMissing, p.Copies[0].Key, "the store does not list the object of this pack")
		}
	}
}

// report tells of what is odd, in place of what an earlier look has told.
func (r *Rebuild) report(ctx context.Context, odd []Odd) {
	slices.SortFunc(odd, func(a, b Odd) int { return strings.Compare(a.Key, b.Key) })
	count := map[OddKind]int{}
	for _, o := range odd {
		count[o.Kind]++
		r.log.WarnContext(ctx, "object left as it is", "key", o.Key, "kind", string(o.Kind), "why", o.Why)
	}
	r.progress.add(func(s *Progress) {
		s.Problem = ""
		s.Odd, s.OddCount = odd[:min(len(odd), MaxOdd)], count
	})
}

// quarantined has the objects in quarantine noted, so that they are looked at
// again before they are deleted.
func (r *Rebuild) quarantined(ctx context.Context) error {
	var keys []string
	r.request()
	err := r.cfg.Store.List(ctx, quarantinePrefix, "", func(o store.Object) error {
		keys = append(keys, o.Key)
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("list quarantine: %w", err)
	}
	slices.Sort(keys)
	r.progress.add(func(s *Progress) { s.Hidden = len(keys) })
	if len(keys) == 0 {
		return nil
	}
	if err := r.cfg.Quarantined(ctx, keys); err != nil {
		return fmt.Errorf("note what is in quarantine: %w", err)
	}
	return nil
}
