package source

import (
	"fmt"

	"github.com/datavision/desnode/desformat"
)

// claim is who archives a source: a cluster, in one of its lives. A source is
// claimed once, and the claim's generation is raised, never lowered. Each
// transaction looks at the claim before it does anything, and a claim is raised
// only when all that looked at the older one are over: from then on nothing
// that an older life of the cluster began comes through.
type claim struct {
	cluster    desformat.ClusterID
	generation uint64
}

// against holds the claim that was found against c: nil when they are the same,
// or the one found is of an older generation.
func (c claim) against(found claim) error {
	switch {
	case found.cluster != c.cluster:
		return fmt.Errorf("%s: %w", found.cluster, ErrOtherCluster)
	case found.generation > c.generation:
		return fmt.Errorf("it is of generation %d, this is %d: %w", found.generation, c.generation, ErrSuperseded)
	}
	return nil
}
