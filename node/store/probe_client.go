package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// openProbeTarget makes the clients of a probe, as those of a store are made
// but for retries, the breaker and its time limits. It makes no request to the
// bucket.
func openProbeTarget(ctx context.Context, c ProbeConfig) (probeTarget, error) {
	at, err := c.S3.target()
	if err != nil {
		return probeTarget{}, err
	}
	hc, err := c.S3.httpClient()
	if err != nil {
		return probeTarget{}, err
	}
	now := c.Now
	if now == nil {
		now = time.Now
	}
	t := probeTarget{
		bucket: at.bucket, prefix: at.prefix, endpoint: at.endpoint, ownCA: c.S3.CAFile != "",
		clients: map[ProbeRole]*s3.Client{}, keyIDs: map[ProbeRole]string{},
		wire: &probeWire{next: hc, now: now}, close: hc.CloseIdleConnections,
	}
	for _, r := range []struct {
		role ProbeRole
		from string
	}{{ProbeRead, c.S3.Read}, {ProbeWrite, c.S3.Write}, {ProbeCollect, c.S3.Collect}} {
		if r.role != ProbeRead && c.Roles != nil && !slices.Contains(c.Roles, r.role) {
			continue
		}
		loaded, err := c.S3.load(ctx, at, r.from)
		if err != nil {
			return probeTarget{}, fmt.Errorf("credentials to %s: %w", r.role, err)
		}
		t.clients[r.role] = newS3Client(loaded, at, 1, t.wire)
		// Credentials that can't be had show at the role's first request.
		_ = t.within(ctx, func(ctx context.Context) error {
			got, err := loaded.Credentials.Retrieve(ctx)
			t.keyIDs[r.role] = got.AccessKeyID
			return err
		})
	}
	return t, nil
}
