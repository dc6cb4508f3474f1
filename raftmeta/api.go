package raftmeta

import (
	"context"
	"fmt"
	"slices"

	"github.com/datavision/desnode/desformat"
)

// The methods below each commit one command. All may be called at once, and
// all may be repeated, for instance after an error whose outcome is unknown:
// the repetition changes nothing and is answered like the first time.

// BeginUpload announces an object's key before its upload begins, so that no
// object is ever unknown. The key must be the pack's own (desformat.PackKey)
// under a live packing lease, and its id new: ErrStale, ErrInvalid, ErrConflict.
func (m *Meta) BeginUpload(ctx context.Context, u Upload) error {
	_, err := m.propose(ctx, &beginUploadCommand{u})
	return err
}

// ForgetUpload drops an announced key after its object has been collected.
// ErrInUse: it is not garbage, so it may still be committed. A key that is
// forgotten can never be committed.
func (m *Meta) ForgetUpload(ctx context.Context, key string) error {
	_, err := m.propose(ctx, &forgetUploadCommand{key})
	return err
}

// AddPack commits a pack and forgets its upload; only from here on does the
// pack exist. It returns the manifest's entry. AddIndex, ModIndex are set by
// it; Copies holds the one copy in the cluster's store, not yet verified.
//
// ErrStale: the lease whose token the pack carries is gone, or was for another
// range. ErrNoUpload: the key was not announced. ErrConflict: another pack has
// the id, or the lease has made one already.
func (m *Meta) AddPack(ctx context.Context, p Pack) (*Pack, error) {
	value, err := m.propose(ctx, &addPackCommand{p})
	if err != nil {
		return nil, err
	}
	added, ok := value.(*Pack)
	if !ok {
		return nil, fmt.Errorf("add pack: answered %T: %w", value, ErrInvalid)
	}
	return added, nil
}

// AckPack records that all rows of a pack have been acknowledged and which
// ordinals are dead; they need not be sorted. On a pack that is acknowledged
// already it changes nothing: the first word counts. Under a lease
// (WithLease's context) it is refused once that lease is gone, ErrStale;
// without one, while another holds a lease to acknowledge this pack, ErrClash.
func (m *Meta) AckPack(ctx context.Context, pack desformat.PackID, dead []uint32) error {
	sorted := slices.Compact(slices.Sorted(slices.Values(dead)))
	_, err := m.propose(ctx, &ackPackCommand{Pack: pack, Dead: sorted, Token: tokenOf(ctx)})
	return err
}

// VerifyPack records what reading a copy back has found, in place of the copy
// as it was seen in the manifest before. A clean result is ignored when
// somebody else has recorded one since, whatever the clocks say; damage never
// is. A clean result may bring a new Version: the object that holds the pack's
// bytes now.
func (m *Meta) VerifyPack(ctx context.Context, pack desformat.PackID, seen, found Copy) error {
	_, err := m.propose(ctx, &verifyPackCommand{pack, seen, found})
	return err
}

// Set changes a replicated setting that was last changed at ifModIndex (see
// View.Setting); 0: that does not exist. A nil value deletes it. ErrConflict:
// somebody was faster.
func (m *Meta) Set(ctx context.Context, key string, value []byte, ifModIndex uint64) error {
	_, err := m.propose(ctx, &setCommand{key, value, ifModIndex})
	return err
}

// RecordRebuild records that the rebuild which began this generation is done:
// see View.RebuildDone.
func (m *Meta) RecordRebuild(ctx context.Context) error {
	return m.Set(ctx, rebuildKey(m.View().generation), []byte("done"), 0)
}

// PutMember adds a node to the cluster, or raises what it has applied.
func (m *Meta) PutMember(ctx context.Context, member Member) error {
	_, err := m.propose(ctx, &memberCommand{member})
	return err
}
