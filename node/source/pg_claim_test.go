package source_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
)

var ours = desformat.ClusterID{1}

func claimed(t *testing.T, p *source.Postgres, generation uint64) *source.Postgres {
	t.Helper()
	if err := p.ClaimCluster(t.Context(), ours, generation); err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *pgWorld) generation(t *testing.T) (g int) {
	t.Helper()
	if err := w.conn.QueryRow(t.Context(), "SELECT generation FROM desnode.cluster").Scan(&g); err != nil {
		t.Fatal(err)
	}
	return g
}

// A claim is raised only when every transaction that looked at the older one is
// over: a write that it let through would else come behind the fence.
func TestRaisingWaitsForWhoeverLookedBefore(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(1)...)
	older := claimed(t, w.open(t), 1)
	newer := w.open(t, func(c *source.PostgresConfig) { c.LockTimeout = 50 * time.Millisecond })

	packer := connect(t, as(t, w.url, "desnode_packer"))
	tx, err := packer.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var g int
	if err := tx.QueryRow(t.Context(), "SELECT generation FROM desnode.cluster WHERE source = 'files'").Scan(&g); err != nil {
		t.Fatal(err)
	}
	if err := newer.ClaimCluster(t.Context(), ours, 2); !source.LockTimeout(err) {
		t.Errorf("claimed while a transaction of the older generation was under way: %v", err)
	}
	if g := w.generation(t); g != 1 {
		t.Errorf("it was raised to %d all the same", g)
	}
	if rows := eligible(t, older); len(rows) != 1 { // which goes on until it is raised
		t.Errorf("%d rows", len(rows))
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	claimed(t, newer, 2)
	if _, err := older.Eligible(t.Context(), time.Now(), "", 1); !errors.Is(err, source.ErrSuperseded) {
		t.Errorf("the older generation: %v", err)
	}
}

// A statement of the older generation that waits while the claim is raised
// sees the newer one when it goes on.
func TestWhoeverWaitsForARaiseSeesIt(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(1)...)
	older := claimed(t, w.open(t, func(c *source.PostgresConfig) { c.LockTimeout = time.Minute }), 1)
	rows := eligible(t, older)
	rows[0].DesName = rows[0].Name

	raising := connect(t, w.url)
	tx, err := raising.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT desnode.raise_generation('files', $1::bytea, 2)", pgx.QueryExecModeExec, ours[:]); err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() {
		_, err := older.Mark(t.Context(), rows, source.Marking{At: time.Now(), Cluster: ours})
		late <- err
	}()
	run(t, w.conn, `DO $$ BEGIN
 WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'desnode.cluster'::regclass AND NOT granted) LOOP
  PERFORM pg_sleep(0.01); -- the server's own
 END LOOP; END $$`)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-late; !errors.Is(err, source.ErrSuperseded) {
		t.Errorf("marked behind the fence: %v", err)
	}
	if r, err := w.open(t).ByID(t.Context(), rows[0].ID); err != nil || r.State != source.Active {
		t.Errorf("the row is %s, %v", r.State, err)
	}
}

// A database that was brought back to a state before the claim was raised is
// claimed again by the next statement of a node that may; nobody else works on
// it before.
func TestClaimThatWasBroughtBack(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(2)...)
	p := claimed(t, w.open(t), 2)
	packer := claimed(t, w.open(t, func(c *source.PostgresConfig) { c.Roles = []source.Role{source.RolePacker} }), 2)
	run(t, w.conn, "UPDATE desnode.cluster SET generation = 1")
	due := source.Due{}
	if _, err := packer.Backlog(t.Context(), 0, due); !errors.Is(err, source.ErrUnclaimed) {
		t.Errorf("a packer: %v, want ErrUnclaimed", err)
	}
	if rows := eligible(t, p); len(rows) != 2 {
		t.Errorf("%d rows are eligible", len(rows))
	}
	if g := w.generation(t); g != 2 {
		t.Errorf("the claim is of generation %d, want 2", g)
	}
	if _, err := packer.Backlog(t.Context(), 0, due); err != nil {
		t.Errorf("a packer, behind it: %v", err)
	}
}

// Who may not raise a claim does not work under it, and reads all the same.
func TestClaimNeedsAMarker(t *testing.T) {
	w := newWorld(t, shapes()[0])
	claimed(t, w.open(t), 1)
	for _, c := range []struct {
		role source.Role
		want error
	}{{source.RolePacker, source.ErrUnclaimed}, {source.RoleDeleter, source.ErrUnclaimed}, {source.RoleReader, nil}} {
		p := w.open(t, func(cfg *source.PostgresConfig) { cfg.Roles = []source.Role{c.role} })
		if err := p.ClaimCluster(t.Context(), ours, 2); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.role, err, c.want)
		}
	}
	if g := w.generation(t); g != 1 {
		t.Errorf("the claim is of generation %d, want 1", g)
	}
}

// The restorer is opened wherever it has a URL, and needed by nobody else.
func TestRestorerHasItsOwnRights(t *testing.T) {
	w := newWorld(t, shapes()[0])
	w.insert(t, numberedFiles(1)...)
	p := claimed(t, w.open(t), 1)
	row := eligible(t, p)[0]
	rec := []source.Restored{{
		ID: row.ID, Name: row.Name, Version: 1, Size: row.Size, ModTime: row.ModTime, Pack: desformat.PackID{1}, PackedAt: time.Unix(2e9, 0), State: source.Packed,
	}}
	closed := w.open(t, func(c *source.PostgresConfig) { delete(c.URLs, source.RoleRestorer) })
	if _, err := closed.Restore(t.Context(), rec); !errors.Is(err, source.ErrRoleClosed) {
		t.Errorf("without a URL: %v", err)
	}
	for _, user := range []string{"desnode_marker", "desnode_packer", "desnode_deleter", "desnode_reader"} {
		other := w.open(t, func(c *source.PostgresConfig) { c.URLs[source.RoleRestorer] = as(t, w.url, user) })
		if got, err := other.Restore(t.Context(), rec); err == nil {
			t.Errorf("%s restored: %v", user, got)
		}
	}
	shared := w.open(t, func(c *source.PostgresConfig) {
		c.URLs, c.URL = nil, w.url
		c.Roles = []source.Role{source.RoleReader}
	})
	if got, err := shared.Restore(t.Context(), rec); err != nil || got[0] != source.RestoreDone {
		t.Errorf("by the URL of all roles: %v, %v", got, err)
	}
}
