package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
)

// Texts that are no integer, by which a statement ends that finds another claim
// than its own.
const (
	notOurs    = "desnode: the source is not recorded as ours"
	superseded = "desnode: the source is recorded as that of a newer generation"
	lapsed     = "desnode: the source is recorded as that of an older generation"
)

// errLapsed: the claim is of an older generation than the one that was recorded:
// the database was brought back to an older state.
var errLapsed = fmt.Errorf("%w since it was brought back to an older state", ErrUnclaimed)

// ClaimCluster records that this source is archived by the cluster, or finds
// that recorded; ErrOtherCluster when another stands there. A role that may
// not write it only looks; work that is not the marker's is refused as
// ErrUnclaimed before it is written.
//
// An older generation of the cluster is fenced out: when ClaimCluster has
// returned nothing that one began is written any more, and all it tries ends as
// ErrSuperseded. Once another one is newer, so does ClaimCluster.
//
// From then on each statement finds it recorded before it does anything, or
// ends as ErrOtherCluster: the URL may lead to another database by now.
func (p *Postgres) ClaimCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error {
	if p.pools[RoleMarker] != nil {
		_, err := collect(ctx, p, call{role: RoleMarker, op: opClaim, unclaimed: true}, func(*pgQueries) request {
			return request{
				`INSERT INTO desnode.cluster (source, cluster, generation) VALUES ($1::text, $2::bytea, $3::bigint) ON CONFLICT DO NOTHING`,
				[]any{p.cfg.Mapping.Source, id[:], int64(generation)},
			}
		}, noRow)
		if err != nil && sqlState(err) != insufficientPrivilege {
			return err
		}
	}
	err := p.CheckCluster(ctx, id, generation)
	if errors.Is(err, ErrUnclaimed) && p.pools[RolePacker] == nil && p.pools[RoleDeleter] == nil {
		return nil // what reads needs no claim, and may not make one
	}
	return err
}

// CheckCluster is ClaimCluster where the cluster has the source already: when
// nobody has claimed it, it is not the one that the cluster knows. Then nothing
// is recorded, and the error is ErrUnclaimed.
func (p *Postgres) CheckCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error {
	own := claim{id, generation}
	for raised := false; ; raised = true {
		found, err := collect(ctx, p, call{role: p.anyRole(), op: opClaim, unclaimed: true}, func(*pgQueries) request {
			return request{`SELECT cluster, generation FROM desnode.cluster WHERE source = $1::text`, []any{p.cfg.Mapping.Source}}
		}, scanClaim)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return p.wrap(opClaim, ErrUnclaimed)
		}
		if err := own.against(found[0]); err != nil {
			return p.wrap(opClaim, err)
		}
		if found[0] == own {
			p.claim.Store(&own)
			return nil
		}
		if raised || p.pools[RoleMarker] == nil {
			return p.wrap(opClaim, fmt.Errorf("%w for generation %d", ErrUnclaimed, generation))
		}
		if err := p.raise(ctx, own); err != nil {
			return err
		}
	}
}

const opClaim = "claim"

func scanClaim(_ *pgQueries, c pgCells) (found claim, err error) {
	cluster, err := c.bytes(0)
	if err != nil {
		return claim{}, err
	}
	if len(cluster) != len(found.cluster) {
		return claim{}, fmt.Errorf("%x is no cluster's id", cluster)
	}
	generation, err := c.integer(1)
	return claim{desformat.ClusterID(cluster), uint64(generation)}, err
}

// raise raises the claim's generation. The transaction may not have looked at
// the claim before: two that had would wait for each other.
func (p *Postgres) raise(ctx context.Context, to claim) error {
	_, err := collect(ctx, p, call{role: RoleMarker, op: opClaim, unclaimed: true}, func(*pgQueries) request {
		return request{
			`SELECT desnode.raise_generation($1::text, $2::bytea, $3::bigint)`,
			[]any{p.cfg.Mapping.Source, to.cluster[:], int64(to.generation)},
		}
	}, noRow)
	return err
}

// claimed is the expression that ends the transaction when the source has
// another claim than c; its parameters are numbered from first on.
func (c *claim) claimed(source string, first int) (sql string, args []any) {
	return fmt.Sprintf(`coalesce((SELECT CASE WHEN c.cluster <> $%[2]d::bytea THEN '%[4]s' WHEN c.generation > $%[3]d::bigint THEN '%[5]s'
 WHEN c.generation < $%[3]d::bigint THEN '%[6]s' ELSE '1' END FROM desnode.cluster AS c WHERE c.source = $%[1]d::text), '%[4]s')::integer`,
		first, first+1, first+2, notOurs, superseded, lapsed), []any{source, c.cluster[:], int64(c.generation)}
}
