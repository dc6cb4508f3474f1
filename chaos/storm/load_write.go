package main

import (
	"context"
	"math/rand/v2"
)

// written counts what the customer has done.
type written struct {
	files, changes int
	bytes          int64
	retries        int // transactions that were tried again
}

func (l *load) writeAll(ctx context.Context, rnd *rand.Rand) error   { return nil }
func (l *load) archiveAll(ctx context.Context, rnd *rand.Rand) error { return nil }
