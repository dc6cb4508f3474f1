package source

import (
	"context"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
)

// Deletable lists PACKED rows of the pack, by rising id.
func (p *Postgres) Deletable(ctx context.Context, pack desformat.PackID, packedBefore time.Time, after string, limit int) ([]Row, error) {
	return p.list(ctx, call{role: RoleDeleter, op: "deletable"}, after, limit, func(q *pgQueries, v *params) string {
		return q.is(Packed) + " AND " + q.col(migrations.ColPack) + " = " + v.bytes(pack[:]) +
			" AND " + q.col(migrations.ColPackedAt) + " < " + v.at(packedBefore) + " AND " + q.col(migrations.ColError) + " IS NULL"
	})
}

// Claim sets des_claim on a PACKED row. A claim as last seen is replaced: its
// holder is a deletion that was cut.
func (p *Postgres) Claim(ctx context.Context, row Row, claim string) (bool, error) {
	const op = "claim"
	if err := claimable(&row, claim); err != nil {
		return false, p.wrap(op, err)
	}
	return p.one(ctx, call{role: RoleDeleter, op: op}, &row, func(q *pgQueries) request {
		v := &params{}
		held, mine := q.col(migrations.ColClaim), v.text(claim)
		return q.update(v, []lastSeen{q.seen(0, &row)}, change{
			state: Packed,
			where: []string{
				q.col(migrations.ColPack) + " = " + v.bytes(row.Pack[:]),
				"(coalesce(" + held + ", '') = " + v.text(row.Claim) + " OR " + held + " = " + mine + ")",
			},
			set: []string{q.set(migrations.ColClaim, mine)},
		})
	})
}

// Unclaim clears des_claim on a row that claim holds.
func (p *Postgres) Unclaim(ctx context.Context, row Row, claim, code, text string, at time.Time) error {
	const op = "unclaim"
	if err := claimable(&row, claim); err != nil {
		return p.wrap(op, err)
	}
	_, err := p.one(ctx, call{role: RoleDeleter, op: op}, &row, func(q *pgQueries) request {
		v := &params{}
		set := []string{q.set(migrations.ColClaim, "NULL")}
		if code != "" {
			set = append(set, q.set(migrations.ColError, v.text(failed(code, text))), q.set(migrations.ColLastAttemptAt, v.at(at)))
		}
		return q.update(v, []lastSeen{q.seen(0, &row)}, change{state: Packed, where: q.claimed(v, &row, claim), set: set})
	})
	return err
}

// claimed are the conditions that claim holds the row.
func (q *pgQueries) claimed(v *params, row *Row, claim string) []string {
	return []string{
		q.col(migrations.ColPack) + " = " + v.bytes(row.Pack[:]),
		q.col(migrations.ColClaim) + " = " + v.text(claim),
	}
}

// Deleted moves a row that claim holds to DELETED_SOURCE. The claim stays on
// it, by which a repetition knows its own work. Its file id is forgotten: when
// the source system brings the row back, the file is another.
func (p *Postgres) Deleted(ctx context.Context, row Row, claim string, at time.Time) (bool, error) {
	const op = "deleted"
	if err := claimable(&row, claim); err != nil {
		return false, p.wrap(op, err)
	}
	c := call{role: RoleDeleter, op: op}
	ok, err := p.one(ctx, c, &row, func(q *pgQueries) request {
		v := &params{}
		update := q.update(v, []lastSeen{q.seen(0, &row)}, change{
			state: Packed, where: q.claimed(v, &row, claim),
			set: []string{
				q.set(migrations.ColStatus, q.states[string(DeletedSource)]),
				q.set(migrations.ColDeletedAt, v.at(at)),
			},
		})
		id := v.text(row.ID)
		return request{"WITH moved AS (" + update.sql + "), forgotten AS (DELETE FROM desnode.file_id AS f" +
			" WHERE f.source = " + q.source + " AND f.id = " + id + " AND EXISTS (SELECT 1 FROM moved)) SELECT * FROM moved", *v}
	})
	if ok || err != nil {
		return ok, err
	}
	found, err := p.byID(ctx, c, row.ID)
	if err != nil || len(found) == 0 {
		return false, err
	}
	now := found[0]
	return now.State == DeletedSource && now.Pack == row.Pack && now.Claim == claim && now.Version == row.Version, nil
}
