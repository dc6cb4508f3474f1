package rebuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// Claimed is the life of a cluster that a node may begin.
type Claimed struct {
	Cluster    desformat.ClusterID
	Generation uint64
}

// ClaimStore is what Claim needs of a store; see store.Store.
type ClaimStore interface {
	Store
	Put(ctx context.Context, key string, body store.Body, size int64) (store.Object, error)
}

const (
	clusterKey       = "cluster.json"
	generationPrefix = "generations/"
)

// claimText is what cluster.json and the claim of a generation say.
type claimText struct {
	Cluster desformat.ClusterID `json:"cluster"`
	Node    raftmeta.NodeID     `json:"node,omitempty"`
}

// Claim adopts the cluster that the store belongs to, and claims its next
// generation for node by a conditional create. node is an id that never was in
// the cluster: made for an empty data dir, and kept there before Claim is
// called, for by it a claim that was cut finds itself again.
//
// ErrNoCluster: the store belongs to no cluster. ErrSuperseded: another node has
// claimed the same generation at the same moment, or a later one since: two
// halves that are restored at once must not both live. Where the store can't
// create on condition (store.Store.ConditionalCreate), two that claim at the very
// same moment may both believe they have won until they look again.
func Claim(ctx context.Context, s ClaimStore, node raftmeta.NodeID) (Claimed, error) {
	ctx = store.WithCause(ctx, cause)
	if node == "" {
		return Claimed{}, errors.New("claim a generation: no node id")
	}
	c, err := claim(ctx, s, node)
	if err != nil {
		return Claimed{}, fmt.Errorf("claim a generation: %w", err)
	}
	return c, nil
}

func claim(ctx context.Context, s ClaimStore, node raftmeta.NodeID) (Claimed, error) {
	text, err := readClaim(ctx, s, clusterKey)
	if errors.Is(err, store.ErrNotFound) {
		return Claimed{}, fmt.Errorf("it has no %s; is it the right URL, and its disk mounted? %w", clusterKey, ErrNoCluster)
	}
	if err != nil {
		return Claimed{}, err
	}
	begun, err := generations(ctx, s)
	if err != nil {
		return Claimed{}, err
	}
	newest := uint64(0)
	if len(begun) > 0 {
		newest = begun[len(begun)-1]
	}
	c := Claimed{Cluster: text.Cluster, Generation: newest}
	if newest > 0 {
		found, err := readClaim(ctx, s, generationKey(newest))
		if err != nil {
			return Claimed{}, err
		}
		if found.Cluster != c.Cluster {
			return Claimed{}, fmt.Errorf("%s is of cluster %s, %s of %s: repair the store first",
				generationKey(newest), found.Cluster, clusterKey, c.Cluster)
		}
		// The first life is no rebuild: who has that node id has lived it.
		if found.Node == node && newest > 1 {
			return c, nil // cut, and gone on with
		}
	}
	if err := ownOlder(ctx, s, node, begun); err != nil {
		return Claimed{}, err
	}
	c.Generation = max(newest, 1) + 1 // the first life is formed, never claimed
	return c, putClaim(ctx, s, generationKey(c.Generation), claimText{c.Cluster, node})
}

func generationKey(g uint64) string { return generationPrefix + strconv.FormatUint(g, 10) }

// generations returns those that anybody has claimed, rising.
func generations(ctx context.Context, s Store) (begun []uint64, err error) {
	err = s.List(ctx, generationPrefix, "", func(o store.Object) error {
		digits := strings.TrimPrefix(o.Key, generationPrefix)
		if g, err := strconv.ParseUint(digits, 10, 63); err == nil && generationKey(g) == o.Key {
			begun = append(begun, g)
		}
		return nil
	})
	slices.Sort(begun)
	return begun, err
}

// ownOlder refuses a node that has claimed an earlier generation than the newest
// one: it was overtaken, and whoever overtook it may be at work.
func ownOlder(ctx context.Context, s Store, node raftmeta.NodeID, begun []uint64) error {
	for i, g := range begun {
		found, err := readClaim(ctx, s, generationKey(g))
		switch newest := begun[len(begun)-1]; {
		case err != nil:
			return err
		case found.Node == node && i < len(begun)-1:
			return fmt.Errorf("this node has claimed generation %d, and %d has begun since: %w", g, newest, ErrSuperseded)
		case found.Node == node:
			return fmt.Errorf("this node has lived generation %d: begin on an empty data dir", g)
		}
	}
	return nil
}

// putClaim creates the claim and looks whose it is: a Put whose answer was lost
// finds itself, and a store that can't create on condition is asked again.
func putClaim(ctx context.Context, s ClaimStore, key string, own claimText) error {
	b, err := json.Marshal(own)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if _, err := s.Put(ctx, key, bytes.NewReader(b), int64(len(b))); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	found, err := readClaim(ctx, s, key)
	if err != nil {
		return err
	}
	if found != own {
		return fmt.Errorf("%s was claimed by node %q at the same moment; repeat it if that one shall not live: %w", key, found.Node, ErrSuperseded)
	}
	return nil
}

func readClaim(ctx context.Context, s Store, key string) (c claimText, err error) {
	r, err := s.Get(ctx, key, "", 0, -1)
	if err != nil {
		return c, err
	}
	text, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err = errors.Join(err, r.Close()); err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil || c.Cluster == (desformat.ClusterID{}) {
		return c, fmt.Errorf("%s says %q, which names no cluster", key, bytes.TrimSpace(text))
	}
	return c, nil
}
