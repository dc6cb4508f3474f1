package retriever

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// Query says how a file is asked for.
type Query struct {
	Want   Want
	Client string // who asks, for the limit on misses; empty: not limited

	// What the answering node is told when another one is asked; at most 128
	// bytes each, empty: nothing.
	RequestID   string
	Traceparent string
}

// Limiter bounds how often a client may ask for what does not exist. All
// methods may be called at once.
type Limiter interface {
	// Allow reports whether client may miss once more. It costs nothing yet.
	Allow(client string) bool
	// Missed counts a miss.
	Missed(client string)
}

// Open finds the file of a name. Errors: desformat.ErrInvalidName, ErrNotFound,
// ErrGone, ErrUnavailable, ErrUnconfirmed, ErrBusy, *CorruptError, and ctx's.
func (r *Retriever) Open(ctx context.Context, name string, q Query) (File, error) {
	k, err := KeyOf(name)
	if err != nil {
		r.metrics.done(outcomeInvalid, 0)
		return File{}, err
	}
	return r.OpenKey(ctx, k, q)
}

// OpenKey is Open of a name that KeyOf has checked.
func (r *Retriever) OpenKey(ctx context.Context, k Key, q Query) (File, error) {
	began := r.cfg.Now()
	l := lookup{Key: k, want: q.Want, keep: true}
	f, v, err := r.locate(ctx, &l)
	outcome := outcomeOf(f, &l)
	var file File
	switch {
	case err != nil:
	case f.rec != nil && f.rec.Header.Type != desformat.TypeTombstone:
		file = r.file(f, v, &l)
	default:
		outcome = outcomeSource
		file, err = r.miss(ctx, &l, q.Client)
	}
	if err != nil {
		outcome = outcomeOfError(err)
	}
	r.metrics.done(outcome, r.cfg.Now().Sub(began))
	return file, err
}

// file is the answer from a record.
func (r *Retriever) file(f found, v View, l *lookup) File {
	return File{Record: f.rec, Shard: l.Hash.Shard(v.ShardBits()), r: r, pack: f.pack, stream: f.stream}
}

// miss goes on where the packs of this node's view hold no live record. It
// looks again in a confirmed view, then asks the sources, and repeats that once
// when the original vanishes between look-up and open.
func (r *Retriever) miss(ctx context.Context, l *lookup, client string) (File, error) {
	if r.cfg.Misses != nil && client != "" && !r.cfg.Misses.Allow(client) {
		return File{}, ErrBusy
	}
	file, err := r.missOnce(ctx, l, false)
	if errors.Is(err, errOvertaken) {
		file, err = r.missOnce(ctx, l, true)
	}
	if r.cfg.Misses != nil && client != "" && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrGone)) {
		r.cfg.Misses.Missed(client)
	}
	return file, err
}

// errOvertaken: the original has gone since its row was read, to a pack or for
// good.
var errOvertaken = errors.New("overtaken")

// missOnce is one round; last says that no other will follow.
func (r *Retriever) missOnce(ctx context.Context, l *lookup, last bool) (File, error) {
	// A tombstone in a view that turns out to be the newest is walked again:
	// it is rare, and in memory by now.
	f, v, err := r.confirmed(ctx, l)
	if err != nil {
		return File{}, err
	}
	if f.rec != nil {
		return r.live(f, v, l)
	}
	row, src, err := r.rowByName(ctx, l.Name)
	if err != nil {
		return File{}, err
	}
	if archived(row) {
		// Packed since the manifest was asked, or what the row says is wrong.
		if f, v, err = r.confirmed(ctx, l); err != nil {
			return File{}, err
		}
		if f.rec != nil {
			return r.live(f, v, l)
		}
	}
	return r.original(ctx, src, row, l.Hash.Shard(v.ShardBits()), last)
}

// live is the answer from a record of a confirmed view.
func (r *Retriever) live(f found, v View, l *lookup) (File, error) {
	if f.rec.Header.Type == desformat.TypeTombstone {
		return File{}, ErrGone
	}
	return r.file(f, v, l), nil
}

// archived reports whether the row says that a pack holds the file.
func archived(row source.Row) bool {
	return row.State == source.Packed || row.State == source.DeletedSource
}

// original opens the file of a row of which the manifest, confirmed after the
// row was read where the row says archived, has no record.
func (r *Retriever) original(ctx context.Context, src Source, row source.Row, shard uint32, last bool) (File, error) {
	if archived(row) {
		r.cfg.Logger.ErrorContext(ctx, "archived row without a record",
			"source", row.Source, "id", row.ID, "state", string(row.State), "pack", row.Pack.String())
		r.metrics.lostRecords.Inc()
		if row.State != source.Packed {
			return File{}, fmt.Errorf("%w: row %s of source %s is archived in pack %s, where no record of it lives", ErrUnavailable, row.ID, row.Source, row.Pack)
		}
	}
	o, err := src.Files.Open(ctx, row.Path)
	switch {
	case err == nil:
		return File{Original: o, Row: row, Shard: shard, r: r}, nil
	case !last && (errors.Is(err, source.ErrNoFile) || errors.Is(err, source.ErrChanged)):
		return File{}, errOvertaken
	case ctx.Err() != nil:
		return File{}, ctx.Err()
	}
	return File{}, &OriginalError{Row: row, Err: err}
}

// rowByName asks the sources in their order. ErrNotFound only when all of them
// said so.
func (r *Retriever) rowByName(ctx context.Context, name string) (source.Row, Source, error) {
	var failed error
	for _, src := range r.cfg.Sources() {
		row, err := r.ask(ctx, src, func(ctx context.Context) (source.Row, error) { return src.Rows.ByName(ctx, name) })
		switch {
		case err == nil:
			return row, src, nil
		case ctx.Err() != nil:
			return source.Row{}, Source{}, ctx.Err()
		case !errors.Is(err, source.ErrNotFound):
			failed = fmt.Errorf("%w: source %s: %w", ErrUnavailable, src.Name, err)
		}
	}
	if failed != nil {
		return source.Row{}, Source{}, failed
	}
	return source.Row{}, Source{}, ErrNotFound
}

// ask puts one question to a source, within the time limit.
func (r *Retriever) ask(ctx context.Context, src Source, question func(context.Context) (source.Row, error)) (source.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	row, err := question(ctx)
	if err == nil && row.Source == "" {
		row.Source = src.Name
	}
	return row, err
}
