package migrations_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/migrations"
)

// BenchmarkSideView measures the side binding's queues over a table in which
// nearly all is packed: looking for ACTIVE rows reads every key, the others are
// index look-ups.
func BenchmarkSideView(b *testing.B) {
	if testing.Short() {
		b.Skip("-short leaves out Postgres")
	}
	const rows = 200000
	db := benchDatabase(b)
	conn := connect(b, db)
	spread := strings.Replace(sideMark, "des_hash = 7", "des_hash = id * 2654435761 % 4294967296", 1)
	for i, sql := range []string{
		fmt.Sprintf(sideDDL, "bigint", "timestamptz"),
		"",
		fmt.Sprintf("INSERT INTO docs SELECT i, 'n' || i, '/' || i, 1, now() FROM generate_series(1, %d) i", rows),
		spread + fmt.Sprintf(" AND id <= %d", rows-100), sidePack + fmt.Sprintf(" AND id <= %d", rows-1100),
		"VACUUM ANALYZE docs", "VACUUM ANALYZE desnode.entry",
	} {
		if i == 1 {
			if _, err := migrations.Apply(b.Context(), db, sideMapping, migrations.ScriptOptions{}); err != nil {
				b.Fatal(err)
			}
			continue
		}
		if _, err := conn.Exec(b.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			b.Fatal(err)
		}
	}
	for _, q := range []struct{ name, sql string }{
		{"eligible", "SELECT id FROM desnode.docs WHERE status = 'ACTIVE' AND id > 0 ORDER BY id LIMIT 1000"},
		{"marked", "SELECT id FROM desnode.docs WHERE status = 'MARKED' AND des_hash BETWEEN 0 AND 4294967295 ORDER BY des_hash, id LIMIT 1000"},
		{"backlog", "SELECT des_hash >> 24, count(*), sum(size) FROM desnode.docs WHERE status = 'MARKED' GROUP BY 1"},
		{"one name", "SELECT id FROM desnode.docs WHERE des_name = 'n5'"},
		{"claim 1000", "UPDATE desnode.docs SET des_claim = 'c' WHERE status = 'PACKED' AND id BETWEEN 1 AND 1000"},
	} {
		b.Run(q.name, func(b *testing.B) {
			for range b.N {
				if _, err := conn.Exec(b.Context(), q.sql, pgx.QueryExecModeExec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
