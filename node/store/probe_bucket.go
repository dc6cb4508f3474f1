package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// The checks of the bucket's settings.
const (
	checkVersioning = "versioning"
	checkLock       = "object lock"
	checkLifecycle  = "lifecycle"
	checkEncryption = "encryption"
)

// settings is the client that asks for the bucket's settings: the one to
// collect may (deploy/s3/collect.json).
func (p *probing) settings() *s3.Client {
	if p.has(ProbeCollect) {
		return p.clients[ProbeCollect]
	}
	return p.clients[ProbeRead]
}

// untold adds that a setting could not be asked for.
func (p *probing) untold(check, right string, err error) {
	f := Finding{Check: check, Level: LevelUntold, Seen: "the server does not say: " + probeExplain(err)}
	if probeDenied(err) {
		f.Set = "grant s3:" + right + " to the credentials to collect if doctor is to look, or look yourself"
	}
	p.add(f)
}

func (p *probing) versioning(ctx context.Context) {
	var out *s3.GetBucketVersioningOutput
	err := p.within(ctx, func(ctx context.Context) (err error) {
		out, err = p.settings().GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &p.bucket})
		return err
	})
	switch {
	case err != nil && !probeDenied(err) && errStatus(err)/100 == 4, probeUnknown(err):
		p.add(judgeVersioning("", ""))
	case err != nil:
		p.untold(checkVersioning, "GetBucketVersioning", err)
	default:
		p.add(judgeVersioning(out.Status, out.MFADelete))
	}
}

func judgeVersioning(status types.BucketVersioningStatus, mfa types.MFADeleteStatus) Finding {
	switch {
	case status == types.BucketVersioningStatusEnabled && mfa == types.MFADeleteStatusEnabled:
		return Finding{
			Check: checkVersioning, Level: LevelWarn, Seen: "on, and a version is deleted with a second factor only",
			Means: "garbage and moved packs can't be deleted: the store keeps every byte that was ever written",
			Set:   "switch MFA delete off, or take object lock with a retention instead",
		}
	case status == types.BucketVersioningStatusEnabled:
		return Finding{
			Check: checkVersioning, Seen: "on",
			Means: "what others delete or overwrite can be brought back; desnode deletes its own garbage by version",
		}
	case status == types.BucketVersioningStatusSuspended:
		return Finding{
			Check: checkVersioning, Level: LevelWarn, Seen: "suspended",
			Means: "a pack that is deleted or overwritten now is gone, though the bucket looks versioned",
			Set:   "switch versioning on again",
		}
	}
	return Finding{
		Check: checkVersioning, Level: LevelWarn, Seen: "off",
		Means: "a pack that someone deletes or overwrites is gone; desnode knows packs by their ETag",
		Set:   "switch versioning on before originals are deleted",
	}
}

func (p *probing) objectLock(ctx context.Context) {
	var out *s3.GetObjectLockConfigurationOutput
	err := p.within(ctx, func(ctx context.Context) (err error) {
		out, err = p.settings().GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &p.bucket})
		return err
	})
	switch {
	case notThere(err), probeUnknown(err), errStatus(err) == 400:
		p.add(judgeLock(nil))
	case err != nil:
		p.untold(checkLock, "GetBucketObjectLockConfiguration", err)
	default:
		p.add(judgeLock(out.ObjectLockConfiguration))
	}
}

func judgeLock(c *types.ObjectLockConfiguration) Finding {
	if c == nil || c.ObjectLockEnabled != types.ObjectLockEnabledEnabled {
		return Finding{Check: checkLock, Seen: "none"}
	}
	if c.Rule == nil || c.Rule.DefaultRetention == nil {
		return Finding{Check: checkLock, Seen: "possible, without a default retention: packs are not locked"}
	}
	r := c.Rule.DefaultRetention
	days := int(aws.ToInt32(r.Days)) + 365*int(aws.ToInt32(r.Years))
	return Finding{
		Check: checkLock, Level: LevelWarn, Seen: fmt.Sprintf("every object is locked for %d days (%s)", days, strings.ToLower(string(r.Mode))),
		Means: "packs are safe from deletion by anyone that long; garbage, moved packs and what this probe wrote stay and are paid for until then",
		Set:   "nothing if that is meant; desnode tries again until the lock has ended",
	}
}

func (p *probing) encryption(ctx context.Context) {
	var out *s3.GetBucketEncryptionOutput
	err := p.within(ctx, func(ctx context.Context) (err error) {
		out, err = p.settings().GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &p.bucket})
		return err
	})
	switch {
	case notThere(err):
		p.add(judgeEncryption(nil))
	case err != nil:
		p.untold(checkEncryption, "GetEncryptionConfiguration", err)
	default:
		p.add(judgeEncryption(out.ServerSideEncryptionConfiguration))
	}
}

func judgeEncryption(c *types.ServerSideEncryptionConfiguration) Finding {
	if c != nil {
		for _, r := range c.Rules {
			if r.ApplyServerSideEncryptionByDefault == nil {
				continue
			}
			kind := r.ApplyServerSideEncryptionByDefault.SSEAlgorithm
			if kind == types.ServerSideEncryptionAwsKms || kind == types.ServerSideEncryptionAwsKmsDsse {
				return Finding{
					Check: checkEncryption, Seen: "at rest, with keys of KMS (" + string(kind) + ")",
					Means: "reading needs kms:Decrypt, writing kms:GenerateDataKey and kms:Decrypt; whoever deletes the key deletes the archive",
					Set:   "grant those to the credentials, and switch bucket keys on, which saves a request to KMS for each one of ours",
				}
			}
			return Finding{Check: checkEncryption, Seen: "at rest, " + string(kind)}
		}
	}
	return Finding{
		Check: checkEncryption, Level: LevelWarn, Seen: "not at rest",
		Means: "whoever has the server's disks has the files", Set: "switch the bucket's default encryption on, or encrypt the disks",
	}
}

func (p *probing) lifecycle(ctx context.Context) {
	var out *s3.GetBucketLifecycleConfigurationOutput
	err := p.within(ctx, func(ctx context.Context) (err error) {
		out, err = p.settings().GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &p.bucket})
		return err
	})
	switch {
	case notThere(err):
		out = &s3.GetBucketLifecycleConfigurationOutput{}
	case err != nil:
		p.untold(checkLifecycle, "GetLifecycleConfiguration", err)
		return
	}
	for _, f := range judgeLifecycle(out.Rules, p.prefix) {
		p.add(f)
	}
}
