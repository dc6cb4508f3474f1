package main

import (
	"context"
	"time"

	"github.com/datavision/desnode/chaos/rig"
)

// linkKinds are what happens between nodes.
func linkKinds() []*kind {
	return []*kind{
		{
			name: "partition", lane: nodeLane, least: 15 * time.Second, most: 75 * time.Second, after: 5 * time.Second,
			picks: []pick{anyone, theLeader, thePacker}, needs: needsHosts, inject: partition,
		},
		{
			name: "partition-one-way", lane: nodeLane, least: 15 * time.Second, most: 60 * time.Second, after: 5 * time.Second,
			picks: []pick{anyone, theLeader, thePacker}, needs: needsHosts, inject: oneWay,
		},
	}
}

// partition cuts a host off, from the others alone or from the servers too.
func partition(ctx context.Context, w *world, f planned, m *member) (func(context.Context) error, error) {
	m.retire()
	fromServers := f.chance(1, 2) == 1
	w.postgres.sever(m.name, fromServers)
	w.s3.sever(m.name, fromServers)
	w.logf("%s: its cable is out, the way to the servers too: %t", m.name, fromServers)
	return func(ctx context.Context) error {
		w.postgres.sever(m.name, false)
		w.s3.sever(m.name, false)
		defer m.well()
		return m.host.Heal(ctx)
	}, m.host.Cut(ctx)
}

// oneWay has a host hear nothing of some others, or say nothing to them: all
// others, or two of them, so that those see two halves of one cluster.
func oneWay(ctx context.Context, w *world, f planned, m *member) (func(context.Context) error, error) {
	m.retire()
	var others []*rig.Host
	for _, o := range w.members {
		if o != m {
			others = append(others, o.host)
		}
	}
	if f.chance(1, 3) == 0 && len(others) > 2 {
		others = others[:2]
	}
	way := rig.In
	if f.chance(2, 2) == 1 {
		way = rig.Out
	}
	w.logf("%s: packets %s are lost, of %d others", m.name, way, len(others))
	err := m.host.Filter(ctx, others, way)
	return func(ctx context.Context) error {
		defer m.well()
		return m.host.Unfilter(ctx)
	}, err
}
