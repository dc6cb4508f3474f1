package node

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// kept is what of a pack outlives every node.
type kept struct {
	Range          desformat.Range
	Token          desformat.Token
	Size           int64
	SHA256         raftmeta.Digest
	Records        uint32
	PayloadBytes   int64
	Catalog, Index desformat.Section
	MinSeq, MaxSeq desformat.Token
	Created        time.Time
}

// manifest is the part of a manifest that no new life may change.
func (n *Node) manifest() map[desformat.PackID]kept {
	packs := map[desformat.PackID]kept{}
	for p := range n.meta.View().Packs() {
		packs[p.ID] = kept{p.Range, p.Token, p.Size, p.SHA256, p.Records, p.PayloadBytes, p.Catalog, p.Index, p.MinSeq, p.MaxSeq, p.Created.UTC()}
	}
	return packs
}

// dead are the records that reads skip, by pack.
func (n *Node) dead() map[desformat.PackID]string {
	dead := map[desformat.PackID]string{}
	for p := range n.meta.View().Packs() {
		if len(p.Dead) > 0 {
			dead[p.ID] = fmt.Sprint(p.Dead)
		}
	}
	return dead
}

// sameManifest fails the test unless the node's packs are those of before.
func (m *member) sameManifest(want map[desformat.PackID]kept) {
	m.w.t.Helper()
	got := m.manifest()
	for id, p := range want {
		if got[id] != p {
			m.w.t.Errorf("pack %s: %+v, want %+v", id, got[id], p)
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			m.w.t.Errorf("pack %s was not there before", id)
		}
	}
}

// history lets a cluster of three archive in several rounds: files that changed
// and are in two versions, one whose first record is dead, and all originals but
// the newest deleted.
func (w *world) history() []*member {
	w.t.Helper()
	withDeletion(w)
	a, b, c := w.formThree()
	w.write(0, 8)
	a.imports()
	w.refuseAcknowledging("f0003") // its record is dead
	w.roundAt(b)
	w.sql("DROP TRIGGER refuse")
	if _, err := a.Retry(w.t.Context(), api.RetryRequest{}); err != nil {
		w.t.Fatal(err)
	}
	w.within(2*time.Minute, "archived after all", func() error {
		w.roundAt(b)
		return a.serves(true)
	})
	w.write(8, 4)
	for _, name := range []string{"f0001", "f0002"} {
		writeFile(w.t, filepath.Join(w.docs, name), w.wrote(name, "changed content of "+name))
	}
	a.imports()
	w.roundAt(c)
	w.within(10*time.Minute, "all archived, all originals deleted", func() error {
		if left := w.originals(); left > 0 {
			return fmt.Errorf("%d originals are left", left)
		}
		for p := range a.meta.View().Packs() {
			if !p.Acknowledged {
				return fmt.Errorf("pack %s is not acknowledged", p.ID)
			}
		}
		return nil
	})
	w.mustServe(a, b, c)
	if len(a.manifest()) < 3 || len(a.dead()) == 0 {
		w.t.Fatalf("%d packs, dead records %v: not the history that is wanted", len(a.manifest()), a.dead())
	}
	return []*member{a, b, c}
}

// roundAt has one node archive what can be archived, whatever fails.
func (w *world) roundAt(m *member) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), archiveLimit)
	defer cancel()
	if err := m.Archive(ctx, api.ArchiveRequest{}, func(api.ArchiveEvent) error { return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// sql changes the embedded source behind the nodes' back.
func (w *world) sql(statements ...string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "files.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := db.ExecContext(w.t.Context(), s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) refuseAcknowledging(name string) {
	w.t.Helper()
	w.sql(fmt.Sprintf(`CREATE TRIGGER refuse BEFORE UPDATE OF status ON files WHEN NEW.status = 'PACKED' AND OLD.name = '%s'
 BEGIN SELECT RAISE(ABORT, 'not this one'); END`, name))
}

// clearColumns takes out of the source what desnode has written there.
func (w *world) clearColumns() {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "files.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	rows, err := db.QueryContext(w.t.Context(), "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'files'")
	if err != nil {
		w.t.Fatal(err)
	}
	triggers := map[string]string{}
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			w.t.Fatal(err)
		}
		triggers[name] = text
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		w.t.Fatal(err)
	}
	statements := make([]string, 0, 2*len(triggers)+1)
	for name := range triggers {
		statements = append(statements, "DROP TRIGGER "+name)
	}
	statements = append(statements, `UPDATE files SET status = 'ACTIVE', archive_version = 0, des_cluster = NULL, des_name = NULL, des_shard = NULL,
 des_hash = NULL, des_pack = NULL, des_sha256 = NULL, marked_at = NULL, packed_at = NULL, source_deleted_at = NULL,
 last_archive_attempt_at = NULL, archive_attempts = 0, archive_error = NULL`)
	statements = append(statements, slices.Collect(maps.Values(triggers))...)
	for _, s := range statements {
		if _, err := db.ExecContext(w.t.Context(), s); err != nil {
			w.t.Fatalf("%s: %v", s, err)
		}
	}
}

// rows are the sources' rows as the source system sees them: state, version,
// pack and hash, by name.
func (w *world) rows() map[string]string {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "files.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	rows, err := db.QueryContext(w.t.Context(),
		"SELECT name, status || ' ' || archive_version || ' ' || ifnull(hex(des_pack), '-') || ' ' || ifnull(hex(des_sha256), '-') FROM files")
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]string{}
	for rows.Next() {
		var name, state string
		if err := rows.Scan(&name, &state); err != nil {
			w.t.Fatal(err)
		}
		all[name] = state
	}
	if err := errors.Join(rows.Err(), rows.Close(), db.Close()); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// lose stops the nodes and throws their data dirs away.
func (w *world) lose(members ...*member) {
	w.t.Helper()
	for _, m := range members {
		m.stop()
	}
	for _, m := range members {
		if err := os.RemoveAll(m.cfg.DataDir); err != nil {
			w.t.Fatal(err)
		}
	}
}

// newLife is a node that begins a new life of the cluster on an empty data dir;
// it has not been started.
func (w *world) newLife(req RebuildRequest) (*member, error) {
	m := w.newMember()
	return m, m.newLife(req)
}

func (m *member) newLife(req RebuildRequest) error {
	return Rebuild(m.w.t.Context(), m.cfg, req, m.w.logger(m))
}

// lives is newLife of a node that must succeed, and is started.
func (w *world) lives(req RebuildRequest) *member {
	w.t.Helper()
	m, err := w.newLife(req)
	if err != nil {
		w.t.Fatal(err)
	}
	m.start()
	return m
}

// whole waits until the manifest is whole.
func (m *member) whole() {
	m.w.t.Helper()
	m.w.within(10*time.Minute, "the manifest is whole", func() error {
		st := m.RebuildStatus()
		if st == nil || !st.Done {
			return fmt.Errorf("%+v, problem %q", st, m.rebuild.Progress().Problem)
		}
		return nil
	})
}

// misses says how a name that nobody ever wrote is not answered with the code.
func (m *member) misses(code int) error {
	if got := m.read("never-written"); got.Code != code {
		return fmt.Errorf("%s answers a name that was never written: %d, want %d: %s", m.ip, got.Code, code, got.Body)
	}
	return nil
}

// servesOrWaits fails the test when a file is answered otherwise than as it was
// written, or 503.
func (m *member) servesOrWaits(t *testing.T) (served int) {
	t.Helper()
	for _, name := range m.w.names() {
		switch got := m.read(name); {
		case got.Code == http.StatusOK && got.Body.String() == m.w.holds(name):
			served++
		case got.Code == http.StatusServiceUnavailable:
		case got.Code == http.StatusOK && strings.HasPrefix(got.Body.String(), "content of") && !m.RebuildStatus().Done && got.Header().Get("X-Des-Unconfirmed") != "":
			served++ // an older version, and it says that a newer one may exist
		default:
			t.Fatalf("%s answers %s: %d %v %s", m.ip, name, got.Code, got.Header(), got.Body)
		}
	}
	return served
}

// copyOf is a copy of a running node's data dir, as a snapshot of its disk has it.
func (w *world) copyOf(m *member) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(m.cfg.DataDir)); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// keepRoot makes the folder of the originals a root by configuration, for imports
// are forgotten without a base, and leaves a file there: in an empty folder nothing
// is found absent, for its disk may be missing.
func (w *world) keepRoot() {
	w.t.Helper()
	writeFile(w.t, filepath.Join(w.docs, "left"), "no row lists this one")
	before := w.config
	w.config = func(cfg *config.Config) {
		before(cfg)
		files := cfg.Sources["files"]
		files.Roots = []string{w.docs}
		cfg.Sources = map[string]config.Source{"files": files}
	}
}
