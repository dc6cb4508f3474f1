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

const (
	// identityFile is written before anything else exists, so that forming a
	// cluster can be cut anywhere and repeated under the same ids.
	identityFile = "node.json"
	// formedFile is written when the cluster has been formed, and before any
	// pack exists. From then on what is missing is lost, never new: an empty raft
	// folder or a store without cluster.json keeps the node from starting.
	formedFile = "formed"
)

// Errors of a node that finds less than it left.
var (
	// ErrStoreLost: the store does not hold what this cluster wrote into it.
	ErrStoreLost = errors.New("the store is not the one this cluster uses")
	// ErrSourceMissing: packs name a source that the configuration lacks.
	ErrSourceMissing = errors.New("a source is missing in the configuration")
)

// hasFormed reports whether the data dir was in a cluster before.
func hasFormed(dataDir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dataDir, formedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// setFormed records that the cluster has been formed; repeating it is harmless.
func setFormed(dataDir string) error {
	err := createDurably(filepath.Join(dataDir, formedFile), []byte("1\n"))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// identity is who this node is. It is chosen once, on an empty data dir.
type identity struct {
	Node       raftmeta.NodeID     `json:"node"`
	Cluster    desformat.ClusterID `json:"cluster"`
	Generation uint64              `json:"generation"`
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
	b, err := json.Marshal(id)
	if err != nil {
		return identity{}, err
	}
	if err := createDurably(path, append(b, '\n')); err != nil && !errors.Is(err, fs.ErrExist) {
		return identity{}, fmt.Errorf("store the node's identity: %w", err)
	}
	return readIdentity(path)
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

// createDurably creates a small file, whole and on disk when it returns nil;
// fs.ErrExist when there is one already, which is left alone.
func createDurably(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Keys of the small objects beside the packs.
const (
	clusterKey       = "cluster.json"
	generationPrefix = "generations/"

	causeClaim = "claim" // of the requests for them
)

// claimStore makes sure that the store is this cluster's: while the cluster is
// being formed it creates cluster.json and the generation's claim, later it
// finds them there or returns ErrStoreLost. Repeating it is harmless; another
// cluster's store is refused with ErrOtherCluster.
func claimStore(ctx context.Context, s store.Store, id identity, formed bool) error {
	ctx = store.WithCause(ctx, causeClaim)
	claims := []struct {
		key  string
		body any
	}{
		{clusterKey, struct {
			Cluster desformat.ClusterID `json:"cluster"`
		}{id.Cluster}},
		{fmt.Sprintf("%s%d", generationPrefix, id.Generation), struct {
			Cluster desformat.ClusterID `json:"cluster"`
			Node    raftmeta.NodeID     `json:"node"`
		}{id.Cluster, id.Node}},
	}
	for _, c := range claims {
		b, err := json.Marshal(c.body)
		if err != nil {
			return err
		}
		b = append(b, '\n')
		if !formed {
			_, err = s.Put(ctx, c.key, bytes.NewReader(b), int64(len(b)))
		}
		if err == nil || errors.Is(err, store.ErrExists) {
			err = checkClaim(ctx, s, c.key, b)
		}
		if err != nil {
			return fmt.Errorf("claim the store: %w", err)
		}
	}
	return nil
}

// checkClaim holds what the store has at key against our own claim.
func checkClaim(ctx context.Context, s store.Store, key string, body []byte) error {
	r, err := s.Get(ctx, key, "", 0, -1)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: it has no %s; is its disk mounted?", ErrStoreLost, key)
	}
	if err != nil {
		return err
	}
	found, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if !bytes.Equal(found, body) {
		return fmt.Errorf("%s says %s: the store %w; use another store URL, or the data dir of that cluster",
			key, bytes.TrimSpace(found), ErrOtherCluster)
	}
	return nil
}
