package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/datavision/desnode/raftmeta"
)

// packs looks at the live packs: those not acknowledged, not verified, damaged.
// While a rebuild adopts them, that is one finding, and theirs are part of it.
func (l *look) packs() {
	rebuilt := l.view.RebuildDone(l.view.Generation())
	for p := range l.view.Packs() {
		if c, has := ownCopy(p); !live(p) || !rebuilt && has && c.Damage == "" {
			continue
		}
		if !p.Acknowledged {
			l.unacknowledged(p)
		}
		l.verification(p)
	}
}

// working reports whether somebody has a lease of that kind on the pack.
func (l *look) working(p *raftmeta.Pack, kind raftmeta.JobKind) bool {
	return slices.ContainsFunc(l.held[p.ID], func(lease raftmeta.Lease) bool { return lease.Job.Kind == kind })
}

func (l *look) unacknowledged(p *raftmeta.Pack) {
	f := Finding{Kind: KindUnacked, Severity: Repairable, Subject: "pack " + p.ID.String(), Since: p.Created}
	trouble := l.i.cfg.Log.Trouble(raftmeta.JobAck, p.ID)
	switch {
	case l.working(p, raftmeta.JobAck), !l.view.Fenced(p.Token):
		f.Severity, f.Why, f.Cure = Note, "its rows are being acknowledged", "wait"
		l.add(f)
		return
	case trouble != nil:
		f.Why = trouble.Error()
	default:
		f.Why = "not all of its rows are PACKED; its range gets no further pack until they are"
	}
	f.Cure = "desnode recover --fix; it needs the sources of all its rows on this node"
	l.addFixable(f, func(ctx context.Context) (string, error) {
		return "acknowledged", l.i.cfg.Upkeep.AcknowledgeNow(ctx, p.ID)
	})
}

func (l *look) verification(p *raftmeta.Pack) {
	c, has := ownCopy(p)
	if !has {
		return // Compare tells
	}
	f := Finding{Severity: Repairable, Subject: "pack " + p.ID.String(), Since: c.VerifiedAt}
	switch {
	case c.Damage != "":
		f.Kind, f.Severity, f.Why = KindDamaged, AtRisk, c.Damage
		f.Cure = "bring the object " + c.Key + " back (an older version, a copy), then desnode verify " + p.ID.String()
	case l.working(p, raftmeta.JobVerify):
		return
	case c.VerifiedAt.IsZero():
		f.Kind, f.Since, f.Why = KindUnverified, p.Created, "nobody has read it back yet: its originals stay"
		f.Cure = "desnode verify " + p.ID.String()
		if l.now.Sub(p.Created) < settled {
			f.Severity = Note
		}
		if trouble := l.i.cfg.Log.Trouble(raftmeta.JobVerify, p.ID); trouble != nil {
			f.Why += ": " + trouble.Error()
		}
	case l.now.Sub(c.VerifiedAt) > l.i.cfg.VerifiedWithin:
		f.Kind, f.Why = KindStale, "it was read back "+age(l.now.Sub(c.VerifiedAt))+" ago"
		f.Cure = "desnode verify " + p.ID.String()
	default:
		return
	}
	l.addFixable(f, l.verify(p))
}

// verify reads the pack back and looks at what the manifest then says of it.
func (l *look) verify(p *raftmeta.Pack) act {
	return func(ctx context.Context) (string, error) {
		damage, err := l.i.cfg.Upkeep.VerifyNow(ctx, p.ID)
		switch {
		case err != nil:
			return "", err
		case damage != "":
			return "", errors.New("damaged: " + damage)
		}
		cur := l.i.cfg.Manifest.View().Pack(p.ID)
		if c, has := ownCopyOf(cur); has && c.VerifiedAt.IsZero() {
			return "", fmt.Errorf("read whole and found right, but its first verification is another node's to record: %w", errNotYet)
		}
		return "read whole and found right", nil
	}
}

func ownCopyOf(p *raftmeta.Pack) (raftmeta.Copy, bool) {
	if p == nil {
		return raftmeta.Copy{}, false
	}
	return ownCopy(p)
}
