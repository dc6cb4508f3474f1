package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// testConfig is a node's configuration on an empty data dir, with a store
// beside it and a port of its own.
func testConfig(t *testing.T) config.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default(filepath.Join(dir, "data"))
	cfg.HTTP = "127.0.0.1:0"
	cfg.Store.URL = (&url.URL{Scheme: "file", Path: filepath.Join(dir, "store")}).String()
	return cfg
}

// start runs a node until the returned function is called, which waits for its
// end; the test's end calls it too.
func start(t *testing.T, cfg config.Config) (n *Node, stop func()) {
	t.Helper()
	n, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return n, run(t, n)
}

// run is start of a node that New has opened.
func run(t *testing.T, n *Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-n.Ready():
	case err := <-ended:
		ended <- err
		t.Fatal("the node ended before it was ready:", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the node is not ready")
	}
	return stop
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) testImport(t *testing.T, req api.ImportRequest) api.ImportEvent {
	t.Helper()
	var all api.ImportEvent
	err := n.Import(t.Context(), req, func(e api.ImportEvent) error {
		e.Taken, e.Refused = slices.Concat(all.Taken, e.Taken), slices.Concat(all.Refused, e.Refused)
		all = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (n *Node) testArchive(t *testing.T) (last api.ArchiveEvent) {
	t.Helper()
	err := n.Archive(t.Context(), api.ArchiveRequest{}, func(e api.ArchiveEvent) error {
		last = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// get reads a name over HTTP.
func (n *Node) get(t *testing.T, name string) (status int, header http.Header, content string) {
	t.Helper()
	return n.fetch(t, "/files/"+url.PathEscape(name))
}

// fetch reads a path over HTTP.
func (n *Node) fetch(t *testing.T, path string) (status int, header http.Header, content string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.HTTPAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

func TestLifeOfAFile(t *testing.T) {
	cfg := testConfig(t)
	files := t.TempDir()
	writeFile(t, filepath.Join(files, "a/one.txt"), "first")
	writeFile(t, filepath.Join(files, "empty"), "")
	n, stop := start(t, cfg)
	if e := n.testImport(t, api.ImportRequest{Dir: files}); e.New != 2 {
		t.Fatalf("import: %+v", e)
	}
	// Before it is packed it comes from its source, and a cache must not keep it.
	if status, h, got := n.get(t, "a/one.txt"); status != 200 || got != "first" || h.Get("X-Des-Pack") != "" {
		t.Fatalf("before packing: %d %q, pack %q", status, got, h.Get("X-Des-Pack"))
	}
	if e := n.testArchive(t); e.Packed != 2 || e.Failed != 0 {
		t.Fatalf("archive: %+v", e)
	}
	if status, h, got := n.get(t, "a/one.txt"); status != 200 || got != "first" || h.Get("X-Des-Pack") == "" {
		t.Fatalf("packed: %d %q, pack %q", status, got, h.Get("X-Des-Pack"))
	}
	// A changed file is archived again as a newer version.
	writeFile(t, filepath.Join(files, "a/one.txt"), "second version")
	if e := n.testImport(t, api.ImportRequest{Dir: files}); e.Changed != 1 || e.Unchanged != 1 {
		t.Fatalf("second import: %+v", e)
	}
	if _, _, got := n.get(t, "a/one.txt"); got != "first" {
		t.Fatalf("re-activated: %q, want the last archived version", got)
	}
	n.testArchive(t)
	stop()
	// What counts after a restart is in the packs, the manifest and the source.
	n, _ = start(t, cfg)
	for name, want := range map[string]string{"a/one.txt": "second version", "empty": ""} {
		if status, _, got := n.get(t, name); status != 200 || got != want {
			t.Errorf("after a restart: %s: %d %q", name, status, got)
		}
	}
	if status, _, _ := n.get(t, "never/there"); status != 404 {
		t.Errorf("a name that never was: %d", status)
	}
}

func TestImportReportsWhatItLeavesAlone(t *testing.T) {
	files, other := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(files, "good"), "1")
	writeFile(t, filepath.Join(files, "bad\x01name"), "2")
	writeFile(t, filepath.Join(other, "good"), "3")
	if err := os.Symlink("good", filepath.Join(files, "link")); err != nil {
		t.Fatal(err)
	}
	n, _ := start(t, testConfig(t))
	e := n.testImport(t, api.ImportRequest{Dir: files})
	if e.New != 1 || len(e.Refused) != 1 || e.Refused[0].Name != `"bad\x01name"` || e.Skipped.Links != 1 {
		t.Errorf("import: %+v", e)
	}
	if e := n.testImport(t, api.ImportRequest{Dir: other}); !slices.Equal(e.Taken, []string{"good"}) || e.New != 0 {
		t.Errorf("import of a taken name: %+v", e)
	}
	if e := n.testImport(t, api.ImportRequest{Dir: other, Prefix: "other/"}); e.New != 1 {
		t.Errorf("import with a prefix: %+v", e)
	}
}

func TestImportRefusesTheNodesOwnFolders(t *testing.T) {
	cfg := testConfig(t)
	n, _ := start(t, cfg)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(cfg.DataDir, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{
		cfg.DataDir, filepath.Dir(cfg.DataDir), filepath.Join(cfg.DataDir, "raft"), storePath(t, cfg), link, "relative", filepath.Join(cfg.DataDir, "none"),
	} {
		err := n.Import(t.Context(), api.ImportRequest{Dir: dir}, func(api.ImportEvent) error { return nil })
		if !errors.Is(err, api.ErrInvalidRequest) {
			t.Errorf("import %s: %v, want ErrInvalidRequest", dir, err)
		}
	}
}

func TestSecondNodeOnOneDataDirIsRefused(t *testing.T) {
	cfg := testConfig(t)
	start(t, cfg)
	if _, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, raftmeta.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

func TestStoreAndSourceOfAnotherClusterAreRefused(t *testing.T) {
	first := testConfig(t)
	_, stop := start(t, first)
	stop()

	withStore := testConfig(t)
	withStore.Store = first.Store
	if _, err := New(t.Context(), withStore, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another cluster's store: %v", err)
	}
	withSource := testConfig(t)
	withSource.Sources = first.Sources
	if _, err := New(t.Context(), withSource, slog.New(slog.DiscardHandler)); !errors.Is(err, source.ErrOtherCluster) {
		t.Errorf("another cluster's source: %v", err)
	}
	start(t, first) // its own are its own still
}

func TestFormingCanBeCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	first, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := loadIdentity(dir); err != nil || again != first {
		t.Fatalf("identity changed: %+v %v", again, err)
	}
	s, err := store.OpenFolder(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	// Cut between the two claims: the second is missing.
	for range 2 {
		if err := claimStore(t.Context(), s, first, false); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), generationPrefix+"1"); err != nil {
			t.Fatal(err)
		}
	}
	other := first
	other.Cluster[0]++
	if err := claimStore(t.Context(), s, other, false); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("got %v, want ErrOtherCluster", err)
	}
	other = first
	other.Node = "another"
	if err := claimStore(t.Context(), s, first, false); err != nil {
		t.Fatal(err)
	}
	if err := claimStore(t.Context(), s, other, false); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("a generation claimed by another node: %v", err)
	}
}

// What a node that was in a cluster no longer finds is lost, never new.
func TestWhatIsMissingIsNotFormedAgain(t *testing.T) {
	for _, tc := range []struct {
		name string
		lose func(t *testing.T, cfg *config.Config)
		want error
	}{
		{"the raft folder", func(t *testing.T, cfg *config.Config) {
			removeAll(t, filepath.Join(cfg.DataDir, "raft"))
		}, raftmeta.ErrStateLost},
		{"the store's folder", func(t *testing.T, cfg *config.Config) {
			removeAll(t, storePath(t, *cfg))
		}, ErrStoreLost},
		{"the store's disk, its mount point is there", func(t *testing.T, cfg *config.Config) {
			removeAll(t, storePath(t, *cfg))
			if err := os.Mkdir(storePath(t, *cfg), 0o750); err != nil {
				t.Fatal(err)
			}
		}, ErrStoreLost},
		{"a source in the configuration", func(_ *testing.T, cfg *config.Config) {
			cfg.Sources = map[string]config.Source{"other": {URL: "sqlite://" + filepath.Join(cfg.DataDir, "other.db")}}
		}, ErrSourceMissing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(t)
			n, stop := start(t, cfg)
			docs := t.TempDir()
			writeFile(t, filepath.Join(docs, "a"), "a")
			n.testImport(t, api.ImportRequest{Dir: docs})
			n.testArchive(t)
			stop()
			tc.lose(t, &cfg)
			n, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				err = errors.Join(n.Run(t.Context()), n.Close())
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSourceMayBeRenamedUntilItWasArchived(t *testing.T) {
	cfg := testConfig(t)
	_, stop := start(t, cfg)
	stop()
	cfg.Sources = map[string]config.Source{"documents": cfg.Sources["files"]}
	n, stop := start(t, cfg)
	stop()
	if len(n.sources) != 1 || n.sources[0].Name != "documents" {
		t.Errorf("sources: %+v", n.sources)
	}
}

func storePath(t *testing.T, cfg config.Config) string {
	t.Helper()
	path, err := cfg.Store.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// A source's database is a file of the node's own, wherever it stands.
func TestSourceDatabaseIsNeverArchived(t *testing.T) {
	docs := t.TempDir()
	cfg := testConfig(t)
	cfg.Sources = map[string]config.Source{"files": {URL: "sqlite://" + filepath.Join(docs, "files.db")}}
	n, stop := start(t, cfg)
	err := n.Import(t.Context(), api.ImportRequest{Dir: docs}, func(api.ImportEvent) error { return nil })
	if !errors.Is(err, api.ErrInvalidRequest) {
		t.Errorf("import of the folder that holds the source's database: %v", err)
	}
	stop()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(docs, link); err != nil {
		t.Fatal(err)
	}
	cfg.Sources = map[string]config.Source{"files": {URL: cfg.Sources["files"].URL, Roots: []string{link}}}
	if n, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a root that leads to the source's database was accepted")
		_ = n.Close()
	}
}

func TestDamagedIdentityIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, identityFile)
	writeFile(t, path, "{}")
	if _, err := loadIdentity(dir); err == nil {
		t.Error("an identity without a node id was accepted")
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, []byte("{}")) {
		t.Errorf("the file was changed: %q %v", b, err)
	}
}

// An original that was edited between packing and deletion, with its size and
// mtime kept, survives the deletion; one that was not is deleted and served.
func TestEditedOriginalSurvivesDeletion(t *testing.T) {
	cfg := testConfig(t)
	cfg.Archive.DeleteSource, cfg.Archive.DeleteGrace = true, 0
	files := t.TempDir()
	edited, plain := filepath.Join(files, "edited"), filepath.Join(files, "plain")
	writeFile(t, edited, "before")
	writeFile(t, plain, "as it was")
	cfg.Work = []string{config.WorkMark, config.WorkPack} // the test itself runs the keeper
	n, stop := start(t, cfg)
	n.testImport(t, api.ImportRequest{Dir: files})
	n.testArchive(t)
	stop()

	fi, err := os.Stat(edited)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, edited, "AFTER!")
	if err := os.Chtimes(edited, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	n, _ = start(t, cfg)
	for range 2 { // to verify the pack, then to delete
		if err := n.keeper.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	counts, err := n.sources[0].Rows.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	failures, err := n.sources[0].Rows.Failures(t.Context(), "", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if counts[source.DeletedSource].Rows != 1 || len(failures) != 1 || failures[0].ErrorCode != source.CodeDiffers {
		t.Errorf("rows: %+v, failures: %+v", counts, failures)
	}
	if b, err := os.ReadFile(edited); err != nil || string(b) != "AFTER!" {
		t.Errorf("the edited original: %q %v", b, err)
	}
	if _, err := os.Stat(plain); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other original is still there: %v", err)
	}
	for name, want := range map[string]string{"edited": "before", "plain": "as it was"} {
		if status, _, got := n.get(t, name); status != 200 || got != want {
			t.Errorf("%s: %d %q", name, status, got)
		}
	}
	if entries, err := os.ReadDir(files); err != nil || len(entries) != 1 {
		t.Errorf("left in the folder: %v %v", entries, err)
	}
}
