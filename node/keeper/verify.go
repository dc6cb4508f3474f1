package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Result is what reading one pack back found.
type Result struct {
	Pack    desformat.PackID
	Records uint32 // read and found good
	Bytes   int64  // size of the object
	Damage  string // what is wrong with it; empty: nothing
	Err     error  // why it could not be told; nil: it could
}

// Verify reads packs back, all live ones when ids is empty, records what it
// finds in the manifest and hands each result to each, whose error ends it.
func (k *Keeper) Verify(ctx context.Context, ids []desformat.PackID, each func(Result) error) error {
	if len(ids) == 0 {
		for p := range k.cfg.Manifest.View().Packs() {
			if live(p) {
				ids = append(ids, p.ID)
			}
		}
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each(k.verifyForOperator(ctx, id)); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) verifyForOperator(ctx context.Context, id desformat.PackID) Result {
	p := k.cfg.Manifest.View().Pack(id)
	if p == nil {
		return Result{Pack: id, Err: fmt.Errorf("verify pack %s: %w", id, ErrNotLive)}
	}
	read := func(ctx context.Context) (Result, error) { return k.verify(ctx, p) }
	res, err := k.underLease(ctx, p, read)
	if errors.Is(err, raftmeta.ErrClash) {
		// The lease only saves double work; reading takes no permission.
		res, err = read(ctx)
	}
	res.Pack, res.Err = id, err
	return res
}

// forOthers reports whether the first verification of p is another node's to
// make: who packed it may have read its own mistake, from its own cache, for the
// store's content. Once another has read it whole, anybody may do it again.
func (k *Keeper) forOthers(p *raftmeta.Pack) bool {
	return p.PackedBy == k.cfg.Node && verifiedAt(p).IsZero() && k.cfg.OthersKeep()
}

// verifyDue verifies p unless another node has done it since p was looked at.
// The view is not older than the lease, and so shows what came before it.
func (k *Keeper) verifyDue(ctx context.Context, p *raftmeta.Pack) error {
	_, err := k.underLease(ctx, p, func(ctx context.Context) (Result, error) {
		if cur := k.cfg.Manifest.View().Pack(p.ID); cur != nil && !verifiedAt(cur).Equal(verifiedAt(p)) {
			return Result{}, nil
		}
		return k.verify(ctx, p)
	})
	return err
}

// underLease runs f under a lease to verify p.
func (k *Keeper) underLease(ctx context.Context, p *raftmeta.Pack, f func(context.Context) (Result, error)) (res Result, err error) {
	job := raftmeta.Job{Kind: raftmeta.JobVerify, Packs: []desformat.PackID{p.ID}}
	err = k.cfg.Manifest.WithLease(ctx, job, func(ctx context.Context, _ raftmeta.Lease) error {
		res, err = f(ctx)
		return err
	})
	return res, err
}

// verify reads p back and records the outcome. An error means that nothing
// was learnt about the pack and nothing was recorded.
func (k *Keeper) verify(ctx context.Context, p *raftmeta.Pack) (Result, error) {
	ctx = store.WithCause(ctx, causeVerify)
	if cur := k.cfg.Manifest.View().Pack(p.ID); cur != nil {
		p = cur // the outcome is held against what was known when the reading began
	}
	c, err := ownCopy(p)
	if err != nil {
		return Result{}, fmt.Errorf("verify: %w", err)
	}
	res := Result{Pack: p.ID, Bytes: p.Size}
	began := k.cfg.Now()
	found := c
	res.Records, found.Version, err = k.readBack(ctx, p, c)
	var d damage
	switch {
	case errors.As(err, &d):
		res.Damage, found.Version = string(d), c.Version
	case err != nil:
		return res, fmt.Errorf("verify pack %s: %w", p.ID, err)
	}
	// A pack that left the manifest meanwhile may have lost its object rightly.
	if cur := k.cfg.Manifest.View().Pack(p.ID); !live(cur) {
		return res, fmt.Errorf("verify pack %s: %w", p.ID, ErrNotLive)
	}
	// The time is when the reading began: what was read first is the oldest.
	found.VerifiedAt, found.VerifiedBy, found.Damage = began, k.cfg.Node, res.Damage
	if res.Damage == "" && k.forOthers(p) { // an operator asked; what allows deletion is another's word
		return res, nil
	}
	if err := k.cfg.Commands.VerifyPack(ctx, p.ID, c, found); err != nil {
		return res, fmt.Errorf("verify pack %s: %w", p.ID, err)
	}
	k.metrics.verifiedPacks.Inc()
	k.metrics.verifiedBytes.Add(float64(p.Size))
	if res.Damage != "" {
		k.metrics.damageFound.Inc()
		k.log.ErrorContext(ctx, "pack damaged", "pack", p.ID, "key", c.Key, "damage", res.Damage)
		return res, nil
	}
	if found.Version != c.Version {
		k.log.WarnContext(ctx, "pack has a new version", "pack", p.ID, "key", c.Key, "was", c.Version, "is", found.Version)
	}
	k.log.InfoContext(ctx, "pack verified", "pack", p.ID, "records", res.Records, "bytes", p.Size)
	return res, nil
}

// damage is an error that says for certain that a pack is not what the
// manifest promises.
type damage string

func (d damage) Error() string { return string(d) }

// readBack holds the stored object against the manifest: its size, its footer,
// and each byte of it. It returns damage, or an error that says nothing, and
// the version of the object that it read.
//
// The version that the manifest names is read without asking for it first. Only
// when that fails is the store asked what stands there.
func (k *Keeper) readBack(ctx context.Context, p *raftmeta.Pack, c raftmeta.Copy) (records uint32, version string, err error) {
	if c.Version != "" {
		records, err = k.readVersion(ctx, p, c.Key, c.Version)
		var d damage
		if err == nil || errors.As(err, &d) || errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return records, c.Version, err
		}
	}
	obj, errHead := k.cfg.Store.Head(ctx, c.Key, c.Version)
	moved := errors.Is(errHead, store.ErrNotFound) && c.Version != ""
	if moved {
		// A store that was copied keeps the bytes and gives them new versions:
		// the bytes decide.
		obj, errHead = k.cfg.Store.Head(ctx, c.Key, "")
	}
	switch {
	case errors.Is(errHead, store.ErrNotFound):
		return 0, "", damage(fmt.Sprintf("the store has no object %s of version %q", c.Key, c.Version))
	case errHead != nil:
		return 0, "", errors.Join(err, errHead)
	case obj.Size != p.Size:
		return 0, "", damage(fmt.Sprintf("the object has %d bytes, the manifest says %d", obj.Size, p.Size))
	case !moved && err != nil:
		return 0, "", err
	}
	records, err = k.readVersion(ctx, p, c.Key, obj.Version)
	return records, obj.Version, err
}

// readVersion reads one version of the object that is p, and counts the records
// that are right.
func (k *Keeper) readVersion(ctx context.Context, p *raftmeta.Pack, key, version string) (records uint32, err error) {
	r, err := desformat.OpenPack(ctx, wholeFetcher{objectFetcher{k.cfg.Store, key, version}, p.Size}, p.Size)
	if err != nil {
		return 0, damageOf(err)
	}
	if what := disagrees(p, r.Footer(), k.cfg.Manifest.View().Cluster()); what != "" {
		return 0, damage("the footer's " + what + " is not the manifest's")
	}
	err = r.Verify(ctx, func(desformat.Entry) error { records++; return ctx.Err() })
	if err != nil {
		return records, damageOf(err)
	}
	if records != p.Records {
		return records, damage(fmt.Sprintf("the pack has %d records, the manifest says %d", records, p.Records))
	}
	return records, nil
}

// wholeFetcher reads an object that should have size bytes. A fetch of all of
// it asks for whatever there is, so that a longer object is noticed.
type wholeFetcher struct {
	objectFetcher
	size int64
}

func (f wholeFetcher) Fetch(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if off != 0 || n != f.size {
		return f.objectFetcher.Fetch(ctx, off, n)
	}
	body, err := f.objectFetcher.Fetch(ctx, 0, -1)
	if err != nil {
		return nil, err
	}
	return &wholeBody{body: body, size: n, left: n}, nil
}

// wholeBody yields size bytes, and fails where more follow them.
type wholeBody struct {
	body       io.ReadCloser
	size, left int64
}

func (b *wholeBody) Read(p []byte) (int, error) {
	if b.left > 0 {
		n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
		b.left -= int64(n)
		return n, err
	}
	n, err := io.ReadFull(b.body, make([]byte, 1))
	if n > 0 {
		return 0, damage(fmt.Sprintf("the object goes on behind the %d bytes that the manifest says", b.size))
	}
	return 0, err
}

// Close looks behind the end when all was read up to it.
func (b *wholeBody) Close() error {
	var err error
	if b.left == 0 {
		if _, err = b.Read(nil); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return errors.Join(err, b.body.Close())
}

// damageOf turns the format's verdicts into damage and leaves all else, the
// store's troubles above all, as it is.
func damageOf(err error) error {
	if errors.Is(err, desformat.ErrCorrupt) || errors.Is(err, desformat.ErrNotPack) || errors.Is(err, desformat.ErrVersion) {
		return damage(err.Error())
	}
	return err
}

// disagrees names the first field in which a footer is not what the manifest
// says of the pack; "" when there is none.
func disagrees(p *raftmeta.Pack, f desformat.Footer, cluster desformat.ClusterID) string {
	for _, c := range []struct {
		name string
		same bool
	}{
		{"pack id", f.Pack == p.ID},
		{"cluster id", f.Cluster == cluster},
		{"token", f.Token == p.Token},
		{"range", f.Range == p.Range},
		{"SHA-256", f.SHA256 == p.SHA256},
		{"size", f.Size == p.Size},
		{"record count", f.Records == p.Records},
		{"payload size", f.PayloadBytes == p.PayloadBytes},
		{"sequence", f.MinSeq == p.MinSeq && f.MaxSeq == p.MaxSeq},
		{"catalog", f.Catalog == p.Catalog},
		{"index", f.Index == p.Index},
	} {
		if !c.same {
			return c.name
		}
	}
	return ""
}

// live reports whether reads use the pack.
func live(p *raftmeta.Pack) bool { return p != nil && p.ReplacedBy.IsZero() }

// undamaged reports whether no copy of p was found damaged.
func undamaged(p *raftmeta.Pack) bool {
	for _, c := range p.Copies {
		if c.Damage != "" {
			return false
		}
	}
	return true
}

// verifiedAt returns when the own copy was verified last; zero: never.
func verifiedAt(p *raftmeta.Pack) time.Time {
	c, err := ownCopy(p)
	if err != nil {
		return time.Time{}
	}
	return c.VerifiedAt
}
