package inspect

import (
	"context"
	"fmt"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// uploads looks at objects that were announced and are no packs.
func (l *look) uploads() {
	kept := l.i.kept(l.view)
	for _, u := range l.view.Uploads() {
		if kept[u.Key] {
			continue // told by quarantine
		}
		f := Finding{Kind: KindUpload, Severity: Note, Subject: u.Key, Since: u.BeganAt, Cure: "wait"}
		switch {
		case l.view.Pack(u.Pack) != nil:
			f.Why = "its pack is committed under this name; the object stays"
		case !l.view.Garbage(u) && l.view.Fenced(u.Token):
			f.Why = "it is of an earlier generation, and the rebuild since is not done: it may yet be adopted"
		case !l.view.Garbage(u):
			f.Why = "its lease is live" + l.holder(u.Token) + ": it may yet be committed"
		case l.now.Sub(u.BeganAt) <= garbageAge:
			f.Why = "its lease is gone, so it is garbage"
			f.Cure = "wait: it is collected after " + u.BeganAt.Add(garbageAge).UTC().Format(time.RFC3339)
		default:
			f.Severity, f.Destructive = Repairable, true
			f.Why = "its lease is gone and it is older than a day: garbage that nobody has collected"
			f.Cure = "desnode recover --fix --yes moves it to quarantine, unless something in it is nowhere else"
			l.addFixable(f, l.collect(func(v *raftmeta.View) bool { return !announced(v, u.Key) }, u.Key))
			continue
		}
		l.add(f)
	}
}

// kept returns the keys of objects that were judged as needed. A list that can't
// be read is told by quarantine.
func (i *Inspector) kept(v *raftmeta.View) map[string]bool {
	kept := map[string]bool{}
	list, err := i.cfg.Log.Quarantined(v)
	for _, q := range list {
		kept[q.Key] = err == nil && q.Kept != ""
	}
	return kept
}

// holder names who has the lease with that token.
func (l *look) holder(t desformat.Token) string {
	for _, lease := range l.view.Leases() {
		if lease.Token == t {
			return ", held by " + string(lease.Holder)
		}
	}
	return ""
}

func announced(v *raftmeta.View, key string) bool {
	for _, u := range v.Uploads() {
		if u.Key == key {
			return true
		}
	}
	return false
}

// quarantine looks at the objects that were moved out of the way, and at those
// that were not because they are needed.
func (l *look) quarantine() {
	list, err := l.i.cfg.Log.Quarantined(l.view)
	if err != nil {
		l.add(Finding{Kind: KindUnreadable, Severity: Repairable, Subject: "keeper/quarantine", Why: err.Error(), Cure: "start all nodes with the newest version"})
		return
	}
	for _, q := range list {
		f := Finding{Kind: KindQuarantined, Severity: Note, Subject: q.Place, Since: q.Since}
		switch {
		case q.Kept != "":
			f.Kind, f.Severity, f.Subject = KindKept, AtRisk, q.Key
			f.Why = "it belongs to no pack, but stays: " + q.Kept
			f.Cure = "the cluster's state was rolled back: 'desnode rebuild' or 'desnode restore' on an empty data dir finds its packs again"
		case announced(l.view, q.Key):
			continue // on its way there: told as an upload
		case q.Expires.After(l.now):
			f.Why = "garbage, moved out of the way"
			f.Cure = "wait: it is deleted after " + q.Expires.UTC().Format(time.RFC3339)
		default:
			f.Severity, f.Destructive = Repairable, true
			f.Why = "garbage that has been there long enough"
			f.Cure = "desnode recover --fix --yes deletes it, unless something in it is nowhere else"
			l.addFixable(f, l.collect(func(v *raftmeta.View) bool { return !l.i.listed(v, q) }, q.Key))
			continue
		}
		l.add(f)
	}
}

// listed reports whether the object still is on the list of quarantine as it was.
func (i *Inspector) listed(v *raftmeta.View, q Quarantined) bool {
	list, err := i.cfg.Log.Quarantined(v)
	if err != nil {
		return true
	}
	for _, now := range list {
		if now.Key == q.Key && now.Place == q.Place {
			return true
		}
	}
	return false
}

// collecting is the one collection of a Recover: it does all there is to do.
type collecting struct {
	i    *Inspector
	done bool
	err  error
}

// collect returns what collects, and then asks whether the finding is gone.
func (l *look) collect(gone func(*raftmeta.View) bool, key string) act {
	return func(ctx context.Context) (string, error) {
		c := l.once
		if !c.done {
			c.done, c.err = true, c.i.cfg.Upkeep.CollectNow(ctx)
		}
		v := c.i.cfg.Manifest.View()
		if gone(v) {
			return "collected", nil
		}
		if c.err != nil {
			return "", c.err
		}
		list, err := c.i.cfg.Log.Quarantined(v)
		for _, q := range list {
			if q.Key == key && q.Kept != "" {
				return "", fmt.Errorf("it is kept: %s: %w", q.Kept, errNotYet)
			}
		}
		if err != nil {
			return "", err
		}
		return "", errNotYet
	}
}

// multiparts looks for parts of uploads that nobody will complete: the store bills
// them and shows them nowhere else. An announced key's are ended with its object.
func (l *look) multiparts(ctx context.Context) {
	if l.i.cfg.Uploads == nil {
		return
	}
	err := l.i.cfg.Uploads.Uploads(ctx, "packs/", func(u store.Upload) error {
		if !announced(l.view, u.Key) {
			l.multipart(u)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		l.add(Finding{
			Kind: KindStoreDown, Severity: Repairable, Subject: "open uploads", Why: err.Error(),
			Cure: "mend the store, or the rights to list uploads; 'desnode doctor' tries them",
		})
	}
}

func (l *look) multipart(u store.Upload) {
	f := Finding{Kind: KindMultipart, Severity: Note, Subject: u.Key, Since: u.Begun, Cure: "wait"}
	_, token, _, err := desformat.ParsePackKey(u.Key)
	switch {
	case err != nil:
		f.Why, f.Cure = "its key is no pack's: it is not ours", "whoever began it ends it"
	case !l.view.Fenced(token):
		f.Why = "its lease may be live"
	case !l.view.RebuildDone(l.view.Generation()):
		f.Why = "the rebuild of this generation is not done"
	case l.now.Sub(u.Begun) <= garbageAge:
		f.Why, f.Cure = "its lease is gone", "desnode recover --fix --yes, once it is older than a day"
	default:
		f.Severity, f.Destructive = Repairable, true
		f.Why = "its lease is gone and its parts are billed"
		f.Cure = "desnode recover --fix --yes ends it"
		l.addFixable(f, func(ctx context.Context) (string, error) { return "ended", l.i.cfg.Upkeep.AbortNow(ctx, u) })
		return
	}
	l.add(f)
}
