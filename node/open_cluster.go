package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/datavision/desnode/node/pace"
	"github.com/datavision/desnode/node/peers"
	"github.com/datavision/desnode/raftmeta"
)

// openDataDir takes the data dir and learns who the node is. On an empty one it
// chooses.
func (n *Node) openDataDir(context.Context, *prometheus.Registry) error {
	release, err := lockDir(n.cfg.DataDir)
	if err != nil {
		return err
	}
	n.onClose(release)
	if err := checkNotLeft(n.cfg.DataDir); err != nil {
		return err
	}
	known, err := has(n.cfg.DataDir, identityFile)
	if err != nil {
		return err
	}
	if joining, err := has(n.cfg.DataDir, joiningFile); err != nil || joining && !known {
		return errors.Join(err, fmt.Errorf("data dir %s: a join was begun here and has not ended; repeat 'desnode join', or start on an empty data dir", n.cfg.DataDir))
	}
	if n.id, err = loadIdentity(n.cfg.DataDir); err != nil {
		return err
	}
	if n.formed, err = hasFormed(n.cfg.DataDir); err != nil {
		return err
	}
	n.log = n.log.With("node", string(n.id.Node))
	settings, err := readSettings(n.cfg.DataDir)
	switch {
	case !n.id.Joined && errors.Is(err, fs.ErrNotExist):
		return nil // it is forming the cluster
	case err != nil:
		return err
	case !n.id.Joined && settings.Members < 2:
		return nil // its configuration alone says what the cluster has
	}
	n.known = slices.Collect(maps.Keys(settings.Sources))
	n.cfg, err = settings.adopt(n.cfg)
	return err
}

// inDataDir reports whether the store is a folder in a node's data dir, this one's
// or that of the founder: one rm -r would take both the packs and their manifest.
func (n *Node) inDataDir() bool {
	path, err := n.cfg.Store.Path()
	if err != nil {
		return false // no folder
	}
	beside, err := has(filepath.Dir(path), identityFile)
	return n.cfg.HasDefaultStore() || err != nil || beside
}

// openPeers takes the ports that other nodes speak to.
func (n *Node) openPeers(ctx context.Context, metrics *prometheus.Registry) error {
	if !n.id.Joined {
		if err := peers.Form(peersDir(n.cfg.DataDir), n.id.Cluster.String(), string(n.id.Node), n.now); err != nil {
			return fmt.Errorf("form the cluster: %w", err)
		}
	}
	http, err := n.advertisedHTTP()
	if err != nil {
		return err
	}
	n.peers, err = peers.Open(peers.Config{
		Dir:        peersDir(n.cfg.DataDir),
		Node:       string(n.id.Node),
		Bind:       n.cfg.ClusterAddr(),
		GossipBind: n.cfg.GossipAddr(),
		Advertise:  n.cfg.Advertise,
		HTTP:       http,
		Zone:       n.cfg.Zone,
		Version:    Version(),
		Work:       n.cfg.Work,
		Seeds:      n.cfg.Seeds,
		Rendezvous: rendezvous{n},
		Settings:   n.joinerSettings,
		Now:        n.now,

		Network:         n.networks.Cluster,
		GossipTransport: n.networks.Gossip,

		Logger:     n.log.With("part", "peers"),
		Registerer: metrics,
	})
	if err != nil {
		return err
	}
	n.onClose(n.peers.Close)
	return nil
}

func (n *Node) openMeta(ctx context.Context, metrics *prometheus.Registry) error {
	var err error
	n.meta, err = raftmeta.Open(ctx, raftmeta.Config{
		Dir:        filepath.Join(n.cfg.DataDir, raftDir),
		Node:       n.id.Node,
		Cluster:    n.id.Cluster,
		Generation: n.id.Generation,
		Join:       n.id.Joined,
		Formed:     n.formed,
		Transport:  n.peers.RaftTransport(),
		Peers:      n.peers,
		DeadAfter:  n.cfg.DeadAfter,
		Logger:     n.log,
	})
	if err != nil {
		return fmt.Errorf("data dir %s: %w", n.cfg.DataDir, err)
	}
	n.onClose(n.meta.Close)
	n.peers.SetMeta(n.meta)
	if err := metrics.Register(clusterCollector{n}); err != nil {
		return err
	}
	n.governor, err = pace.NewGovernor(pace.GovernorConfig{})
	return err
}
