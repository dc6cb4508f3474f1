package main

import (
	"context"
	"time"
)

// checker holds what it sees of the source, the manifest, the bucket and the
// originals against the ledger, during the run and after it.
type checker struct {
	*scene
}

// newChecker prepares a checker of a scene.
func newChecker(s *scene) *checker { return &checker{scene: s} }

// run watches until ctx ends. An error is one of the harness.
func (c *checker) run(ctx context.Context) error { <-ctx.Done(); return nil }

// finish is called when all faults are healed and the load has ended: it waits
// until everything is archived, for so long at most, and then checks all of it.
func (c *checker) finish(ctx context.Context, within time.Duration) error { return nil }
