package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datavision/desnode/migrations"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
)

// A node that joins, whose own configuration leads to another database under
// the name of a source that the cluster has, claims nothing there and does no
// work on it.
func TestJoinerWithAnotherDatabase(t *testing.T) {
	r := newReal(t)
	r.exec(r.sql, `CREATE TABLE documents (nr int PRIMARY KEY, name text NOT NULL UNIQUE, path text NOT NULL UNIQUE,
 size bigint NOT NULL, modified_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'ACTIVE')`)
	c := &realCluster{real: r, want: map[string]string{}}
	c.cfg = r.config(config.Source{URLs: r.roles(), Table: "public.documents", Columns: map[string]string{"id": "nr"}})
	r.prepare(c.cfg)
	c.insert(0, 3)
	first, _ := start(t, c.cfg)
	c.archive(first)

	other := r.name + "_other"
	r.exec(r.sql, "CREATE DATABASE "+other)
	otherURL := strings.Replace(r.db, "/"+r.name+"?", "/"+other+"?", 1)
	elsewhere := r.connect(otherURL)
	r.exec(elsewhere, `CREATE TABLE documents (nr int PRIMARY KEY, name text NOT NULL UNIQUE, path text NOT NULL UNIQUE,
 size bigint NOT NULL, modified_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'ACTIVE');`)
	cfg := c.cfg
	src := cfg.Sources["docs"]
	src.URLs, src.URL = nil, otherURL
	cfg.Sources = map[string]config.Source{"docs": src}
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	if _, err := migrations.Apply(t.Context(), otherURL, src.Mapping("docs"), migrations.ScriptOptions{}); err != nil {
		t.Fatal(err)
	}
	r.exec(elsewhere, "INSERT INTO documents VALUES (1, 'b', '/b', 1, '2020-01-01')")
	token, err := first.CreateToken(t.Context(), api.TokenRequest{TTLSeconds: 3600, Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := Join(t.Context(), cfg, JoinRequest{Addr: first.peers.ClusterAddr(), Token: token.Token}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	joined, _ := start(t, cfg)
	c.until("refused", func() error {
		_, err := joined.sources[0].Rows.Eligible(t.Context(), old, "", 10)
		if !errors.Is(err, ErrOtherSource) || !errors.Is(err, source.ErrUnclaimed) {
			return fmt.Errorf("eligible: %w", err)
		}
		return nil
	})
	var claims int
	if err := elsewhere.QueryRow(t.Context(), "SELECT count(*) FROM desnode.cluster").Scan(&claims); err != nil || claims != 0 {
		t.Errorf("%d claims in the other database, %v", claims, err)
	}

	// The owner says that it is the source, brought back without what desnode keeps.
	r.exec(elsewhere, fmt.Sprintf(`INSERT INTO desnode.cluster (source, cluster, generation) VALUES ('docs', '\x%s', %d)`, joined.id.Cluster, joined.id.Generation))
	c.until("believed", func() error {
		_, err := joined.sources[0].Rows.Eligible(t.Context(), old, "", 10)
		return err
	})
}
