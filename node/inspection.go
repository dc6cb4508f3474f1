package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/backup"
	"github.com/datavision/desnode/node/inspect"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/raftmeta"
)

// openInspection opens what tells an operator what is unfinished.
func (n *Node) openInspection(context.Context, *prometheus.Registry) error {
	c := inspect.Config{
		Node:           n.id.Node,
		Manifest:       n.meta,
		Store:          n.store,
		Upkeep:         n.keeper,
		Log:            keeperLog{n.keeper},
		Members:        n.inspectedMembers,
		Lacking:        n.lacking,
		Pauses:         n.inspectedPauses,
		Backups:        n.inspectedBackups,
		BackUp:         func(ctx context.Context) error { _, err := n.backup.Now(ctx); return err },
		BackupEvery:    n.cfg.Backup.Every,
		Rebuilding:     n.rebuilding,
		Current:        n.checkCurrent,
		VerifiedWithin: 2 * n.cfg.Scrub.Interval,
		Logger:         n.log,
		Now:            n.now,
	}
	if n.uploads != nil {
		c.Uploads = n.uploads
	}
	for _, s := range n.sources {
		c.Sources = append(c.Sources, inspect.Source{Name: s.Name, Rows: s.Rows})
	}
	var err error
	n.inspector, err = inspect.New(c)
	return err
}

// keeperLog is what the keeper knows, in the inspector's words.
type keeperLog struct{ *keeper.Keeper }

func (k keeperLog) CutDeletions() []inspect.CutDeletion {
	var cut []inspect.CutDeletion
	for _, c := range k.Keeper.CutDeletions() {
		cut = append(cut, inspect.CutDeletion(c))
	}
	return cut
}

func (k keeperLog) Quarantined(v *raftmeta.View) ([]inspect.Quarantined, error) {
	list, err := k.Keeper.Quarantined(v)
	out := make([]inspect.Quarantined, 0, len(list))
	for _, q := range list {
		out = append(out, inspect.Quarantined(q))
	}
	return out, err
}

func (n *Node) inspectedMembers(ctx context.Context) ([]inspect.Member, error) {
	list, err := n.Members(ctx)
	if err != nil {
		return nil, err
	}
	v := n.meta.View()
	members := make([]inspect.Member, 0, len(list.Members))
	for _, m := range list.Members {
		known, _ := v.Member(m.Node)
		seen := inspect.Member{Node: m.Node, Alive: m.Alive, State: string(m.State), Leaving: known.Leaving}
		if m.LastHeardSeconds != nil {
			seen.Heard = n.now().Add(-time.Duration(*m.LastHeardSeconds * float64(time.Second)))
		}
		members = append(members, seen)
	}
	return members, nil
}

func (n *Node) inspectedPauses() (pauses []inspect.Pause) {
	for _, w := range n.pace.Status().Work {
		if w.Held != nil && w.Held.Cause == pace.CausePause {
			pauses = append(pauses, inspect.Pause{Work: string(w.Kind), Reason: w.Held.Text, By: w.Held.By, Until: w.Held.Until})
		}
	}
	return pauses
}

func (n *Node) inspectedBackups() ([]inspect.Backup, error) {
	entries, err := backup.List(n.meta.View())
	out := make([]inspect.Backup, 0, len(entries))
	for _, e := range entries {
		out = append(out, inspect.Backup{Key: e.Key, Generation: e.Generation, At: e.At})
	}
	return out, err
}

// rebuilding says how far the rebuild of this generation is; empty: it is done.
func (n *Node) rebuilding() string {
	st := n.RebuildStatus()
	if st == nil || st.Done {
		return ""
	}
	if st.Phase == "" {
		return "on the node that began it"
	}
	return fmt.Sprintf("%s: %d objects listed, %d packs adopted, %d acknowledged", st.Phase, st.Listed, st.Adopted, st.Acknowledged)
}

// Unfinished tells what is unfinished in the cluster, as this node sees it.
func (n *Node) Unfinished(ctx context.Context) (api.Unfinished, error) {
	v := n.meta.View()
	u := api.Unfinished{Node: n.id.Node, Generation: v.Generation(), At: n.now().UTC(), Findings: []api.Finding{}}
	found, err := n.inspector.Unfinished(ctx)
	if err != nil {
		return api.Unfinished{}, err
	}
	for _, f := range found {
		u.Findings = append(u.Findings, api.Finding(f))
	}
	return u, nil
}

// Recover tells what is unfinished, and mends what it may.
func (n *Node) Recover(ctx context.Context, req api.RecoverRequest, event func(api.RecoverEvent) error) error {
	send := func(o *inspect.Outcome, t inspect.Totals) error {
		e := api.RecoverEvent{Found: t.Found, Fixed: t.Fixed, Left: t.Left}
		if o != nil {
			finding := api.Finding(o.Finding)
			e.Finding, e.Outcome, e.Text = &finding, o.Word, o.Text
		}
		return event(e)
	}
	totals, err := n.inspector.Recover(ctx, inspect.Options{Fix: req.Fix, Yes: req.Yes}, func(o inspect.Outcome, t inspect.Totals) error { return send(&o, t) })
	if err != nil {
		return err
	}
	return send(nil, totals)
}

// Compare holds the sources, the manifest and the store against each other.
func (n *Node) Compare(ctx context.Context, req api.CompareRequest, event func(api.CompareEvent) error) error {
	var leg string
	var counts inspect.Counts
	opts := inspect.CompareOptions{Only: req.Only, Progress: func(l string, c inspect.Counts) error {
		leg, counts = l, c
		return event(api.CompareEvent{Phase: leg, CompareCounts: api.CompareCounts(counts)})
	}}
	counts, err := n.inspector.Compare(ctx, opts, func(d inspect.Difference) error {
		difference := api.Difference(d)
		return event(api.CompareEvent{Difference: &difference, Phase: leg, CompareCounts: api.CompareCounts(counts)})
	})
	switch {
	case errors.Is(err, inspect.ErrRebuilding):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	case errors.Is(err, inspect.ErrUnavailable):
		return &api.Problem{Status: http.StatusServiceUnavailable, Code: api.CodeUnavailable, Detail: err.Error()}
	case err != nil:
		return err
	}
	return event(api.CompareEvent{CompareCounts: api.CompareCounts(counts)})
}
