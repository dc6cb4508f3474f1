package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/datavision/desnode/desformat"
)

// ClaimCluster records that this source is archived by the cluster, or finds
// that recorded; ErrOtherCluster when another stands there. An older generation
// of the cluster is fenced out: from then on whatever that one writes ends as
// ErrSuperseded, as does its ClaimCluster.
func (s *SQLite) ClaimCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error {
	return s.claimed(ctx, claim{id, generation}, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO desnode (one, cluster, generation) VALUES (1, ?, ?) ON CONFLICT DO NOTHING", id[:], int64(generation))
		return err
	})
}

// CheckCluster is ClaimCluster where the cluster has the source already: when
// nobody has claimed it, it is not the one that the cluster knows. Then nothing
// is recorded, and the error is ErrUnclaimed.
func (s *SQLite) CheckCluster(ctx context.Context, id desformat.ClusterID, generation uint64) error {
	return s.claimed(ctx, claim{id, generation}, func(*sql.Tx) error { return nil })
}

func (s *SQLite) claimed(ctx context.Context, own claim, first func(*sql.Tx) error) error {
	err := s.transaction(ctx, opClaim, func(tx *sql.Tx) error {
		if err := first(tx); err != nil {
			return err
		}
		return s.hold(tx, own)
	})
	if err == nil {
		s.claim.Store(&own)
	}
	return err
}

// ours finds the claim recorded that this table was opened for. One of an older
// generation, in a database that was brought back to an older state, is raised.
func (s *SQLite) ours(tx *sql.Tx) error {
	if own := s.claim.Load(); own != nil {
		return s.hold(tx, *own)
	}
	return nil
}

func (s *SQLite) hold(tx *sql.Tx, own claim) error {
	var cluster []byte
	var generation int64
	err := tx.Stmt(s.stmts.findClaim).QueryRow().Scan(&cluster, &generation)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnclaimed
	}
	if err != nil {
		return err
	}
	if len(cluster) != len(own.cluster) {
		return fmt.Errorf("%x is no cluster's id", cluster)
	}
	found := claim{desformat.ClusterID(cluster), uint64(generation)}
	if err := own.against(found); err != nil || found == own {
		return err
	}
	_, err = tx.Exec("UPDATE desnode SET generation = ?", int64(own.generation))
	return err
}
