package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/datavision/desnode/desformat"
	"github.com/datavision/desnode/node/config"
	"github.com/datavision/desnode/node/source"
	"github.com/datavision/desnode/raftmeta"
)

// claimedPrefix begins the settings that list which sources the cluster has
// claimed, one for each of its lives: a database may have been lost together
// with the life before.
const claimedPrefix = "claimed-sources/"

// noteTimeout bounds how long a claim waits to be noted.
const noteTimeout = 5 * time.Second

// claimant is a source whose database records which cluster archives it.
type claimant interface {
	ClaimCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error
	CheckCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error
}

// claimSource claims a source for the cluster. One that the cluster has claimed
// already must say so itself: a database that records nobody is another one, to
// which this node's own configuration leads under the source's name.
func (n *Node) claimSource(ctx context.Context, name string, rows claimant) error {
	if !n.cfg.Does(config.WorkMark) {
		return rows.ClaimCluster(ctx, n.id.Cluster, n.id.Generation) // which only looks
	}
	key := fmt.Sprintf("%s%d", claimedPrefix, n.id.Generation)
	claimed, _, err := listSetting(n.meta.View(), key)
	if err != nil {
		return err
	}
	if slices.Contains(claimed, name) {
		err := rows.CheckCluster(ctx, n.id.Cluster, n.id.Generation)
		if errors.Is(err, source.ErrUnclaimed) {
			err = fmt.Errorf("%w: the cluster has claimed another database as the source %q; if this is the same one, brought back without what desnode keeps in it, "+
				`let its owner say so: INSERT INTO desnode.cluster (source, cluster, generation) VALUES ('%s', '\x%s', %d): %w`,
				ErrOtherSource, name, name, n.id.Cluster, n.id.Generation, err)
		}
		return err
	}
	if err := rows.ClaimCluster(ctx, n.id.Cluster, n.id.Generation); err != nil {
		return err
	}
	if err := n.noteClaim(ctx, key, name); err != nil {
		// The claim stands; it is noted by whoever proves the source next.
		n.log.WarnContext(ctx, "the claim of a source is not noted yet", "source", name, "err", err)
	}
	return nil
}

func (n *Node) noteClaim(ctx context.Context, key, name string) error {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	for {
		claimed, modIndex, err := listSetting(n.meta.View(), key)
		if err != nil || slices.Contains(claimed, name) {
			return err
		}
		if err := n.setList(ctx, key, append(claimed, name), modIndex); !errors.Is(err, raftmeta.ErrConflict) {
			return err
		}
	}
}
