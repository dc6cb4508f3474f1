package migrations_test

import (
	"testing"

	"github.com/datavision/desnode/migrations"
)

// What an installation of the first step looks like: the table of claims
// without generations, and no function that raises them.
const firstStep = `
DROP FUNCTION desnode.raise_generation(text, bytea, bigint);
ALTER TABLE desnode.cluster DROP COLUMN generation;
DELETE FROM desnode.schema_version WHERE version_id > 1;
INSERT INTO desnode.cluster (source, cluster) VALUES ('files', decode(repeat('01', 16), 'hex'));
INSERT INTO desnode.files (name, path, size, modified_at) VALUES ('a', '/a', 1, '2020-01-01 UTC')`

// An installation of the first step is brought up to date by running `source
// init` again: claims that knew no generation are of the first. Nodes that know
// none either go on in between.
func TestUpgrade(t *testing.T) {
	m := migrations.Mapping{Source: "files"}
	for _, way := range []string{"script", "apply"} {
		t.Run(way, func(t *testing.T) {
			db := database(t)
			conn := connect(t, db)
			if _, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{}); err != nil {
				t.Fatal(err)
			}
			exec1(t, conn, firstStep)
			for range 2 {
				if way == "apply" {
					if _, err := migrations.Apply(t.Context(), db, m, migrations.ScriptOptions{}); err != nil {
						t.Fatal(err)
					}
				} else if out, err := psql(t, db, mustScript(t, m, migrations.ScriptOptions{})); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if got := one(t, conn, "SELECT generation FROM desnode.cluster"); got != "1" {
					t.Errorf("the claim is of generation %s, want 1", got)
				}
			}
			exec1(t, conn, "SET ROLE desnode_marker")
			exec1(t, conn, "INSERT INTO desnode.cluster (source, cluster) VALUES ('files', decode(repeat('01', 16), 'hex')) ON CONFLICT DO NOTHING")
			for _, c := range []struct{ cluster, to, want string }{
				{"01", "3", "3"}, {"01", "2", "3"}, {"02", "9", "3"}, // raised, never lowered, and by its own cluster only
			} {
				exec1(t, conn, "SELECT desnode.raise_generation('files', decode(repeat('"+c.cluster+"', 16), 'hex'), "+c.to+")")
				if got := one(t, conn, "SELECT generation FROM desnode.cluster"); got != c.want {
					t.Errorf("raised to %s by cluster %s: %s, want %s", c.to, c.cluster, got, c.want)
				}
			}
		})
	}
}
