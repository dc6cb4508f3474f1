package keeper

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// nextLife begins generation 2 of the cluster, whose rebuild has found p, not
// acknowledged.
func (w *world) nextLife(p *raftmeta.Pack) *raftmeta.Meta {
	w.t.Helper()
	m, err := raftmeta.Open(w.t.Context(), raftmeta.Config{
		Dir: w.mkdir("raft-2"), Node: "node-b", Cluster: w.meta.View().Cluster(), Generation: 2,
	})
	w.check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		w.check(<-done)
	})
	w.check(m.Ready(ctx))
	found := *p
	found.Acknowledged, found.Dead = false, nil
	w.check(m.Adopt(ctx, raftmeta.Adoption{Packs: []raftmeta.Pack{found}}))
	w.node, w.meta = "node-b", m
	return m
}

// exec changes the table behind everyone's back.
func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "files.db"))
	w.check(err)
	_, err = db.ExecContext(w.t.Context(), query, args...)
	w.check(errors.Join(err, db.Close()))
}

// Of a pack of an earlier life no record is dead unless that is proven.
func TestRecordsOfAnEarlierLife(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(w *world, p *raftmeta.Pack) // between the lives
		dead   bool
		state  source.State // of the row afterwards; "": there is none
	}{
		{"never acknowledged", func(*world, *raftmeta.Pack) {}, false, source.Packed},
		{"acknowledged", func(w *world, p *raftmeta.Pack) { w.check(w.keeper(nil).Acknowledge(w.t.Context(), p)) }, false, source.Packed},
		{"the row is gone", func(w *world, _ *raftmeta.Pack) { w.exec("DELETE FROM files WHERE name = 'x'") }, false, ""},
		{"another pack has the row", func(w *world, p *raftmeta.Pack) {
			w.registerAgainAt("x", 2*time.Second)
			w.check(w.keeper(nil).Acknowledge(w.t.Context(), p))
			w.check(os.Chtimes(w.path("x"), time.Time{}, w.row("x").ModTime))
			w.mark(w.rows)
			w.check(w.keeper(nil).Acknowledge(w.t.Context(), w.pack()))
		}, false, source.Packed},
		{"the database is older", func(w *world, _ *raftmeta.Pack) {
			w.exec("DELETE FROM files WHERE name = 'x'")
			info, err := os.Stat(w.path("x"))
			w.check(err)
			w.exec("INSERT INTO files (id, name, path, size, modified_at) VALUES (1, 'x', ?, ?, ?)", w.path("x"), info.Size(), info.ModTime().UnixNano())
		}, false, source.Active},
		{"marked again as it was", func(w *world, _ *raftmeta.Pack) {
			r := w.row("x")
			w.registerAgainAt("x", 2*time.Second)
			w.registerAgainAt("x", -2*time.Second)
			w.mark(w.rows)
			if now := w.row("x"); now.Version != r.Version+1 || !now.ModTime.Equal(r.ModTime) {
				w.t.Fatalf("row %+v", now)
			}
		}, false, source.Marked},
		{"changed, and its file stands", func(w *world, _ *raftmeta.Pack) {
			w.registerAgainAt("x", 2*time.Second)
			w.check(os.Chtimes(w.path("x"), time.Time{}, w.row("x").ModTime))
		}, true, source.Active},
		{"the id is another file's", func(w *world, _ *raftmeta.Pack) {
			w.exec("DELETE FROM files WHERE name = 'x'")
			w.write(w.path("y"), "what y holds")
			info, err := os.Stat(w.path("y"))
			w.check(err)
			w.exec("INSERT INTO files (id, name, path, size, modified_at, archive_version) VALUES (1, 'y', ?, ?, ?, 7)", w.path("y"), info.Size(), info.ModTime().UnixNano())
		}, false, ""},
		{"changed, and its file is another", func(w *world, _ *raftmeta.Pack) { w.registerAgainAt("x", 2*time.Second) }, false, source.Active},
		{"changed, and its file is gone", func(w *world, _ *raftmeta.Pack) {
			w.registerAgainAt("x", 2*time.Second)
			w.check(os.Remove(w.path("x")))
		}, false, source.Active},
		{"changed, and its root is gone", func(w *world, _ *raftmeta.Pack) {
			w.registerAgainAt("x", 2*time.Second)
			w.check(os.Rename(w.root, w.root+".unmounted"))
		}, false, source.Active},
		{"the database refuses the row", func(w *world, _ *raftmeta.Pack) {
			w.exec("CREATE TRIGGER never BEFORE UPDATE ON files WHEN NEW.status = 'PACKED' BEGIN SELECT RAISE(ABORT, 'never'); END")
		}, false, source.Marked},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.register("x")
			p := w.pack()
			tc.before(w, p)
			m := w.nextLife(p)
			w.check(w.keeper(nil).AcknowledgeAgain(t.Context(), m.View().Pack(p.ID)))
			now := m.View().Pack(p.ID)
			if !now.Acknowledged || (len(now.Dead) > 0) != tc.dead {
				t.Errorf("acknowledged %t, dead %v; want dead %t", now.Acknowledged, now.Dead, tc.dead)
			}
			if tc.state != "" {
				w.wantRow("x", tc.state, w.row("x").ErrorCode)
			}
			// The first word counts, whatever happens to the rows afterwards.
			w.exec("DELETE FROM files WHERE name = 'x'")
			w.check(w.keeper(nil).AcknowledgeAgain(t.Context(), now))
			if again := m.View().Pack(p.ID); again != now {
				t.Errorf("acknowledged once more: %+v", again)
			}
		})
	}
}

// A database that does not answer leaves the pack unacknowledged.
func TestEarlierLifeWithoutADatabase(t *testing.T) {
	for _, op := range []string{"rows.Acknowledge", "rows.ByID"} {
		t.Run(op, func(t *testing.T) {
			w := newWorld(t)
			w.register("x")
			p := w.pack()
			w.registerAgainAt("x", 2*time.Second)
			w.check(os.Chtimes(w.path("x"), time.Time{}, w.row("x").ModTime))
			m := w.nextLife(p)
			w.faults.on = func(call string) error {
				if call == op {
					return errInjected
				}
				return nil
			}
			err := w.keeper(nil).AcknowledgeAgain(t.Context(), m.View().Pack(p.ID))
			if !errors.Is(err, errInjected) || m.View().Pack(p.ID).Acknowledged {
				t.Errorf("AcknowledgeAgain = %v, and the pack is %+v", err, m.View().Pack(p.ID))
			}
		})
	}
}

// While not all packs are known the keeper begins nothing by itself; afterwards
// an adopted pack's originals go as all others do: verified anew, by this life.
func TestKeeperWaitsForTheRebuild(t *testing.T) {
	w := newWorld(t)
	p := w.archived("x")
	w.check(w.keeper(func(c *Config) { c.DeleteSource = false }).Once(t.Context()))
	verified := verifiedAt(w.meta.View().Pack(p.ID))
	if verified.IsZero() {
		t.Fatal("the old life has not verified its pack")
	}
	m := w.nextLife(w.meta.View().Pack(p.ID))
	w.faults.calls = nil
	w.once(nil)
	if calls := strings.Join(w.faults.calls, " "); strings.Contains(calls, "store.") || strings.Contains(calls, "rows.") {
		t.Errorf("before the rebuild is done: %s", calls)
	}
	w.wantFile(w.path("x"), "content of x")
	w.check(w.keeper(nil).AcknowledgeAgain(t.Context(), m.View().Pack(p.ID)))
	w.check(m.RecordRebuild(t.Context()))
	w.once(nil)
	w.wantFile(w.path("x"), "")
	w.wantRow("x", source.DeletedSource, "")
	if at := verifiedAt(m.View().Pack(p.ID)); !at.After(verified) {
		t.Errorf("deleted on the word of %s", at)
	}
}
