package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/datavision/desnode/node/rebuild"
	"github.com/datavision/desnode/node/retriever"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// A restored or rebuilt cluster is a new life of the same one: it has the next
// generation, which it has claimed in the store and in the sources. Nodes of the
// life before may still run, without knowing. They must change nothing any more:
// what they pack the new life does not know, and what they call garbage it may
// have adopted.

// ErrSuperseded: a newer generation of this cluster has begun elsewhere. The node
// serves what it knows and does no work any more.
var ErrSuperseded = rebuild.ErrSuperseded

// errRebuilding: the manifest is not whole yet, so a miss means nothing.
var errRebuilding = errors.New("the manifest is being rebuilt")

// generationEvery is how often a node looks for a newer generation. Until it
// knows of one it says "not found" of what only that one has archived.
const generationEvery = time.Minute

// newerLife is a generation after this node's own, and how it is known.
type newerLife struct {
	generation uint64
	err        error
}

// checkCurrent returns nil when the store knows of no newer generation, with one
// request; ErrSuperseded when it does. Another error says nothing.
func (n *Node) checkCurrent(ctx context.Context) error {
	if err := n.outdated(); err != nil {
		return err
	}
	next := generationKey(n.id.Generation + 1)
	_, err := n.store.Head(store.WithCause(ctx, causeClaim), next, "")
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("is there a newer generation of the cluster: %w", err)
	}
	n.supersede(fmt.Errorf("%w: the store has %s", ErrSuperseded, next))
	return n.outdated()
}

// supersede ends the node's work for good. The first reason stays.
func (n *Node) supersede(why error) {
	why = fmt.Errorf("%w, and this node belongs to generation %d; let it join the cluster anew, with an empty data dir", why, n.id.Generation)
	if n.newer.CompareAndSwap(nil, &newerLife{n.id.Generation + 1, why}) {
		n.log.Error("this node's work ends; it goes on serving what it knows", "err", why)
		close(n.newerC)
	}
}

// outdated returns what supersede was told, or nil.
func (n *Node) outdated() error {
	if newer := n.newer.Load(); newer != nil {
		return newer.err
	}
	return nil
}

// heedSource passes a source's error on, and notices one that tells of a newer
// generation.
func (n *Node) heedSource(err error) error {
	if errors.Is(err, source.ErrSuperseded) {
		n.supersede(fmt.Errorf("%w: %w", ErrSuperseded, err))
	}
	return err
}

// watchGeneration looks for a newer generation until ctx ends, and lets the crew
// rest once there is one.
func (n *Node) watchGeneration(ctx context.Context) error {
	for {
		_ = n.checkCurrent(ctx) // a newer one closes newerC; a store that does not answer is asked again
		timer := time.NewTimer(generationEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-n.newerC:
			timer.Stop()
			n.crew.rest()
			<-ctx.Done()
			return nil
		case <-timer.C:
		}
	}
}

// knowsAll returns why a name that this node's manifest does not have may exist
// all the same, whatever its leader confirms.
func (n *Node) knowsAll(v *raftmeta.View) error {
	if err := n.outdated(); err != nil {
		return err
	}
	if !v.RebuildDone(v.Generation()) {
		return errRebuilding
	}
	return nil
}

// surely reports whether a hit is known to be the newest version.
func (n *Node) surely() bool { return n.meta.InTouch() && n.knowsAll(n.meta.View()) == nil }

// wholeManifest is the manifest as the retriever asks it: a miss is confirmed only
// while the manifest is whole.
type wholeManifest struct {
	retriever.Manifest
	n *Node
}

func (m wholeManifest) Confirm(ctx context.Context) (retriever.View, error) {
	v, err := m.n.meta.Confirm(ctx)
	if err == nil {
		err = m.n.knowsAll(v)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}
