package source_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

// What is asked again and again is answered by the partial indexes, and never
// by reading the table: proven by what the server counts of the calls
// themselves.
func TestPlansUseTheIndexes(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.fill(t, 100_000)
	run(t, w.conn, `SET session_replication_role = replica; UPDATE desnode.files SET archive_version = 1, des_name = name, marked_at = now(),
 des_hash = (id * 40503) % 4294967296, des_pack = decode(lpad(to_hex(id / 1000), 32, '0'), 'hex'), packed_at = '2025-01-01',
 status = CASE WHEN id % 20 = 0 THEN 'MARKED' WHEN id % 20 < 18 THEN 'PACKED' ELSE 'FAILED' END,
 archive_error = CASE WHEN id % 2000 = 19 THEN 'no-file' END WHERE id > 5000;
 INSERT INTO desnode.file_id (source, id, path, size, modified_at, file_id) SELECT 'files', id::text, path, size, modified_at, '1:' || id FROM desnode.files`)
	run(t, w.conn, "VACUUM ANALYZE")
	sample := w.open(t)
	row, err := sample.ByID(t.Context(), "50001")
	if err != nil {
		t.Fatal(err)
	}
	marked, err := sample.Marked(t.Context(), desformat.Range{}, source.After{Hash: -1}, source.Due{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	var restored []source.Restored
	for _, id := range []string{"4000", "50001"} {
		r, err := sample.ByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		restored = append(restored, source.Restored{
			ID: id, Name: r.Name, Version: 2, Size: r.Size, ModTime: r.ModTime, Pack: desformat.PackID{9}, PackedAt: time.Unix(2e9, 0), State: source.Packed,
		})
	}
	if err := sample.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := w.scans(t, "files_pkey")
	whole := w.open(t)
	if _, err := whole.Counts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := whole.Close(); err != nil {
		t.Fatal(err)
	}
	if after, _ := w.scans(t, "files_pkey"); after == before {
		t.Fatal("reading the whole table is not counted: what follows would prove nothing")
	}
	half, err := desformat.NewRange(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(2e9, 0)
	for _, c := range []struct {
		name, index string
		call        func(p *source.Postgres) error
	}{
		{"eligible", "desnode_files_active", func(p *source.Postgres) error {
			_, err := p.Eligible(t.Context(), now, "700", source.MaxBatch)
			return err
		}},
		{"backlog", "desnode_files_marked", func(p *source.Postgres) error {
			_, err := p.Backlog(t.Context(), 10, source.Due{Now: now, Backoff: time.Minute})
			return err
		}},
		{"marked", "desnode_files_marked", func(p *source.Postgres) error {
			_, err := p.Marked(t.Context(), half, source.After{Hash: 1 << 31, ID: "7"}, source.Due{Now: now, Backoff: time.Minute}, source.MaxBatch)
			return err
		}},
		{"acknowledge", "files_pkey", func(p *source.Postgres) error {
			_, err := p.Acknowledge(t.Context(), acksOf(slices.Clone(marked), desformat.PackID{9}), 5, now)
			return err
		}},
		{"deletable", "desnode_files_packed", func(p *source.Postgres) error {
			_, err := p.Deletable(t.Context(), row.Pack, now, "", source.MaxBatch)
			return err
		}},
		{"claim", "files_pkey", func(p *source.Postgres) error { _, err := p.Claim(t.Context(), row, "c"); return err }},
		{"sharing", "files_path", func(p *source.Postgres) error {
			_, err := p.Sharing(t.Context(), row, row.FileID, []string{row.Path, "/elsewhere"})
			return err
		}},
		{"by served name", "desnode_files_des_name", func(p *source.Postgres) error { _, err := p.ByName(t.Context(), row.DesName); return err }},
		{"by own name", "desnode_files_name", func(p *source.Postgres) error { _, err := p.ByName(t.Context(), "folder/name of file 17"); return err }},
		{"by id", "files_pkey", func(p *source.Postgres) error { _, err := p.ByID(t.Context(), "77777"); return err }},
		{"by ids", "files_pkey", func(p *source.Postgres) error {
			_, err := p.ByIDs(t.Context(), []string{"7", "50000", "99999"})
			return err
		}},
		{"rows", "files_pkey", func(p *source.Postgres) error { _, err := p.Rows(t.Context(), "50000", source.MaxBatch); return err }},
		{"restore", "files_pkey", func(p *source.Postgres) error {
			got, err := p.Restore(t.Context(), restored)
			if err == nil && (got[0] != source.RestoreDone || got[1] != source.RestoreNewer) {
				err = fmt.Errorf("restored: %v", got)
			}
			return err
		}},
		{"failures", "desnode_files_error", func(p *source.Postgres) error {
			_, err := p.Failures(t.Context(), source.CodeNoFile, "", 100)
			return err
		}},
		{"unidentified", "files_pkey", func(p *source.Postgres) error {
			_, err := p.Unidentified(t.Context(), "90000", 10)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			scans, uses := w.scans(t, c.index)
			p := w.open(t)
			if err := c.call(p); err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			scansNow, usesNow := w.scans(t, c.index)
			if scansNow != scans {
				t.Errorf("the whole table was read %d times", scansNow-scans)
			}
			if usesNow == uses {
				t.Errorf("index %s was not used", c.index)
			}
		})
	}
}

// scans returns how often tables of desnode's were read whole, and how often
// the index was used. A server process tells its numbers at the latest when it
// ends: the roles' are waited for.
func (w *pgWorld) scans(t *testing.T, index string) (whole, uses int64) {
	t.Helper()
	run(t, w.conn, `DO $$ BEGIN
 WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'desnode%') LOOP
  PERFORM pg_stat_clear_snapshot();
 END LOOP; END $$`)
	err := w.conn.QueryRow(t.Context(), `SELECT (SELECT sum(coalesce(seq_scan, 0)) FROM pg_stat_user_tables WHERE relname IN ('files', 'file_id'))::bigint,
 (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = $1)`, index).Scan(&whole, &uses)
	if err != nil {
		t.Fatal(err)
	}
	return whole, uses
}
