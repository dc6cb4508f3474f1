package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/datavision/desnode/node/api"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/keeper"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Status says how the node is. A source that does not answer is reported in
// its own place and is no error.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	v, now := n.meta.View(), time.Now()
	st := api.Status{
		Node:        n.id.Node,
		Cluster:     n.id.Cluster,
		Generation:  v.Generation(),
		Version:     Version(),
		Started:     n.started.UTC(),
		Uptime:      now.Sub(n.started).Seconds(),
		Ready:       n.isReady(),
		Leader:      n.meta.Leader(),
		Zone:        n.cfg.Zone,
		Members:     n.memberCounts(),
		Voters:      n.voters(),
		HealthScore: n.peers.HealthScore(),
		Applied:     v.Applied(),
		ShardBits:   v.ShardBits(),
		Store:       config.Redacted(n.cfg.Store.URL),
		Work:        n.cfg.Work,
		Sources:     n.sourceStatus(ctx),
		Packs:       packTotals(v),
		Uploads:     v.Uploads(),
		Leases:      len(v.Leases()),
		Cache:       n.cacheStatus(),
		StoreCalls:  map[string]int64{},
		Pauses:      n.pauses(),
		Pace:        throttleStatus(n.pace.Status()),
		Superseded:  n.supersededBy(),
		Rebuild:     n.RebuildStatus(),
	}
	counts := n.store.Counts()
	for _, kind := range store.Kinds() {
		st.StoreCalls[kind.String()] = counts.Of(kind)
	}
	return st, nil
}

func packTotals(v *raftmeta.View) (t api.PackTotals) {
	for p := range v.Packs() {
		t.Count++
		t.Records += int64(p.Records)
		t.Dead += int64(len(p.Dead))
		t.Bytes += p.Size
		t.PayloadBytes += p.PayloadBytes
		t.IndexBytes += p.Index.Length
		if !p.Acknowledged {
			t.Unacknowledged++
		}
		verified := func(c raftmeta.Copy) bool { return !c.VerifiedAt.IsZero() }
		if !slices.ContainsFunc(p.Copies, verified) {
			t.Unverified++
		}
		if slices.ContainsFunc(p.Copies, func(c raftmeta.Copy) bool { return c.Damage != "" }) {
			t.Damaged++
		}
	}
	return t
}

func (n *Node) cacheStatus() api.CacheStatus {
	s := n.retriever.Stats()
	return api.CacheStatus{
		Indexes: s.Indexes, IndexBytes: s.IndexBytes, IndexCap: s.IndexCap,
		IndexHits: s.IndexHits, IndexMisses: s.IndexMisses,
		Records: s.Records, DataBytes: s.DataBytes, DataCap: s.DataCap,
		DataHits: s.DataHits, DataMisses: s.DataMisses,
	}
}

// pauses lists the work that stands still, and why.
func (n *Node) pauses() []api.Pause {
	pauses := []api.Pause{}
	for _, work := range []struct {
		kind    string
		problem error
	}{
		{"mark", n.marker.Problem()},
		{"pack", n.packer.Problem()},
		{"keep", n.keeper.Problem()},
	} {
		switch {
		case !n.cfg.Does(work.kind):
			pauses = append(pauses, api.Pause{Work: work.kind, Reason: "switched off on this node"})
		case work.problem != nil:
			pauses = append(pauses, api.Pause{Work: work.kind, Reason: work.problem.Error()})
		}
	}
	return pauses
}

// Packs lists the manifest.
func (n *Node) Packs(context.Context) (api.PackList, error) {
	list := api.PackList{Packs: []api.PackInfo{}}
	for p := range n.meta.View().Packs() {
		info := api.PackInfo{
			ID: p.ID, Range: p.Range, Token: p.Token, MinSeq: p.MinSeq, MaxSeq: p.MaxSeq,
			Size: p.Size, SHA256: hex.EncodeToString(p.SHA256[:]), Records: p.Records, Dead: len(p.Dead),
			PayloadBytes: p.PayloadBytes, IndexBytes: p.Index.Length, Created: p.Created,
			Acknowledged: p.Acknowledged, Copies: p.Copies,
		}
		if len(p.Copies) > 0 {
			info.Key = p.Copies[0].Key
		}
		list.Packs = append(list.Packs, info)
	}
	return list, nil
}

// Leases lists the live leases.
func (n *Node) Leases(context.Context) (api.LeaseList, error) {
	return api.LeaseList{Leases: n.meta.View().Leases()}, nil
}

// backlogBits is how finely the backlog is shown.
const backlogBits = 4

// Backlog says what is marked and not packed yet.
func (n *Node) Backlog(ctx context.Context) (api.Backlog, error) {
	list := api.Backlog{Sources: []api.SourceBacklog{}}
	for _, s := range n.sources {
		sb := api.SourceBacklog{Source: s.Name, Buckets: []api.BacklogBucket{}}
		buckets, err := s.Rows.Backlog(ctx, backlogBits, source.Due{Now: n.now()})
		if err != nil {
			sb.Error = err.Error()
		}
		for _, b := range buckets {
			sb.Rows += b.Rows
			sb.Bytes += b.Bytes
			if sb.Oldest.IsZero() || b.Oldest.Before(sb.Oldest) {
				sb.Oldest = b.Oldest
			}
			sb.Buckets = append(sb.Buckets, api.BacklogBucket{Range: b.Range, Rows: b.Rows, Bytes: b.Bytes})
		}
		list.Sources = append(list.Sources, sb)
	}
	return list, nil
}

// Verify reads packs back from the store, all when none are named, and hands
// the result of each to send. It ends early only for send's error and ctx, and
// does not begin when a named pack is not in the manifest.
func (n *Node) Verify(ctx context.Context, req api.VerifyRequest, send func(api.VerifyEvent) error) error {
	v := n.meta.View()
	for _, id := range req.Packs {
		if v.Pack(id) == nil {
			return &api.Problem{Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: fmt.Sprintf("no pack %s in the manifest", id)}
		}
	}
	return n.keeper.Verify(ctx, req.Packs, func(r keeper.Result) error {
		e := api.VerifyEvent{
			Pack: r.Pack, Records: int64(r.Records), Bytes: r.Bytes,
			OK: r.Err == nil && r.Damage == "", Damage: r.Damage,
		}
		if r.Err != nil {
			e.Unread = r.Err.Error()
		}
		return send(e)
	})
}
