package main

import (
	"context"
	"time"
)

// serverKinds are what happens to Postgres and S3, as the nodes see them.
func serverKinds() (all []*kind) {
	servers := []struct {
		name    string
		lane    lane
		touches touches
		proxy   func(w *world) *proxy
	}{
		{"postgres", databaseLane, touchesDatabase, func(w *world) *proxy { return w.postgres }},
		{"s3", storeLane, touchesStore, func(w *world) *proxy { return w.s3 }},
	}
	ways := []struct {
		name   string
		spares touches
		modes  []mode // one of them
	}{
		{"down", 0, []mode{{way: refusing}, {way: hanging}}},
		{"slow", 0, []mode{{way: slowing, latency: 300 * time.Millisecond, rate: 1 << 20}, {way: slowing, latency: 2 * time.Second, rate: 64 << 10}}},
		{"reset", 0, []mode{{way: breaking, odds: 0.1}, {way: breaking, odds: 0.5}}},
		{"lost", sparesReads, []mode{{way: losing, odds: 0.9}, {way: losing, odds: 0.4}}},
	}
	for _, s := range servers {
		for _, way := range ways {
			k := &kind{
				name: s.name + "-" + way.name, lane: s.lane, touches: s.touches | way.spares,
				least: 6 * time.Second, most: 25 * time.Second, after: 5 * time.Second,
				inject: func(_ context.Context, w *world, f planned, _ *member) (func(context.Context) error, error) {
					s.proxy(w).set(way.modes[f.chance(1, uint64(len(way.modes)))])
					return func(context.Context) error {
						s.proxy(w).set(mode{})
						return nil
					}, nil
				},
			}
			if way.modes[0].way == losing {
				k.met = func(w *world, _ *member) func() bool {
					before := s.proxy(w).lostAnswers()
					return func() bool { return s.proxy(w).lostAnswers() > before }
				}
			}
			all = append(all, k)
		}
	}
	return all
}
