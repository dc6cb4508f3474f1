package source_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
)

// Where most rows are hidden by the filter, or shown by a view that no index
// serves, all are found all the same, and no others.
func TestRowsFarBetween(t *testing.T) {
	filtered := sideShapes()[0]
	filtered.name, filtered.mapping.Filter = "side binding with a filter", "t.state = 'untouched'"
	plain := pgShape{
		name: "filter",
		ddl: `CREATE TABLE docs (id bigint PRIMARY KEY, name text UNIQUE, path text, size bigint, modified_at timestamptz,
 status text NOT NULL DEFAULT 'ACTIVE', state text DEFAULT 'untouched')`,
		world: pgWorld{table: "docs", id: number, time: timestamps(time.Microsecond), instant: same, unit: time.Microsecond},
	}
	plain.mapping.Table, plain.mapping.Filter = "docs", "t.state = 'untouched'"
	for _, shape := range []pgShape{plain, filtered} {
		t.Run(shape.name, func(t *testing.T) {
			w := newWorld(t, shape)
			w.fill(t, 12_000)
			run(t, w.conn, fmt.Sprintf("UPDATE docs SET state = 'hidden' WHERE %s NOT IN (1, 2, 3, 5500, 11999, 12000)", w.column("id")))
			p := w.open(t)
			var ids []string
			for after := ""; len(ids) < 10; {
				page, err := p.Rows(t.Context(), after, 2)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, r := range page {
					ids = append(ids, r.ID)
				}
				after = ids[len(ids)-1]
			}
			if want := []string{"1", "2", "3", "5500", "11999", "12000"}; !slices.Equal(ids, want) {
				t.Errorf("rows %q, want %q", ids, want)
			}
			found, err := p.ByIDs(t.Context(), []string{"2", "4", "12000"})
			if err != nil || len(found) != 2 {
				t.Errorf("by ids: %v, %v; want the two in scope", found, err)
			}
			if _, err := p.Rows(t.Context(), "no id", source.MaxBatch); err == nil {
				t.Error("rows behind what is no id")
			}
		})
	}
}
