package source

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/migrations"
)

// Restore gives rows back what desnode had written to them: one statement for
// the batch, and another for those that it left alone. The transaction says
// that it restores, by which the reference schema's trigger lets it; what
// others may not do, the rights to the columns say.
func (p *Postgres) Restore(ctx context.Context, rows []Restored) ([]RestoreResult, error) {
	const op = "restore"
	if err := checkRestored(rows); err != nil {
		return nil, p.wrap(op, err)
	}
	r := &pgRestore{rows: rows, results: make([]RestoreResult, len(rows)), known: make([]bool, len(rows))}
	if len(rows) == 0 {
		return r.results, nil
	}
	c := call{role: RoleRestorer, op: op, restoring: true}
	err := r.apply(ctx, p, c, r.restore, func(i int, result RestoreResult) { r.results[i], r.known[i] = result, true })
	if sqlState(err) == insufficientPrivilege {
		err = fmt.Errorf("%w; let an administrator say GRANT %s TO the user of %s, for as long as it takes", err, roleName(RoleRestorer), RoleRestorer)
	}
	if err != nil {
		return nil, err
	}
	left, err := r.lookUp(ctx, p, c)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		r.batch = left
		err = r.apply(ctx, p, c, r.raise, func(int, RestoreResult) {}) // refused: another row is served under the name
	}
	if err != nil {
		return nil, err
	}
	return r.results, nil
}

// pgRestore is one call of Restore.
type pgRestore struct {
	rows    []Restored
	batch   []lastSeen // those that can be rows here; nil: not known yet
	results []RestoreResult
	known   []bool // that there is a result
}

// apply runs a statement over the batch, if need be without the rows that the
// database refuses, and tells done what became of each that it did not leave
// alone.
func (r *pgRestore) apply(ctx context.Context, p *Postgres, c call, build func(*pgQueries, []lastSeen) request, done func(int, RestoreResult)) error {
	changed, err := collect(ctx, p, c, func(q *pgQueries) request {
		r.prepare(q)
		return build(q, r.batch)
	}, scanPlace)
	if err == nil {
		for _, n := range changed {
			done(r.batch[n-1].index, RestoreDone)
		}
	}
	if !rowRefused(err) {
		return err
	}
	return p.update(ctx, c, func(ctx context.Context, s *session, q *pgQueries) error {
		b := bisect{
			s:     s,
			apply: func(from, to int) request { return build(q, r.batch[from:to]) },
			done:  func(i int) { done(r.batch[i].index, RestoreDone) },
			alone: func(_ context.Context, i int, _ *pgconn.PgError) error {
				done(r.batch[i].index, RestoreRefused)
				return nil
			},
		}
		return b.run(ctx, 0, len(r.batch))
	})
}

func (r *pgRestore) prepare(q *pgQueries) {
	if r.batch != nil {
		return
	}
	r.batch = []lastSeen{}
	for i := range r.rows {
		rec := &r.rows[i]
		low, high := q.modified.bounds(rec.ModTime)
		if s := (lastSeen{i, rec.ID, rec.Name, rec.Version, rec.Size, low, high}); q.possible(s) {
			r.batch = append(r.batch, s)
		}
	}
	q.inOrder(r.batch)
}

// The further parameters of a record, in their order.
const (
	recGenerated = "m1"
	recSum       = "m2"
	recPack      = "m3"
	recCluster   = "m4"
	recHash      = "m5"
	recShard     = "m6"
	recPackedAt  = "m7"
	recDeletedAt = "m8" // NULL: the original is not deleted
)

// record adds the further parameters.
func (r *pgRestore) record(v *params, batch []lastSeen) []string {
	n := len(batch)
	generated, sums, packs, clusters := make([]bool, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	hashes, shards := make([]int64, n), make([]int64, n)
	packed, deleted := make([]string, n), make([]*string, n)
	for i, s := range batch {
		rec := &r.rows[s.index]
		hash := desformat.HashName(rec.Name)
		generated[i], sums[i], packs[i], clusters[i] = rec.Generated, rec.SHA256[:], rec.Pack[:], rec.Cluster[:]
		hashes[i], shards[i], packed[i] = int64(hash.Top32()), int64(hash.Shard(rec.ShardBits)), stamp(rec.PackedAt)
		if rec.deleted() {
			at := stamp(rec.deletedAt())
			deleted[i] = &at
		}
	}
	return []string{
		v.add(generated, "boolean[]"), v.add(sums, "bytea[]"), v.add(packs, "bytea[]"), v.add(clusters, "bytea[]"),
		v.add(hashes, "bigint[]"), v.add(shards, "bigint[]"), v.add(packed, "text[]") + "::timestamptz[]", v.add(deleted, "text[]") + "::timestamptz[]",
	}
}

// ofRecord is the condition that t is the row of the record's name, or may be.
func (q *pgQueries) ofRecord(s string) string {
	return fmt.Sprintf("CASE WHEN %[1]s IS NULL THEN %[3]s.%[4]s OR coalesce(%[2]s::text, '') = %[3]s.seen_name ELSE %[1]s = %[3]s.seen_name END",
		q.col(migrations.ColDesName), q.col(migrations.ColName), s, recGenerated)
}

// restore brings rows that have no pack to the record's state.
func (r *pgRestore) restore(q *pgQueries, batch []lastSeen) request {
	v := &params{}
	isDeleted := "s." + recDeletedAt + " IS NOT NULL"
	return q.update(v, batch, change{
		more: r.record(v, batch),
		fits: func(q *pgQueries, s string) []string {
			list := append(q.sameFile(s), q.ofRecord(s), q.in(Active, Marked), q.col(migrations.ColPack)+" IS NULL")
			if sum := q.col(migrations.ColChecksum); sum != "" {
				// bytea or text, as scanRow reads it.
				list = append(list, fmt.Sprintf(`coalesce(ltrim(lower(btrim(%s::text)), '\x'), '') IN ('', encode(%s.%s, 'hex'))`, sum, s, recSum))
			}
			return list
		},
		set: []string{
			// The last arm gives the expression the column's own type.
			q.set(migrations.ColStatus, fmt.Sprintf("CASE WHEN %[1]s THEN %[2]s WHEN NOT (%[1]s) THEN %[3]s ELSE %[4]s END",
				isDeleted, q.states[string(DeletedSource)], q.states[string(Packed)], q.col(migrations.ColStatus))),
			q.set(migrations.ColVersion, "greatest("+q.version+", s.seen_version)"),
			q.set(migrations.ColDesName, "s.seen_name"),
			q.set(migrations.ColHash, "s."+recHash),
			q.set(migrations.ColShard, "s."+recShard),
			q.set(migrations.ColCluster, "s."+recCluster),
			q.set(migrations.ColPack, "s."+recPack),
			q.set(migrations.ColSHA256, "s."+recSum),
			q.set(migrations.ColClaim, "CASE WHEN "+isDeleted+" THEN '"+restoredClaim+"' END"),
			q.set(migrations.ColMarkedAt, "s."+recPackedAt),
			q.set(migrations.ColPackedAt, "s."+recPackedAt),
			q.set(migrations.ColDeletedAt, "s."+recDeletedAt),
			q.set(migrations.ColAttempts, "0"),
			q.set(migrations.ColError, "NULL"),
			q.set(migrations.ColLastAttemptAt, "NULL"),
		},
	})
}

// raise gives rows that will be archived again a version that no record has.
func (r *pgRestore) raise(q *pgQueries, batch []lastSeen) request {
	v := &params{}
	generated := make([]bool, len(batch))
	for i, s := range batch {
		generated[i] = r.rows[s.index].Generated
	}
	return q.update(v, batch, change{
		more: []string{v.add(generated, "boolean[]")}, // recGenerated
		fits: func(q *pgQueries, s string) []string {
			return []string{q.ofRecord(s), q.in(Active, Marked, Failed), q.version + " < " + s + ".seen_version"}
		},
		set: []string{
			q.set(migrations.ColVersion, "s.seen_version"),
			q.set(migrations.ColDesName, "s.seen_name"),
		},
	})
}

// in is the condition that the row is in one of the states.
func (q *pgQueries) in(states ...State) string {
	list := ""
	for i, s := range states {
		if i > 0 {
			list += ", "
		}
		list += q.states[string(s)]
	}
	return q.col(migrations.ColStatus) + " IN (" + list + ")"
}

// lookUp judges the rows that the statement left alone, and returns those whose
// version is to be raised.
func (r *pgRestore) lookUp(ctx context.Context, p *Postgres, c call) (raise []lastSeen, err error) {
	var ids []string
	for _, s := range r.batch {
		if !r.known[s.index] {
			ids = append(ids, s.id)
		}
	}
	for i := range r.results {
		if !r.known[i] {
			r.results[i] = RestoreMissing
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := p.byIDs(ctx, c, ids)
	if err != nil {
		return nil, err
	}
	now := map[string]*Row{}
	for i := range found {
		now[found[i].ID] = &found[i]
	}
	for _, s := range r.batch {
		row := now[s.id]
		if row == nil || r.known[s.index] {
			continue
		}
		result, higher := r.rows[s.index].judge(row)
		r.results[s.index] = result
		if higher {
			raise = append(raise, s)
		}
	}
	return raise, nil
}
