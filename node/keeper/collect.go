package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// quarantineSetting is the replicated setting that lists the objects in
// quarantine, so that no LIST is needed to find them.
const quarantineSetting = "keeper/quarantine"

// quarantinePrefix is what the keys of objects in quarantine begin with.
const quarantinePrefix = "quarantine/"

// quarantined is an object that was moved, or is about to be, out of the way.
type quarantined struct {
	Key string    `json:"key"` // where it was uploaded to
	At  time.Time `json:"at"`  // when it was moved

	// Absent: there was nothing to move. A PUT that was on its way may bring it
	// yet, so the key stays listed as long as an object would.
	Absent bool `json:"absent,omitempty"`

	// Kept says why it was not moved, or not deleted; empty: nothing speaks
	// against it. It is looked at again at LookAt.
	Kept   string    `json:"kept,omitempty"`
	LookAt time.Time `json:"look_at,omitzero"`
}

// place returns the key that the object has in quarantine.
func (q quarantined) place() string {
	if q.foundling() {
		return q.Key
	}
	return quarantinePrefix + q.At.UTC().Format("2006-01-02") + "/" + q.Key
}

// foundling reports whether it was found in quarantine by a rebuild: where it was
// uploaded to is nobody's to say any more, and its time begins when it was found.
func (q quarantined) foundling() bool { return strings.HasPrefix(q.Key, quarantinePrefix) }

// expired reports whether it may be deleted by its age.
func (q quarantined) expired(now time.Time) bool {
	return now.Sub(q.At) > quarantineAge && !q.LookAt.After(now)
}

// isGarbage reports whether an announced object may be moved away: no pack
// owns it, none ever can, and it is old. Liveness and fence are read at one
// view.
func isGarbage(v *raftmeta.View, u raftmeta.Upload, now time.Time) bool {
	return now.Sub(u.BeganAt) > garbageAge && v.Pack(u.Pack) == nil && v.Garbage(u)
}

// collectable counts what a collection would find to do.
func (k *Keeper) collectable(v *raftmeta.View) int {
	now, n := k.cfg.Now(), 0
	list, _, err := quarantineList(v)
	if err != nil {
		return 1 // collecting reports it
	}
	lookAt := make(map[string]time.Time, len(list))
	for _, q := range list {
		lookAt[q.Key] = q.LookAt
	}
	for _, u := range v.Uploads() {
		if isGarbage(v, u, now) && !lookAt[u.Key].After(now) {
			n++
		}
		delete(lookAt, u.Key)
	}
	for _, q := range list {
		if _, moved := lookAt[q.Key]; moved && q.expired(now) {
			n++
		}
	}
	return n
}

// collect moves garbage to quarantine and deletes what has been there long
// enough.
func (k *Keeper) collect(ctx context.Context) error {
	ctx = store.WithCause(ctx, causeCollect)
	job := raftmeta.Job{Kind: raftmeta.JobCollect}
	err := k.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, _ raftmeta.Lease) error {
		if err := k.current(ctx); err != nil {
			return err
		}
		v, err := k.cfg.Manifest.Confirm(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for _, u := range v.Uploads() {
			if isGarbage(v, u, k.cfg.Now()) {
				errs = append(errs, k.quarantine(ctx, u))
			}
		}
		return errors.Join(append(errs, k.expire(ctx))...)
	})
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// quarantine moves one object away. The list names its new place before it
// goes there, so that no object is ever unknown.
func (k *Keeper) quarantine(ctx context.Context, u raftmeta.Upload) error {
	q, err := k.listed(ctx, u.Key)
	if err != nil {
		return fmt.Errorf("%s: %w", u.Key, err)
	}
	if q.LookAt.After(k.cfg.Now()) {
		return nil
	}
	why, err := k.needed(ctx, u.Key)
	if err == nil && why != "" {
		return k.keep(ctx, q, u.Key, why)
	}
	if err == nil && q.Kept != "" { // its time in quarantine begins now
		q = quarantined{Key: u.Key, At: k.cfg.Now()}
		err = k.editList(ctx, u.Key, &q)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.Key, err)
	}
	if err := k.abortUploads(ctx, u.Key); err != nil {
		return fmt.Errorf("%s: %w", u.Key, err)
	}
	err = k.moveAway(ctx, q)
	missing := errors.Is(err, store.ErrNotFound) // it was never uploaded
	if err != nil && !missing {
		return fmt.Errorf("%s: %w", u.Key, err)
	}
	if missing {
		q.Absent = true
		err = k.editList(ctx, u.Key, &q)
	} else {
		k.metrics.collected.Inc()
		k.log.InfoContext(ctx, "garbage quarantined", "key", u.Key, "place", q.place(), "pack", u.Pack, "token", u.Token)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.Key, err)
	}
	if err := k.cfg.Commands.ForgetUpload(ctx, u.Key); err != nil {
		return fmt.Errorf("%s: %w", u.Key, err)
	}
	return nil
}

// expire deletes objects that have been in quarantine for quarantineAge.
func (k *Keeper) expire(ctx context.Context) error {
	list, _, err := quarantineList(k.cfg.Manifest.View())
	if err != nil {
		return err
	}
	announced := map[string]bool{} // still to be moved: quarantine does that
	for _, u := range k.cfg.Manifest.View().Uploads() {
		announced[u.Key] = true
	}
	var errs []error
	for _, q := range list {
		if announced[q.Key] || !q.expired(k.cfg.Now()) {
			continue
		}
		if err := k.expireOne(ctx, q); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", q.place(), err))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) expireOne(ctx context.Context, q quarantined) error {
	if err := k.current(ctx); err != nil {
		return err
	}
	places := []string{q.place(), q.Key}
	switch {
	case q.foundling():
		places = places[:1]
	case q.Absent:
		places = places[1:]
	}
	for _, place := range places {
		why, err := k.needed(ctx, place)
		if err != nil {
			return err
		}
		if why != "" {
			return k.keep(ctx, q, place, why)
		}
	}
	late, err := k.uploadedLate(ctx, q)
	if err != nil {
		return err
	}
	if q.Absent && !late {
		return k.unlist(ctx, q.Key)
	}
	if !q.Absent {
		if err := k.audit.append(auditExpired, "", k.auditOf(q)); err != nil {
			return err
		}
		if err := k.cfg.Store.Delete(ctx, q.place()); err != nil {
			return err
		}
	}
	if late {
		again := quarantined{Key: q.Key, At: k.cfg.Now()}
		if err := k.editList(ctx, q.Key, &again); err != nil {
			return err
		}
		if err := k.moveAway(ctx, again); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	}
	k.metrics.expired.Inc()
	k.log.InfoContext(ctx, "garbage deleted", "key", q.Key, "place", q.place(), "since", q.At)
	return k.unlist(ctx, q.Key)
}

// uploadedLate reports whether a cut upload went on after its object was moved
// away: the object is there again, and it too spends its time in quarantine.
func (k *Keeper) uploadedLate(ctx context.Context, q quarantined) (bool, error) {
	if q.foundling() {
		return false, nil
	}
	_, err := k.cfg.Store.Head(ctx, q.Key, "")
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// moveAway moves an object to its place in quarantine; the audit log says so
// before.
func (k *Keeper) moveAway(ctx context.Context, q quarantined) error {
	if err := k.audit.append(auditCollected, "", k.auditOf(q)); err != nil {
		return err
	}
	err := k.cfg.Store.Move(ctx, q.Key, q.place())
	if errors.Is(err, store.ErrNotFound) {
		return errors.Join(err, k.audit.append(auditVoid, "it was never uploaded", k.auditOf(q)))
	}
	return err
}

func (k *Keeper) auditOf(q quarantined) auditRecord {
	return auditRecord{Key: q.Key, Place: q.place(), Node: string(k.cfg.Node)}
}

// listed returns the list's entry of an upload, made now if there is none: a
// move that was cut goes on to the same place.
func (k *Keeper) listed(ctx context.Context, key string) (quarantined, error) {
	list, _, err := quarantineList(k.cfg.Manifest.View())
	if err != nil {
		return quarantined{}, err
	}
	for _, q := range list {
		if q.Key == key {
			return q, nil
		}
	}
	q := quarantined{Key: key, At: k.cfg.Now()}
	return q, k.editList(ctx, key, &q)
}

func (k *Keeper) unlist(ctx context.Context, key string) error { return k.editList(ctx, key, nil) }

// editList replaces the entry of key; a nil q drops it. Only the holder of the
// collecting lease writes the list; a stale one loses against ifModIndex.
func (k *Keeper) editList(ctx context.Context, key string, q *quarantined) error {
	old, modIndex, err := quarantineList(k.cfg.Manifest.View())
	if err != nil {
		return err
	}
	list := make([]quarantined, 0, len(old)+1)
	for _, o := range old {
		if o.Key != key {
			list = append(list, o)
		}
	}
	if q != nil {
		list = append(list, *q)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return k.cfg.Commands.Set(ctx, quarantineSetting, b, modIndex)
}

func quarantineList(v *raftmeta.View) (list []quarantined, modIndex uint64, err error) {
	b, modIndex, ok := v.Setting(quarantineSetting)
	if !ok {
		return nil, 0, nil
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, 0, fmt.Errorf("setting %s: %w", quarantineSetting, err)
	}
	return list, modIndex, nil
}
