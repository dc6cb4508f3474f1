package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/bench"
)

// leader returns the node that leads, as the first of the living knows.
func (c *demoCluster) leader(ctx context.Context) (leader *demoNode, err error) {
	err = await(ctx, "no node leads", func(ctx context.Context) (string, error) {
		list, err := c.living()[0].members(ctx)
		if err != nil {
			return "", err
		}
		for _, n := range c.living() {
			if n.id == list.Leader {
				leader = n
				return "", nil
			}
		}
		return "no living node leads", nil
	})
	return leader, err
}

// await waits until every living node sees the living and no others alive, all
// agree on the ring, and some leader has a quorum with that many voters; 0: with
// any.
func (c *demoCluster) await(ctx context.Context, voters int) error {
	return await(ctx, "the nodes do not see each other", func(ctx context.Context) (string, error) {
		for _, n := range c.living() {
			list, err := n.members(ctx)
			if err != nil {
				return "", fmt.Errorf("%s: %w", n.name, err)
			}
			alive := 0
			for _, m := range list.Members {
				if m.RingAgrees != nil && !*m.RingAgrees {
					return fmt.Sprintf("%s and %s see different rings", n.name, c.nameOf(m.Node)), nil
				}
				if m.Alive {
					alive++
				}
			}
			switch {
			case alive != len(c.living()):
				return fmt.Sprintf("%s sees %d nodes alive in place of %d", n.name, alive, len(c.living())), nil
			case !list.Quorum:
				return n.name + " sees no quorum", nil
			case voters > 0 && list.Voters != voters:
				return fmt.Sprintf("%s sees %s in place of %d", n.name, count(int64(list.Voters), "voter"), voters), nil
			}
		}
		return "", nil
	})
}

// membersAtRest returns the members when they are the living nodes and no others.
func (c *demoCluster) membersAtRest(ctx context.Context) (list api.MemberList, err error) {
	living := c.living()
	err = await(ctx, "the members are not the living", func(ctx context.Context) (_ string, err error) {
		list, err = living[0].members(ctx)
		if err == nil && (len(list.Members) != len(living) || len(list.Removed) != len(c.nodes)-len(living)) {
			return fmt.Sprintf("%s knows %s and %d removed ones", living[0].name, count(int64(len(list.Members)), "member"), len(list.Removed)), nil
		}
		return "", err
	})
	return list, err
}

// figures sums up what the living nodes have done since they started.
func (c *demoCluster) figures(ctx context.Context) (demoFigures, error) {
	f := demoFigures{store: map[string]int64{}, nodes: map[*demoNode]bench.Metrics{}}
	for _, n := range c.living() {
		s, err := n.status(ctx)
		if err != nil {
			return f, err
		}
		for kind, calls := range s.StoreCalls {
			f.store[kind] += calls
		}
		if f.nodes[n], err = bench.Scrape(ctx, n.http, n.base); err != nil {
			return f, err
		}
	}
	return f, nil
}

// demoFigures are the figures of the living nodes at one moment.
type demoFigures struct {
	store map[string]int64 // requests by kind, of all nodes
	nodes map[*demoNode]bench.Metrics
}

// routesSince returns how reads were routed since before, by the router's words.
// Nodes that have gone since count for nothing, those that came count whole.
func (f demoFigures) routesSince(before demoFigures) map[string]int64 {
	routes := map[string]int64{}
	for n, now := range f.nodes {
		for labels, grown := range now.Since(before.nodes[n], "des_router_routes_total") {
			routes[strings.TrimSuffix(strings.TrimPrefix(labels, `route="`), `"`)] += grown
		}
	}
	return routes
}

// Waiting for the nodes: how long, and how often they are asked.
const (
	demoPatience = time.Minute
	upkeepPoll   = 50 * time.Millisecond
)

// await waits until check finds nothing missing any more. An error of check ends
// it, but for that of a node that does not answer at the moment.
func await(ctx context.Context, what string, check func(context.Context) (missing string, err error)) error {
	limited, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	tick := time.NewTicker(upkeepPoll)
	defer tick.Stop()
	for {
		missing, err := check(limited)
		switch {
		case err == nil && missing == "":
			return nil
		case err != nil && exitCode(limited, err) != exitUnavailable && limited.Err() == nil:
			return err
		case err != nil:
			missing = err.Error()
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%w: after %s: %s: %s", errFailed, demoPatience, what, missing)
		}
	}
}
