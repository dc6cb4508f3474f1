package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/raftmeta"
)

// Errors of a configuration that contradicts the cluster's.
var (
	// ErrOtherStore: the configuration names another store than the cluster's.
	ErrOtherStore = errors.New("the cluster uses another store")
	// ErrOtherSource: the configuration names another database than the one that
	// the cluster archives under that name.
	ErrOtherSource = errors.New("the source is another than the cluster's")
	// ErrSourceMissing: packs name a source that the configuration lacks.
	ErrSourceMissing = errors.New("a source is missing in the configuration")
)

// clusterSettings are what all nodes of a cluster have in common beside the
// state machine, secrets left out: a joiner gets them with its admission. Each
// node keeps a copy in its data dir, since it opens the store and the sources
// before its state machine has caught up.
type clusterSettings struct {
	Generation uint64                   `json:"generation"`
	Store      string                   `json:"store"` // URL
	Sources    map[string]config.Source `json:"sources"`
	Members    int                      `json:"members,omitempty"`
}

// Keys of the replicated settings.
const (
	storeKey     = "store"   // the store's URL
	sourcesKey   = "sources" // the sources' names
	sourcePrefix = "source/" // each source, followed by its name
)

// readSettings returns the data dir's copy.
func readSettings(dataDir string) (*clusterSettings, error) {
	path := filepath.Join(dataDir, settingsFile)
	b, err := os.ReadFile(path)
	var s clusterSettings
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("the cluster's settings in %s: %w; restore it from a backup, or join on an empty data dir", path, err)
	}
	return &s, nil
}

// keep makes s the data dir's copy.
func (s *clusterSettings) keep(dataDir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	old, err := os.ReadFile(filepath.Join(dataDir, settingsFile))
	if err == nil && string(old) == string(b)+"\n" {
		return nil
	}
	return replaceDurably(filepath.Join(dataDir, settingsFile), append(b, '\n'))
}

// adopt completes the configuration of a node that is not alone by the cluster's
// settings: what it leaves out is the cluster's, a source that both have is the
// node's, since its passwords stand there. A store of its own is ErrOtherStore.
func (s *clusterSettings) adopt(cfg config.Config) (config.Config, error) {
	switch {
	case cfg.Store.URL == config.DefaultStore(cfg.DataDir):
		cfg.Store.URL = s.Store
	case config.WithoutSecrets(cfg.Store.URL) != s.Store:
		return cfg, fmt.Errorf("%w: %s; the configuration says %s: take store.url out of it, or start on the data dir of another cluster",
			ErrOtherStore, s.Store, config.Redacted(cfg.Store.URL))
	}
	own := cfg.Sources
	if cfg.HasDefaultSources() {
		own = nil
	}
	cfg.Sources = maps.Clone(s.Sources)
	maps.Copy(cfg.Sources, own)
	return cfg, cfg.Validate()
}

// settingsOf reads the cluster's settings from a view.
func settingsOf(v *raftmeta.View) (*clusterSettings, error) {
	s := &clusterSettings{Generation: v.Generation(), Sources: map[string]config.Source{}, Members: len(v.Members())}
	url, _, _ := v.Setting(storeKey)
	s.Store = string(url)
	names, _, err := listSetting(v, sourcesKey)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		value, _, ok := v.Setting(sourcePrefix + name)
		if !ok {
			continue // not described yet
		}
		var source config.Source
		if err := json.Unmarshal(value, &source); err != nil {
			return nil, fmt.Errorf("setting %s%s: %w", sourcePrefix, name, err)
		}
		s.Sources[name] = source
	}
	return s, nil
}

// agreeOnSettings brings the cluster's settings and this node's configuration
// together: what the cluster does not know yet is added, a source that the
// configuration lacks but packs may name is ErrSourceMissing, another store is
// ErrOtherStore. It keeps a copy in the data dir.
func (n *Node) agreeOnSettings(ctx context.Context) error {
	if err := n.agreeOnStore(ctx); err != nil {
		return err
	}
	if err := n.agreeOnSources(ctx); err != nil {
		return err
	}
	for _, s := range n.sources {
		if err := n.describeSource(ctx, s.Name); err != nil {
			return err
		}
	}
	return n.keepSettings(n.meta.View())
}

// settingsMark changes whenever what settingsOf returns does. It is cheap: it is
// taken at every change of the state machine.
func settingsMark(v *raftmeta.View) (mark [2]uint64) {
	for key := range v.Settings(sourcePrefix) {
		_, modIndex, _ := v.Setting(key)
		mark[0] = max(mark[0], modIndex)
	}
	for _, key := range []string{storeKey, sourcesKey} {
		_, modIndex, _ := v.Setting(key)
		mark[0] = max(mark[0], modIndex)
	}
	mark[1] = uint64(len(v.Members()))
	return mark
}

func (n *Node) keepSettings(v *raftmeta.View) error {
	s, err := settingsOf(v)
	if err != nil {
		return err
	}
	return s.keep(n.cfg.DataDir)
}

// agreeOnStore holds the store's URL against the cluster's. A cluster of one may
// move its store, for instance to another address of the same server: that it
// is this cluster's store is known by then.
func (n *Node) agreeOnStore(ctx context.Context) error {
	own := config.WithoutSecrets(n.cfg.Store.URL)
	for {
		v := n.meta.View()
		url, modIndex, ok := v.Setting(storeKey)
		switch {
		case ok && string(url) == own:
			return nil
		case ok && len(v.Members()) > 1:
			return fmt.Errorf("%w: %s, not %s", ErrOtherStore, url, own)
		}
		if err := n.meta.Set(ctx, storeKey, []byte(own), modIndex); !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
	}
}

// describeSource tells the cluster how a source is configured, for nodes that
// join later. What it knows already stays, but for a source whose files nobody
// has archived yet.
func (n *Node) describeSource(ctx context.Context, name string) error {
	own := n.cfg.Sources[name].WithoutSecrets()
	b, err := json.Marshal(own)
	if err != nil {
		return err
	}
	for {
		v := n.meta.View()
		known, modIndex, ok := v.Setting(sourcePrefix + name)
		if ok {
			var told config.Source
			if err := json.Unmarshal(known, &told); err != nil {
				return fmt.Errorf("setting %s%s: %w", sourcePrefix, name, err)
			}
			if reflect.DeepEqual(told, own) || len(v.Members()) > 1 {
				return nil
			}
		}
		if err := n.meta.Set(ctx, sourcePrefix+name, b, modIndex); !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
	}
}

// agreeOnSources adds the configured sources to the cluster's list. A listed
// one that the configuration lacks is ErrSourceMissing: packs may name it, and
// without it they could neither be acknowledged nor their rows be found. Until
// there is a pack or an upload, sources may be renamed.
func (n *Node) agreeOnSources(ctx context.Context) error {
	for {
		v := n.meta.View()
		listed, modIndex, err := listSetting(v, sourcesKey)
		if err != nil {
			return err
		}
		var all []string
		if archived(v) || len(v.Members()) > 1 {
			all = slices.Clone(listed)
		}
		for _, s := range n.sources {
			if !slices.Contains(all, s.Name) {
				all = append(all, s.Name)
			}
		}
		if len(all) != len(n.sources) {
			for _, name := range listed {
				if _, ok := n.cfg.Sources[name]; !ok {
					return fmt.Errorf("%w: the cluster archives the source %q; configure it again under that name", ErrSourceMissing, name)
				}
			}
		}
		if slices.Equal(all, listed) {
			return nil
		}
		if err := n.setList(ctx, sourcesKey, all, modIndex); !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
	}
}

// archived reports whether anything was ever packed, or began to be.
func archived(v *raftmeta.View) bool {
	for range v.Packs() {
		return true
	}
	return len(v.Uploads()) > 0
}

// listSetting reads a replicated setting that is a list of strings; it is
// empty until it is set.
func listSetting(v *raftmeta.View, key string) (list []string, modIndex uint64, err error) {
	b, modIndex, ok := v.Setting(key)
	if !ok {
		return nil, modIndex, nil
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, 0, fmt.Errorf("setting %s: %w", key, err)
	}
	return list, modIndex, nil
}

// setList stores such a setting if it still is the one of modIndex.
func (n *Node) setList(ctx context.Context, key string, list []string, modIndex uint64) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return n.meta.Set(ctx, key, b, modIndex)
}
