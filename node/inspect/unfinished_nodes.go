package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// members looks at the nodes: who is not seen, who is about to go.
func (l *look) members(ctx context.Context) {
	members, err := l.i.cfg.Members(ctx)
	if err != nil {
		l.add(Finding{
			Kind: KindNoQuorum, Severity: Repairable, Subject: string(l.i.cfg.Node), Why: "who is alive is not known: " + err.Error(),
			Cure: "desnode members",
		})
		return
	}
	for _, m := range members {
		l.alive[m.Node] = m
		switch {
		case m.Leaving && m.Alive:
			l.add(Finding{
				Kind: KindLeaving, Severity: Note, Subject: string(m.Node), Why: "it hands over what it has; it votes no more",
				Cure: "wait; 'desnode leave' on its machine goes on where it was cut",
			})
		case !m.Alive && m.Node != l.i.cfg.Node:
			l.add(Finding{
				Kind: KindMember, Severity: Repairable, Subject: string(m.Node), Since: m.Heard,
				Why:  "it is " + m.State + "; originals stay until it has applied all that is archived, or is no member",
				Cure: "start it again, or 'desnode members remove " + string(m.Node) + "' when it never comes back",
			})
		}
	}
}

// leases looks for work whose holder is gone, and notes who works on which pack.
func (l *look) leases() {
	for _, lease := range l.view.Leases() {
		for _, id := range lease.Job.Packs {
			l.held[id] = append(l.held[id], lease)
		}
		_, member := l.view.Member(lease.Holder)
		m, known := l.alive[lease.Holder]
		if member && (!known || m.Alive) {
			continue
		}
		why := "its holder " + string(lease.Holder) + " is " + m.State
		if !member {
			why = "its holder " + string(lease.Holder) + " is no member any more"
		}
		l.add(Finding{
			Kind: KindLease, Severity: Note, Subject: lease.Job.String(), Why: why,
			Cure: "wait: the leader lets it expire, and others take the work over",
		})
	}
}

// curable are the codes of failures that another try may end. All others need
// something else to change first, and are tried again by name.
var curable = []string{source.CodeNoFile, source.CodeChanged, source.CodeReadError, source.CodeRefused, source.CodeUndeletable}

// sources looks at the tables: which do not answer, which rows have failed.
func (l *look) sources(ctx context.Context) {
	lacking, err := l.i.cfg.Lacking()
	if err != nil {
		l.add(Finding{Kind: KindUnreadable, Severity: Repairable, Subject: "sources", Why: err.Error(), Cure: "start this node with the newest version"})
	}
	for _, name := range lacking {
		l.add(Finding{
			Kind: KindSourceMissing, Severity: Repairable, Subject: name,
			Why:  "the cluster archives it, this node does not know it: it answers no name absent and deletes nothing",
			Cure: "configure sources." + name + " on this node as on the others, and restart it",
		})
	}
	for _, s := range l.i.cfg.Sources {
		failed, err := s.Rows.FailureTally(ctx)
		if err != nil {
			l.add(Finding{
				Kind: KindSourceDown, Severity: Repairable, Subject: s.Name, Why: err.Error(),
				Cure: "mend the database; what waits goes on by itself. 'desnode source check' tells more",
			})
			continue
		}
		for _, code := range slices.Sorted(maps.Keys(failed)) {
			l.failedRows(s, code, failed[code])
		}
	}
}

func (l *look) failedRows(s Source, code string, t source.Tally) {
	f := Finding{
		Kind: KindFailedRows, Severity: Repairable, Subject: s.Name + " " + code,
		Why:  fmt.Sprintf("%d rows have archive_error %s", t.Rows, code),
		Cure: "desnode failed --code " + code + " lists them; mend the cause, then desnode retry --code " + code,
	}
	if code == source.CodeShared {
		f.Severity = Note // archived, and its original rightly stays
	}
	if !slices.Contains(curable, code) {
		l.add(f)
		return
	}
	l.addFixable(f, func(ctx context.Context) (string, error) {
		n, err := s.Rows.Retry(ctx, source.Selection{Code: code}, l.i.cfg.Now())
		return fmt.Sprintf("%d rows are tried again", n), err
	})
}

// deletions looks at the originals whose deletion this node has begun and not
// ended, one finding a pack.
func (l *look) deletions() {
	byPack := map[string][]CutDeletion{}
	for _, d := range l.i.cfg.Log.CutDeletions() {
		busy := slices.ContainsFunc(l.held[d.Pack], func(lease raftmeta.Lease) bool { return lease.Job.Kind == raftmeta.JobDelete })
		if !busy {
			byPack[d.Pack.String()] = append(byPack[d.Pack.String()], d)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byPack)) {
		cut := byPack[id]
		slices.SortFunc(cut, func(a, b CutDeletion) int { return a.Since.Compare(b.Since) })
		why := fmt.Sprintf("%d originals were about to be deleted, among them %s", len(cut), cut[0].Path)
		if err := l.i.cfg.Log.Trouble(raftmeta.JobDelete, cut[0].Pack); err != nil {
			why += ": " + err.Error()
		}
		l.addFixable(Finding{
			Kind: KindCutDeletion, Severity: Repairable, Subject: "pack " + id, Since: cut[0].Since, Why: why,
			Cure: "desnode recover --fix finishes them, or puts the originals back",
		}, func(ctx context.Context) (string, error) {
			if err := l.i.cfg.Upkeep.SettleNow(ctx, cut[0].Pack); err != nil {
				return "", err
			}
			for _, d := range l.i.cfg.Log.CutDeletions() {
				if d.Pack == cut[0].Pack {
					return "", fmt.Errorf("%s: %w", d.Path, errNotYet)
				}
			}
			return fmt.Sprintf("%d originals are settled", len(cut)), nil
		})
	}
}

// errNotYet says that what was tried has ended well and changed nothing.
var errNotYet = errors.New("it is as it was")
