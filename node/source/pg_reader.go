package source

import (
	"context"
	"fmt"
	"slices"

	"github.com/datavision/desnode/migrations"
)

// ByName returns the row that is served as name.
func (p *Postgres) ByName(ctx context.Context, name string) (Row, error) {
	const op = "look up the name"
	missing := p.wrap(op, fmt.Errorf("%q: %w", name, ErrNotFound))
	if !storable(name) {
		return Row{}, missing
	}
	found, err := p.rows(ctx, call{role: RoleReader, op: op}, func(q *pgQueries) request {
		v := &params{}
		value, served, own := v.text(name), q.col(migrations.ColDesName), q.col(migrations.ColName)
		return request{"(SELECT " + q.row + q.from(served+" = "+value) + " LIMIT 1) UNION ALL (SELECT " + q.row +
			q.from(own+" = "+value+" AND "+q.is(Active)+" AND "+served+" IS NULL") + " LIMIT 1)", *v}
	})
	switch code := sqlState(err); {
	case code == untranslatable || code == notInRepertoire: // no name in the database's own encoding
		return Row{}, missing
	case err != nil:
		return Row{}, err
	case len(found) == 0:
		return Row{}, missing
	}
	for _, r := range found {
		if r.DesName == name {
			return r, nil
		}
	}
	return found[0], nil
}

// ByID returns the row with that id.
func (p *Postgres) ByID(ctx context.Context, id string) (Row, error) {
	c := call{role: RoleReader, op: "look up the id"}
	found, err := p.byID(ctx, c, id)
	if err == nil && len(found) == 0 {
		err = p.wrap(c.op, fmt.Errorf("%q: %w", id, ErrNotFound))
	}
	if err != nil {
		return Row{}, err
	}
	return found[0], nil
}

// byID returns the row with that id, or none.
func (p *Postgres) byID(ctx context.Context, c call, id string) ([]Row, error) {
	found, err := p.rows(ctx, c, func(q *pgQueries) request {
		if !q.id.holds(id) {
			return request{sql: "SELECT WHERE false"}
		}
		v := &params{}
		return request{"SELECT " + q.row + q.from(q.col(migrations.ColID)+" = "+v.text(id)+"::"+q.id.cast) + " LIMIT 1", *v}
	})
	if len(found) > 0 && found[0].ID != id { // another spelling of it
		return nil, err
	}
	return found, err
}

// ByIDs returns the rows with these ids, by rising id.
func (p *Postgres) ByIDs(ctx context.Context, ids []string) ([]Row, error) {
	c := call{role: RoleReader, op: "look up ids"}
	if err := checkBatch(len(ids)); err != nil {
		return nil, p.wrap(c.op, err)
	}
	return p.byIDs(ctx, c, ids)
}

func (p *Postgres) byIDs(ctx context.Context, c call, ids []string) ([]Row, error) {
	asked := map[string]bool{}
	found, err := p.rows(ctx, c, func(q *pgQueries) request {
		clear(asked)
		var list []string
		for _, id := range ids {
			if q.id.holds(id) && !asked[id] {
				list, asked[id] = append(list, id), true
			}
		}
		v := &params{}
		id := q.col(migrations.ColID)
		return request{"SELECT " + q.row + q.from(id+" = ANY ("+v.texts(list)+"::"+q.id.cast+"[])") + " ORDER BY " + id, *v}
	})
	// Another spelling of an id, such as 1.0 of a numeric, is another's.
	return slices.DeleteFunc(found, func(r Row) bool { return !asked[r.ID] }), err
}

// Rows lists rows by rising id. Where the filter or the side binding's view
// hides rows it goes by windows of ids: no statement takes long, however far
// the next row is.
func (p *Postgres) Rows(ctx context.Context, after string, limit int) ([]Row, error) {
	c := call{role: RoleReader, op: "list the rows", narrow: true}
	limit = min(limit, MaxBatch)
	if !p.resolved.Side && p.resolved.Filter == "" {
		return p.list(ctx, c, after, limit, func(*pgQueries, *params) string { return "true" })
	}
	for {
		upTo, full, err := p.window(ctx, c, after, windowRows, byKeys)
		if err != nil || upTo == "" {
			return nil, err
		}
		found, err := p.list(ctx, c, after, limit, func(q *pgQueries, v *params) string {
			return q.col(migrations.ColID) + " <= " + v.text(upTo) + "::" + q.id.cast
		})
		if err != nil || len(found) > 0 || !full {
			return found, err
		}
		after = upTo
	}
}
