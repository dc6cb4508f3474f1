package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// This file is what an operator asks for between two passes of Run, and what he
// is told. Each act is the one that Run does, under the same lease and by the same
// rules; asking only means not to wait for a retry.

// errKept says that an upload may yet become a pack.
var errKept = errors.New("it may yet be committed")

// AcknowledgeNow acknowledges a committed pack unless that is done.
// raftmeta.ErrClash: another node is at it.
func (k *Keeper) AcknowledgeNow(ctx context.Context, id desformat.PackID) error {
	v, err := k.cfg.Manifest.Confirm(ctx)
	if err != nil {
		return fmt.Errorf("acknowledge pack %s: %w", id, err)
	}
	p := v.Pack(id)
	switch {
	case !live(p):
		return fmt.Errorf("acknowledge pack %s: %w", id, ErrNotLive)
	case p.Acknowledged:
		return nil
	}
	return k.asked(ctx, taskKey{raftmeta.JobAck, id}, func(ctx context.Context) error { return k.acknowledgeLeased(ctx, p) })
}

// VerifyNow reads a pack back and records what it finds, damage included. It does
// so even while another node reads the same pack.
func (k *Keeper) VerifyNow(ctx context.Context, id desformat.PackID) (damage string, err error) {
	err = k.asked(ctx, taskKey{raftmeta.JobVerify, id}, func(ctx context.Context) error {
		res := k.verifyForOperator(ctx, id)
		damage = res.Damage
		return res.Err
	})
	return damage, err
}

// SettleNow closes the deletions of a pack's originals that were cut: what is
// hidden is put back, what is gone is recorded. It deletes nothing.
func (k *Keeper) SettleNow(ctx context.Context, id desformat.PackID) error {
	if k.cfg.Manifest.View().Pack(id) == nil {
		return k.settleUnknown(ctx, id)
	}
	job := raftmeta.Job{Kind: raftmeta.JobDelete, Packs: []desformat.PackID{id}}
	return k.asked(ctx, taskKey{raftmeta.JobDelete, id}, func(ctx context.Context) error {
		return k.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, l raftmeta.Lease) error {
			return k.deleteLeased(ctx, id, false, l.Token.String())
		})
	})
}

// CollectNow moves garbage to quarantine and deletes what has been there long
// enough, by the rules of Run.
func (k *Keeper) CollectNow(ctx context.Context) error {
	return k.asked(ctx, taskKey{kind: raftmeta.JobCollect}, k.collect)
}

// AbortNow ends an upload that was left open at a pack's key which nobody has
// announced, or whose pack was committed by another upload, once its token is
// fenced and it is as old as garbage. It was never an object: nothing is lost.
func (k *Keeper) AbortNow(ctx context.Context, u store.Upload) error {
	if k.cfg.Uploads == nil {
		return fmt.Errorf("abort the upload to %s: %w", u.Key, errors.ErrUnsupported)
	}
	_, token, _, err := desformat.ParsePackKey(u.Key)
	if err != nil {
		return fmt.Errorf("abort the upload to %s: %w", u.Key, err)
	}
	ctx = store.WithCause(ctx, causeCollect)
	err = k.cfg.Manifest.WithLease(ctx, raftmeta.Job{Kind: raftmeta.JobCollect}, func(ctx context.Context, _ raftmeta.Lease) error {
		if err := k.current(ctx); err != nil {
			return err
		}
		v, err := k.cfg.Manifest.Confirm(ctx)
		if err != nil {
			return err
		}
		if !v.Fenced(token) || !v.RebuildDone(v.Generation()) || k.cfg.Now().Sub(u.Begun) <= garbageAge {
			return errKept
		}
		return k.abort(ctx, u)
	})
	if err != nil {
		return fmt.Errorf("abort the upload to %s: %w", u.Key, err)
	}
	return nil
}

// asked does a task for an operator, and lets Run forget that it had failed.
func (k *Keeper) asked(ctx context.Context, key taskKey, run func(context.Context) error) error {
	err := run(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.retryAt, key)
	}
	return err
}

// Trouble returns why the last try of a job on a pack failed on this node and is
// to be repeated; nil: none did.
func (k *Keeper) Trouble(kind raftmeta.JobKind, pack desformat.PackID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.retryAt[taskKey{kind, pack}].err
}

// CutDeletion is the deletion of one original that this node's audit log has as
// begun and not ended. It may be under way.
type CutDeletion struct {
	Pack   desformat.PackID
	Source string
	ID     string
	Path   string
	Since  time.Time
}

// CutDeletions lists the deletions that have begun and not ended.
func (k *Keeper) CutDeletions() []CutDeletion {
	var cut []CutDeletion
	for pack := range k.audit.packs() {
		for _, r := range k.audit.intents(pack) {
			cut = append(cut, CutDeletion{Pack: r.Pack, Source: r.Source, ID: r.ID, Path: r.Path, Since: r.Time})
		}
	}
	return cut
}

// Quarantined is one object in quarantine, or on its way there.
type Quarantined struct {
	Key     string    // where it was uploaded to
	Place   string    // its key in quarantine
	Since   time.Time // when it was moved, or was about to be
	Expires time.Time // when it may be deleted
	Kept    string    // why it is not moved, or not deleted; empty: nothing speaks against it
}

// Quarantined lists the objects in quarantine, as the view has them.
func (k *Keeper) Quarantined(v *raftmeta.View) ([]Quarantined, error) {
	list, _, err := quarantineList(v)
	if err != nil {
		return nil, err
	}
	out := make([]Quarantined, len(list))
	for i, q := range list {
		expires := q.At.Add(quarantineAge)
		if q.LookAt.After(expires) {
			expires = q.LookAt
		}
		out[i] = Quarantined{Key: q.Key, Place: q.place(), Since: q.At, Expires: expires, Kept: q.Kept}
	}
	return out, nil
}
