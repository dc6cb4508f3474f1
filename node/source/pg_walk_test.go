package source_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// pack makes all rows but some PACKED behind the trigger's back.
func (w *pgWorld) pack(t *testing.T, but string) {
	t.Helper()
	run(t, w.conn, fmt.Sprintf(`INSERT INTO desnode.entry (source, id, size, modified_at, status, archive_version, des_cluster, des_name, des_hash, des_shard,
 marked_at, des_pack, des_sha256, packed_at) SELECT 'documents', pk::text, bytes, extract(epoch FROM changed), 'PACKED', 1, decode(repeat('00', 16), 'hex'), title,
 pk, 0, now(), decode(repeat('00', 16), 'hex'), decode(repeat('00', 32), 'hex'), now() FROM docs WHERE pk NOT IN (%s)`, but))
	run(t, w.conn, "VACUUM ANALYZE")
}

// looked returns how many rows of the customer's table were read since the last
// call, by what the server counts.
func (w *pgWorld) looked(t *testing.T, p *source.Postgres) int64 {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	w.scans(t, "docs_pkey") // waits for the roles' processes to end
	var rows int64
	err := w.conn.QueryRow(t.Context(), `SELECT (seq_tup_read + coalesce(idx_tup_fetch, 0) + (SELECT idx_tup_read FROM pg_stat_user_indexes
 WHERE indexrelname = 'docs_pkey'))::bigint FROM pg_stat_user_tables WHERE relname = 'docs'`).Scan(&rows)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// The side binding's table is walked in windows: none of the statements is about
// more than one, and what they read in all grows with the table and not with its
// square.
func TestSideTableIsWalkedInWindows(t *testing.T) {
	const n = 60_000
	w := newWorld(t, sideShapes()[0])
	w.fill(t, n)
	w.pack(t, "33333")
	run(t, w.conn, `INSERT INTO desnode.file_id (source, id, path, size, modified_at, file_id)
 SELECT 'documents', pk::text, folder, bytes, changed, '1:' || pk FROM docs WHERE pk <> 59000; ANALYZE`)
	for _, c := range []struct {
		name string
		call func(p *source.Postgres) ([]source.Row, error)
		want string
	}{
		{"eligible", func(p *source.Postgres) ([]source.Row, error) {
			return p.Eligible(t.Context(), time.Unix(2e9, 0), "", source.MaxBatch)
		}, "33333"},
		{"behind the last", func(p *source.Postgres) ([]source.Row, error) {
			return p.Eligible(t.Context(), time.Unix(2e9, 0), "33333", source.MaxBatch)
		}, ""},
		{"unidentified", func(p *source.Postgres) ([]source.Row, error) { return p.Unidentified(t.Context(), "", 1) }, "59000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.looked(t, w.open(t))
			p := w.open(t)
			rows, err := c.call(p)
			if err != nil {
				t.Fatal(err)
			}
			if sent := p.Statements(); sent < 12 {
				t.Errorf("%d statements for a table of several windows", sent)
			}
			var ids []string
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
			// Of each row the id once in its window, the row once for each arm.
			if read := w.looked(t, p) - before; read > 10*n {
				t.Errorf("%d rows of %d were read", read, n)
			}
		})
	}
}

// A walk that found nothing is not repeated at once, what comes behind it is
// seen all the same, and so is all when somebody asks how much there is.
func TestIdleWalksAreRare(t *testing.T) {
	w := newWorld(t, sideShapes()[0])
	w.fill(t, 36_000)
	w.pack(t, "0")
	now := time.Unix(2e9, 0)
	p := w.open(t, func(c *source.PostgresConfig) {
		c.Now = func() time.Time { now = now.Add(time.Millisecond); return now } // each look takes some
	})
	list := func(after string) (ids []string) {
		t.Helper()
		rows, err := p.Eligible(t.Context(), now, after, source.MaxBatch)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		return ids
	}
	see := func(what string, want ...string) {
		t.Helper()
		if got := list(""); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	see("all is packed")
	sent := p.Statements()
	see("a moment later")
	if got := p.Statements() - sent; got > 4 {
		t.Errorf("%d statements for what was walked a moment ago", got)
	}
	run(t, w.conn, "UPDATE docs SET bytes = 5 WHERE pk = 100; INSERT INTO docs (pk, title, folder, bytes, changed) VALUES (50001, 'new', '/new', 1, '2020-01-01')")
	see("a new row, and a changed one among those passed", "50001")
	now = now.Add(time.Minute)
	see("when the walk is due again", "100")
	see("as long as nobody goes on behind it", "100")
	if got := list("100"); !slices.Equal(got, []string{"50001"}) {
		t.Errorf("behind it: %v", got)
	}
	// Whoever went on has dealt with it; that it changed nothing is seen later.
	if got := list("50001"); len(got) != 0 {
		t.Errorf("behind the last: %v", got)
	}
	see("what was left as it is")
	if tally, _, err := p.EligibleTally(t.Context(), now); err != nil || tally.Rows != 2 {
		t.Errorf("%+v, %v", tally, err)
	}
	see("after somebody asked", "100")
}

// A customer's own table, whose index is missing or holds a filter's rows too
// sparsely: a statement that takes long is given up for windows.
func TestSlowTableIsWalkedInWindows(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.fill(t, 30_000)
	run(t, w.conn, `SET session_replication_role = replica; UPDATE desnode.files SET status = 'FAILED', archive_error = 'x' WHERE id <> 17000;
 DROP INDEX desnode.desnode_files_active; ANALYZE`)
	slow := time.Duration(0)
	now := time.Unix(2e9, 0)
	p := w.open(t, func(c *source.PostgresConfig) { c.Now = func() time.Time { now = now.Add(slow); return now } })
	see := func(want int) (statements int64) {
		t.Helper()
		sent := p.Statements()
		rows, err := p.Eligible(t.Context(), now, "", source.MaxBatch)
		if err != nil || len(rows) != want || want > 0 && rows[0].ID != "17000" {
			t.Errorf("%d rows, %v", len(rows), err)
		}
		return p.Statements() - sent
	}
	see(1)
	if got := see(1); got != 2 {
		t.Errorf("%d statements where one answers soon", got)
	}
	slow = time.Second
	see(1)
	if got := see(1); got <= 2 {
		t.Errorf("%d statements after one took long", got)
	}
	slow = 0
	now = now.Add(time.Hour)
	if got := see(1); got != 2 {
		t.Errorf("%d statements an hour later", got)
	}
}
