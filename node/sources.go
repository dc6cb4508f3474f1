package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/datavision/desnode/raftmeta"
)

// sourcesKey is the setting that lists the sources' names for every node.
const sourcesKey = "sources"

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
		if archived(v) {
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
