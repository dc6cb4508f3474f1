package retriever

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Damage is how what the store has differs from the pack in the manifest.
type Damage uint8

// The kinds of damage.
const (
	Flipped   Damage = iota // bytes contradict a checksum
	Truncated               // the object is shorter than the pack
	Replaced                // another object or another version stands at the key, or bytes of another pack
	Missing                 // there is no object
	damages
)

var damageNames = [damages]string{"flipped", "truncated", "replaced", "missing"}

// String returns the word for it.
func (d Damage) String() string { return damageNames[min(d, damages-1)] }

// Damage that no checksum shows must be proven, since an answer that no bytes
// are there is also what a pack gives that has rightly gone, or a store in
// trouble:
//
//   - That an object, or its version, is not there counts when the manifest,
//     confirmed by a quorum after the store said so, still names it.
//   - That it is too short counts when a HEAD of that very version says so too.
//
// What is proven is remembered for a while, so that each read of the pack does
// not ask anew. Bytes that should still be there are read all the same.

const (
	// provenFor is how long damage is believed without another look.
	provenFor = time.Minute
	// maxProven bounds the packs of which that is remembered.
	maxProven = 1024
)

// proof is damage of one object that was proven.
type proof struct {
	key, version string
	modIndex     uint64 // of the manifest's entry; a later one may name something better
	kind         Damage
	size         int64 // bytes that the object still has
	until        time.Time
}

// proofs remembers proofs. The zero value is ready; all methods may be called
// at once.
type proofs struct {
	mu    sync.Mutex // guards packs
	packs map[desformat.PackID]proof
	heads joined[Stored, int64] // sizes being asked for
}

// of returns what is known of p's object.
func (k *proofs) of(p *raftmeta.Pack, now time.Time) (proof, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.packs[p.ID]
	if !ok {
		return proof{}, false
	}
	if !now.Before(known.until) || p.ModIndex > known.modIndex {
		delete(k.packs, p.ID)
		return proof{}, false
	}
	key, version := place(p)
	return known, key == known.key && version == known.version
}

// note remembers that p's object is damaged.
func (k *proofs) note(p *raftmeta.Pack, kind Damage, size int64, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.packs == nil {
		k.packs = make(map[desformat.PackID]proof)
	}
	if len(k.packs) >= maxProven { // a store that lost so much is asked again now and then
		clear(k.packs)
	}
	key, version := place(p)
	k.packs[p.ID] = proof{key, version, p.ModIndex, kind, size, now.Add(provenFor)}
}

// refused returns an error when n bytes of p from off are known to be lost.
func (r *Retriever) refused(p *raftmeta.Pack, off, n int64) error {
	known, ok := r.proofs.of(p, r.cfg.Now())
	if !ok || known.kind == Truncated && n <= known.size-off {
		return nil
	}
	if known.kind == Truncated {
		off = max(off, known.size)
	}
	return r.corrupt(p, known.kind, off, errKnown)
}

// errKnown: it was proven by an earlier read.
var errKnown = errors.New("found so a moment ago")

// shorter tells whether p's object is too short, after the store said so of a
// read. Any number of callers at once make one request.
func (r *Retriever) shorter(ctx context.Context, p *raftmeta.Pack, said error) error {
	if p.Size <= 0 { // known from another node's answer only
		return said
	}
	var at Stored
	at.Key, at.Version = place(p)
	size, err := r.proofs.heads.do(ctx, at, func() (int64, error) {
		// The question before this one may have been answered after this read failed.
		if known, ok := r.proofs.of(p, r.cfg.Now()); ok && known.kind == Truncated {
			return known.size, nil
		}
		load, cancel := r.loadContext(ctx)
		defer cancel()
		r.metrics.requests[causeProof].Inc()
		o, err := r.cfg.Store.Head(store.WithCause(load, causeNames[causeProof]), at.Key, at.Version)
		if err != nil {
			return 0, err
		}
		if o.Size < p.Size {
			r.proofs.note(p, Truncated, o.Size, r.cfg.Now())
		}
		return o.Size, nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w; asked for its size: %w", said, err)
	case size >= p.Size:
		return said // the store contradicts itself
	}
	return r.corrupt(p, Truncated, size, fmt.Errorf("the object has %d of %d bytes: %w", size, p.Size, said))
}

// missingError says that the store does not have a pack's object, or that
// version of it. It matches errMissing.
type missingError struct {
	pack *raftmeta.Pack
	off  int64 // asked for
	err  error // store.ErrNotFound
}

func (e *missingError) Error() string {
	return fmt.Sprintf("pack %s: %v: %v", e.pack.ID, errMissing, e.err)
}

func (e *missingError) Unwrap() error { return e.err }

func (e *missingError) Is(target error) bool { return target == errMissing }

// settle decides about a read in which an object was missing: err is the
// damage if the confirmed manifest still names that object for names of hash h.
// Otherwise the manifest has moved on, or nobody can confirm that it has not,
// and v, the newest view there is, is to be walked.
func (r *Retriever) settle(ctx context.Context, h desformat.NameHash, missing error) (v View, err error) {
	v, err = r.confirm(ctx)
	if err != nil {
		return r.cfg.Manifest.View(), nil //nolint:nilerr // the second look does without a quorum
	}
	var m *missingError
	if !errors.As(missing, &m) {
		return v, nil
	}
	key, version := place(m.pack)
	for _, p := range v.Covering(h, nil) {
		if p.ID != m.pack.ID {
			continue
		}
		if k, ver := place(p); k != key || ver != version {
			break // found elsewhere since
		}
		kind := Missing
		if errors.Is(m.err, store.ErrReplaced) {
			kind = Replaced
		}
		r.proofs.note(p, kind, 0, r.cfg.Now())
		return v, r.corrupt(p, kind, m.off, m.err)
	}
	return v, nil
}

// missing turns errMissing, when nothing was proven, into the error that
// callers know.
func (r *Retriever) missing(err error) error {
	if !errors.Is(err, errMissing) {
		return err
	}
	r.metrics.missingObjects.Inc()
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// corrupt counts damage that a read met, tells of it, and returns the error.
func (r *Retriever) corrupt(p *raftmeta.Pack, kind Damage, off int64, err error) error {
	r.metrics.corrupt[kind].Inc()
	if kind == Missing || kind == Replaced && errors.Is(err, store.ErrNotFound) {
		r.metrics.missingObjects.Inc()
	}
	if r.cfg.Damaged != nil {
		r.cfg.Damaged(p.ID)
	}
	return &CorruptError{Pack: p.ID, Offset: off, Damage: kind, Err: err}
}
