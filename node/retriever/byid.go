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
	began := r.cfg.Now()
	file, err := r.openID(ctx, sourceName, id, q)
	outcome := outcomeByID
	if err != nil {
		outcome = outcomeOfError(err)
	}
	r.metrics.done(outcome, r.cfg.Now().Sub(began))
	return file, err
}

func (r *Retriever) openID(ctx context.Context, sourceName, id string, q Query) (File, error) {
	file, err := r.openIDOnce(ctx, sourceName, id, q, false)
	if errors.Is(err, errOvertaken) {
		file, err = r.openIDOnce(ctx, sourceName, id, q, true)
	}
	return file, err
}

// openIDOnce is one round; last says that no other will follow.
func (r *Retriever) openIDOnce(ctx context.Context, sourceName, id string, q Query, last bool) (File, error) {
	row, src, err := r.rowByID(ctx, sourceName, id)
	if errors.Is(err, ErrNotFound) {
		return File{}, r.missedID(ctx, q.Client, err)
	}
	if err != nil {
		return File{}, err
	}
	l := lookup{name: servedName(row), want: q.Want, keep: true}
	l.hash = desformat.HashName(l.name)
	if desformat.CheckName(l.name) != nil { // then it never was packed
		return r.original(ctx, src, row, l.hash.Shard(r.cfg.Manifest.View().ShardBits()), last)
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
	return r.original(ctx, src, row, l.hash.Shard(v.ShardBits()), last)
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
func isOf(f found, row source.Row) bool {
	return f.rec != nil && f.rec.Header.Source == row.Source && f.rec.Header.ID == row.ID
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
