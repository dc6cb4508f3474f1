package source

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/datavision/desnode/desformat"
)

// ofRecord is the condition that the row is the one of the name ?2, or may be: ?3
// says that desnode made the name.
const ofRecord = `CASE WHEN des_name IS NULL THEN ?3 OR name = ?2 ELSE des_name = ?2 END`

const restoreSQL = `UPDATE files SET status = ?8, archive_version = max(archive_version, ?4), des_name = ?2, des_hash = ?9, des_shard = ?10,
 des_cluster = ?11, des_pack = ?12, des_sha256 = ?7, des_claim = ?13, marked_at = ?14, packed_at = ?14, source_deleted_at = ?15,
 archive_attempts = 0, archive_error = NULL, last_archive_attempt_at = NULL
 WHERE id = ?1 AND ` + ofRecord + ` AND status IN ('ACTIVE', 'MARKED') AND des_pack IS NULL AND size = ?5 AND modified_at = ?6
 AND (checksum IS NULL OR checksum = ?7)`

const raiseVersionSQL = `UPDATE files SET archive_version = ?4, des_name = ?2
 WHERE id = ?1 AND ` + ofRecord + ` AND status IN ('ACTIVE', 'MARKED', 'FAILED') AND archive_version < ?4`

// Restore gives rows back what desnode had written to them. The transaction
// says that it restores, by which the schema lets it.
func (s *SQLite) Restore(ctx context.Context, rows []Restored) ([]RestoreResult, error) {
	const op = "restore"
	if err := checkRestored(rows); err != nil {
		return nil, s.wrap(op, err)
	}
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(number(rows[a].ID), number(rows[b].ID)) })
	results := make([]RestoreResult, len(rows))
	err := s.update(ctx, op, func(tx *sql.Tx) error {
		began, err := changed(tx.Stmt(s.stmts.beginRestore), nil)
		if err == nil && !began {
			err = ErrUnclaimed
		}
		if err != nil {
			return err
		}
		r := restoring{
			source: s.name, change: tx.Stmt(s.stmts.restore), find: tx.Stmt(s.stmts.restoreFind), raise: tx.Stmt(s.stmts.raiseVersion),
			args: make([]any, 0, 15),
		}
		for _, i := range order {
			if err := ctx.Err(); err != nil {
				return err
			}
			if results[i], err = r.one(&rows[i]); err != nil {
				return fmt.Errorf("row %s: %w", rows[i].ID, err)
			}
		}
		_, err = changed(tx.Stmt(s.stmts.endRestore), nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// number is an id as the table keeps it; 0 is no row's.
func number(id string) int64 {
	n, _ := idNumber(id)
	return n
}

// restoring is one call of Restore.
type restoring struct {
	source              string
	change, find, raise *sql.Stmt
	args                []any
}

func (r *restoring) one(rec *Restored) (RestoreResult, error) {
	hash := desformat.HashName(rec.Name)
	var claim, deletedAt any
	if rec.deleted() {
		claim, deletedAt = restoredClaim, nanos(rec.deletedAt())
	}
	r.args = append(r.args[:0], number(rec.ID), rec.Name, rec.Generated, int64(rec.Version), rec.Size, nanos(rec.ModTime), rec.SHA256[:],
		string(rec.State), int64(hash.Top32()), int64(hash.Shard(rec.ShardBits)), rec.Cluster[:], packBytes(rec.Pack), claim,
		nanos(rec.PackedAt), deletedAt)
	ok, err := changed(r.change, r.args)
	switch {
	case refused(err):
		return RestoreRefused, nil
	case err != nil || ok:
		return RestoreDone, err
	}
	c := newCells()
	rows, err := r.find.Query(number(rec.ID))
	if err != nil {
		return RestoreDone, err
	}
	found := rows.Next()
	if found {
		err = rows.Scan(c.ptrs[:]...)
	}
	if errClose := rows.Close(); err == nil {
		err = cmp.Or(errClose, rows.Err())
	}
	if err != nil || !found {
		return RestoreMissing, err
	}
	row := c.row(r.source)
	result, raise := rec.judge(&row)
	if raise {
		_, err = changed(r.raise, r.args[:4])
		if refused(err) { // another row is served under the name
			err = nil
		}
	}
	return result, err
}
