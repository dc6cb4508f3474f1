package retriever

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/raftmeta"
)

// Records that another node answered with: foreign ones. They share the data
// cache and its cap with records that this node found, by the hash of their
// name.
//
// When is a foreign record R, which was the newest of its name in another
// node's view at Raft index A, the newest in this node's view at index B?
//
//   - B < A: always, as far as this node can know. Its view is a beginning of
//     the one that was asked, so it can hold nothing newer; R's pack may be one
//     that it has not heard of yet.
//   - B ≥ A: when R's pack is live in the view, R's ordinal is not dead, and no
//     live pack that covers the name was added after A with a MaxSeq above R's
//     seq. Whatever was added up to A the other node has looked at. Records die
//     and packs leave, but nothing dead comes back, so nothing else than a pack
//     added since can hold a newer version or a tombstone.
//
// A merged pack is a pack added since: its inputs are no longer live, which ends
// R when its own pack was among them, and its MaxSeq ends R when it may hold
// something newer. Both are more careful than need be, since R stands in the
// merged pack as it was, and cost one question.
//
// So no record of a pack that has left the view is served once the view has
// caught up with the answer.

// Errors of answers that are not served, returned wrapped by OpenForeign.
var (
	// ErrOutdated: this node's own view knows better than the answer.
	ErrOutdated = errors.New("the answer is older than this node's view")
	// ErrContradiction: the answer contradicts the question, itself or the store.
	ErrContradiction = errors.New("the answer contradicts itself")
)

// Answer is what another node answered about a name: the newest record it has.
type Answer struct {
	Applied uint64            // Raft index of the view that it looked in
	Header  *desformat.Header // the lengths of the record's parts may be missing
	Pack    desformat.PackID
	Ordinal uint32
	Content []byte // all of it; nil: it did not come along
	Place   *Stored
}

// Stored is where a record lies in the store.
type Stored struct {
	Key, Version   string // of the object
	Offset, Length int64  // of the record, bytes
}

// Standing is what this node knows of a name before it asks another.
type Standing struct {
	Kept    bool // a foreign record is in memory and still the newest
	Covered bool // there is a live pack that may hold the name
	// MinIndex is the highest Raft index at which one of those packs was added or
	// changed: a node that has applied it knows all that this one does.
	MinIndex uint64
}

// Kept returns the foreign record of a name, when it is in memory and still the
// newest, and what to ask another node for when it is not.
func (r *Retriever) Kept(k Key, want Want) (File, Standing) {
	rec, _ := r.records.cache.GetIfPresent(foreignKey(k.Hash))
	return r.standing(rec, k, want)
}

// standing holds a foreign record, nil when there is none, against the view.
func (r *Retriever) standing(rec *Record, k Key, want Want) (f File, now Standing) {
	s, _ := r.scratch.Get().(*scratch)
	defer func() {
		clear(s.packs) // so that nothing of an old view is kept
		r.scratch.Put(s)
	}()
	v := r.cfg.Manifest.View()
	s.packs = v.Covering(k.Hash, s.packs[:0])
	for _, p := range s.packs {
		now.MinIndex = max(now.MinIndex, p.AddIndex, p.ModIndex)
	}
	now.Covered = len(s.packs) > 0
	if rec == nil || rec.Header.Name != k.Name || !rec.serves(want) {
		return File{}, now
	}
	pack, newest := rec.newest(v.Applied(), s.packs)
	if !newest {
		r.records.cache.Invalidate(foreignKey(k.Hash))
		return File{}, now
	}
	now.Kept = true
	return File{Record: rec, Shard: k.Hash.Shard(v.ShardBits()), r: r, pack: rec.packOr(pack)}, now
}

// newest reports whether a foreign record is the newest of its name in a view:
// the rule above. It returns the view's own entry of the record's pack; nil: the
// view has not got that far.
func (c *Record) newest(applied uint64, covering []*raftmeta.Pack) (own *raftmeta.Pack, ok bool) {
	for _, p := range covering {
		switch {
		case p.ID == c.Pack:
			if p.IsDead(c.Location.Ordinal) || !c.fits(p) {
				return nil, false
			}
			own = p
		case p.AddIndex > c.answered && p.MaxSeq.Compare(c.Header.Seq) > 0:
			return nil, false
		}
	}
	return own, own != nil || applied < c.answered
}

// fits reports whether the record can be one of pack p.
func (c *Record) fits(p *raftmeta.Pack) bool {
	seq := c.Header.Seq
	return c.Location.Ordinal < p.Records && seq.Compare(p.MinSeq) >= 0 && seq.Compare(p.MaxSeq) <= 0
}

// serves reports whether what is in memory of a foreign record is enough to
// begin an answer.
func (c *Record) serves(want Want) bool {
	return c.whole || want == WantHeader || c.Header.HeaderLen > 0
}

// packOr returns own, or what is known of the record's pack without it.
func (c *Record) packOr(own *raftmeta.Pack) *raftmeta.Pack {
	if own != nil {
		return own
	}
	return &raftmeta.Pack{ID: c.Pack, Copies: []raftmeta.Copy{{Key: c.key, Version: c.version}}}
}

// foreignAsk tells questions to other nodes apart that can't share an answer.
type foreignAsk struct {
	key    recordKey
	header bool
}

// OpenForeign finds the file of a name by what another node answers. Any number
// of callers at once make one question. ask bounds itself: its context is not
// that of one caller.
//
// An error says nothing about the name; whoever gets one calls OpenKey. Errors:
// ask's, ErrOutdated, ErrContradiction, and those of reading the store.
func (r *Retriever) OpenForeign(ctx context.Context, k Key, want Want, ask func(context.Context) (*Answer, error)) (File, error) {
	rec, err := r.foreign(ctx, k, want, ask)
	if err != nil {
		return File{}, err
	}
	return r.openAnswer(ctx, k, want, rec)
}

// foreign asks, joining a question under way.
func (r *Retriever) foreign(ctx context.Context, k Key, want Want, ask func(context.Context) (*Answer, error)) (*Record, error) {
	key := foreignKey(k.Hash)
	return r.records.asked.do(ctx, foreignAsk{key, want == WantHeader}, func() (*Record, error) {
		// The answer before this one may have come after this caller missed.
		if e, ok := r.records.cache.GetEntryQuietly(key); ok {
			if f, s := r.standing(e.Value, k, want); s.Kept {
				return f.Record, nil
			}
		}
		a, err := ask(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		rec, err := a.record(k)
		if err != nil {
			return nil, err
		}
		if _, _, err := r.admit(k, rec); err != nil {
			return nil, err
		}
		if rec.serves(want) {
			r.records.putForeign(key, rec)
		}
		return rec, nil
	})
}

// record holds an answer against the question and against itself.
func (a *Answer) record(k Key) (*Record, error) {
	h := a.Header
	switch {
	case h.Type != desformat.TypeFile, h.Name != k.Name, h.Size < 0, a.Pack == desformat.PackID{}:
		return nil, fmt.Errorf("%w: not a file of that name in a pack", ErrContradiction)
	case a.Content != nil && (int64(len(a.Content)) != h.Size || sha256.Sum256(a.Content) != h.SHA256):
		return nil, fmt.Errorf("%w: the content is not the header's", ErrContradiction)
	}
	rec := &Record{
		Header: h, Location: desformat.Location{Ordinal: a.Ordinal}, Pack: a.Pack,
		answered: a.Applied, content: a.Content, whole: a.Content != nil,
	}
	if a.Place != nil {
		rec.Location.Offset, rec.Location.Length = a.Place.Offset, a.Place.Length
		rec.key, rec.version = a.Place.Key, a.Place.Version
	}
	return rec, nil
}

// admit holds a record that was answered against this node's newest view, and
// returns that with its entry of the record's pack; nil: it has none yet.
func (r *Retriever) admit(k Key, rec *Record) (View, *raftmeta.Pack, error) {
	v := r.cfg.Manifest.View()
	covering := v.Covering(k.Hash, nil)
	for _, p := range covering {
		if p.ID == rec.Pack && !rec.fits(p) {
			return nil, nil, fmt.Errorf("%w: record %d of seq %s can't be in pack %s", ErrContradiction, rec.Location.Ordinal, rec.Header.Seq, p.ID)
		}
	}
	own, newest := rec.newest(v.Applied(), covering)
	if !newest {
		return nil, nil, fmt.Errorf("%w: answered at index %d, here it is %d", ErrOutdated, rec.answered, v.Applied())
	}
	return v, own, nil
}

// openAnswer opens what was answered. It is admitted once more, since whoever
// joined a question may have seen more than the one who asked.
func (r *Retriever) openAnswer(ctx context.Context, k Key, want Want, rec *Record) (File, error) {
	v, own, err := r.admit(k, rec)
	if err != nil {
		return File{}, err
	}
	file := File{Record: rec, Shard: k.Hash.Shard(v.ShardBits()), r: r, pack: rec.packOr(own)}
	if rec.serves(want) {
		return file, nil
	}
	if rec.key == "" {
		return File{}, fmt.Errorf("%w: neither content nor a place", ErrContradiction)
	}
	if want == WantWhole {
		err = r.streamAnswer(ctx, &file)
	} else {
		err = r.headAnswer(ctx, &file)
	}
	if err != nil {
		return File{}, r.classify(ctx, file.pack, rec.Location.Offset, err)
	}
	r.records.putForeign(foreignKey(k.Hash), file.Record)
	return file, nil
}

// streamAnswer begins to read a large record at the place that was answered.
func (r *Retriever) streamAnswer(ctx context.Context, f *File) error {
	body, err := desformat.OpenRecord(ctx, r.object(f.pack, causeRecord), f.Record.Location)
	if err != nil {
		return err
	}
	rec, err := f.Record.read(body.Header())
	if err != nil {
		_ = body.Close() // only read from
		return err
	}
	f.Record, f.stream = rec, body
	return nil
}

// headAnswer reads the header of a large record at the place that was answered,
// joining a read of that very place under way: two answers that disagree about
// the place share nothing.
func (r *Retriever) headAnswer(ctx context.Context, f *File) error {
	loc := f.Record.Location
	at := Stored{Offset: loc.Offset, Length: loc.Length}
	at.Key, at.Version = place(f.pack)
	h, err := r.records.places.do(ctx, at, func() (*desformat.Header, error) {
		load, cancel := r.loadContext(ctx)
		defer cancel()
		h, err := desformat.ReadHeader(load, r.object(f.pack, causeHeader), loc)
		return h, r.classify(context.WithoutCancel(ctx), f.pack, loc.Offset, err)
	})
	if err != nil {
		return err
	}
	f.Record, err = f.Record.read(h)
	return err
}

// read is the record with the header that stands in the store, if that is the
// one that was answered.
func (c *Record) read(h *desformat.Header) (*Record, error) {
	was := c.Header
	if h.Type != was.Type || h.Name != was.Name || h.Seq != was.Seq || h.Size != was.Size || h.SHA256 != was.SHA256 ||
		h.Source != was.Source || h.ID != was.ID {
		return nil, fmt.Errorf("%w: another record is stored where it points to", ErrContradiction)
	}
	return &Record{Header: h, Location: c.Location, Pack: c.Pack, key: c.key, version: c.version, answered: c.answered}, nil
}

// putForeign keeps a foreign record, unless a newer one is kept, or more of the
// same.
func (c *recordCache) putForeign(key recordKey, rec *Record) {
	if e, ok := c.cache.GetEntryQuietly(key); ok {
		order := e.Value.Header.Seq.Compare(rec.Header.Seq)
		if order > 0 || order == 0 && e.Value.has() > rec.has() {
			return
		}
	}
	c.put(key, rec)
}

// has orders records by how much of them is in memory.
func (c *Record) has() int {
	switch {
	case c.whole:
		return 2
	case c.Header.HeaderLen > 0:
		return 1
	}
	return 0
}
