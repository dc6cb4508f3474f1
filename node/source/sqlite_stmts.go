package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// statements are the prepared statements, named after the method they serve.
type statements struct {
	// Writes, on the one write connection.
	mark, markDuplicate, refuse            *sql.Stmt
	attempt, attempted                     *sql.Stmt
	acknowledge, ackFind, ackRefused       *sql.Stmt
	claim, unclaim, deleted, deletedBefore *sql.Stmt
	regInsert, regInsertMany, regFind      *sql.Stmt
	regChanged, regFileID, regLast         *sql.Stmt
	regListed                              *sql.Stmt
	identify, forgetMissing, forgetFiles   *sql.Stmt
	findClaim, beginRestore, endRestore    *sql.Stmt
	restore, restoreFind, raiseVersion     *sql.Stmt
	// Reads.
	eligible, eligibleTally, backlog, marked *sql.Stmt
	deletable, byName, byID, counts          *sql.Stmt
	failing, failureTally, unidentified      *sql.Stmt
	pending, list, byIDs                     *sql.Stmt

	all []*sql.Stmt
}

// due is the condition of Due: arguments ?1 now, ?2 backoff, in nanoseconds.
const due = `(?2 = 0 OR archive_attempts = 0 OR last_archive_attempt_at IS NULL
 OR last_archive_attempt_at + ?2 * (1 << min(archive_attempts - 1, 10)) <= ?1)`

// errorCode is the code in archive_error.
const errorCode = `substr(archive_error, 1, instr(archive_error || ': ', ': ') - 1)`

func (p *statements) prepare(ctx context.Context, s *SQLite) error {
	seen := " WHERE " + asSeen
	list := []struct {
		to   **sql.Stmt
		db   *sql.DB
		text string
	}{
		{&p.mark, s.write, `UPDATE files SET status = 'MARKED', archive_version = archive_version + 1,
 des_name = ?7, des_hash = ?8, des_shard = ?9, des_cluster = ?10, marked_at = ?11, des_claim = NULL,
 archive_attempts = 0, archive_error = NULL, last_archive_attempt_at = NULL` + seen},
		{&p.markDuplicate, s.write, refuseSQL + seen},
		{&p.refuse, s.write, refuseSQL + seen},
		{&p.attempt, s.write, `UPDATE files SET archive_attempts = archive_attempts + 1,
 last_archive_attempt_at = ?7, archive_error = ?8,
 status = CASE WHEN archive_attempts + 1 >= ?9 THEN 'FAILED' ELSE status END` + seen + ` AND archive_attempts = ?10`},
		{&p.attempted, s.write, `SELECT status = 'FAILED' AND archive_attempts = ?3 AND archive_version = ?2 FROM files WHERE id = ?1`},
		{&p.acknowledge, s.write, `UPDATE files SET status = 'PACKED', des_pack = ?7, des_sha256 = ?8, packed_at = ?9,
 source_deleted_at = NULL, archive_attempts = 0, archive_error = NULL
 WHERE id = ?1 AND des_name = ?2 AND status = ?3 AND archive_version = ?4 AND size = ?5 AND modified_at = ?6`},
		{&p.ackFind, s.write, `SELECT des_pack, des_name, archive_version FROM files WHERE id = ?1`},
		{&p.ackRefused, s.write, `UPDATE files SET archive_attempts = archive_attempts + 1, last_archive_attempt_at = ?7,
 archive_error = ?8, status = CASE WHEN archive_attempts + 1 >= ?9 THEN 'FAILED' ELSE status END
 WHERE id = ?1 AND des_name = ?2 AND status = ?3 AND archive_version = ?4 AND size = ?5 AND modified_at = ?6`},
		{&p.claim, s.write, `UPDATE files SET des_claim = ?8` + seen +
			` AND des_pack = ?7 AND (coalesce(des_claim, '') = ?9 OR des_claim = ?8)`},
		{&p.unclaim, s.write, `UPDATE files SET des_claim = NULL, archive_error = coalesce(?9, archive_error),
 last_archive_attempt_at = CASE WHEN ?9 IS NULL THEN last_archive_attempt_at ELSE ?10 END` + seen +
			` AND des_pack = ?7 AND des_claim = ?8`},
		{&p.deleted, s.write, `UPDATE files SET status = 'DELETED_SOURCE', source_deleted_at = ?9` + seen +
			` AND des_pack = ?7 AND des_claim = ?8`},
		{&p.deletedBefore, s.write, `SELECT status = 'DELETED_SOURCE' AND des_pack = ?2 AND des_claim = ?3
 AND archive_version = ?4 FROM files WHERE id = ?1`},
		{&p.forgetMissing, s.write, `UPDATE files SET file_id = NULL WHERE file_id = '` + NoFileID + `' AND status <> 'DELETED_SOURCE'`},
		{&p.forgetFiles, s.write, `UPDATE files SET file_id = NULL WHERE file_id NOT LIKE '` + objectScheme + `%' AND status <> 'DELETED_SOURCE'`},
		{&p.identify, s.write, `UPDATE files SET file_id = ?7` + seen + ` AND file_id IS NULL`},
		{&p.findClaim, s.write, `SELECT cluster, generation FROM desnode`},
		{&p.beginRestore, s.write, `UPDATE desnode SET restoring = 1`},
		{&p.endRestore, s.write, `UPDATE desnode SET restoring = 0`},
		{&p.restore, s.write, restoreSQL},
		{&p.restoreFind, s.write, `SELECT ` + rowColumns + ` FROM files WHERE id = ?1`},
		{&p.raiseVersion, s.write, raiseVersionSQL},
		{&p.regInsert, s.write, insertSQL(1)},
		{&p.regInsertMany, s.write, insertSQL(registerGroup)},
		{&p.regFind, s.write, `SELECT id, name, size, modified_at, coalesce(file_id, ''), status FROM files WHERE path = ?1`},
		{&p.regListed, s.write, `UPDATE files SET checksum = coalesce(?2, checksum), content_type = coalesce(?3, content_type) WHERE id = ?1`},
		{&p.regChanged, s.write, `UPDATE files SET status = 'ACTIVE', size = ?2, modified_at = ?3, eligible = 1,
 checksum = ?4, content_type = coalesce(?5, content_type), des_claim = NULL, archive_attempts = 0, archive_error = NULL, last_archive_attempt_at = NULL
 WHERE id = ?1`},
		{&p.regFileID, s.write, `UPDATE files SET file_id = ?2 WHERE id = ?1`},
		{&p.regLast, s.write, `SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'files'), 0)`},
		{&p.eligible, s.read, `SELECT ` + rowColumns + ` FROM files WHERE status = 'ACTIVE' AND id > ?2 AND ` + eligible +
			` ORDER BY id LIMIT ?3`},
		{&p.eligibleTally, s.read, `SELECT ` + eligible + `, ` + tally + ` FROM files WHERE status = 'ACTIVE' GROUP BY 1`},
		{&p.backlog, s.read, `SELECT des_hash >> ?3, count(*), sum(min(size, ?4)), min(marked_at)
 FROM files WHERE status = 'MARKED' AND ` + due + ` GROUP BY 1 ORDER BY 1`},
		{&p.marked, s.read, `SELECT ` + rowColumns + ` FROM files WHERE status = 'MARKED' AND ` + due + `
 AND des_hash BETWEEN ?3 AND ?4 AND (des_hash, id) > (?5, ?6) ORDER BY des_hash, id LIMIT ?7`},
		{&p.deletable, s.read, `SELECT ` + rowColumns + ` FROM files WHERE status = 'PACKED' AND des_pack = ?1 AND packed_at < ?2
 AND archive_error IS NULL AND id > ?3 ORDER BY id LIMIT ?4`},
		{&p.unidentified, s.read, `SELECT ` + rowColumns + ` FROM files WHERE ` + unidentified + ` AND id > ?1 ORDER BY id LIMIT ?2`},
		{&p.byName, s.read, `SELECT ` + rowColumns + ` FROM files WHERE coalesce(des_name, name) = ?1
 AND (des_name IS NOT NULL OR status = 'ACTIVE')`},
		{&p.byID, s.read, `SELECT ` + rowColumns + ` FROM files WHERE id = ?1`},
		{&p.list, s.read, `SELECT ` + rowColumns + ` FROM files WHERE id > ?1 ORDER BY id LIMIT ?2`},
		{&p.byIDs, s.read, `SELECT ` + rowColumns + ` FROM files WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id`},
		{&p.counts, s.read, `SELECT status, ` + tally + ` FROM files GROUP BY status`},
		{&p.pending, s.read, `SELECT 'MARKED', count(*), coalesce(sum(size), 0) FROM files WHERE status = 'MARKED' UNION ALL
 SELECT 'FAILED', count(*), coalesce(sum(size), 0) FROM files WHERE archive_error IS NOT NULL AND status = 'FAILED'`},
		{&p.failing, s.read, `SELECT ` + rowColumns + ` FROM files WHERE archive_error IS NOT NULL AND id > ?1 AND (?3 = '' OR ` + errorCode + ` = ?3) ORDER BY id LIMIT ?2`},
		{&p.failureTally, s.read, `SELECT ` + errorCode + `, ` + tally + ` FROM files WHERE archive_error IS NOT NULL GROUP BY 1`},
	}
	for _, l := range list {
		stmt, err := l.db.PrepareContext(ctx, l.text)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", l.text, err)
		}
		*l.to = stmt
		p.all = append(p.all, stmt)
	}
	return nil
}

func (p *statements) close() (err error) {
	for _, stmt := range p.all {
		err = errors.Join(err, stmt.Close())
	}
	return err
}

// tally are the columns of a Tally.
const tally = `count(*), sum(size), min(modified_at), max(modified_at)`

// eligible is the condition of Eligible beside ACTIVE: ?1 is `before`.
const eligible = `(modified_at < ?1 OR archive_version > 0 OR eligible = 1)`

// unidentified is the condition of Unidentified: that of a partial index.
const unidentified = `file_id IS NULL AND status <> 'DELETED_SOURCE'`

// refuseSQL moves a row to FAILED. A row that was ACTIVE loses its marked_at,
// by which Retry knows where it came from.
const refuseSQL = `UPDATE files SET status = 'FAILED', des_claim = NULL, archive_error = ?7, last_archive_attempt_at = ?8,
 marked_at = CASE WHEN status = 'ACTIVE' THEN NULL ELSE marked_at END`

// insertSQL inserts n new rows, leaving out those whose path or name is taken.
func insertSQL(n int) string {
	return `INSERT INTO files (name, path, size, modified_at, file_id, checksum, content_type, eligible) VALUES (?, ?, ?, ?, ?, ?, ?, 1)` +
		strings.Repeat(`, (?, ?, ?, ?, ?, ?, ?, 1)`, n-1) + ` ON CONFLICT DO NOTHING`
}
