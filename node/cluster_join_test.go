package node

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

func TestJoinWithAnotherStoreIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		m := w.newMember()
		m.cfg.Store.URL = (&url.URL{Scheme: "file", Path: filepath.Join(w.dir, "another")}).String()
		if err := m.enter(a, a.token()); !errors.Is(err, ErrOtherStore) {
			t.Fatalf("joined: %v, want ErrOtherStore", err)
		}
		if _, err := m.openNode(); err == nil {
			t.Error("it starts all the same")
		}
	})
}

// The store's URL is the cluster's, but what is there, on the joiner's host, is
// another cluster's.
func TestJoinerIsNotStartedOverAStoreOfAnotherCluster(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		m := w.newMember()
		if err := m.enter(a, a.token()); err != nil {
			t.Fatal(err)
		}
		other := w.newMember()
		other.cfg.Store.URL = (&url.URL{Scheme: "file", Path: filepath.Join(w.dir, "another")}).String()
		other.cfg.Sources = nil
		other.start()
		store := filepath.Join(w.dir, "store")
		for _, move := range [][2]string{{store, store + "-away"}, {filepath.Join(w.dir, "another"), store}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := m.openNode(); !errors.Is(err, ErrOtherCluster) {
			t.Errorf("started: %v, want ErrOtherCluster", err)
		}
	})
}

// A joiner that names another database for a source of the cluster would mark and
// acknowledge in a table that is not the one whose files are archived.
func TestJoinerIsNotStartedOverAnotherDatabase(t *testing.T) {
	for name, there := range map[string]bool{"nobody's": true, "missing": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a := w.form()
				m := w.newMember()
				path := filepath.Join(w.dir, "another.db")
				files := m.cfg.Sources["files"]
				files.URL = (&url.URL{Scheme: "sqlite", Path: path}).String()
				m.cfg.Sources = map[string]config.Source{"files": files}
				if there {
					other, err := source.OpenSQLite(t.Context(), source.SQLiteConfig{Name: "files", Path: path})
					if err != nil {
						t.Fatal(err)
					}
					if err := other.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if err := m.enter(a, a.token()); err != nil {
					t.Fatal(err)
				}
				for range 2 { // it claims nothing
					if _, err := m.openNode(); !errors.Is(err, ErrOtherSource) {
						t.Errorf("started: %v, want ErrOtherSource", err)
					}
				}
				if _, err := os.Lstat(path); there != (err == nil) {
					t.Errorf("the database: %v", err)
				}
			})
		})
	}
}

func TestJoinOnTheDataDirOfAnotherClusterIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		other := w.newMember()
		other.cfg.Store.URL = (&url.URL{Scheme: "file", Path: filepath.Join(w.dir, "another")}).String()
		other.cfg.Sources = nil
		other.start()
		other.stop()
		if err := other.enter(a, a.token()); !errors.Is(err, ErrOtherCluster) {
			t.Errorf("joined: %v, want ErrOtherCluster", err)
		}
		if got := len(a.meta.View().Members()); got != 1 {
			t.Errorf("%d members after a join that was refused", got)
		}
		other.start() // it is what it was
	})
}

func TestNodeWithAWipedDataDirJoinsAsANewNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.archived(10)
		old := c.id.Node
		c.stop()
		if err := os.RemoveAll(c.cfg.DataDir); err != nil {
			t.Fatal(err)
		}
		if err := c.enter(a, a.token()); err != nil {
			t.Fatal(err)
		}
		c.start()
		if c.id.Node == old {
			t.Fatal("it has the id of the node that was lost")
		}
		w.mustServe(a, b, c)
		w.within(time.Minute, "the lost node is removed", func() error {
			return a.meta.RemoveMember(t.Context(), old)
		})
		w.settled(3, a, b, c)
	})
}

// Each attempt is cut a moment later than the one before.
func TestJoinThatIsCutAnywhereIsRepeatedWithTheSameToken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		m := w.newMember()
		token := a.token()
		cut := 0
		for limit := time.Millisecond; ; limit += time.Millisecond {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			err := Join(ctx, m.cfg, JoinRequest{Addr: a.peers.ClusterAddr(), Token: token, Network: w.cluster.Host(m.ip)}, w.logger(m))
			cancel()
			if err == nil {
				break
			}
			if cut++; limit > time.Second {
				t.Fatal(err)
			}
			if known, _ := has(m.cfg.DataDir, joiningFile); known {
				if _, err := m.openNode(); err == nil {
					t.Fatal("a node whose join was cut forms a cluster of its own")
				}
			}
		}
		if cut < 3 {
			t.Errorf("cut %d times only", cut)
		}
		tokens := a.meta.View().Tokens()
		if len(tokens) != 1 || len(tokens[0].UsedBy) != 1 {
			t.Errorf("tokens after %d attempts: %+v", cut, tokens)
		}
		late := w.newMember()
		if err := late.enter(a, token); !errors.Is(err, transport.ErrTokenUsed) {
			t.Errorf("a second node with a token for one: %v, want ErrTokenUsed", err)
		}
		m.start()
		w.settled(1, a, m)
	})
}

func TestNodeWithoutWorkServesReadsOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		withDeletion(w)
		a := w.form()
		b := w.join(a)
		idle := w.join(a, func(cfg *config.Config) { cfg.Work = nil })
		w.settled(3, a, b, idle)
		leases := map[raftmeta.NodeID]int{}
		seen := a.observeLeases(leases)
		w.write(0, 40)
		idle.imports()
		idle.archives(40) // by the others
		w.deleted(10*time.Minute, func() {})
		if seen(); leases[idle.id.Node] != 0 || leases[a.id.Node]+leases[b.id.Node] == 0 {
			t.Errorf("leases by holder: %v", leases)
		}
		for p := range a.meta.View().Packs() {
			if p.PackedBy == idle.id.Node || p.Copies[0].VerifiedBy == idle.id.Node {
				t.Errorf("pack %s: packed by %s, verified by %s", p.ID, p.PackedBy, p.Copies[0].VerifiedBy)
			}
			if p.PackedBy == p.Copies[0].VerifiedBy {
				t.Errorf("pack %s is verified by its packer only", p.ID)
			}
		}
		w.mustServe(idle, a, b)
	})
}
