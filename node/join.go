package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/peers"
	"github.com/datavision/desnode/raftmeta"
	"github.com/datavision/desnode/transport"
)

// JoinRequest says how a node gets into a cluster.
type JoinRequest struct {
	Addr  string // host:port at which a member listens for nodes
	Token string // the text of a join token

	Network *transport.Network // nil: the machine's
}

// Join makes the node of cfg.DataDir a member of a cluster; then New and Run run
// it, with the cluster's store and sources where cfg has none. On return the
// membership is durable on both sides. It can be cut anywhere and repeated with
// the same token, which takes one use. On the data dir of a member of that very
// cluster it does nothing; on that of another it is ErrOtherCluster.
//
// Other errors: those of peers.Join, raftmeta.ErrLocked, ErrLeft, ErrOtherStore.
func Join(ctx context.Context, cfg config.Config, req JoinRequest, log *slog.Logger) error {
	release, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	return errors.Join(joinLocked(ctx, cfg, req, log), release())
}

func joinLocked(ctx context.Context, cfg config.Config, req JoinRequest, log *slog.Logger) error {
	if err := checkNotLeft(cfg.DataDir); err != nil {
		return err
	}
	id, joined, err := joiningID(cfg.DataDir)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "joining", "addr", req.Addr, "node", string(id))
	admitted, err := peers.Join(ctx, peers.JoinRequest{Dir: peersDir(cfg.DataDir), Addr: req.Addr, Token: req.Token, Node: string(id), Network: req.Network})
	if errors.Is(err, peers.ErrOtherCluster) {
		return fmt.Errorf("the data dir %s %w; join on an empty one: %w", cfg.DataDir, ErrOtherCluster, err)
	}
	if err != nil {
		return err
	}
	if joined {
		return nil
	}
	var settings clusterSettings
	if err := json.Unmarshal(admitted.Settings, &settings); err != nil {
		return fmt.Errorf("the cluster's settings: %w", err)
	}
	member := identity{Node: id, Generation: settings.Generation, Joined: true}
	if err := member.Cluster.UnmarshalText([]byte(admitted.Cluster)); err != nil {
		return err
	}
	// The identity comes last: what it stands beside is complete.
	if err := settings.keep(cfg.DataDir); err != nil {
		return err
	}
	if err := member.store(cfg.DataDir); err != nil {
		return err
	}
	log.InfoContext(ctx, "joined", "cluster", admitted.Cluster, "node", string(id))
	_, err = settings.adopt(cfg)
	return err
}

// HasJoined reports whether a data dir is that of a node that joined a cluster,
// and not of one that formed it.
func HasJoined(dataDir string) bool {
	id, err := readIdentity(filepath.Join(dataDir, identityFile))
	return err == nil && id.Joined
}

// joiningID returns the id under which the data dir joins, chosen at its first
// attempt. joined: it belongs to a cluster already, under that id.
func joiningID(dataDir string) (id raftmeta.NodeID, joined bool, err error) {
	known, err := readIdentity(filepath.Join(dataDir, identityFile))
	if err == nil {
		formed, err := peers.HasIdentity(peersDir(dataDir))
		if err == nil && !formed {
			err = fmt.Errorf("the data dir %s %w; join on an empty one", dataDir, ErrOtherCluster)
		}
		return known.Node, true, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if state, err := has(dataDir, raftDir); err != nil || state {
		return "", false, errors.Join(err, fmt.Errorf("the data dir %s holds a state without %s; join on an empty one", dataDir, identityFile))
	}
	path := filepath.Join(dataDir, joiningFile)
	b, err := json.Marshal(identity{Node: raftmeta.NodeID(uuid.NewString())})
	if err != nil {
		return "", false, err
	}
	if err := createDurably(path, append(b, '\n')); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", false, fmt.Errorf("choose a node id: %w", err)
	}
	chosen, err := readIdentity(path)
	return chosen.Node, false, err
}
