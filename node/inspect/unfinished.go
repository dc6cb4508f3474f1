package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Finding is one thing that is unfinished or not as it should be.
type Finding struct {
	Kind        string
	Severity    string
	Subject     string
	Since       time.Time // zero: not known
	Why         string
	Cure        string // a command, or what to wait for
	Fixable     bool   // Recover does it
	Destructive bool   // only with Options.Yes
}

// act mends one finding and says what was done. An error that wraps
// raftmeta.ErrClash: another does it. One that wraps errNotYet: it was done, and
// the finding stands all the same.
type act func(ctx context.Context) (done string, err error)

// found is a finding with what mends it; mend is nil unless it is Fixable.
type found struct {
	Finding
	mend act
}

// look is one look at everything.
type look struct {
	i     *Inspector
	view  *raftmeta.View
	now   time.Time
	all   []found
	alive map[raftmeta.NodeID]Member
	held  map[desformat.PackID][]raftmeta.Lease // live leases by the pack that they are about
	once  *collecting
}

// Unfinished returns all that is found, the worst first. What does not answer is
// a finding too; an error means that ctx has ended.
func (i *Inspector) Unfinished(ctx context.Context) ([]Finding, error) {
	all, err := i.look(ctx)
	findings := make([]Finding, 0, len(all))
	for _, f := range all {
		findings = append(findings, f.Finding)
	}
	return findings, err
}

func (i *Inspector) look(ctx context.Context) ([]found, error) {
	ctx = store.WithCause(ctx, causeInspect)
	l := &look{i: i, now: i.cfg.Now(), alive: map[raftmeta.NodeID]Member{}, held: map[desformat.PackID][]raftmeta.Lease{}, once: &collecting{i: i}}
	l.state(ctx)
	l.members(ctx)
	l.leases()
	l.rebuild()
	l.backups()
	l.pauses()
	l.uploads()
	l.quarantine()
	l.multiparts(ctx)
	l.packs()
	l.deletions()
	l.sources(ctx)
	slices.SortStableFunc(l.all, func(a, b found) int {
		return cmp.Or(cmp.Compare(weight(a.Severity), weight(b.Severity)), cmp.Compare(rank(a.Kind), rank(b.Kind)), a.Since.Compare(b.Since))
	})
	return l.all, ctx.Err()
}

// rank is the place of a kind in the order of Kinds.
func rank(kind string) int { return slices.Index(Kinds(), kind) }

// add notes a finding that cannot be mended from here.
func (l *look) add(f Finding) { l.all = append(l.all, found{Finding: f}) }

// addFixable notes a finding with what mends it.
func (l *look) addFixable(f Finding, mend act) {
	f.Fixable = true
	l.all = append(l.all, found{f, mend})
}

// state takes the view to look at: the newest that is confirmed, or else the one
// at hand.
func (l *look) state(ctx context.Context) {
	view, err := l.i.cfg.Manifest.Confirm(ctx)
	if err != nil {
		view = l.i.cfg.Manifest.View()
		l.add(Finding{
			Kind: KindNoQuorum, Severity: Repairable, Subject: string(l.i.cfg.Node), Why: "the state below may be old: " + err.Error(),
			Cure: "desnode members says who is missing; start those nodes again",
		})
	}
	l.view = view
	if err := l.i.cfg.Current(ctx); err != nil {
		l.add(Finding{
			Kind: KindSuperseded, Severity: AtRisk, Subject: fmt.Sprintf("generation %d", view.Generation()), Why: err.Error(),
			Cure: "stop this node; start it on an empty data dir with 'desnode join' and a token of the newer cluster",
		})
	}
}

func (l *look) rebuild() {
	if l.view.RebuildDone(l.view.Generation()) {
		return
	}
	why := "the archive is being read in; a name that is not found yet is answered by 503"
	if far := l.i.cfg.Rebuilding(); far != "" {
		why += ": " + far
	}
	l.add(Finding{
		Kind: KindRebuild, Severity: Repairable, Subject: fmt.Sprintf("generation %d", l.view.Generation()), Why: why,
		Cure: "keep the node that rebuilds running, or start it again: it goes on by itself",
	})
}

func (l *look) backups() {
	if l.i.cfg.Backups == nil {
		return
	}
	list, err := l.i.cfg.Backups()
	if err != nil {
		l.add(Finding{Kind: KindUnreadable, Severity: Repairable, Subject: "backup/list", Why: err.Error(), Cure: "desnode backup; when that fails too, report it"})
		return
	}
	f := Finding{Severity: Repairable, Cure: "desnode backup"}
	switch newest := newestBackup(list); {
	case newest.Key == "":
		f.Kind, f.Subject = KindNoBackup, fmt.Sprintf("generation %d", l.view.Generation())
		f.Why = "when all data dirs are lost, the manifest is made from the packs alone"
		if f.Since = l.firstPack(); f.Since.IsZero() || l.now.Sub(f.Since) < settled+2*l.i.cfg.BackupEvery {
			f.Severity = Note // the first is not overdue
		}
	case l.i.cfg.BackupEvery > 0 && l.now.Sub(newest.At) > 24*time.Hour+2*l.i.cfg.BackupEvery:
		f.Kind, f.Severity, f.Subject, f.Since = KindOldBackup, Note, newest.Key, newest.At
		f.Why = "the newest backup is " + age(l.now.Sub(newest.At)) + " old; none is made while the state does not change"
	default:
		return
	}
	if l.i.cfg.BackUp == nil {
		l.add(f)
		return
	}
	l.addFixable(f, func(ctx context.Context) (string, error) { return "backed up", l.i.cfg.BackUp(ctx) })
}

// firstPack returns when the oldest live pack was made; zero: there is none.
func (l *look) firstPack() (first time.Time) {
	for p := range l.view.Packs() {
		if first.IsZero() || p.Created.Before(first) {
			first = p.Created
		}
	}
	return first
}

func newestBackup(list []Backup) (newest Backup) {
	for _, b := range list {
		if b.At.After(newest.At) {
			newest = b
		}
	}
	return newest
}

func (l *look) pauses() {
	for _, p := range l.i.cfg.Pauses() {
		if !p.Until.IsZero() {
			continue
		}
		by := ""
		if p.By != "" {
			by = " (" + p.By + ")"
		}
		l.add(Finding{
			Kind: KindPause, Severity: Repairable, Subject: p.Work, Since: p.Since,
			Why:  "it stands still until somebody resumes it: " + p.Reason + by,
			Cure: "desnode resume --only " + p.Work,
		})
	}
}

// age writes how long something is ago, in two units at most.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.Round(time.Second).String()
}
