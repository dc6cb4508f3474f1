package node

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/datavision/desnode/node/config"
)

// The table is not there when a new life begins: what is archived is served, a
// name that is not found is not called so, and nothing is recorded as done until
// the source refuses the life before. Then the cleared columns are as they were.
func TestRebuildWaitsForTheDatabaseAndServesMeanwhile(t *testing.T) {
	r := newReal(t)
	r.exec(r.sql, `CREATE TABLE documents (nr int PRIMARY KEY, name text NOT NULL UNIQUE, path text NOT NULL UNIQUE,
 size bigint NOT NULL, modified_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'ACTIVE')`)
	c := &realCluster{real: r, want: map[string]string{}}
	c.cfg = r.config(config.Source{Table: "public.documents", Columns: map[string]string{"id": "nr"}})
	r.prepare(c.cfg)
	c.insert(0, 9)
	first, stop := start(t, c.cfg)
	c.archive(first)
	want, states := first.manifest(), r.states("documents", "status")
	stop()
	if err := os.RemoveAll(c.cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	r.exec(r.sql, `ALTER TABLE documents DISABLE TRIGGER USER`)
	r.exec(r.sql, `UPDATE documents SET status = 'ACTIVE', archive_version = 0, des_cluster = NULL, des_name = NULL, des_shard = NULL,
 des_hash = NULL, des_pack = NULL, des_sha256 = NULL, marked_at = NULL, packed_at = NULL`)
	r.exec(r.sql, `ALTER TABLE documents ENABLE TRIGGER USER`)
	r.exec(r.sql, `ALTER TABLE documents RENAME TO away`)

	cfg := c.cfg
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	if err := Rebuild(t.Context(), cfg, RebuildRequest{Source: true}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	n, _ := start(t, cfg)
	c.until("served while the database is away", func() error {
		for name, content := range c.want {
			if status, _, got := n.get(t, name); status != http.StatusOK || got != content {
				return fmt.Errorf("%s: %d", name, status)
			}
		}
		return nil
	})
	if st := n.RebuildStatus(); st.Done {
		t.Errorf("done without the source: %+v", st)
	}
	if status, _, got := n.get(t, "never/there"); status != http.StatusServiceUnavailable {
		t.Errorf("a name that is not found: %d %s, want 503", status, got)
	}
	r.exec(r.sql, `ALTER TABLE away RENAME TO documents`)
	c.until("done", func() error {
		if st := n.RebuildStatus(); !st.Done {
			return fmt.Errorf("%+v, %s", st, n.rebuild.Progress().Problem)
		}
		return nil
	})
	if got := n.manifest(); !maps.Equal(got, want) {
		t.Errorf("manifest %+v, want %+v", got, want)
	}
	if got := r.states("documents", "status"); !maps.Equal(got, states) {
		t.Errorf("states %v, want %v", got, states)
	}
	if status, _, _ := n.get(t, "never/there"); status != http.StatusNotFound {
		t.Errorf("a name that is not found, when all is known: %d, want 404", status)
	}
}
