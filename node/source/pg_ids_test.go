package source_test

import (
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/source"
)

// Ids that the types allow and hardly anybody uses keep no listing from going
// on behind them.
func TestOddIDs(t *testing.T) {
	for _, c := range []struct {
		kind   string
		insert []string
		want   []string
	}{
		{"text", []string{"", "a", "B", "ä", "z'; --"}, []string{"B", "a", "z'; --", "ä"}},
		{"numeric", []string{"1.50", "-2", "7", "NaN", "1e20"}, []string{"-2", "1.50", "100000000000000000000", "7", "NaN"}},
		{"numeric(10,2)", []string{"1", "2", "-0.5"}, []string{"-0.50", "1.00", "2.00"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			w := newWorld(t, pgShape{
				ddl:     "CREATE TABLE docs (id " + c.kind + " PRIMARY KEY, name text UNIQUE, path text UNIQUE, size bigint, modified_at timestamptz)",
				mapping: migrations.Mapping{Table: "docs"},
				world:   pgWorld{table: "docs", id: number, time: timestamps(time.Microsecond), instant: same, unit: time.Microsecond},
			})
			for _, id := range c.insert {
				run(t, w.conn, "INSERT INTO docs (id, name, path, size, modified_at) VALUES ("+quote(id)+", "+quote("n"+id)+", "+quote("/"+id)+", 1, '2020-01-01')")
			}
			p := w.open(t)
			var ids []string
			for after := ""; len(ids) <= len(c.insert); {
				rows, err := p.Eligible(t.Context(), time.Now(), after, 1)
				if err != nil {
					t.Fatal(err)
				}
				if len(rows) == 0 {
					break
				}
				after = rows[0].ID
				ids = append(ids, after)
				if moved := markAll(t, p, rows); !moved[0] {
					t.Errorf("row %q was not marked", after)
				}
				if r, err := p.ByID(t.Context(), after); err != nil || r.State != source.Marked {
					t.Errorf("row %q: %+v, %v", after, r, err)
				}
			}
			if slices.Sort(ids); !slices.Equal(ids, c.want) {
				t.Errorf("listed %q, want %q", ids, c.want)
			}
		})
	}
}
