package packer

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// listed is one due row with its place in the pack.
type listed struct {
	row    source.Row
	source *source.Source
	hash   desformat.NameHash
}

// lister lists the due rows of one range of all sources in name-hash order. It
// holds a page of each source and the rows of one des_hash value.
type lister struct {
	rng     desformat.Range
	due     source.Due
	cursors []*cursor
	stray   func(ctx context.Context, s *source.Source, row source.Row, text string) error

	group []listed // the rows of one des_hash value, ordered; taken from the front
}

type cursor struct {
	source *source.Source
	rows   []listed // the rest of the page
	after  source.After
	ended  bool
}

func newLister(sources []source.Source, rng desformat.Range, due source.Due,
	stray func(context.Context, *source.Source, source.Row, string) error,
) *lister {
	l := &lister{rng: rng, due: due, stray: stray}
	for i := range sources {
		l.cursors = append(l.cursors, &cursor{source: &sources[i], after: source.After{Hash: -1}})
	}
	return l
}

// next returns the next row; ok is false at the end.
func (l *lister) next(ctx context.Context) (_ listed, ok bool, err error) {
	if len(l.group) == 0 {
		if err := l.nextGroup(ctx); err != nil || len(l.group) == 0 {
			return listed{}, false, err
		}
	}
	first := l.group[0]
	l.group = l.group[1:]
	return first, true, nil
}

// nextGroup collects the rows of the lowest des_hash value left. The sources
// order by des_hash, the hash's top 32 bits, and then by id, so rows of one
// value still have to be put in the order of the whole hash; they are a
// handful unless names were made to collide.
func (l *lister) nextGroup(ctx context.Context) error {
	var lowest *listed
	for _, c := range l.cursors {
		if err := l.fill(ctx, c); err != nil {
			return err
		}
		if len(c.rows) > 0 && (lowest == nil || c.rows[0].hash.Top32() < lowest.hash.Top32()) {
			lowest = &c.rows[0]
		}
	}
	if lowest == nil {
		return nil
	}
	value := lowest.hash.Top32()
	group := make([]listed, 0, 2)
	for _, c := range l.cursors {
		for len(c.rows) > 0 && c.rows[0].hash.Top32() == value {
			group = append(group, c.rows[0])
			c.rows = c.rows[1:]
			if err := l.fill(ctx, c); err != nil {
				return err
			}
		}
	}
	slices.SortStableFunc(group, func(a, b listed) int {
		return cmp.Or(bytes.Compare(a.hash[:], b.hash[:]), cmp.Compare(a.row.Source, b.row.Source))
	})
	l.group = group
	return nil
}

// fill reads c's next page when the last one is used up.
func (l *lister) fill(ctx context.Context, c *cursor) error {
	for len(c.rows) == 0 && !c.ended {
		rows, err := c.source.Rows.Marked(ctx, l.rng, c.after, l.due, source.MaxBatch)
		if err != nil {
			return fmt.Errorf("list rows of source %s: %w", c.source.Name, err)
		}
		c.ended = len(rows) == 0
		page := make([]listed, 0, len(rows))
		for _, row := range rows {
			at := listed{row: row, source: c.source, hash: desformat.HashName(row.DesName)}
			value := int64(at.hash.Top32())
			// des_hash orders the list; a row whose name hashes elsewhere would
			// break the pack's order. It was written by somebody else.
			if !l.rng.Contains(at.hash) || value < c.after.Hash {
				if err := l.stray(ctx, c.source, row, "des_name and des_hash contradict each other"); err != nil {
					return err
				}
				continue
			}
			c.after = source.After{Hash: value, ID: row.ID}
			page = append(page, at)
		}
		c.rows = page
	}
	return nil
}
