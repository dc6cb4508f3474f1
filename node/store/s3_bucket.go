package store

import (
	"context"
	"fmt"
)

// OpenBucket returns the bucket that c names without asking it for anything:
// one in which nothing may be created, or not before it was found to be the
// right one. Who opens it closes it.
func OpenBucket(ctx context.Context, c S3Config) (*S3, error) {
	s, err := newS3(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return s, nil
}
