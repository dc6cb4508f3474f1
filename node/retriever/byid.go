package retriever

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// OpenID finds the file of a row. The name comes from the row, and the record's
// own source and id are held against it. An empty sourceName asks all sources.
// Errors as Open's, and ErrUnknownSource, ErrAmbiguous.
func (r *Retriever) OpenID(ctx context.Context, sourceName, id string, q Query) (File, error) {
	return r.OpenIDFrom(ctx, sourceName, id, q, nil)
}

// OpenIDFrom is OpenID that asks elsewhere for the record of the row's name
// before it looks for it itself. What elsewhere gives is served when it is the
// row's own, and closed otherwise; without an answer it returns false.
func (r *Retriever) OpenIDFrom(ctx context.Context, sourceName, id string, q Query, elsewhere func(context.Context, Key) (File, bool)) (File, error) {
	began := r.cfg.Now()
	b := byID{sourceName, id, q, elsewhere}
	file, err := r.openID(ctx, b, false)
	if errors.Is(err, errOvertaken) {
		file, err = r.openID(ctx, b, true)
	}
	outcome := outcomeByID
	if err != nil {
		outcome = outcomeOfError(err)
	}
	r.metrics.done(outcome, r.cfg.Now().Sub(began))
	return file, err
}

// byID is one question for the file of a row.
type byID struct {
	source, id string
	query      Query
	elsewhere  func(context.Context, Key) (File, bool) // nil: nowhere
}

// openID is one round; last says that no other will follow.
func (r *Retriever) openID(ctx context.Context, b byID, last bool) (File, error) {
	row, src, err := r.rowByID(ctx, b.source, b.id)
	if errors.Is(err, ErrNotFound) {
		return File{}, r.missedID(ctx, b.query.Client, err)
	}
	if err != nil {
		return File{}, err
	}
	name := servedName(row)
	l := lookup{Key: Key{name, desformat.HashName(name)}, want: b.query.Want, keep: true}
	if desformat.CheckName(name) != nil { // then it never was packed
		return r.original(ctx, src, row, l.Hash.Shard(r.cfg.Manifest.View().ShardBits()), last)
	}
	if b.elsewhere != nil {
		if f, ok := b.elsewhere(ctx, l.Key); ok && f.Record != nil && f.Record.isOf(row) {
			return f, nil
		} else if ok {
			f.Close()
		}
	}
	f, v, err := r.locate(ctx, &l)
	if err != nil {
		return File{}, err
	}
	if isOf(f, row) && f.rec.Header.Type == desformat.TypeFile {
		return r.file(f, v, &l), nil
	}
	f.close()
	if f, v, err = r.confirmed(ctx, &l); err != nil {
		return File{}, err
	}
	if isOf(f, row) {
		return r.live(f, v, &l)
	}
	f.close() // the name belongs to another id by now, or to none
	return r.original(ctx, src, row, l.Hash.Shard(v.ShardBits()), last)
}

// servedName is the name that the row's file has in the archive.
func servedName(row source.Row) string {
	if row.DesName != "" {
		return row.DesName
	}
	return row.Name
}

// isOf reports whether a record was found and archives, or removes, the file of
// row.
func isOf(f found, row source.Row) bool { return f.rec != nil && f.rec.isOf(row) }

func (c *Record) isOf(row source.Row) bool {
	return c.Header.Source == row.Source && c.Header.ID == row.ID
}

// missedID answers for an id that no source has: like every absence, only with
// a quorum.
func (r *Retriever) missedID(ctx context.Context, client string, notFound error) error {
	limited := r.cfg.Misses != nil && client != ""
	if limited && !r.cfg.Misses.Allow(client) {
		return ErrBusy
	}
	if _, err := r.confirm(ctx); err != nil {
		return err
	}
	if limited {
		r.cfg.Misses.Missed(client)
	}
	return notFound
}

// rowByID asks the named source, or all: exactly one may have the id.
func (r *Retriever) rowByID(ctx context.Context, sourceName, id string) (row source.Row, from Source, err error) {
	asked, hits := 0, 0
	for _, src := range r.cfg.Sources() {
		if sourceName != "" && src.Name != sourceName {
			continue
		}
		asked++
		got, err := r.ask(ctx, src, func(ctx context.Context) (source.Row, error) { return src.Rows.ByID(ctx, id) })
		switch {
		case err == nil:
			hits++
			row, from = got, src
		case ctx.Err() != nil:
			return source.Row{}, Source{}, ctx.Err()
		case !errors.Is(err, source.ErrNotFound):
			// With one source silent, nobody can say which row is meant.
			return source.Row{}, Source{}, fmt.Errorf("%w: source %s: %w", ErrUnavailable, src.Name, err)
		}
	}
	switch {
	case asked == 0 && sourceName != "":
		return source.Row{}, Source{}, fmt.Errorf("%w: %q", ErrUnknownSource, sourceName)
	case hits > 1:
		return source.Row{}, Source{}, ErrAmbiguous
	case hits == 0:
		return source.Row{}, Source{}, ErrNotFound
	}
	return row, from, nil
}
