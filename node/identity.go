package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/store"
	"github.com/datavision/desnode/raftmeta"
)

// ErrOtherCluster: the store or a source already belongs to another cluster.
var ErrOtherCluster = errors.New("belongs to another cluster")

// ErrStoreLost: the store does not hold what this cluster wrote into it.
var ErrStoreLost = errors.New("the store is not the one this cluster uses")

// identity is who this node is. It is chosen once, on an empty data dir.
type identity struct {
	Node       raftmeta.NodeID     `json:"node"`
	Cluster    desformat.ClusterID `json:"cluster"`
	Generation uint64              `json:"generation"`
	Joined     bool                `json:"joined,omitempty"` // it did not form the cluster
}

// loadIdentity reads the data dir's identity, or chooses and stores a new one.
// Of several processes that start on one empty dir at once, all get the same;
// the lock of raftmeta then lets one of them go on.
func loadIdentity(dataDir string) (identity, error) {
	path := filepath.Join(dataDir, identityFile)
	id, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	id = identity{Node: raftmeta.NodeID(uuid.NewString()), Generation: 1}
	if _, err := rand.Read(id.Cluster[:]); err != nil {
		return identity{}, fmt.Errorf("choose a cluster id: %w", err)
	}
	if err := id.store(dataDir); err != nil {
		return identity{}, err
	}
	return readIdentity(path)
}

// store writes the identity of a data dir that has none yet; that of another
// process that was faster stays.
func (id identity) store(dataDir string) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	err = createDurably(filepath.Join(dataDir, identityFile), append(b, '\n'))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("store the node's identity: %w", err)
	}
	return nil
}

func readIdentity(path string) (identity, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return identity{}, fmt.Errorf("read the node's identity: %w", err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil || id.Node == "" {
		return identity{}, fmt.Errorf("read %s: not a node's identity; restore it from a backup, or start on an empty data dir", path)
	}
	return id, nil
}

// Keys of the small objects beside the packs.
const (
	clusterKey       = "cluster.json"
	generationPrefix = "generations/"

	causeClaim = "claim" // of the requests for them
)

func generationKey(g uint64) string { return fmt.Sprintf("%s%d", generationPrefix, g) }

// claim is what such an object says.
type claim struct {
	Cluster desformat.ClusterID `json:"cluster"`
	Node    raftmeta.NodeID     `json:"node,omitempty"` // who began the generation
}

// claimStore makes sure that the store is this cluster's: while the cluster is
// being formed it creates cluster.json and the generation's claim, later, and
// always on a node that joined, it finds them there or returns ErrStoreLost.
// Repeating it is harmless; another cluster's store is refused with
// ErrOtherCluster.
func claimStore(ctx context.Context, s store.Store, id identity, formed bool) error {
	ctx = store.WithCause(ctx, causeClaim)
	claims := []struct {
		key string
		claim
	}{
		{clusterKey, claim{Cluster: id.Cluster}},
		{generationKey(id.Generation), claim{id.Cluster, id.Node}},
	}
	for _, c := range claims {
		b, err := json.Marshal(c.claim)
		if err != nil {
			return err
		}
		b = append(b, '\n')
		if !formed && !id.Joined {
			_, err = s.Put(ctx, c.key, bytes.NewReader(b), int64(len(b)))
		}
		if err == nil || errors.Is(err, store.ErrExists) {
			err = checkClaim(ctx, s, c.key, c.claim, id.Joined)
		}
		if err != nil {
			return fmt.Errorf("claim the store: %w", err)
		}
	}
	return nil
}

// checkClaim holds what the store has at key against our own claim. A node that
// joined leaves open who began the generation.
func checkClaim(ctx context.Context, s store.Store, key string, own claim, joined bool) error {
	r, err := s.Get(ctx, key, "", 0, -1)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: it has no %s; is its disk mounted?", ErrStoreLost, key)
	}
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	var found claim
	err = json.Unmarshal(text, &found)
	if err != nil || found.Cluster != own.Cluster || found.Node != own.Node && !joined {
		return fmt.Errorf("%s says %s: the store %w; use another store URL, or the data dir of that cluster",
			key, bytes.TrimSpace(text), ErrOtherCluster)
	}
	return nil
}
