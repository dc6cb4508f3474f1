package marker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// Settings are the cluster's replicated settings.
type Settings interface {
	// Setting returns a value as this node has applied it, and the index of its
	// last change.
	Setting(key string) (value []byte, modIndex uint64, ok bool)
	// Set changes a setting that was last changed at ifModIndex (0: there is
	// none). raftmeta.ErrConflict: somebody was faster.
	Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error
}

// fullKey is the setting that lists the sources whose marking rests at a backlog
// limit. Nodes that do not mark can't tell it from a source without old rows.
const fullKey = "marking/full"

// patience is how long another node's marking is waited for. One that goes on
// for longer waits for its pace, or has so much to do that packing need not wait:
// it counts as a trickle.
const patience = time.Minute

// headStart is how long a node that does not mark waits for those that do, when
// all are asked to mark at once: their leases are not in its view yet. Who asks
// again and again gets it once in ten such times.
const headStart = 500 * time.Millisecond

// Markers returns how many nodes hold a lease to mark: among them a second's
// rate is shared.
func Markers(leases []raftmeta.Lease) int {
	var holders []raftmeta.NodeID
	for _, l := range leases {
		if l.Job.Kind == raftmeta.JobMark && !slices.Contains(holders, l.Holder) {
			holders = append(holders, l.Holder)
		}
	}
	return len(holders)
}

// others reports whether other nodes mark some of the sources now: some only
// since a moment, or all for so long that their rows are a trickle. The caller
// holds mu.
func (m *Marker) others(sources []source.Source) (marking, trickling bool) {
	now := m.cfg.Now()
	seen := make(map[desformat.Token]time.Time)
	for _, l := range m.cfg.Live() {
		known := slices.ContainsFunc(sources, func(s source.Source) bool { return s.Name == l.Job.Source })
		if l.Job.Kind != raftmeta.JobMark || l.Holder == m.cfg.Node || !known {
			continue
		}
		since, before := m.seen[l.Token]
		if !before {
			since = now
		}
		seen[l.Token] = since
		trickles := now.Sub(since) >= patience
		marking, trickling = marking || !trickles, trickling || trickles
	}
	m.seen = seen
	return marking, trickling && !marking
}

// fullSources returns the sources that the setting lists, and its index.
func (m *Marker) fullSources() (names []string, modIndex uint64, err error) {
	b, modIndex, ok := m.cfg.Shared.Setting(fullKey)
	if !ok {
		return nil, 0, nil
	}
	if err := json.Unmarshal(b, &names); err != nil {
		return nil, modIndex, fmt.Errorf("setting %s: %w", fullKey, err)
	}
	return names, modIndex, nil
}

// isFull reports whether marking of a source rests at a backlog limit, by the
// word of whichever node looked last. The caller holds mu.
func (m *Marker) isFull(name string) bool {
	if m.cfg.Shared == nil {
		return m.full[name]
	}
	names, _, err := m.fullSources()
	if err != nil {
		return m.full[name] // replaced by the next change
	}
	return slices.Contains(names, name)
}

// shareFull tells the cluster what a round has found; nothing, when that is
// known. Who was overtaken by another node tells it in its next round.
func (m *Marker) shareFull(ctx context.Context, name string, full bool) error {
	if m.cfg.Shared == nil {
		return nil
	}
	names, modIndex, err := m.fullSources()
	if err == nil && slices.Contains(names, name) == full {
		return nil
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == name })
	if full {
		names = append(names, name)
		slices.Sort(names)
	}
	b, err := json.Marshal(names)
	if err != nil {
		return err
	}
	err = m.cfg.Shared.Set(ctx, fullKey, b, modIndex)
	if errors.Is(err, raftmeta.ErrConflict) {
		return nil
	}
	return err
}
