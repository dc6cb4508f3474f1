package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// All disks and all backups are gone: the packs alone tell everything.
func TestRebuildAfterAllDisksAreLost(t *testing.T) {
	for name, cleared := range map[string]bool{"the rows as they were": false, "the state columns lost too": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				all := w.history()
				want, rows := all[0].manifest(), w.rows()
				w.lose(all...)
				if cleared {
					w.clearColumns()
					w.keepRoot()
				}
				m := w.lives(RebuildRequest{Source: cleared})
				m.whole()
				m.sameManifest(want)
				w.mustServe(m)
				if err := m.misses(http.StatusNotFound); err != nil {
					t.Error(err)
				}
				if got := w.rows(); !maps.Equal(got, rows) {
					t.Errorf("rows %v, want %v", got, rows)
				}
				if got := m.meta.View().Generation(); got != 2 {
					t.Errorf("generation %d, want 2", got)
				}
				w.pass(2 * time.Minute) // upkeep changes nothing of it
				m.sameManifest(want)

				b, c := w.join(m), w.join(m)
				w.settled(3, m, b, c)
				b.sameManifest(want)
				w.write(20, 3)
				b.imports()
				w.roundAt(c)
				w.mustServe(m, b, c)
			})
		})
	}
}

// A rebuild is cut again and again, after any change of its state, and goes on
// by the next start. No answer is wrong meanwhile.
func TestRebuildIsCutAnywhere(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			inWorld(t, func(t *testing.T, w *world) {
				all := w.history()
				want := all[0].manifest()
				w.lose(all...)
				w.clearColumns()
				w.keepRoot()
				m, err := w.newLife(RebuildRequest{Source: true})
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					m.begin()
					m.cutAfter(random.IntN(12))
				}
				m.start()
				m.whole()
				m.sameManifest(want)
				w.mustServe(m)
				for name, row := range w.rows() {
					if !strings.HasPrefix(row, "DELETED_SOURCE ") {
						t.Errorf("%s: %s", name, row)
					}
				}
			})
		})
	}
}

// cutAfter ends the node after so many changes of its state, or when there are
// none any more.
func (m *member) cutAfter(changes int) {
	m.w.t.Helper()
	patience := time.After(10 * time.Second)
	for range changes {
		m.servesOrWaits(m.w.t)
		changed := m.meta.Changed()
		select {
		case <-changed:
		case <-patience:
		}
	}
	m.stop()
}

// Rebuild, which makes the data dir, is cut between any two of its files.
func TestRebuildIsCutBetweenTheFilesOfItsDataDir(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		want := all[0].manifest()
		if _, err := all[0].Backup(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.lose(all...)
		m, err := w.newLife(RebuildRequest{Backup: LatestBackup})
		if err != nil {
			t.Fatal(err)
		}
		id, err := os.ReadFile(filepath.Join(m.cfg.DataDir, identityFile))
		if err != nil {
			t.Fatal(err)
		}
		var cut []string
		for _, file := range []string{identityFile, planFile, baseFile} {
			cut = append(cut, file)
			for _, gone := range cut {
				if err := os.Remove(filepath.Join(m.cfg.DataDir, gone)); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.newLife(RebuildRequest{Backup: LatestBackup}); err != nil {
				t.Fatalf("without %v: %v", cut, err)
			}
			again, err := os.ReadFile(filepath.Join(m.cfg.DataDir, identityFile))
			if err != nil || !bytes.Equal(again, id) {
				t.Errorf("without %v: the node is %s, then %s, %v", cut, id, again, err)
			}
		}
		m.start()
		m.whole()
		m.sameManifest(want)
		w.mustServe(m)
	})
}

// The founder of a new life dies half-way and its disk is lost: the same again,
// elsewhere.
func TestRebuildIsRepeatedElsewhere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		want := all[0].manifest()
		w.lose(all...)
		first, err := w.newLife(RebuildRequest{})
		if err != nil {
			t.Fatal(err)
		}
		first.begin()
		first.cutAfter(4)
		w.lose(first)
		m := w.lives(RebuildRequest{})
		m.whole()
		if got := m.meta.View().Generation(); got != 3 {
			t.Errorf("generation %d, want 3", got)
		}
		m.sameManifest(want)
		w.mustServe(m)
	})
}

// The newest backup, and what was packed after it. What packs do not tell comes
// back with it.
func TestRestoreFindsWhatWasPackedAfterTheBackup(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		a := all[0]
		dead := a.dead()
		if err := a.Pause(t.Context(), api.PauseRequest{Reason: "stocktaking", Work: []string{"delete"}}); err != nil {
			t.Fatal(err)
		}
		made, err := a.Backup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.write(30, 5)
		a.imports()
		all[1].archives(5)
		want := a.manifest()
		w.lose(all...)

		found, err := Backups(t.Context(), a.cfg)
		if err != nil || len(found.Backups) == 0 || found.Backups[0].Key != made.Key {
			t.Fatalf("backups in the store: %+v, %v; want %s first", found, err, made.Key)
		}
		m := w.lives(RebuildRequest{Backup: LatestBackup})
		m.whole()
		m.sameManifest(want)
		w.mustServe(m)
		if got := m.dead(); !maps.Equal(got, dead) {
			t.Errorf("dead records %v, want %v", got, dead)
		}
		if paused, _, _ := m.meta.View().Setting("throttle"); !bytes.Contains(paused, []byte("stocktaking")) {
			t.Errorf("the pause is gone: %s", paused)
		}
		st, err := m.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Rebuild == nil || st.Rebuild.Base != made.Key || st.Rebuild.Adopted != int64(len(want)) {
			t.Errorf("status of the rebuild: %+v", st.Rebuild)
		}
		if there, err := has(m.cfg.DataDir, baseFile); there || err != nil {
			t.Errorf("the base is still in the data dir: %v, %v", there, err)
		}
	})
}

// Two of three disks are gone for ever.
func TestRestoreFromTheDiskThatIsLeft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		w.pass(5 * time.Second)
		want, dead := all[0].manifest(), all[0].dead()
		left := all[2]
		from := RebuildRequest{FromDir: left.cfg.DataDir}
		if _, err := w.newLife(from); !errors.Is(err, raftmeta.ErrLocked) {
			t.Errorf("from the disk of a node that runs: %v, want ErrLocked", err)
		}
		left.stop()
		w.lose(all[0], all[1])
		m := w.lives(from)
		m.whole()
		m.sameManifest(want)
		w.mustServe(m)
		if got := m.dead(); !maps.Equal(got, dead) {
			t.Errorf("dead records %v, want %v", got, dead)
		}
		if _, err := left.openNode(); !errors.Is(err, ErrSuperseded) {
			t.Errorf("the old disk starts: %v, want ErrSuperseded", err)
		}
		if err := left.enter(m, m.token()); err == nil || !strings.Contains(err.Error(), "data dir") {
			t.Errorf("the old disk joins: %v, want an error that names the data dir", err)
		}
		if err := left.newLife(RebuildRequest{}); !errors.Is(err, ErrInCluster) {
			t.Errorf("a new life on the old disk: %v, want ErrInCluster", err)
		}
		b := w.join(m)
		w.settledView(2, m, b)
		w.mustServe(b)
	})
}

// A damaged backup is named before anything is claimed, and the one before it
// serves.
func TestDamagedBackupIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		w.write(0, 3)
		a.imports()
		a.archives(3)
		older, err := a.Backup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.write(3, 3)
		a.imports()
		a.archives(3)
		newer, err := a.Backup(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := a.manifest()
		w.lose(a)
		path := filepath.Join(w.dir, "store", newer.Key)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		m, err := w.newLife(RebuildRequest{Backup: LatestBackup})
		if !errors.Is(err, backup.ErrDamaged) || !strings.Contains(err.Error(), newer.Key) {
			t.Fatalf("a damaged backup: %v", err)
		}
		if err := m.newLife(RebuildRequest{Backup: older.Key}); err != nil {
			t.Fatal(err)
		}
		m.start()
		m.whole()
		m.sameManifest(want)
		w.mustServe(m)
		if got := m.meta.View().Generation(); got != 2 {
			t.Errorf("generation %d, want 2: nothing was claimed for the damaged one", got)
		}
	})
}

// What can be asked for wrongly claims nothing.
func TestRebuildRefusesWhatCannotBe(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		w.write(0, 2)
		a.imports()
		a.archives(2)
		if _, err := a.Backup(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.stop()
		empty := t.TempDir()
		at := func(dir string) func(*config.Config) {
			return func(cfg *config.Config) { cfg.Store.URL = "file://" + dir }
		}
		for name, c := range map[string]struct {
			change func(*config.Config)
			req    RebuildRequest
			want   error
		}{
			"a store whose disk is not mounted": {change: at(filepath.Join(w.dir, "elsewhere")), want: ErrStoreLost},
			"an empty store":                    {change: at(empty), want: ErrNoCluster},
			"a source of the life before is not configured": {change: func(cfg *config.Config) {
				cfg.Sources = map[string]config.Source{"others": cfg.Sources["files"]}
			}, req: RebuildRequest{Backup: LatestBackup}, want: ErrSourceMissing},
			"no such backup":          {req: RebuildRequest{Backup: "backups/1-00000000000000000000"}},
			"no disk":                 {req: RebuildRequest{FromDir: filepath.Join(w.dir, "absent")}},
			"a backup and a disk":     {req: RebuildRequest{Backup: LatestBackup, FromDir: a.cfg.DataDir}},
			"the data dir of a node":  {change: func(cfg *config.Config) { cfg.DataDir = a.cfg.DataDir }, want: ErrInCluster},
			"the data dir of another": {change: func(cfg *config.Config) { cfg.DataDir = filepath.Dir(a.cfg.DataDir) }, req: RebuildRequest{FromDir: w.docs}},
		} {
			m := w.newMember()
			if c.change != nil {
				c.change(&m.cfg)
			}
			if err := m.newLife(c.req); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		claims, err := os.ReadDir(filepath.Join(w.dir, "store", "generations"))
		if err != nil || len(claims) != 1 {
			t.Errorf("claims %v, %v; want the first life's alone", claims, err)
		}
		a.start()
		w.mustServe(a)
	})
}

// Two operators restore at once: one life is left, and it has everything.
func TestTwoRestoresAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		want := all[0].manifest()
		w.lose(all...)
		both := []*member{w.newMember(), w.newMember()}
		done := make(chan error, len(both))
		for _, m := range both {
			go func() { done <- Rebuild(context.Background(), m.cfg, RebuildRequest{}, w.logger(m)) }()
		}
		for range both {
			if err := <-done; err != nil && !errors.Is(err, ErrSuperseded) {
				t.Errorf("a restore beside another: %v, want ErrSuperseded or none", err)
			}
		}
		var newest *member
		for _, m := range both {
			id, err := readIdentity(filepath.Join(m.cfg.DataDir, identityFile))
			if errors.Is(err, os.ErrNotExist) {
				continue // it lost
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Node = (&Node{id: id}); newest == nil || newest.id.Generation < id.Generation {
				newest = m
			}
		}
		if newest == nil {
			t.Fatal("neither has won")
		}
		for _, m := range both {
			if m != newest && m.Node != nil && m.id.Generation == newest.id.Generation {
				t.Fatalf("both live in generation %d", newest.id.Generation)
			}
		}
		newest.start()
		newest.whole()
		newest.sameManifest(want)
		w.mustServe(newest)
	})
}

// cluster.json is deleted by hand: nodes that run go on, one that starts says
// what is missing, and the text that the guide names brings it back.
func TestClaimOfTheStoreIsPutBackByHand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		w.write(0, 2)
		a.imports()
		a.archives(2)
		path := filepath.Join(w.dir, "store", clusterKey)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.write(2, 2)
		a.imports()
		a.archives(2)
		w.mustServe(a)
		st, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a.stop()
		if _, err := a.openNode(); !errors.Is(err, ErrStoreLost) {
			t.Fatalf("started: %v, want ErrStoreLost", err)
		}
		text, err := json.Marshal(map[string]any{"cluster": st.Cluster})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, string(text))
		a.start()
		w.mustServe(a)
	})
}

// The same objects stand at another address.
func TestNewLifeOverAStoreThatHasMoved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		want := all[0].manifest()
		if _, err := all[0].Backup(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			m.stop()
		}
		if err := os.Rename(filepath.Join(w.dir, "store"), filepath.Join(w.dir, "moved")); err != nil {
			t.Fatal(err)
		}
		before := w.config
		w.config = func(cfg *config.Config) {
			before(cfg)
			cfg.Store.URL = "file://" + filepath.Join(w.dir, "moved")
		}
		m := w.lives(RebuildRequest{Backup: LatestBackup})
		m.whole()
		m.sameManifest(want)
		w.mustServe(m)
	})
}

// What desnode wrote to the table is gone: archiving mends it, and packs nothing
// twice.
func TestArchivingMendsClearedColumns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.history()
		want := all[0].manifest()
		w.clearColumns()
		w.within(5*time.Minute, "archived again", func() error {
			w.roundAt(all[1])
			for name, row := range w.rows() {
				if !strings.HasPrefix(row, "PACKED ") && !strings.HasPrefix(row, "DELETED_SOURCE ") {
					return fmt.Errorf("%s: %s", name, row)
				}
			}
			return nil
		})
		all[0].sameManifest(want)
		w.mustServe(all...)
	})
}

// In a cluster of one the configuration alone says where the store is.
func TestStoreOfAClusterOfOneMoves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.form()
		w.write(0, 2)
		a.imports()
		a.archives(2)
		a.stop()
		if err := os.Rename(filepath.Join(w.dir, "store"), filepath.Join(w.dir, "moved")); err != nil {
			t.Fatal(err)
		}
		if _, err := a.openNode(); !errors.Is(err, ErrStoreLost) {
			t.Errorf("at the old address: %v, want ErrStoreLost", err)
		}
		a.cfg.Store.URL = "file://" + filepath.Join(w.dir, "moved")
		a.start()
		w.mustServe(a)
	})
}
