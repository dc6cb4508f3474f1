package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/peers"
	"github.com/datavision/desnode/node/rebuild"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// RebuildRequest says from what a cluster begins a new life. Without Backup and
// FromDir it is the packs alone.
type RebuildRequest struct {
	Backup  string // key of a backup in the store, or LatestBackup
	FromDir string // data dir of a stopped node of the cluster
	Source  bool   // write the state columns of the sources' tables back as well
}

// LatestBackup stands for the newest backup in the store.
const LatestBackup = "latest"

// Files of a data dir whose node begins a new life.
const (
	// rebuildingFile holds the id of a node that is about to, so that it is
	// repeated under the same id after a cut.
	rebuildingFile = "rebuilding.json"
	// baseFile is the state that the new life begins with, in raftmeta's format.
	baseFile = "base.snapshot"
	// planFile says what was asked for. It is written before node.json.
	planFile = "rebuild.json"
)

// rebuildPlan is the content of planFile.
type rebuildPlan struct {
	Base   string `json:"base,omitempty"` // where baseFile comes from; empty: there is none
	Source bool   `json:"source,omitempty"`
}

// ErrNoCluster: there is no cluster in the store.
var ErrNoCluster = rebuild.ErrNoCluster

// ErrInCluster: the data dir already belongs to a node.
var ErrInCluster = errors.New("the data dir belongs to a node")

// Rebuild makes cfg.DataDir, which must be empty, that of the first node of a new
// life of the cluster whose store cfg names: under the next generation, which
// fences out whatever is left of the life before. New and Run then do the rest
// while they serve. It can be cut anywhere and repeated; once the node exists,
// repeating it changes nothing.
//
// ErrInCluster, ErrStoreLost, ErrNoCluster. ErrSourceMissing:
// the state names a source that cfg lacks. ErrSuperseded: another node has just
// begun a new life too.
func Rebuild(ctx context.Context, cfg config.Config, req RebuildRequest, log *slog.Logger) error {
	release, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	return errors.Join(rebuildLocked(ctx, cfg, req, log), release())
}

func rebuildLocked(ctx context.Context, cfg config.Config, req RebuildRequest, log *slog.Logger) error {
	if begun, err := rebuildBegun(cfg.DataDir); err != nil || begun {
		return err
	}
	node, err := rebuildingID(cfg.DataDir)
	if err != nil {
		return err
	}
	s, closeStore, err := openExisting(ctx, cfg)
	if err != nil {
		return err
	}
	err = beginLife(ctx, cfg, req, node, s, log)
	return errors.Join(err, closeStore())
}

// beginLife does what can be repeated: the base first, for it may turn out to be
// of no use, then the claim, then what makes the data dir a node's.
func beginLife(ctx context.Context, cfg config.Config, req RebuildRequest, node raftmeta.NodeID, s store.Store, log *slog.Logger) error {
	plan := rebuildPlan{Source: req.Source}
	base, err := loadBase(ctx, req, s, &plan)
	if err != nil {
		return err
	}
	if base != nil {
		if err := checkBase(cfg, base); err != nil {
			return fmt.Errorf("%s: %w", plan.Base, err)
		}
		var text bytes.Buffer
		if err := base.WriteSnapshot(&text); err != nil {
			return fmt.Errorf("%s: %w", plan.Base, err)
		}
		if err := replaceDurably(filepath.Join(cfg.DataDir, baseFile), text.Bytes()); err != nil {
			return err
		}
	}
	claimed, err := rebuild.Claim(store.WithCause(ctx, causeClaim), s, node)
	if err != nil {
		return fmt.Errorf("claim a new generation: %w", err)
	}
	if base != nil && base.Cluster() != claimed.Cluster {
		return fmt.Errorf("%s is of cluster %s, the store %w: %s", plan.Base, base.Cluster(), ErrOtherCluster, claimed.Cluster)
	}
	b, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	if err := replaceDurably(filepath.Join(cfg.DataDir, planFile), append(b, '\n')); err != nil {
		return err
	}
	id := identity{Node: node, Cluster: claimed.Cluster, Generation: claimed.Generation}
	if err := id.store(cfg.DataDir); err != nil {
		return err
	}
	log.InfoContext(ctx, "a new life of the cluster begins", "cluster", claimed.Cluster.String(), "generation", claimed.Generation,
		"base", plan.Base, "node", string(node))
	return nil
}

// rebuildBegun reports whether the data dir is that of a node that began a new
// life; ErrInCluster when it is another node's.
func rebuildBegun(dir string) (bool, error) {
	_, err := readIdentity(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		for _, other := range []string{raftDir, joiningFile, clusterDir} {
			if there, err := has(dir, other); err != nil || there {
				return false, errors.Join(err, fmt.Errorf("%s: %w, or to one that was about to join; take an empty one", dir, ErrInCluster))
			}
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	planned, err := has(dir, planFile)
	if err == nil && !planned {
		err = fmt.Errorf("%s: %w; stop it, and begin the new life in an empty --data-dir", dir, ErrInCluster)
	}
	return planned, err
}

// rebuildingID returns the id of the node to be, chosen at the first attempt.
func rebuildingID(dir string) (raftmeta.NodeID, error) {
	path := filepath.Join(dir, rebuildingFile)
	b, err := json.Marshal(identity{Node: raftmeta.NodeID(uuid.NewString())})
	if err != nil {
		return "", err
	}
	if err := createDurably(path, append(b, '\n')); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("choose a node id: %w", err)
	}
	chosen, err := readIdentity(path)
	return chosen.Node, err
}

// openExisting opens the store of a cluster without making anything.
func openExisting(ctx context.Context, cfg config.Config) (store.Store, func() error, error) {
	if !cfg.Store.S3() {
		path, err := cfg.Store.Path()
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w; is its disk mounted?", ErrStoreLost, err)
		}
	}
	c := store.S3Config{
		URL: cfg.Store.URL, CAFile: cfg.Store.CAFile,
		Read: cfg.Store.Credentials.Read, Write: cfg.Store.Credentials.Write, Collect: cfg.Store.Credentials.Collect,
	}
	if cfg.Store.S3() {
		s, err := store.OpenBucket(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	}
	s, err := store.OpenConfig(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if closer, ok := s.(interface{ Close() error }); ok {
		return s, closer.Close, nil
	}
	return s, func() error { return nil }, nil
}

// loadBase reads the state that the request names; nil: none.
func loadBase(ctx context.Context, req RebuildRequest, s store.Store, plan *rebuildPlan) (*raftmeta.View, error) {
	switch {
	case req.Backup != "" && req.FromDir != "":
		return nil, errors.New("a backup and a data dir: name one of them")
	case req.FromDir != "":
		dir, err := filepath.Abs(req.FromDir)
		if err != nil {
			return nil, err
		}
		plan.Base = dir
		return raftmeta.ReadState(filepath.Join(dir, raftDir))
	case req.Backup == "":
		return nil, nil //nolint:nilnil // no base was asked for
	}
	key := req.Backup
	if key == LatestBackup {
		found, err := backup.Find(ctx, s)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, errors.New("the store has no backup; 'desnode rebuild' makes the manifest from the packs alone")
		}
		key = found[0].Key
	}
	plan.Base = key
	return backup.Load(ctx, s, key)
}

// checkBase holds the configuration against the sources of the life before:
// without one of them its packs could not be acknowledged.
func checkBase(cfg config.Config, base *raftmeta.View) error {
	listed, _, err := listSetting(base, sourcesKey)
	if err != nil {
		return err
	}
	for _, name := range listed {
		if _, ok := cfg.Sources[name]; !ok {
			return fmt.Errorf("%w: the cluster archives the source %q; configure it under that name", ErrSourceMissing, name)
		}
	}
	return nil
}

// readPlan returns what this data dir's new life was to begin with; nil: it did
// not begin one.
func readPlan(dir string) (*rebuildPlan, error) {
	b, err := os.ReadFile(filepath.Join(dir, planFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // most nodes have begun none
	}
	var plan rebuildPlan
	if err == nil {
		err = json.Unmarshal(b, &plan)
	}
	if err != nil {
		return nil, fmt.Errorf("what the rebuild was to begin with: %w", err)
	}
	return &plan, nil
}

// openBase reads the state that the rebuild begins with, whose name base is. It
// stands in the data dir, so that a rebuild that was cut needs nobody else.
func (n *Node) openBase(_ context.Context, base string) (*raftmeta.View, error) {
	f, err := os.Open(filepath.Join(n.cfg.DataDir, baseFile))
	if err != nil {
		return nil, fmt.Errorf("the state from %s: %w", base, err)
	}
	v, err := raftmeta.ReadSnapshot(f)
	return v, errors.Join(err, f.Close())
}

// outlives reports whether a setting of the life before is taken over: what is
// about its files and its work. Keys and addresses are the new life's own, the
// store and the sources are as configured now, and which host deletes originals
// is found out anew.
func outlives(key string) bool {
	switch key {
	case storeKey, sourcesKey, flushKey:
		return false
	}
	return !strings.HasPrefix(key, sourcePrefix) && !peers.IsKeySetting(key) && !keeper.IsHostSetting(key)
}

// HasBegun reports whether the data dir is that of a node that began a new life
// of its cluster.
func HasBegun(dataDir string) bool {
	begun, err := rebuildBegun(dataDir)
	return err == nil && begun
}
